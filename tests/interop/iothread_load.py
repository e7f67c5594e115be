#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, exports that iothreads serve lose or mix up data, hang or crash when they are added and removed, when their node
# is resized, reopened, copied by jobs or gets an overlay, or when the daemon ends, all under load.
# labels: full interop
# requires: qemu-img nbdcopy
# timeout: 180
"""Clients write and check regions of their own, through NBD in iothreads and beside them, vhost-user-blk and FUSE, while commands
change everything around them. What was answered is in the image at the end. Run it with a daemon built with ThreadSanitizer, too."""
import os
import random
import select
import shutil
import subprocess
import threading
import time

import vhost_user
from jobs import MIB, Daemon, content, check, make
from nbd import Nbd, FLUSH, STATUS, TRIM, ZEROES
from vhost_user import FrontEnd

SEED = int(os.environ.get("SPINDLE_SEED", "1"))
REGION = 2 * MIB
BLOCK = 4096
HAS_FUSE = os.access("/dev/fuse", os.R_OK | os.W_OK) and bool(shutil.which("fusermount3"))


class Client:
    """Writes random spans of its region, remembers what it wrote, and looks again. Ends when stopped; where it may be cut off, a
    write without an answer leaves either content behind."""

    def __init__(self, number, passes=False):
        self.number, self.passes, self.may_be_cut_off = number, passes, passes
        self.rng = random.Random(SEED * 1000 + number)
        self.start, self.expected = number * REGION, bytearray(REGION)
        self.unsure, self.problem, self.steps, self.stopping = None, None, 0, False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        try:
            with self.disk() as disk:
                if self.passes:  # others have been here before
                    self.expected[:] = self.read(disk, 0, REGION)
                while not self.stopping:
                    self.step(disk)
                    self.steps += 1
        except (OSError, EOFError) as problem:
            if not self.may_be_cut_off:
                self.problem = problem
        except Exception as problem:
            self.problem = problem

    def step(self, disk):
        length = self.rng.choice((512, 4096, 4096, 4096, 12800, 65536, 200704))
        at = self.rng.randrange(0, (REGION - length) // 512) * 512
        if self.rng.random() < 0.5:
            data = bytes([self.rng.randrange(1, 256)]) * length
            self.unsure = (at, data)
            self.write(disk, at, data)
            self.expected[at:at + length] = data
            self.unsure = None
        else:
            data = self.read(disk, at, length)
            assert data == self.expected[at:at + length], f"client {self.number}: {length} bytes at {at} are not what was written"

    def progress(self, steps=30):
        goal, end = self.steps + steps, time.monotonic() + 90
        while self.steps < goal:
            assert not self.problem, self.problem
            assert time.monotonic() < end, f"client {self.number} does not get on"
            time.sleep(0.002)

    def stop(self):
        self.stopping = True
        self.thread.join(60)
        assert not self.thread.is_alive(), f"client {self.number} hangs"
        assert not self.problem, self.problem

    def judge(self, image):
        found, wanted = image[self.start:self.start + REGION], bytes(self.expected)
        if self.unsure:
            at, data = self.unsure
            found, wanted = (part[:at] + part[at + len(data):] for part in (found, wanted))
        assert found == wanted, f"client {self.number}: the image is not what was written"


class NbdClient(Client):
    def __init__(self, export, number, **options):
        self.export = export
        super().__init__(number, **options)

    def disk(self):
        return Nbd("nbd.sock", self.export, timeout=60)

    def write(self, disk, at, data):
        error = disk.write(self.start + at, data)
        assert not error, f"write: error {error}"
        if self.rng.random() < 0.05:
            assert not disk.simple(FLUSH)

    def read(self, disk, at, length):
        error, data = disk.read(self.start + at, length)
        assert not error, f"read: error {error}"
        return data


class FuseClient(Client):
    def disk(self):
        return open("fuse.disk", "r+b", buffering=0)

    def write(self, disk, at, data):
        assert os.pwrite(disk.fileno(), data, self.start + at) == len(data)

    def read(self, disk, at, length):
        return os.pread(disk.fileno(), length, self.start + at)


class GuestClient(Client):
    """Two queues; requests of one block each."""

    def disk(self):
        front = FrontEnd("vhost.sock", timeout=60)
        front.start(queues=2, size=128)
        return front

    def batch(self, front, kind, at, pieces):
        queue = front.queues[self.rng.randrange(2)]
        slots = [queue.submit(kind, (self.start + at + i * BLOCK) // 512, piece if kind == vhost_user.WRITE else b"", len(piece))
                 for i, piece in enumerate(pieces)]
        assert self.answers(front, queue, slots) == {0}
        return b"".join(queue.data(slot, len(piece)) for slot, piece in zip(slots, pieces))

    @staticmethod
    def answers(front, queue, slots):
        """The status bytes; an end of the daemon is noticed, too."""
        done, ready = {}, [queue.call]
        while set(slots) - done.keys():
            done.update(queue.collect())
            if set(slots) - done.keys():
                if front.sock in ready:
                    raise EOFError("the daemon has hung up")
                ready = select.select([queue.call, front.sock], [], [], 60)[0]
                assert ready, "requests are not answered"
                if queue.call in ready:
                    os.eventfd_read(queue.call)
        return set(done.values())

    def pieces(self, data):
        return [data[i:i + BLOCK] for i in range(0, len(data), BLOCK)]

    def write(self, front, at, data):
        for i in range(0, len(data), 16 * BLOCK):
            self.batch(front, vhost_user.WRITE, at + i, self.pieces(data[i:i + 16 * BLOCK]))

    def read(self, front, at, length):
        return b"".join(self.batch(front, vhost_user.READ, at + i, self.pieces(bytes(min(16 * BLOCK, length - i))))
                        for i in range(0, length, 16 * BLOCK))


def export(daemon, id, node="disk", **more):
    daemon.do("block-export-add", type="nbd", id=id, node_name=node, name=id, writable=True, **more)


def everybody(clients):
    for client in clients:
        client.progress()


def come_and_go(daemon, clients, times=12):
    """Exports are added and removed, with clients in the middle of a request."""
    for i in range(times):
        export(daemon, "guest", iothread=f"t{i % 3}")
        passing = [NbdClient("guest", 10 + n, passes=True) for n in range(2)]
        passing[i % 2].progress(5)
        daemon.do("block-export-del", id="guest", mode="hard")
        while daemon.qmp.event("BLOCK_EXPORT_DELETED")["data"]["id"] != "guest":
            pass
        for client in passing:
            client.stop()
    everybody(clients)


def other_iothreads(daemon, clients):
    for _ in range(5):
        daemon.do("object-add", qom_type="iothread", id="brief", poll_max_ns=100000)
        export(daemon, "guest", iothread="brief")
        with Nbd("nbd.sock", "guest") as client:
            assert client.read(0, MIB)[0] == 0 and client.simple(TRIM, 30 * MIB, MIB) == 0 and client.simple(ZEROES, 30 * MIB, MIB) == 0
        daemon.do("block-export-del", id="guest", mode="hard")
        while daemon.qmp.event("BLOCK_EXPORT_DELETED")["data"]["id"] != "guest":
            pass
        daemon.do("object-del", id="brief")
    everybody(clients)


def resize(daemon, clients):
    for size in (40, 48, 44, 32):
        daemon.do("block_resize", node_name="disk", size=size * MIB)
        everybody(clients[:3])
    everybody(clients)


def reopen(daemon, clients):
    for cache in ("1M", "8M"):
        for node in daemon.nodes().values():
            if node["node-name"] == "disk":
                daemon.do("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "disk", "file": "file", "discard": "unmap",
                                                       "l2-cache-size": int(cache[0]) * MIB}])
        everybody(clients)


def back_up(daemon, clients):
    make("backup.q", "32M")
    daemon.add("backup", "backup.q")
    daemon.do("blockdev-backup", job_id="b", device="disk", target="backup", sync="full")
    daemon.finish("b")
    daemon.do("blockdev-del", node_name="backup")
    check("backup.q")
    everybody(clients)


def mirror(daemon, clients):
    """The exports go over to the copy."""
    make("mirror.q", "32M")
    daemon.add("mirror", "mirror.q")
    daemon.do("blockdev-mirror", job_id="m", device="disk", target="mirror", sync="full")
    daemon.wait("m", "ready")
    everybody(clients)
    daemon.do("job-complete", id="m")
    daemon.finish("m")
    everybody(clients)


def take_snapshot(daemon, clients):
    """... and to an overlay."""
    make("overlay.q", backing="mirror.q")
    daemon.do("blockdev-add", driver="qcow2", node_name="top", file={"driver": "file", "filename": "overlay.q"}, backing=None)
    daemon.do("blockdev-snapshot", node="mirror", overlay="top")
    everybody(clients)


def copy_all(daemon, clients):
    """Large reads, sparse ones and block status, over several connections."""
    export(daemon, "copy", iothread="t2", node="disk")
    for _ in range(3):
        subprocess.run(["nbdcopy", "nbd+unix:///copy?socket=nbd.sock", "null:"], check=True, timeout=60)
    daemon.do("block-export-del", id="copy")
    everybody(clients)


def begin(daemon):
    daemon.do("blockdev-add", driver="file", node_name="file", filename="disk.q", discard="unmap")
    daemon.do("blockdev-add", driver="qcow2", node_name="disk", file="file", discard="unmap")
    for i in range(3):
        daemon.do("object-add", qom_type="iothread", id=f"t{i}")
    daemon.do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
    export(daemon, "e0", iothread="t0")
    export(daemon, "e1", iothread="t1", fixed_iothread=True)
    export(daemon, "main")
    daemon.do("block-export-add", type="vhost-user-blk", id="v", node_name="disk", writable=True, iothread="t2", num_queues=2,
              addr={"type": "unix", "path": "vhost.sock"})
    clients = [NbdClient(name, i) for i, name in enumerate(("e0", "e1", "main", "e0", "e1"))] + [GuestClient(5)]
    if HAS_FUSE:
        with open("fuse.disk", "w", encoding="ascii"):
            pass
        daemon.do("block-export-add", type="fuse", id="f", node_name="disk", writable=True, iothread="t1", mountpoint="fuse.disk")
        clients.append(FuseClient(6))
    everybody(clients)
    return clients


def under_commands():
    make("disk.q", "32M")
    with Daemon() as daemon:
        clients = begin(daemon)
        for step in (come_and_go, other_iothreads, resize, reopen, copy_all, back_up, mirror, take_snapshot):
            step(daemon, clients)
            print(step.__name__, flush=True)
        for client in clients:
            client.stop()
        daemon.do("quit")
        assert daemon.process.wait(60) == 0
    image = content("overlay.q")
    for client in clients:
        client.judge(image)
    check("overlay.q")
    print("and good at the end", flush=True)


def end_under_load(how):
    make("disk.q", "32M")
    print("ends under load", flush=True)
    with Daemon() as daemon:
        clients = begin(daemon)
        for client in clients:
            client.may_be_cut_off = True
        how(daemon)
        assert daemon.process.wait(60) == 0
        for client in clients:
            client.stop()
    image = content("disk.q")
    for client in clients:
        client.judge(image)
    check("disk.q")


under_commands()
for _ in range(2):
    end_under_load(lambda daemon: daemon.process.terminate())
    end_under_load(lambda daemon: daemon.do("quit"))
print("good")
