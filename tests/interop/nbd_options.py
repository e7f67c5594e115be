#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an option of spindle-nbd does not do what it says: where it listens, how it opens the image, what it does with clients'
# discards and zeroes, whom it drops, what it tells.
# labels: full interop
# requires: qemu-nbd qemu-io nbdinfo strace
# timeout: 240
import json
import os
import re
import signal
import socket
import subprocess
import time

from image import BIN, check, content, equal, img, io, run, write_file
from nbd import Nbd
from patience import patience

NBD = os.path.join(BIN, "spindle-nbd")
MIB = 1 << 20


def uri(path="sock"):
    return f"nbd+unix:///?socket={os.path.abspath(path)}"


class Server:
    """`with Server(options...) as server`: at the end it ends well, and what it has said is in server.said."""

    def __init__(self, *words, place=("-k", "sock"), program=(NBD,), port=None):
        if os.path.exists("sock"):
            os.unlink("sock")
        with open("said", "wb") as said:
            env = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=" + str(int(program == (NBD,)))}  # not under ptrace
            self.process = subprocess.Popen([*program, "-t", *place, *words], stderr=said, env=env)
        end = time.monotonic() + patience(20)
        while not (listens_unix("sock") if port is None else listens("127.0.0.2", port)):
            check(time.monotonic() < end and self.process.poll() is None, f"the server does not start: {content('said')}")
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=patience(20))
        self.said = content("said").decode()
        check(kind or status == 0, f"the server ended with {status}: {self.said}")

    def pid(self):
        """The server's own, also under strace."""
        children = content(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split()
        return int(children[0]) if children and b"strace" in content(f"/proc/{self.process.pid}/cmdline") else self.process.pid

    def open_flags(self, name):
        """With which flags the image is open."""
        for fd in os.listdir(f"/proc/{self.pid()}/fd"):
            if os.path.realpath(f"/proc/{self.pid()}/fd/{fd}") == os.path.abspath(name):
                return int(re.search(r"flags:\s*(\d+)", content(f"/proc/{self.pid()}/fdinfo/{fd}").decode()).group(1), 8)
        raise SystemExit(f"FAILED: {name} is not open")


def listens_unix(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def listens(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refused(text, *words):
    result = run(NBD, "-k", "sock", "-f", "raw", *words, "a.raw", status=1)
    check(text in result.err, f"wanted '{text}': {result}")


def make_raw():
    write_file("a.raw", b"\x55" * (4 * MIB))
    run("sync", "a.raw")


def room():
    os.sync()
    return os.stat("a.raw").st_blocks * 512


make_raw()

print("== -b")
port = free_port()
with Server("-f", "raw", "a.raw", place=("-b", "127.0.0.2", "-p", str(port)), port=port):
    check(not listens("127.0.0.1", port), "listens elsewhere, too")
    equal(run("nbdinfo", "--size", f"nbd://127.0.0.2:{port}").out.strip(), str(4 * MIB), "at the address")

print("== -v, -T, -V")
for words, wanted in ((["-v"], ("nbd_connect", "nbd_request", "write")), (["-T", "nbd_re*"], ("nbd_request",)), (["--trace=nbd_connect"], ("nbd_connect",)), ([], ())):
    with Server(*words, "-f", "raw", "a.raw") as server:
        with Nbd("sock", "") as client:
            equal(client.write(0, b"\x55" * 512), 0, "write")
    for word in ("nbd_connect", "nbd_request", "write"):
        equal(word in server.said, word in wanted or (word == "write" and "nbd_request" in wanted), f"'{word}' with {words}: {server.said}")
check("nbd_request" in run(NBD, "-T", "help").out, "-T help")
equal(run(NBD, "-V").out, run(NBD, "--version").out, "-V")
check(re.match(r"spindle-nbd version \d+\.\d+\.\d+\n", run(NBD, "-V").out), "-V")

print("== --handshake-limit")
for words, dropped in ((["--handshake-limit=1"], True), (["--handshake-limit=0"], False), ([], False)):
    with Server(*words, "-e", "4", "-f", "raw", "a.raw"):
        silent, fine = Nbd("sock"), Nbd("sock", "")
        silent.exactly(18)
        if not dropped:
            silent.sock.settimeout(2.5)  # longer than the first one's limit, shorter than the default
        try:
            equal(silent.sock.recv(1), b"", "answer to nothing")
            check(dropped, f"dropped with {words}")
        except TimeoutError:
            check(not dropped, f"not dropped with {words}")
        equal(fine.read(0, 4)[0], 0, "a client that has begun is not dropped")
        silent.close()
        fine.close()
refused("handshake limit", "--handshake-limit=-1")

print("== -B")
img("create", "-q", "-f", "qcow2", "-o", "compat=1.1", "b.qcow2", "4M")
img("bitmap", "--add", "-g", "64k", "b.qcow2", "one")
img("bitmap", "--add", "-g", "64k", "b.qcow2", "two")
img("bitmap", "--disable", "b.qcow2", "two")
io("b.qcow2", "write 1M 128k", "write 3M 64k", form="qcow2")


def dirty(name):
    extents = json.loads(run("nbdinfo", "--json", f"--map=qemu:dirty-bitmap:{name}", uri()).out)
    return [(extent["offset"], extent["length"]) for extent in extents if extent["type"]]


with Server("-r", "-B", "one", "--bitmap=two", "-f", "qcow2", "b.qcow2"):
    equal((dirty("one"), dirty("two")), ([(MIB, 128 << 10), (3 * MIB, 64 << 10)], []), "bitmaps")
    listing = run("qemu-nbd", "-L", "-k", os.path.abspath("sock")).out
with Server("-r", "-B", "one", "-B", "two", "-f", "qcow2", "b.qcow2"):
    equal(run(NBD, "-L", "-k", "sock").out, listing, "-L")
for context in ("qemu:dirty-bitmap:one", "qemu:dirty-bitmap:two"):
    check(f"   {context}\n" in listing, listing)
result = run(NBD, "-k", "sock", "-B", "three", "-f", "qcow2", "b.qcow2", status=1)
check("three" in result.err, f"{result}")

print("== -n, --cache: how the image is open")
for words, direct in ((["-n"], True), (["--nocache"], True), (["--cache=none"], True), (["--cache=directsync"], True), ([], False),
                      (["--cache=writeback"], False), (["--cache=writethrough"], False), (["--cache=unsafe"], False)):
    with Server(*words, "-f", "raw", "a.raw") as server:
        equal(bool(server.open_flags("a.raw") & os.O_DIRECT), direct, f"O_DIRECT with {words}")
refused("exclude each other", "-n", "--cache=none")
refused("Invalid cache mode", "--cache=maybe")

print("== --cache, --aio: what is asked from the kernel")


def calls(*words, flush=True):
    """What a write of a client and a flush become; names of system calls with their text."""
    watch = ["strace", "-f", "-qq", "-o", "trace", "-e", "trace=pwrite64,pwritev,pwritev2,fdatasync,fsync,io_submit,io_uring_enter"]
    with Server(*words, "-f", "raw", "a.raw", program=(*watch, NBD)) as server:
        os.truncate("trace", 0)
        with Nbd("sock", "") as client:
            equal(client.write(0, b"\x55" * 4096), 0, "write")
            if flush:
                equal(client.simple(3), 0, "flush")
        text = content("trace").decode(errors="replace").lstrip("\0")
        os.kill(server.pid(), signal.SIGTERM)
    return text


text = calls("--aio=threads")
check("pwritev" in text and "fdatasync" in text and "RWF_DSYNC" not in text, f"threads: {text}")
text = calls("--aio=threads", "--cache=writethrough", flush=False)
check("RWF_DSYNC" in text or "fdatasync" in text, f"a write that is not durable with writethrough: {text}")
text = calls("--aio=threads", "--cache=unsafe")
check("fdatasync" not in text and "RWF_DSYNC" not in text, f"a flush with unsafe: {text}")
text = calls("--aio=io_uring")
check("pwrite" not in text and "fdatasync" not in text and "io_uring_enter" in text, f"io_uring: {text}")
text = calls("--aio=native", "--cache=none")
check("io_submit" in text, f"native: {text}")
refused("native", "--aio=native")
refused("invalid aio mode", "--aio=posix")

print("== --discard")
for words, kept in (([], False), (["--discard=unmap"], False), (["--discard=on"], False), (["--discard=ignore"], True), (["--discard=off"], True)):
    make_raw()
    with Server(*words, "-f", "raw", "a.raw"):
        run("qemu-io", "-f", "raw", "-c", "discard 0 2M", uri())
    equal(room() > 3 * MIB, kept, f"room with {words}")
refused("Invalid discard mode", "--discard=perhaps")

print("== --detect-zeroes")
for words, kept in (([], True), (["--detect-zeroes=off"], True), (["--detect-zeroes=unmap"], False)):
    make_raw()
    with Server(*words, "-f", "raw", "a.raw"):
        with Nbd("sock", "") as client:
            for offset in range(0, 2 * MIB, MIB):
                equal(client.write(offset, bytes(MIB)), 0, "write of zeroes")
    equal(room() > 3 * MIB, kept, f"room with {words}")
    equal(content("a.raw"), bytes(2 * MIB) + b"\x55" * (2 * MIB), f"content with {words}")
img("create", "-q", "-f", "qcow2", "z.qcow2", "4M")
with Server("--detect-zeroes=on", "-f", "qcow2", "z.qcow2"):
    with Nbd("sock", "") as client:
        equal(client.write(0, bytes(MIB)), 0, "write of zeroes")
check(not any(extent["data"] for extent in json.loads(img("map", "--output=json", "z.qcow2").out)), "zeroes are stored with detect-zeroes=on")
refused("Invalid detect-zeroes mode", "--detect-zeroes=perhaps")
refused("--discard=unmap", "--detect-zeroes=unmap", "--discard=ignore")

print("== --selinux-label")
if os.path.exists("/sys/fs/selinux/enforce"):
    label = content("/proc/self/attr/current").rstrip(b"\0\n").decode()
    with Server("--selinux-label", label, "-f", "raw", "a.raw"):
        with Nbd("sock") as client:
            equal(client.sock.getsockopt(socket.SOL_SOCKET, 31, 4096).rstrip(b"\0").decode(), label, "label of the socket")  # SO_PEERSEC
else:
    refused("SELinux", "--selinux-label", "system_u:object_r:nbd_t:s0")
refused("Cannot set SELinux socket create context", "--selinux-label", "no such label")
print("good")
