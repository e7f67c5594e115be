# SPDX-License-Identifier: Apache-2.0
"""A vhost-user front end with a small virtio-blk driver, for tests: it can keep to the rules, and it can lie.

    with FrontEnd(path) as front:
        front.start(queues=1, size=128, packed=False, inflight=True)
        slot = front.queues[0].submit(WRITE, 0, data)
        front.queues[0].wait([slot])

What the other side looks at while we write goes through `words`: only that is one access (struct.pack_into() clears first, byte by byte).

Guest memory is one memfd; its first half holds the rings, the second the requests' headers, data and status bytes. Each request takes
three descriptors: header, data, status.
"""
import mmap
import os
import select
import socket
import struct
import time

from patience import patience

(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_LOG_FD, SET_VRING_NUM, SET_VRING_ADDR,
 SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES,
 GET_QUEUE_NUM, SET_VRING_ENABLE) = range(1, 19)
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 21, 24, 25, 31, 32
GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 36, 37, 38

F_PROTOCOL_FEATURES, F_VERSION_1, F_PACKED, F_LOG_ALL, F_EVENT_IDX, F_INDIRECT = 1 << 30, 1 << 32, 1 << 34, 1 << 26, 1 << 29, 1 << 28
P_MQ, P_LOG_SHMFD, P_REPLY_ACK, P_BACKEND_REQ, P_CONFIG, P_INFLIGHT, P_MEM_SLOTS = (1 << bit for bit in (0, 1, 3, 5, 9, 12, 15))
READ, WRITE, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13

GUEST, USER = 0x80000000, 0x7F0000000000
RAM, RING_STEP, DATA_AT, SLOT_STEP, DATA_BYTES = 16 << 20, 0x40000, 8 << 20, 0x2000, 4096
NEXT, DEVICE_WRITES, INDIRECT, AVAIL_FLAG, USED_FLAG = 1, 2, 4, 1 << 7, 1 << 15


class Queue:
    """One ring as its driver sees it. `slots` requests fit; slot s of queue q has its memory at a fixed place."""

    def __init__(self, front, index, size, packed):
        self.front, self.index, self.size, self.packed = front, index, size, packed
        self.desc = index * RING_STEP
        self.avail = self.desc + 16 * size
        self.used = (self.avail + 6 + 2 * size + 4095) & ~4095
        self.free = list(range(min(size // 3, 128)))
        self.busy = {}
        self.avail_index = self.seen = 0
        self.place, self.wrap, self.used_place, self.used_wrap = 0, 1, 0, 1
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        front.ram[self.desc:self.used + 4096] = bytes(self.used + 4096 - self.desc)

    def slot_at(self, slot):
        return DATA_AT + (self.index * 128 + slot) * SLOT_STEP

    def descriptors(self, slot, kind, length):
        at = GUEST + self.slot_at(slot)
        writes = DEVICE_WRITES if kind in (READ, GET_ID) else 0
        middle = [(at + 4096, length, writes)] if length else []
        return [(at, 16, 0)] + middle + [(at + 16, 1, DEVICE_WRITES)]

    def submit(self, kind, sector, data=b"", length=None, kick=True):
        slot = self.free.pop()
        length = len(data) if length is None else length
        at = self.slot_at(slot)
        self.front.ram[at:at + 17] = struct.pack("<IIQB", kind, 0, sector, 0xFF)
        self.front.ram[at + 4096:at + 4096 + len(data)] = data
        chain = self.descriptors(slot, kind, length)
        self.busy[slot] = len(chain)
        (self.offer_packed if self.packed else self.offer_split)(slot, chain)
        if kick:
            self.ring()
        return slot

    def offer_split(self, slot, chain):
        for i, (address, length, flags) in enumerate(chain):
            last = i == len(chain) - 1
            self.put_split(3 * slot + i, address, length, flags | (0 if last else NEXT), 3 * slot + i + 1)
        self.offer_head(3 * slot)

    def put_split(self, index, address, length, flags, following):
        struct.pack_into("<QIHH", self.front.ram, self.desc + 16 * index, address, length, flags, following)

    def offer_head(self, head):
        struct.pack_into("<H", self.front.ram, self.avail + 4 + 2 * (self.avail_index % self.size), head & 0xFFFF)
        self.avail_index = (self.avail_index + 1) & 0xFFFF
        self.front.words[self.avail + 2 >> 1] = self.avail_index

    def offer_packed(self, slot, chain):
        entries = []
        for i, (address, length, flags) in enumerate(chain):
            flags |= (AVAIL_FLAG if self.wrap else USED_FLAG) | (NEXT if i < len(chain) - 1 else 0)
            entries.append((self.place, address, length, slot, flags))
            self.place += 1
            if self.place == self.size:
                self.place, self.wrap = 0, self.wrap ^ 1
        for place, address, length, buffer_id, flags in reversed(entries):  # the head last: it makes the chain visible
            at = self.desc + 16 * place
            struct.pack_into("<QIH", self.front.ram, at, address, length, buffer_id)
            self.front.words[at + 14 >> 1] = flags

    def ring(self):
        os.eventfd_write(self.kick, 1)

    def finish(self, slot, done):
        self.busy.pop(slot)
        self.free.append(slot)
        at = self.slot_at(slot)
        done[slot] = self.front.ram[at + 16]

    def collect(self):
        """Status bytes of requests that are done, by slot."""
        done = {}
        if not self.packed:
            index = self.front.words[self.used + 2 >> 1]
            while self.seen != index:
                head = struct.unpack_from("<I", self.front.ram, self.used + 4 + 8 * (self.seen % self.size))[0]
                self.finish(head // 3, done)
                self.seen = (self.seen + 1) & 0xFFFF
            return done
        while True:
            at = self.desc + 16 * self.used_place
            flags = self.front.words[at + 14 >> 1]
            if bool(flags & AVAIL_FLAG) != bool(flags & USED_FLAG) or bool(flags & USED_FLAG) != bool(self.used_wrap):
                return done
            slot = struct.unpack_from("<H", self.front.ram, at + 12)[0]
            self.used_place += self.busy[slot]
            if self.used_place >= self.size:
                self.used_place, self.used_wrap = self.used_place - self.size, self.used_wrap ^ 1
            self.finish(slot, done)

    def wait(self, slots, timeout=20):
        """Status bytes of these requests, when all are done."""
        end, done, missing = time.monotonic() + patience(timeout), {}, set(slots)
        while True:
            done.update(self.collect())
            if missing <= done.keys():
                return {slot: done[slot] for slot in slots}
            if not select.select([self.call], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"requests {sorted(missing - done.keys())} are not answered")
            os.eventfd_read(self.call)

    def data(self, slot, length=DATA_BYTES):
        at = self.slot_at(slot) + 4096
        return bytes(self.front.ram[at:at + length])

    def base(self):
        """Where a back end that lost its memory has to go on: behind what it has published."""
        if not self.packed:
            return self.front.words[self.used + 2 >> 1]
        position = self.used_place | self.used_wrap << 15
        return position | position << 16


class FrontEnd:
    def __init__(self, path=None, timeout=20):
        self.memory_fd = os.memfd_create("guest")
        os.ftruncate(self.memory_fd, RAM)
        self.ram = mmap.mmap(self.memory_fd, RAM)
        self.words = memoryview(self.ram).cast("H")
        self.queues, self.inflight_fd, self.inflight = [], None, None
        self.timeout = patience(timeout)
        self.sock = None
        if path:
            self.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.disconnect()
        for fd in [self.memory_fd, self.inflight_fd] + [fd for queue in self.queues for fd in (queue.kick, queue.call)]:
            if fd is not None:
                os.close(fd)

    def connect(self, path):
        end = time.monotonic() + self.timeout
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(path)
                return
            except OSError:
                self.sock.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def disconnect(self):
        if self.sock:
            self.sock.close()
        self.sock = None

    def send(self, request, payload=b"", fds=(), flags=1, size=None):
        header = struct.pack("<III", request, flags, len(payload) if size is None else size)
        socket.send_fds(self.sock, [header + payload], list(fds))

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.sock, 12, 8)
        if len(data) < 12:
            raise EOFError("the back end has hung up")
        request, flags, size = struct.unpack("<III", data)
        payload = b""
        while len(payload) < size:
            more = self.sock.recv(size - len(payload))
            if not more:
                raise EOFError("the back end has hung up")
            payload += more
        assert flags == 5, f"reply with flags {flags:#x}"
        return request, payload, fds

    def call(self, request, payload=b"", fds=()):
        """A request with an answer of its own."""
        self.send(request, payload, fds)
        answered, reply, got = self.receive()
        assert answered == request
        self.got_fds = got
        return reply

    def number(self, request):
        return struct.unpack("<Q", self.call(request))[0]

    def acknowledged(self, request, payload=b"", fds=()):
        """A request that is answered because REPLY_ACK was negotiated; True: accepted."""
        self.send(request, payload, fds, flags=9)
        return struct.unpack("<Q", self.receive()[1])[0] == 0

    def region(self, guest=GUEST, size=RAM, user=USER, offset=0):
        return struct.pack("<QQQQ", guest, size, user, offset)

    def negotiate(self, packed=False, extra=0, protocol=P_MQ | P_REPLY_ACK | P_CONFIG | P_INFLIGHT | P_MEM_SLOTS | P_BACKEND_REQ):
        offered = self.number(GET_FEATURES)
        wanted = F_VERSION_1 | F_PROTOCOL_FEATURES | extra | (F_PACKED if packed else 0)
        assert wanted & ~offered == 0, f"the back end does not offer {wanted & ~offered:#x}"
        offered_protocol = self.number(GET_PROTOCOL_FEATURES)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", protocol & offered_protocol))
        self.send(SET_OWNER)
        self.send(SET_FEATURES, struct.pack("<Q", wanted))

    def set_memory(self):
        return self.acknowledged(SET_MEM_TABLE, struct.pack("<II", 1, 0) + self.region(), [self.memory_fd])

    def start_queue(self, queue):
        index = queue.index
        self.send(SET_VRING_NUM, struct.pack("<II", index, queue.size))
        self.send(SET_VRING_BASE, struct.pack("<II", index, queue.base()))
        self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, USER + queue.desc, USER + queue.used, USER + queue.avail, 0))
        self.send(SET_VRING_KICK, struct.pack("<Q", index), [queue.kick])
        self.send(SET_VRING_CALL, struct.pack("<Q", index), [queue.call])
        assert self.acknowledged(SET_VRING_ENABLE, struct.pack("<II", index, 1))

    def start(self, queues=1, size=128, packed=False, inflight=False, extra=0):
        self.negotiate(packed, extra)
        assert self.set_memory()
        if inflight:
            reply = self.call(GET_INFLIGHT_FD, struct.pack("<QQHH", 0, 0, queues, size))
            self.inflight, self.inflight_fd = reply, self.got_fds[0]
            assert self.acknowledged(SET_INFLIGHT_FD, self.inflight, [self.inflight_fd])
        self.queues = [Queue(self, i, size, packed) for i in range(queues)]
        for queue in self.queues:
            self.start_queue(queue)

    def resume(self, path):
        """After the back end has died: a new connection, the same memory, the record of what was in flight."""
        self.disconnect()
        self.connect(path)
        packed = self.queues[0].packed
        done = [queue.collect() for queue in self.queues]
        self.negotiate(packed)
        assert self.set_memory()
        assert self.acknowledged(SET_INFLIGHT_FD, self.inflight, [self.inflight_fd])
        for queue in self.queues:
            self.start_queue(queue)
        return done
