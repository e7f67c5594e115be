# SPDX-License-Identifier: Apache-2.0
"""Daemons with disks and guests that write, for tests of jobs.

A guest writes a block of one number after the other, round after round, from the front to the end of the disk: round 3 fills
with 3. So the state of the disk at any moment is 3 3 3 2 2 2 ...: numbers that never grow, and differ by one at most. A copy that is
not the state of one moment shows. The guest also knows, when it stops, what must be there.
"""
import os
import struct
import subprocess
import threading
import time

from nbd import Nbd, FLUSH, ZEROES
from qmp import Program, Qmp, QmpError

OURS = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
MIB = 1 << 20


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make(name, size="16M", form="qcow2", backing=None, cluster="64k"):
    options = ["-o", f"cluster_size={cluster}"] if form == "qcow2" else []
    base = ["-b", backing, "-F", "qcow2"] if backing else []
    run("qemu-img", "create", "-q", "-f", form, *options, *base, name, *([] if backing else [size]))


def same(one, other, form="qcow2", other_form="qcow2"):
    result = subprocess.run(["qemu-img", "compare", "-f", form, "-F", other_form, one, other], capture_output=True, text=True)
    assert result.returncode == 0, f"{one} and {other}: {result.stdout}{result.stderr}"


def check(name):
    result = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", name], capture_output=True, text=True)
    assert result.returncode == 0, f"{name}: {result.stdout}{result.stderr}"


def content(name, form="qcow2"):
    run("qemu-img", "convert", "-f", form, "-O", "raw", name, name + ".raw")
    with open(name + ".raw", "rb") as file:
        return file.read()


class Daemon(Program):
    """`with Daemon() as daemon:` a storage daemon with a monitor and, when asked for, an NBD server at nbd.sock."""

    def __init__(self, program=OURS, arguments=(), **options):
        for path in ("qmp.sock", "nbd.sock"):
            if os.path.exists(path):
                os.unlink(path)
        super().__init__([program, "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m", *arguments],
                         **options)
        self.qmp = None

    def __enter__(self):
        super().__enter__()
        self.qmp = Qmp.connect("qmp.sock", timeout=60)
        return self

    def do(self, command, **arguments):
        return self.qmp.command(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    def refuses(self, command, **arguments):
        return str(self.qmp.error(command, {name.replace("_", "-"): value for name, value in arguments.items()}))

    def add(self, name, filename, form="qcow2", **more):
        self.do("blockdev-add", driver=form, node_name=name, file={"driver": "file", "filename": filename}, discard="unmap", **more)

    def export(self, node, name=None, writable=True):
        if not os.path.exists("nbd.sock"):
            self.do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        self.do("block-export-add", type="nbd", id=name or node, node_name=node, name=name or node, writable=writable)

    def status(self, job):
        return next((entry for entry in self.do("query-jobs") if entry["id"] == job), None)

    def wait(self, job, *wanted):
        """Until the job has one of these states; "null": it is gone. Returns the events on the way."""
        seen, end = [], time.monotonic() + 60
        while time.monotonic() < end:
            event = self.qmp.event("JOB_STATUS_CHANGE")["data"]
            if event["id"] != job:
                continue
            seen.append(event["status"])
            if event["status"] in wanted:
                return seen
        raise AssertionError(f"job {job}: {seen}")

    def finish(self, job):
        """To a good end."""
        self.wait(job, "concluded")
        end = self.qmp.event("BLOCK_JOB_COMPLETED")["data"]
        assert end["device"] == job and "error" not in end, end
        return end

    def nodes(self):
        return {node["node-name"]: node for node in self.do("query-named-block-nodes", flat=True)}

    def bitmap(self, node, name):
        return next((b for b in self.nodes()[node].get("dirty-bitmaps", []) if b.get("name") == name), None)


class Guest:
    """Writes until it is stopped."""

    def __init__(self, export, size=16 * MIB, block=32768, first=1, zeroes=False):
        self.nbd = Nbd("nbd.sock", export, timeout=60)
        self.size, self.block, self.round, self.at = size, block, first, 0
        self.zeroes = zeroes  # every fourth round is of zeroes
        self.stopping, self.problem, self.written = False, None, 0
        self.thread = threading.Thread(target=self.work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def number(self, round_number):
        return round_number

    def work(self):
        try:
            while not self.stopping:
                self.step()
        except Exception as problem:  # the test's thread tells of it
            self.problem = problem

    def step(self):
        error = self.nbd.write(self.at, struct.pack(">I", self.round) * (self.block // 4))
        assert not error, f"write at {self.at}: error {error}"
        self.written += 1
        self.at += self.block
        if self.written % 64 == 0:
            assert not self.nbd.simple(FLUSH)
        if self.at == self.size:
            self.at, self.round = 0, self.round + 1

    def stop(self):
        self.stopping = True
        if self.thread.ident:
            self.thread.join()
        self.nbd.close()
        if self.problem:
            raise self.problem

    def progress(self, blocks=64):
        """Waits until so many more blocks are written: the disk is alive."""
        goal, end = self.written + blocks, time.monotonic() + 60
        while self.written < goal:
            assert not self.problem, self.problem
            assert time.monotonic() < end, f"the guest does not get on: {self.written} blocks"
            time.sleep(0.002)

    def expected(self):
        """The disk's content, when it has stopped."""
        data = bytearray()
        for at in range(0, self.size, self.block):
            data += struct.pack(">I", self.round if at < self.at else self.round - 1) * (self.block // 4)
        return bytes(data)


def numbers(data, block=32768):
    """One number for each block; a block that is not of one number is torn."""
    result = []
    for at in range(0, len(data), block):
        piece = data[at:at + block]
        assert piece == piece[:4] * (len(piece) // 4), f"block at {at} is torn"
        result.append(struct.unpack(">I", piece[:4])[0])
    return result


def is_moment(data, block=32768):
    """Is this what the disk was at one moment?"""
    found = numbers(data, block)
    grows = [i for i in range(1, len(found)) if found[i] > found[i - 1]]
    assert not grows, f"later blocks are newer: {[(i, found[i - 1], found[i]) for i in grows[:5]]}"
    assert found[0] - found[-1] <= 1, f"of more than one moment: from {found[0]} to {found[-1]}"
    return found[0]
