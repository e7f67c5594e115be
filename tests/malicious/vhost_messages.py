#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a vhost-user front end that breaks the protocol, or takes its memory away, hurts the daemon and its other clients.
# labels: quick malicious
# timeout: 120
import os
import random
import socket
import struct
import subprocess
import time
import vhost_user as v
from patience import patience

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
PATH, OTHER = "bad.sock", "good.sock"


def start():
    with open("disk.img", "wb") as out:
        out.truncate(8 << 20)
    return subprocess.Popen([DAEMON, "--blockdev", "file,node-name=d,filename=disk.img",
                             "--export", f"vhost-user-blk,id=bad,node-name=d,writable=on,num-queues=2,addr.type=unix,addr.path={PATH}",
                             "--export", f"vhost-user-blk,id=good,node-name=d,addr.type=unix,addr.path={OTHER}"],
                            stderr=open("daemon.log", "wb"))


def hung_up(front):
    try:
        while front.sock.recv(4096):
            pass
    except ConnectionError:
        pass
    front.disconnect()


def refused(description, request, payload=b"", fds=(), flags=1, size=None, negotiate=True):
    """A message after which the connection is over."""
    with v.FrontEnd(PATH) as front:
        if negotiate:
            front.negotiate()
            assert front.set_memory()
        front.send(request, payload, fds, flags, size)
        try:
            hung_up(front)
        except TimeoutError:
            raise AssertionError(f"{description}: was accepted") from None


def bad_messages():
    memory = os.memfd_create("m")
    os.ftruncate(memory, 1 << 20)
    event = os.eventfd(0)
    plain = os.open("disk.img", os.O_RDWR)
    number = lambda value: struct.pack("<Q", value)
    pair = lambda a, b: struct.pack("<II", a, b)
    region = lambda *values: struct.pack("<QQQQ", *values)
    table = lambda count, *regions: struct.pack("<II", count, 0) + b"".join(regions)
    huge = (1 << 64) - 4096
    addresses = lambda *values: struct.pack("<IIQQQQ", *values)
    refused("unknown request", 99)
    refused("request 0", 0)
    refused("wrong version", v.GET_FEATURES, flags=2)
    refused("payload longer than any", v.SET_FEATURES, number(0), size=0xFFFFFFFF)
    refused("short payload", v.SET_FEATURES, b"1234")
    refused("features not offered", v.SET_FEATURES, number(1 << 63))
    refused("protocol features not offered", v.SET_PROTOCOL_FEATURES, number(1 << 63))
    refused("queue out of range", v.SET_VRING_NUM, pair(2, 128))
    refused("queue size 0", v.SET_VRING_NUM, pair(0, 0))
    refused("queue size huge", v.SET_VRING_NUM, pair(0, 0xFFFFFFFF))
    refused("queue of addresses", v.SET_VRING_ADDR, addresses(200, 0, v.USER, v.USER, v.USER, 0))
    refused("queue of base", v.GET_VRING_BASE, pair(0xFFFFFFFF, 0))
    refused("kick without descriptor", v.SET_VRING_KICK, number(0))
    refused("kick by polling", v.SET_VRING_KICK, number(1 << 8))
    refused("kick by a file", v.SET_VRING_KICK, number(0), [plain])
    refused("call by a file", v.SET_VRING_CALL, number(0), [plain])
    refused("back end's channel without descriptor", v.SET_BACKEND_REQ_FD)
    refused("memory without descriptors", v.SET_MEM_TABLE, table(1, region(0, 4096, 0, 0)))
    refused("more regions than descriptors", v.SET_MEM_TABLE, table(2, region(0, 4096, 0, 0), region(4096, 4096, 4096, 0)), [memory])
    refused("fewer regions than descriptors", v.SET_MEM_TABLE, table(1, region(0, 4096, 0, 0)), [memory, memory])
    refused("too many regions", v.SET_MEM_TABLE, table(0xFFFFFFFF, region(0, 4096, 0, 0)), [memory] * 8)
    refused("empty region", v.SET_MEM_TABLE, table(1, region(0, 0, 0, 0)), [memory])
    refused("region beyond its file", v.SET_MEM_TABLE, table(1, region(0, 2 << 20, 0, 0)), [memory])
    refused("region that wraps in its file", v.SET_MEM_TABLE, table(1, region(0, huge, 0, 1 << 20)), [memory])
    refused("region that wraps in the guest", v.SET_MEM_TABLE, table(1, region(huge, 1 << 20, 0, 0)), [memory])
    refused("region that wraps in the front end", v.SET_MEM_TABLE, table(1, region(0, 1 << 20, huge, 0)), [memory])
    refused("regions that overlap", v.SET_MEM_TABLE, table(2, region(0, 8192, 0, 0), region(4096, 8192, 1 << 30, 0)), [memory, memory])
    refused("a socket as memory", v.SET_MEM_TABLE, table(1, region(0, 4096, 0, 0)), [event])
    refused("region twice", v.ADD_MEM_REG, bytes(8) + region(v.GUEST, 4096, v.USER, 0), [memory])
    refused("region without descriptor", v.ADD_MEM_REG, bytes(8) + region(0, 4096, 0, 0))
    refused("removing what is not there", v.REM_MEM_REG, bytes(8) + region(1, 2, 3, 0))
    refused("log outside of its file", v.SET_LOG_BASE, struct.pack("<QQ", 1 << 40, 0), [memory])
    refused("log without file", v.SET_LOG_BASE, struct.pack("<QQ", 4096, 0))
    inflight = lambda size, offset, queues, ring: struct.pack("<QQHH", size, offset, queues, ring)
    refused("record for no queue", v.GET_INFLIGHT_FD, inflight(0, 0, 0, 128))
    refused("record for too many queues", v.GET_INFLIGHT_FD, inflight(0, 0, 3, 128))
    refused("record for a ring of 0", v.GET_INFLIGHT_FD, inflight(0, 0, 1, 0))
    refused("record for a ring of 65535", v.GET_INFLIGHT_FD, inflight(0, 0, 1, 65535))
    refused("record that is too small", v.SET_INFLIGHT_FD, inflight(16, 0, 1, 128), [memory])
    refused("record outside of its file", v.SET_INFLIGHT_FD, inflight(1 << 20, 4096, 1, 128), [memory])
    refused("record at an odd place", v.SET_INFLIGHT_FD, inflight(65536, 3, 1, 128), [memory])
    refused("record without descriptor", v.SET_INFLIGHT_FD, inflight(65536, 0, 1, 128))
    refused("configuration outside of its space", v.GET_CONFIG, struct.pack("<III", 250, 7, 0) + bytes(7))
    refused("configuration that wraps", v.GET_CONFIG, struct.pack("<III", 0xFFFFFFFF, 2, 0))
    refused("writing the capacity", v.SET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8))
    for value in (memory, event, plain):
        os.close(value)


def bad_rings_addresses():
    """Addresses outside of memory, unaligned, or at its very end; found when the queue is to start."""
    for description, at in (("outside", 0x1000), ("at the end", v.USER + v.RAM - 16), ("wrapping", (1 << 64) - 16), ("odd", v.USER + 1)):
        with v.FrontEnd(PATH) as front:
            front.negotiate()
            assert front.set_memory()
            queue = v.Queue(front, 0, 128, False)
            front.send(v.SET_VRING_NUM, struct.pack("<II", 0, 128))
            front.send(v.SET_VRING_ADDR, struct.pack("<IIQQQQ", 0, 0, at, at, at, 0))
            front.send(v.SET_VRING_KICK, struct.pack("<Q", 0), [queue.kick])
            front.send(v.SET_VRING_ENABLE, struct.pack("<II", 0, 1))
            try:
                hung_up(front)
            except TimeoutError:
                raise AssertionError(f"ring {description} of memory was accepted") from None


def hangs_up_anywhere():
    """Every prefix of a good conversation's first bytes."""
    message = struct.pack("<III", v.SET_FEATURES, 1, 8) + bytes(8)
    for size in range(len(message) + 1):
        with v.FrontEnd(PATH) as front:
            if size:
                front.sock.sendall(message[:size])


def memory_is_taken_away():
    """The file behind guest memory shrinks while the rings lie in it and requests are under way."""
    for packed in (False, True):
        with v.FrontEnd(PATH) as front:
            front.start(packed=packed, inflight=True)
            queue = front.queues[0]
            queue.wait([queue.submit(v.WRITE, 0, b"x" * 4096)])
            for i in range(30):
                queue.submit(v.READ, 8 * i, length=4096, kick=False)
            queue.ring()
            os.ftruncate(front.memory_fd, 0)  # from here on our own mapping must not be touched either
            os.ftruncate(front.inflight_fd, 0)
            for _ in range(20):
                os.eventfd_write(queue.kick, 1)
                time.sleep(0.005)
            front.send(v.GET_VRING_BASE, struct.pack("<II", 0, 0))
            front.receive()


def kick_descriptor_dies():
    """A pipe as the kick descriptor, whose other end is closed: always ready, never with anything in it."""
    for _ in range(3):
        with v.FrontEnd(PATH) as front:
            front.start()
            r, w = os.pipe()
            front.send(v.SET_VRING_KICK, struct.pack("<Q", 0), [r])
            os.close(w)
            os.close(r)
            time.sleep(0.05)
            assert front.number(v.GET_QUEUE_NUM) == 2  # it still listens to us


def table_changes_under_load():
    """SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG while requests are in flight."""
    with v.FrontEnd(PATH) as front:
        front.start(queues=2)
        extra = os.memfd_create("extra")
        os.ftruncate(extra, 1 << 20)
        for i in range(40):
            slots = [[queue.submit(v.WRITE if n % 2 else v.READ, 8 * n, length=4096) for n in range(20)] for queue in front.queues]
            if i % 2:
                assert front.set_memory()
            else:
                one = bytes(8) + front.region(0x10000000, 1 << 20, 0x10000000)
                assert front.acknowledged(v.ADD_MEM_REG, one, [extra])
                assert front.acknowledged(v.REM_MEM_REG, one)
            for queue, mine in zip(front.queues, slots):
                assert set(queue.wait(mine).values()) == {0}
        os.close(extra)


def channel_nobody_reads():
    """The back end's own channel is full when the front end leaves."""
    for _ in range(3):
        with v.FrontEnd(PATH) as front:
            front.start()
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            try:
                while True:
                    theirs.send(bytes(4096))
            except BlockingIOError:
                pass
            assert front.acknowledged(v.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
            ours.close()
            theirs.close()


def random_conversations(seed, count=150):
    """Messages drawn at random, with random numbers in them and random descriptors, in any order."""
    rng = random.Random(seed)
    memory = os.memfd_create("m")
    os.ftruncate(memory, v.RAM)
    for _ in range(count):
        with v.FrontEnd(PATH) as front:
            event = os.eventfd(0)
            try:
                if rng.random() < 0.7:
                    front.start(queues=rng.choice((1, 2)), packed=rng.random() < 0.5, inflight=rng.random() < 0.5)
                for _ in range(rng.randrange(1, 20)):
                    request = rng.choice((*range(1, 19), 21, 24, 25, 31, 32, 36, 37, 38))
                    numbers = [rng.choice((0, 1, 2, 128, 4096, v.USER, v.GUEST, v.RAM, 0xFFFFFFFF, (1 << 64) - 1)) for _ in range(9)]
                    payload = struct.pack("<9Q", *numbers)[:rng.choice((0, 4, 8, 12, 16, 20, 32, 40, 72))]
                    fds = [rng.choice((memory, event)) for _ in range(rng.choice((0, 0, 1, 1, 2, 8)))]
                    front.send(request, payload, fds, flags=rng.choice((1, 1, 9)))
                    front.sock.setblocking(False)
                    try:
                        front.sock.recv(65536)
                    except BlockingIOError:
                        pass
                    front.sock.setblocking(True)
            except (ConnectionError, BrokenPipeError, EOFError):
                pass
            os.close(event)
    os.close(memory)


daemon = start()
with v.FrontEnd(OTHER) as good:
    good.start()
    try:
        for attack in (bad_messages, bad_rings_addresses, hangs_up_anywhere, memory_is_taken_away, kick_descriptor_dies,
                       table_changes_under_load, channel_nobody_reads, lambda: random_conversations(1), lambda: random_conversations(2)):
            attack()
            assert daemon.poll() is None, "the daemon is gone"
            assert set(good.queues[0].wait([good.queues[0].submit(v.READ, 0, length=4096)]).values()) == {0}, "the other client suffers"
    except BaseException:
        daemon.kill()
        print(open("daemon.log", errors="replace").read()[-3000:])
        raise
daemon.terminate()
assert daemon.wait(patience(20)) == 0, open("daemon.log", errors="replace").read()[-3000:]
