#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, NBD clients that are many, slow, silent, or gone at the wrong moment take the daemon down or lock others out.
# labels: quick malicious
# timeout: 120
import os
import random
import resource
import socket
import struct
import subprocess
import threading
import time
from patience import patience
from qmp import Program, Qmp

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
SIZE = 64 << 20


def exactly(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("hung up")
        data += more
    return data


def connect(path="nbd", timeout=patience(20)):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    sock.connect(path)
    return sock


def begin(path="nbd", name=b"disk"):
    sock = connect(path)
    assert exactly(sock, 18)[:8] == b"NBDMAGIC"
    sock.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
    exactly(sock, 10)
    return sock


def request(sock, kind, offset=0, length=0, cookie=1, flags=0, data=b""):
    sock.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length) + data)


def result(sock, length=0):
    magic, error, _ = struct.unpack(">IIQ", exactly(sock, 16))
    assert magic == 0x67446698
    if not error and length:
        exactly(sock, length)
    return error


def works():
    sock = begin()
    request(sock, 0, 0, 4096)
    assert result(sock, 4096) == 0
    request(sock, 2)
    sock.close()


def resident(pid):
    return int(open(f"/proc/{pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def many_idle(daemon, qmp):
    """As many idle clients as descriptors allow: each costs a few pages, and the next one is still served."""
    count = min(10000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    if os.environ.get("SPINDLE_SANITIZED"):
        count = min(count, 2000)
    before = resident(daemon.pid)
    socks = [begin() for _ in range(count)]
    each = (resident(daemon.pid) - before) // count
    print(f"{count} idle clients, {each} bytes each")
    works()
    for sock in socks:
        sock.close()
    works()


def silent_clients(daemon, qmp):
    """Clients that connect and say nothing fill every slot; the deadline makes room for others."""
    qmp.command("nbd-server-stop")
    start_server(qmp, {"max-connections": 10, "handshake-max-seconds": 1})
    silent = [connect() for _ in range(40)]
    started = time.monotonic()
    works()
    assert time.monotonic() - started < 15
    for sock in silent:
        sock.close()


def gone_at_once(daemon, qmp):
    """Connect and close, thousands of times, while requests of others run."""
    other = begin()
    for i in range(2000):
        connect().close()
        if i % 100 == 0:
            request(other, 0, 0, 512)
            assert result(other, 512) == 0
    other.close()


def stop_while_they_come(daemon, qmp):
    """nbd-server-stop while clients connect, ask and leave (CVE-2024-7409's kind)."""
    stop = threading.Event()

    def pester(seed):
        rng = random.Random(seed)
        while not stop.is_set():
            try:
                sock = connect() if rng.random() < 0.5 else begin()
                if rng.random() < 0.5:
                    request(sock, 0, 0, 1 << 20)
                sock.close()
            except (OSError, EOFError):
                pass

    threads = [threading.Thread(target=pester, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        qmp.command("nbd-server-stop")
        assert qmp.event("BLOCK_EXPORT_DELETED")["data"]["id"] == "e"
        start_server(qmp)
    stop.set()
    for thread in threads:
        thread.join()


def deleted_under_load(daemon, qmp):
    """block-export-del mode=hard while 64 requests are in flight, on a disk that takes its time."""
    qmp.command("blockdev-add", {"driver": "null-aio", "node-name": "slow", "size": SIZE, "latency-ns": 100000000})
    for _ in range(5):
        qmp.command("block-export-add", {"type": "nbd", "id": "s", "node-name": "slow", "name": "slow", "writable": True})
        sock = begin(name=b"slow")
        for i in range(64):
            request(sock, 0, i * 4096, 4096, cookie=i)
        assert "in use" in str(qmp.error("block-export-del", {"id": "s"}))
        qmp.command("block-export-del", {"id": "s", "mode": "hard"})
        while qmp.event("BLOCK_EXPORT_DELETED")["data"]["id"] != "s":
            pass
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
        sock.close()
    qmp.command("blockdev-del", {"node-name": "slow"})


def does_not_read(daemon, qmp):
    """Asks for gigabytes and reads nothing: bounded memory, others are served."""
    before = resident(daemon.pid)
    socks = []
    for _ in range(4):
        sock = begin()
        sock.setblocking(False)
        try:
            for i in range(100000):
                request(sock, 0, 0, 1 << 20, cookie=i)
        except BlockingIOError:
            pass
        socks.append(sock)
    time.sleep(0.3)
    works()
    assert resident(daemon.pid) - before < 600 << 20, (resident(daemon.pid) - before) >> 20
    for sock in socks:
        sock.close()
    works()


def random_bytes(daemon, qmp):
    rng = random.Random(5)
    for i in range(400):
        sock = begin() if i % 2 else connect()
        try:
            if i % 4 < 2:
                sock.sendall(struct.pack(">I", 3))
            for _ in range(rng.randrange(1, 5)):
                head = rng.choice((struct.pack(">I", 0x25609513), b"IHAVEOPT", b""))
                sock.sendall(head + bytes(rng.choice((0, 0, 0, 1, 2, 3, 7, 16, 255)) for _ in range(rng.randrange(64))))
        except ConnectionError:
            pass
        sock.close()
    works()


def start_server(qmp, limits=None):
    qmp.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd"}}, "max-connections": 0, **(limits or {})})
    qmp.command("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": True})


def out_of_descriptors():
    """More clients than a daemon with few descriptors can take: those that are in are served, the rest when there is room."""
    command = [DAEMON, "--blockdev", "null-co,node-name=n,size=1M", "--nbd-server", "addr.type=unix,addr.path=few,max-connections=0",
               "--export", "nbd,id=e,node-name=n,name=disk"]
    with Program(command, stderr=open("few.log", "wb"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))) as few:
        while not os.path.exists("few"):
            time.sleep(0.02)
        socks = [connect("few") for _ in range(100)]
        exactly(socks[0], 18)
        time.sleep(0.5)
        socks[0].sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"disk")
        exactly(socks[0], 10)
        request(socks[0], 3)
        assert result(socks[0]) == 0
        for sock in socks[1:60]:
            sock.close()
        exactly(socks[-1], 18)
        assert few.poll() is None
    assert open("few.log").read().count("cannot accept") in (1, 2), "a warning for each attempt"


soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20480), hard))
with open("disk.img", "wb") as out:
    out.truncate(SIZE)
with Program([DAEMON, "--blockdev", "file,node-name=disk,filename=disk.img",
              "--chardev", "socket,id=m,path=qmp,server=on,wait=off", "--monitor", "m"], stderr=subprocess.DEVNULL) as program:
    monitor = Qmp.connect("qmp")
    start_server(monitor)
    for attack in (gone_at_once, random_bytes, does_not_read, deleted_under_load, stop_while_they_come, many_idle, silent_clients):
        attack(program, monitor)
        assert program.poll() is None, f"the daemon is gone after {attack.__name__}"
        works()
        monitor.events.clear()
out_of_descriptors()
