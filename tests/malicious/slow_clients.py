#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, clients that stall, dribble, do not read or leave in the middle cost the daemon memory without bound, or cost its other
# clients their speed.
# labels: full malicious
# timeout: 180
"""Each attack goes on while a good NBD client does its work. That client has to finish the same number of requests, in no more than
FACTOR times the time of a quiet daemon plus SLACK seconds (wide, since machines that test are busy); the peak of the daemon's memory
during the attack, from /proc, may be no more than the attack's bound above what it had before; and afterwards everything that the
attackers held is free again."""
import os
import resource
import select
import socket
import struct
import subprocess
import threading
import time

import nbd
import vhost_user as v
from nbd import Nbd
from qmp import Program, Qmp

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
MIB = 1 << 20
REQUESTS, FACTOR, SLACK = 4000, 25, 5
GOOD_HANDSHAKE = struct.pack(">I", 3) + nbd.option(nbd.OPT_STRUCTURED) + nbd.option(nbd.OPT_GO, struct.pack(">I4sHH", 4, b"disk", 1, 3))
DEADLINE = 2  # handshake-max-seconds
SHARED = 256 * MIB  # NBD_SHARED_BYTES
# ThreadSanitizer keeps a history of a megabyte and more for each coroutine: then everything is judged but memory.
JUDGES_MEMORY = "TSAN_OPTIONS" not in os.environ


def memory(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))


def reset_peak(pid):
    """VmHWM becomes VmRSS."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as clear:
        clear.write("5")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def good_work():
    """Seconds for REQUESTS requests, each checked."""
    started = time.monotonic()
    with Nbd("nbd", "disk") as good:
        for i in range(REQUESTS // 2):
            block = bytes([i % 255 + 1]) * 4096
            assert good.write(32 * MIB + 4096 * i, block) == 0
            assert good.read(32 * MIB + 4096 * i, 4096) == (0, block)
    return time.monotonic() - started


def connected(data=b""):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect("nbd")
    if data:
        sock.sendall(data)
    return sock


def hung_up(sock):
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass


# --- attacks: start() gives back what is to be closed afterwards ---


def half_handshakes():
    """Connections that stop after every number of bytes of a good handshake; each is ended by the deadline."""
    return [connected(GOOD_HANDSHAKE[:size]) for size in range(len(GOOD_HANDSHAKE)) for _ in range(3)]


def idle_connections():
    socks = []
    for _ in range(min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 100)):
        client = Nbd("nbd", "disk")
        socks.append(client.sock)
    return socks


def replies_nobody_reads():
    """Eight clients ask for as much as the server takes, and read nothing."""
    socks = []
    for _ in range(8):
        sock = Nbd("nbd", "disk").sock
        sock.setblocking(False)
        try:
            for i in range(100000):
                sock.send(nbd.head(nbd.READ, 0, MIB, i))
        except BlockingIOError:
            pass
        socks.append(sock)
    return socks


def writes_that_never_end():
    """Heads of the largest writes, and one byte of the data."""
    socks = []
    for _ in range(16):
        sock = Nbd("nbd", "disk").sock
        sock.sendall(nbd.head(nbd.WRITE, 0, 32 * MIB) + b"x")
        socks.append(sock)
    return socks


def writes_short_of_a_byte():
    """Twice as much of the largest writes as the server has room for, each but for its last byte."""
    socks, rest = [], {}
    for _ in range(16):
        sock = Nbd("nbd", "disk").sock
        sock.sendall(nbd.head(nbd.WRITE, 0, 32 * MIB))
        sock.setblocking(False)
        socks.append(sock)
        rest[sock] = 32 * MIB - 1
    block = memoryview(bytes(MIB))
    while rest and (ready := select.select([], rest, [], 2)[1]):
        for sock in ready:
            try:
                rest[sock] -= sock.send(block[: rest[sock]])
            except BlockingIOError:
                pass
            if not rest[sock]:
                del rest[sock]
    assert len(rest) == 16 - SHARED // (32 * MIB), f"{len(rest)} clients are left to wait"
    return socks


def stalled_front_ends():
    """A front end that stops in the middle of a message, and one that has rings and does not answer. It takes its export's only place,
    and nothing else."""
    half = socket.socket(socket.AF_UNIX)
    half.connect("vhost0")
    half.sendall(struct.pack("<III", v.SET_FEATURES, 1, 8) + bytes(3))
    started = v.FrontEnd("vhost1")
    started.start()
    for i in range(30):
        started.queues[0].submit(v.READ, 8 * i, length=4096)
    others = []
    for path in ("vhost0", "vhost1") * 10:  # wait behind them
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            pass
        others.append(sock)
    return [half, started.sock, *others]


class Dribble(threading.Thread):
    """Clients that send a handshake and then requests, a byte at a time."""

    def __init__(self, count=40):
        super().__init__()
        self.over = threading.Event()
        self.sent = 0
        self.socks = [[connected(), b"\0\0\0\3" + nbd.option(nbd.OPT_EXPORT_NAME, b"disk") + nbd.head(nbd.WRITE, 0, MIB)] for _ in range(count)]
        self.start()

    def run(self):
        while not self.over.is_set() or self.sent < 2000:
            for pair in self.socks:
                try:
                    pair[0].send(pair[1][:1] or b"x")
                    pair[1] = pair[1][1:]
                    self.sent += 1
                except OSError:
                    pair[0].close()
                    pair[0] = connected()
            time.sleep(0.002)

    def close(self):
        self.over.set()
        self.join()
        for sock, _ in self.socks:
            sock.close()


class Leave(threading.Thread):
    """Clients that hang up: after each byte of the handshake, of a request's head, of its data, and before its reply is read."""

    def __init__(self):
        super().__init__()
        self.over = threading.Event()
        self.left = 0
        self.start()

    def run(self):
        request = nbd.head(nbd.WRITE, 0, 64) + bytes(64) + nbd.head(nbd.READ, 0, MIB)
        while not self.over.is_set() or not self.left:
            for size in range(len(GOOD_HANDSHAKE)):
                connected(GOOD_HANDSHAKE[:size]).close()
            for size in range(len(request) + 1):
                client = Nbd("nbd", "disk")
                client.sock.sendall(request[:size])
                client.close()
            self.left += len(GOOD_HANDSHAKE) + len(request)

    def close(self):
        self.over.set()
        self.join()


class QmpFlood(threading.Thread):
    """Two monitors that read nothing while another one makes events as fast as it can."""

    def __init__(self):
        super().__init__()
        self.deaf = []
        for path in ("deaf0", "deaf1"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            sock.sendall(b'{"execute":"qmp_capabilities"}')
            self.deaf.append(sock)
        self.over = threading.Event()
        self.events = 0
        self.start()

    def run(self):
        qmp = Qmp.connect("busy")
        add = {"type": "vhost-user-blk", "id": "flood", "node-name": "disk", "addr": {"type": "unix", "path": "flood"}}
        while not self.over.is_set() or self.events < 2000:
            qmp.command("block-export-add", add)
            qmp.command("block-export-del", {"id": "flood"})
            qmp.event("BLOCK_EXPORT_DELETED")
            self.events += 1
        qmp.socket.close()

    def close(self):
        self.over.set()
        self.join()
        for sock in self.deaf:
            sock.close()


def attack(daemon, start, bound, quiet):
    reset_peak(daemon.pid)
    before, open_before = memory(daemon.pid), descriptors(daemon.pid)
    held = start()
    seconds = good_work()
    after, grown = memory(daemon.pid) - before, memory(daemon.pid, "VmHWM") - before
    print(f"{start.__name__}: {REQUESTS} requests in {seconds:.2f} s (quiet: {quiet:.2f} s), memory +{after / MIB:.1f} MiB, peak +{grown / MIB:.1f} MiB", flush=True)
    for thing in held if isinstance(held, list) else [held]:
        thing.close()
    assert daemon.poll() is None, "the daemon is gone"
    assert grown <= bound or not JUDGES_MEMORY, f"{start.__name__}: {grown >> 20} MiB more memory, {bound >> 20} MiB were expected at most"
    assert seconds <= FACTOR * quiet + SLACK, f"{start.__name__}: the good client is starved: {seconds:.1f} s instead of {quiet:.1f} s"
    end = time.monotonic() + 20
    while descriptors(daemon.pid) > open_before + 2:
        assert time.monotonic() < end, f"{start.__name__}: {descriptors(daemon.pid) - open_before} descriptors stay open"
        time.sleep(0.05)
    return held


def deadline():
    """Who does not finish the handshake is hung up on in time; who has finished stays however silent it is."""
    silent = [connected(GOOD_HANDSHAKE[:size]) for size in range(0, len(GOOD_HANDSHAKE), 5)]
    patient = Nbd("nbd", "disk")
    started = time.monotonic()
    for sock in silent:
        hung_up(sock)
        sock.close()
    waited = time.monotonic() - started
    assert DEADLINE * 0.5 < waited < DEADLINE + 15, waited
    assert patient.read(0, 512)[0] == 0
    patient.close()


def limit(qmp):
    """max-connections: the next client is not even greeted, until somebody leaves."""
    qmp.command("nbd-server-stop")
    start_server(qmp, {"max-connections": 5, "handshake-max-seconds": 0})
    inside = [Nbd("nbd", "disk") for _ in range(5)]
    outside = Nbd("nbd")
    assert not select.select([outside.sock], [], [], 0.5)[0], "a sixth client was greeted"
    for client in inside:
        assert client.read(0, 512)[0] == 0
    inside.pop().close()
    outside.handshake("disk")
    assert outside.read(0, 512)[0] == 0
    for client in (*inside, outside):
        client.close()


def start_server(qmp, limits):
    qmp.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd"}}, **limits})
    qmp.command("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": True})


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with open("disk.img", "wb") as out:
        out.truncate(64 * MIB)
    words = [DAEMON, "--blockdev", "file,node-name=disk,filename=disk.img"]
    for name in ("m", "busy", "deaf0", "deaf1"):
        words += ["--chardev", f"socket,id={name},path={name},server=on,wait=off", "--monitor", name]
    for i in (0, 1):
        words += ["--export", f"vhost-user-blk,id=v{i},node-name=disk,addr.type=unix,addr.path=vhost{i}"]
    # Without ASan's quarantine, which keeps freed memory.
    environment = dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")
    with Program(words, stderr=subprocess.DEVNULL, env=environment) as daemon:
        qmp = Qmp.connect("m")
        start_server(qmp, {"max-connections": 0, "handshake-max-seconds": DEADLINE})
        good_work()
        quiet = min(good_work(), good_work())
        attack(daemon, half_handshakes, 32 * MIB, quiet)
        attack(daemon, idle_connections, 64 * MIB, quiet)
        attack(daemon, replies_nobody_reads, 8 * 16 * MIB, quiet)
        attack(daemon, writes_that_never_end, 16 * 4 * MIB, quiet)
        attack(daemon, writes_short_of_a_byte, SHARED + SHARED // 8 + 32 * MIB, quiet)  # an eighth: ASan's shadow
        attack(daemon, stalled_front_ends, 48 * MIB, quiet)
        assert attack(daemon, Dribble, 96 * MIB, quiet).sent > 1000
        assert attack(daemon, Leave, 64 * MIB, quiet).left > 0
        assert attack(daemon, QmpFlood, 48 * MIB, quiet).events >= 2000
        deadline()
        limit(qmp)
        assert qmp.command("query-block-exports")


main()
