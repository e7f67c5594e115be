#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a guest whose driver writes nonsense into its rings, or into the record of requests in flight, hurts the daemon.
# labels: quick malicious
# timeout: 120
import mmap
import os
import random
import struct
import subprocess
import vhost_user as v
from patience import patience

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
PATH = "v.sock"


def start():
    with open("disk.img", "wb") as out:
        out.truncate(8 << 20)
    return subprocess.Popen([DAEMON, "--blockdev", "file,node-name=d,filename=disk.img", "--export",
                             f"vhost-user-blk,id=e,node-name=d,writable=on,num-queues=2,addr.type=unix,addr.path={PATH}"],
                            stderr=open("daemon.log", "wb"))


def listens(front):
    """The daemon answers messages, and its queue 1 still works: a queue that is broken is broken alone."""
    assert front.number(v.GET_QUEUE_NUM) == 2
    queue = front.queues[1]
    assert set(queue.wait([queue.submit(v.READ, 0, length=512)]).values()) == {0}


def with_lie(lie, packed=False, extra=0):
    with v.FrontEnd(PATH) as front:
        front.start(queues=2, packed=packed, extra=extra)
        queue = front.queues[0]
        lie(front, queue)
        queue.ring()
        listens(front)


def chain(queue, *descriptors):
    for i, (address, length, flags, following) in enumerate(descriptors):
        queue.put_split(i, address, length, flags, following)
    queue.offer_head(0)


def split_lies():
    far = (1 << 64) - 8
    header = v.GUEST + v.DATA_AT
    status = (header + 16, 1, v.DEVICE_WRITES, 0)
    lies = {
        "index runs ahead": lambda f, q: struct.pack_into("<H", f.ram, q.avail + 2, 0x8000),
        "head out of range": lambda f, q: q.offer_head(0xFFFF),
        "next out of range": lambda f, q: chain(q, (header, 16, v.NEXT, 0xFFFF)),
        "chain that loops": lambda f, q: chain(q, (header, 16, v.NEXT, 1), (header, 16, v.NEXT, 0)),
        "chain to itself": lambda f, q: chain(q, (header, 16, v.NEXT, 0)),
        "outside of memory": lambda f, q: chain(q, (0, 16, v.NEXT, 1), status),
        "wrapping": lambda f, q: chain(q, (far, 16, v.NEXT, 1), status),
        "longer than memory": lambda f, q: chain(q, (header, 16, v.NEXT, 1), (header + 4096, 0xFFFFFFFF, v.NEXT, 2), status),
        "no room for a status": lambda f, q: chain(q, (header, 16, 0, 0)),
        "no header": lambda f, q: chain(q, (header, 1, v.DEVICE_WRITES, 0)),
        "empty descriptor": lambda f, q: chain(q, (header, 0, 0, 0)),
        "write before read": lambda f, q: chain(q, (header, 16, v.DEVICE_WRITES | v.NEXT, 1), (header, 16, 0, 0)),
        "indirect that was not agreed": lambda f, q: chain(q, (header, 16, v.INDIRECT, 0)),
    }
    for name, lie in lies.items():
        with_lie(lie)
    table = v.DATA_AT + 0x1000

    def indirect(entries, length=None):
        def lie(front, queue):
            for i, entry in enumerate(entries):
                struct.pack_into("<QIHH", front.ram, table + 16 * i, *entry)
            chain(queue, (v.GUEST + table, 16 * len(entries) if length is None else length, v.INDIRECT, 0))
        return lie

    for lie in (indirect([(header, 16, v.NEXT, 0)]),  # loops inside of its table
                indirect([(header, 16, v.NEXT, 9)]), indirect([(v.GUEST + table, 16, v.INDIRECT, 0)]),  # a table in a table
                indirect([], 0), indirect([status], 15), indirect([status], 0xFFFFFFF0)):
        with_lie(lie, extra=v.F_INDIRECT)


def block_requests():
    """Requests that are well-formed and ask for the impossible get an error status; the queue goes on."""
    with v.FrontEnd(PATH) as front:
        front.start(queues=2)
        queue = front.queues[0]
        ranges = lambda *values: b"".join(struct.pack("<QII", *value) for value in values)
        bad = [queue.submit(kind, sector, data, length) for kind, sector, data, length in (
            (v.READ, 1 << 60, b"", 4096), (v.READ, (1 << 64) - 1, b"", 512), (v.WRITE, 16383, bytes(1024), None), (v.READ, 0, b"", 511),
            (77, 0, bytes(512), None), (0xFFFFFFFF, 0, b"", 0), (v.DISCARD, 0, ranges((1 << 63, 8, 0)), None),
            (v.DISCARD, 0, ranges((0, 0xFFFFFFFF, 0)), None), (v.DISCARD, 0, bytes(15), None), (v.DISCARD, 0, ranges((0, 8, 0xFF)), None),
            (v.WRITE_ZEROES, 0, ranges(*[(0, 8, 0)] * 200), None), (v.WRITE_ZEROES, 0, ranges((16384, 1, 0)), None))]
        answers = queue.wait(bad)
        assert set(answers.values()) <= {1, 2}, answers
        good = [queue.submit(v.WRITE, 0, b"g" * 4096), queue.submit(v.FLUSH, 0), queue.submit(v.WRITE_ZEROES, 0, ranges((8, 8, 1)))]
        assert set(queue.wait(good).values()) == {0}
        listens(front)


def random_rings(seed, packed, count=60):
    """Descriptors, indexes and flags at random, over and over in the same ring."""
    rng = random.Random(seed)
    for _ in range(count):
        with v.FrontEnd(PATH) as front:
            front.start(queues=2, packed=packed, inflight=rng.random() < 0.5,
                        extra=rng.choice((0, v.F_INDIRECT, v.F_EVENT_IDX, v.F_INDIRECT | v.F_EVENT_IDX)))
            queue = front.queues[0]
            for _ in range(rng.randrange(1, 6)):
                for i in range(queue.size):
                    address = v.GUEST + rng.choice((v.DATA_AT + rng.randrange(64) * 16, rng.randrange(v.RAM), v.RAM - 8, 1 << 40))
                    fields = (address, rng.choice((0, 1, 16, 512, 4096, 0xFFFFFFFF)))
                    tail = (rng.randrange(8) | rng.choice((0, 0, 0x80, 0x8000, 0x8080)), rng.randrange(queue.size + 1))
                    struct.pack_into("<QIHH", front.ram, queue.desc + 16 * i, *fields, *(tail[::-1] if packed else tail))
                for i in range(queue.size):
                    struct.pack_into("<H", front.ram, queue.avail + 4 + 2 * i, rng.randrange(queue.size + 2))
                struct.pack_into("<H", front.ram, queue.avail + 2, rng.choice((1, 2, 5, queue.size, rng.randrange(65536))))
                queue.ring()
            listens(front)


def random_records(seed, packed, count=60):
    """A record of requests in flight that was made up: the queue does not start, or works on what makes sense."""
    rng = random.Random(seed)
    for _ in range(count):
        with v.FrontEnd(PATH) as front:
            front.start(queues=2, packed=packed, inflight=True)
            queue = front.queues[0]
            queue.wait([queue.submit(v.READ, 0, length=512)])
            size = struct.unpack_from("<Q", front.inflight)[0]
            record = mmap.mmap(front.inflight_fd, size)
            head = record[:64]
            for _ in range(rng.choice((1, 5, 100))):
                record[rng.randrange(size // 2)] = rng.choice((0, 1, 2, 127, 128, 255))
            if rng.random() < 0.5:
                record[8:12] = head[8:12]  # version and size stay good
            record.close()
            try:
                front.send(v.GET_VRING_BASE, struct.pack("<II", 0, 0))
                front.receive()
                front.send(v.SET_VRING_KICK, struct.pack("<Q", 0), [queue.kick])
                assert front.number(v.GET_QUEUE_NUM) == 2
            except (EOFError, ConnectionError, BrokenPipeError):
                pass


def full_ring():
    """More requests than are taken at once, from both queues, small rings and large."""
    with v.FrontEnd(PATH) as front:
        front.start(queues=2, size=512)
        for _ in range(5):
            slots = [[queue.submit(v.WRITE, 8 * n, bytes(512), kick=False) for n in range(128)] for queue in front.queues]
            for queue in front.queues:
                queue.ring()
            for queue, mine in zip(front.queues, slots):
                assert set(queue.wait(mine).values()) == {0}


daemon = start()
try:
    for attack in (split_lies, block_requests, full_ring, lambda: random_rings(1, False), lambda: random_rings(2, True),
                   lambda: random_records(3, False), lambda: random_records(4, True)):
        attack()
        assert daemon.poll() is None, "the daemon is gone"
except BaseException:
    daemon.kill()
    print(open("daemon.log", errors="replace").read()[-3000:])
    raise
daemon.terminate()
assert daemon.wait(patience(20)) == 0, open("daemon.log", errors="replace").read()[-3000:]
