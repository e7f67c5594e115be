#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an NBD export is not a good node: wrong bytes or maps, bad names, no TLS, or a server that goes away hurts.
# labels: full interop
# requires: qemu-nbd nbdkit qemu-img psktool
# timeout: 120
import atexit
import os
import signal
import socket
import subprocess
import time

from image import BIN, check, equal, img, img_json, io, run
from patience import patience
from qmp import Program, Qmp


def uri(path, name=""):
    return f"nbd+unix:///{name}?socket={os.path.abspath(path)}"


def serve(*words, path):
    process = subprocess.Popen([os.path.abspath(word) if word == path else word for word in words])
    atexit.register(process.kill)
    end = time.monotonic() + 20
    while not os.path.exists(path):
        check(time.monotonic() < end and process.poll() is None, f"{words[0]} does not start")
        time.sleep(0.02)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=patience(20))


img("create", "-q", "-f", "raw", "a.raw", "8M")
io("a.raw", "write -P 5 1M 2M", "write -P 6 5M 64k")

for words, path, name in ((["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-x", "n", "-k", "q"], "q", "n"), (["nbdkit", "-f", "-U", "k", "file"], "k", "")):
    server = serve(*words, "a.raw", path=path)
    place = uri(path, name)
    equal(img_json("info", "-f", "raw", place)["virtual-size"], 8 << 20, place)
    equal(img_json("map", "-f", "raw", place), img_json("map", "-U", "-f", "raw", "a.raw"), f"map by {place}")
    img("convert", "-f", "raw", "-O", "qcow2", place, "copy.qcow2")
    img("compare", "-f", "raw", "-F", "qcow2", place, "copy.qcow2")
    io(place, "write -P 7 0 3M", "write -z 1M 512k", "write -z -u 2M 512k", "write -f -P 8 7M 4k", "discard 4M 64k", "flush")
    io(place, "read -P 7 0 1M", "read -P 0 1M 512k", "read -P 0 2M 512k", "read -P 8 7M 4k", "read -P 6 5M 64k")
    io(place, *[f"aio_write -P {n} {n * 65537} 1000" for n in range(1, 60)], "aio_flush", "read -P 33 2162721 1000")
    img("convert", "-n", "-f", "qcow2", "-O", "raw", "copy.qcow2", place)  # as it was
    img("bench", "-f", "raw", "-q", "-c", "2000", "-d", "32", place)
    legacy = f"nbd:unix:{os.path.abspath(path)}" + (f":exportname={name}" if name else "")
    img("compare", "-f", "raw", "-F", "qcow2", legacy, "copy.qcow2")
    stop(server)
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "a.raw", "copy.qcow2")

# An overlay on an export; qcow2 inside one.
server = serve("qemu-nbd", "-t", "-r", "-f", "raw", "-k", "r", "a.raw", path="r")
img("create", "-q", "-f", "qcow2", "-b", uri("r"), "-F", "raw", "over.qcow2")
io("over.qcow2", "read -P 5 1M 2M", "write -P 9 1M 64k", "read -P 9 1M 64k", "read -P 5 1088k 64k", form="qcow2")
result = io(uri("r"), "write 0 4k", status=1)
check("read-only" in result.err, f"{result}")
stop(server)

# Names and servers that are wrong.
for name, text in (("nbd://127.0.0.1:1/x", "Connection refused"), ("nbds://h/x", "--object"), ("nbd:foo", "nbd:HOST:PORT"),
                   ("nbd+unix:///x", "not an NBD URI"), ("nbd+unix:///%zz?socket=q", "not an NBD URI"), ("nbd://[::1/x", "not an NBD URI")):
    result = img("info", "-f", "raw", name, status=1)
    check(text in result.err, f"wanted '{text}': {result}")

# TLS with a key that both know.
os.mkdir("keys")
run("psktool", "-u", "qemu", "-p", "keys/keys.psk")
server = serve("qemu-nbd", "-t", "-f", "raw", "-k", "secure", "--object", f"tls-creds-psk,id=t,dir={os.path.abspath('keys')},endpoint=server", "--tls-creds", "t", "a.raw", path="secure")
place = "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=secure"
creds = ["--object", "tls-creds-psk,id=t,dir=keys,endpoint=client"]
equal(img_json("info", *creds, "--image-opts", place + ",file.tls-creds=t")["virtual-size"], 8 << 20, "by TLS")
img("info", "--image-opts", place, status=1)
result = img("info", "--image-opts", place + ",file.tls-creds=nothing", status=1)
check("nothing" in result.err, f"{result}")
stop(server)

# A server that comes late (open-timeout), and one that goes and comes back (reconnect-delay).
late = subprocess.Popen(["sh", "-c", "sleep 1; exec qemu-nbd -t -f raw -k $PWD/late a.raw"])
atexit.register(late.kill)
place = "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=late"
img("info", "--image-opts", place + f",file.open-timeout={patience(20)}")
reader = subprocess.Popen([os.path.join(BIN, "spindle-io"), "--image-opts", "-c", "read -P 5 1M 64k", "-c", "sleep 1500", "-c", "write -P 4 0 64k", "-c", "flush",
                           "-c", "read -P 4 0 64k", place + ",file.reconnect-delay=30"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
time.sleep(0.5)
late.kill()
late.wait()
time.sleep(0.2)
if os.path.exists("late"):
    os.unlink("late")
time.sleep(1.5)
again = serve("qemu-nbd", "-t", "-f", "raw", "-k", "late", "a.raw", path="late")
out, _ = reader.communicate(timeout=patience(40))
check(reader.returncode == 0, f"requests did not wait for the server: {out.decode()}")
stop(again)
io("a.raw", "read -P 4 0 64k")

# The daemon stays responsive while it waits for a server that says nothing, and while one is away.
silent = socket.socket(socket.AF_UNIX)
silent.bind("silent")
silent.listen(1)
server = serve("qemu-nbd", "-t", "-f", "raw", "-k", "away", "a.raw", path="away")
with Program([os.path.join(BIN, "spindle-storage-daemon"), *[word for name in ("m", "o") for word in ("--chardev", f"socket,id={name},path={name},server=on,wait=off", "--monitor", name)]]):
    qmp, other = Qmp.connect("m"), Qmp.connect("o")
    qmp.send({"execute": "blockdev-add", "arguments": {"driver": "nbd", "node-name": "s", "server": {"type": "unix", "path": "silent"}}})
    start = time.monotonic()
    other.command("blockdev-add", {"driver": "nbd", "node-name": "a", "server": {"type": "unix", "path": "away"}, "reconnect-delay": 60})
    server.kill()
    server.wait()
    equal(len(other.command("query-named-block-nodes")), 1, "nodes")
    check(time.monotonic() - start < 15, "QMP waited for NBD servers")
    silent.close()  # the client sees the end of the stream
