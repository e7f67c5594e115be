#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, blockdev-check misses damage, takes what guests are writing for damage, or repairs what is none.
# labels: full
# requires: qemu-img
# timeout: 300
"""An image with planted damage is checked and repaired while guests write, discard and flush. Afterwards the disk must be what
the guests wrote, and everybody's check must find the image clean."""
import os
import random
import shutil
import struct
import threading
import time

from image import OUR_IMG, content, equal, fail, img_json, run, write_file
from jobs import Daemon, Guest, MIB
from nbd import Nbd, FLUSH

SIZE = 16 * MIB
rng = random.Random(int(os.environ.get("SPINDLE_SEED", "7")))


class Image:
    """A qcow2 file with refcounts of 16 bits, seen from outside."""

    def __init__(self, name):
        self.name, self.data = name, bytearray(content(name))
        self.cluster = 1 << struct.unpack_from(">I", self.data, 20)[0]
        self.reftable = struct.unpack_from(">Q", self.data, 48)[0]

    def place(self, index):
        block = struct.unpack_from(">Q", self.data, self.reftable + index // (self.cluster // 2) * 8)[0]
        return block + index % (self.cluster // 2) * 2 if block else 0

    def count(self, index):
        return struct.unpack_from(">H", self.data, self.place(index))[0]

    def set(self, index, count):
        struct.pack_into(">H", self.data, self.place(index), count)

    def clusters(self):
        return len(self.data) // self.cluster

    def store(self):
        write_file(self.name, self.data)


def make(name, cluster, filled=False, **options):
    extra = "".join(f",{key}={value}" for key, value in options.items())
    run(OUR_IMG, "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}{extra}", name, 2 * SIZE)
    words = ["-c", f"write -q -P 0 0 {SIZE}"] if filled else []
    for at in range(0, SIZE, SIZE // 16):  # the upper half of the disk: guests write to the lower
        words += ["-c", f"write -q -P {1 + at * 16 // SIZE} {SIZE + at} {SIZE // 16}"]
    run(os.path.join(os.environ["SPINDLE_BIN"], "spindle-io"), "-f", "qcow2", *words, name)


def plant(name, leaks, low):
    """`leaks` clusters behind the end that nobody uses, and `low` clusters of data whose count is 0, or 2."""
    image = Image(name)
    end = image.clusters()
    image.data += bytes(leaks * image.cluster)
    for index in range(end, end + leaks):
        image.set(index, 1)
    data = [index for index in range(end // 2, end) if image.count(index) == 1 and image.place(index) // image.cluster != index]
    for number, index in enumerate(rng.sample(data, low)):
        image.set(index, 0 if number % 2 else 2)
    image.store()


class Trimmer(threading.Thread):
    """Another guest: writes and discards its own part of the disk, and knows what must be there."""

    def __init__(self, start, length, block=65536):
        super().__init__()
        self.nbd, self.start_at, self.block = Nbd("nbd.sock", "disk", timeout=60), start, block
        self.state = [None] * (length // block)
        self.trims = True
        self.stopping, self.problem, self.rng = False, None, random.Random(3)

    def run(self):
        try:
            while not self.stopping:
                self.step()
        except Exception as problem:
            self.problem = problem

    def step(self):
        index, value = self.rng.randrange(len(self.state)), self.rng.randrange(256)
        at = self.start_at + index * self.block
        if value < 100 and self.trims:
            assert not self.nbd.simple(4, at, self.block), "a trim"  # NBD_CMD_TRIM
            self.state[index] = None
        else:
            assert not self.nbd.write(at, bytes([value]) * self.block), "a write"
            self.state[index] = value
        if value % 16 == 0:
            assert not self.nbd.simple(FLUSH), "a flush"

    def stop(self):
        self.stopping = True
        self.join()
        if self.problem:
            raise self.problem

    def verify(self, disk):
        for index, value in enumerate(self.state):
            at = self.start_at + index * self.block
            if value is not None and disk[at:at + self.block] != bytes([value]) * self.block:
                fail(f"block at {at} is not {value}")


def start_check(daemon, repair, job="check", **more):
    daemon.do("blockdev-check", job_id=job, node_name="disk", repair=repair, **more)


def finish_check(daemon, job="check"):
    daemon.wait(job, "concluded")
    entry = daemon.status(job)
    assert "error" not in entry, entry
    assert entry["current-progress"] == entry["total-progress"], entry
    daemon.do("job-dismiss", id=job)
    return entry["check"]


def under_load(name, repair, checks=1, speed=0, gently=False, **more):
    """Checks while two guests write; returns the findings. Gently: until the first check is done, nothing is allocated, since
    where counts are too low that would take what is in use."""
    found = []
    with Daemon() as daemon:
        daemon.add("disk", name, **more)
        daemon.export("disk")
        trimmer = Trimmer(SIZE // 2, SIZE // 2)
        trimmer.trims = not gently
        trimmer.start()
        with Guest("disk", size=SIZE // 2) as guest:
            guest.progress()
            for _ in range(checks):
                start_check(daemon, repair, speed=speed)
                guest.progress(8)
                found.append(finish_check(daemon))
                trimmer.trims = repair == "all" or not gently
            guest.progress()
            guest.stop()
        trimmer.stop()
        error, disk = Nbd("nbd.sock", "disk").read(0, 2 * SIZE)
        assert not error
        assert disk[:SIZE // 2] == guest.expected(), "what one guest wrote is there"
        trimmer.verify(disk)
        for at in range(0, SIZE, SIZE // 16):
            assert disk[SIZE + at:SIZE + at + SIZE // 16] == bytes([1 + at * 16 // SIZE]) * (SIZE // 16), f"old data at {at}"
    return found


def clean(name):
    for tool in (OUR_IMG, "qemu-img"):
        run(tool, "check", "-q", "-f", "qcow2", name)


def without_damage():
    """What is on its way is neither a leak nor a corruption, and is not repaired."""
    for cluster, options in ((4096, {}), (65536, {}), (512, {}), (16384, {"extended_l2": "on"}), (4096, {"lazy_refcounts": "on"}),
                             (4096, {"compat": "0.10"})):
        make("disk", cluster, **options)
        for found in under_load("disk", "all", checks=4, speed=2 * MIB if cluster == 4096 else 0):
            wanted = {"leaks": 0, "corruptions": 0, "leaks-fixed": 0, "corruptions-fixed": 0, "check-errors": 0, "at-rest": False}
            equal({key: found[key] for key in wanted}, wanted, f"findings in a sound image, clusters of {cluster} {options}")
        clean("disk")


def damage():
    for cluster in (4096, 65536):
        make("disk", cluster)
        plant("disk", leaks=50, low=0)
        found = under_load("disk", "leaks", checks=2)
        assert found[0]["leaks-fixed"] and not found[0]["corruptions"] and not found[1]["leaks"], found
        clean("disk")
        make("disk", cluster, filled=True)
        plant("disk", leaks=20, low=6)
        before = img_json("check", "disk", status=2)
        assert before["leaks"] >= 20 and before["corruptions"] >= 3, before
        shutil.copy("disk", "kept")
        found = under_load("disk", "none", gently=True)[0]
        assert found["leaks"] >= 20 and not found["leaks-fixed"], found
        for repair in ("leaks", "all"):
            shutil.copy("kept", "disk")
            found = under_load("disk", repair, checks=2, gently=True)
            first = found[0]
            assert first["leaks-fixed"] >= 20 and not first["at-rest"], found
            if repair == "all":
                assert first["corruptions-fixed"] >= 3, found
                equal((found[1]["leaks"], found[1]["corruptions"]), (0, 0), "nothing is left for the second check")
                clean("disk")


def broken_structures():
    """Refcount blocks that are gone are built anew at rest: requests wait, and do not fail."""
    make("disk", 4096, filled=True)
    image = Image("disk")
    struct.pack_into(">Q", image.data, image.reftable, 0)
    image.store()
    with Daemon() as daemon:
        daemon.add("disk", "disk")
        daemon.export("disk")
        start_check(daemon, "all")
        reader = Nbd("nbd.sock", "disk", timeout=60)
        for at in range(SIZE, 2 * SIZE, SIZE // 16):
            equal(reader.read(at, 4096), (0, bytes([1 + (at - SIZE) * 16 // SIZE]) * 4096), f"read at {at} meanwhile")
        found = finish_check(daemon)
        assert found["at-rest"] and found["corruptions-fixed"] and not found["corruptions"], found
        reader.close()
    clean("disk")
    found = under_load("disk", "all")[0]
    equal((found["leaks"], found["corruptions"], found["leaks-fixed"]), (0, 0, 0), "nothing is left for the second check")
    clean("disk")


def refused_writes():
    """An image that refuses writes since a corruption was found takes them again after a repair, under the same guests."""
    make("disk", 65536)
    image = Image("disk")
    l1 = struct.unpack_from(">Q", image.data, 40)[0]
    l2 = struct.unpack_from(">Q", image.data, l1)[0] & 0xfffffffffffe00
    entry = l2 + SIZE // 65536 * 8
    cluster = (struct.unpack_from(">Q", image.data, entry)[0] & 0xfffffffffffe00) // 65536
    image.set(cluster, 0)  # the next to allocate is given what is in use
    image.store()
    with Daemon() as daemon:
        daemon.add("disk", "disk")
        daemon.export("disk")
        guest = Nbd("nbd.sock", "disk")
        error = guest.simple(4, SIZE, 65536) or guest.simple(FLUSH)  # gives back what is not counted
        assert error, "a corruption is noticed"
        assert guest.write(0, b"x" * 65536), "and writes are refused"
        start_check(daemon, "all")
        found = finish_check(daemon)
        assert found["at-rest"] and not found["corruptions"], found
        assert not guest.write(0, b"x" * 65536) and not guest.simple(FLUSH), "after the repair they are not"
        assert guest.read(0, 65536) == (0, b"x" * 65536)
        guest.close()
    clean("disk")


def commands():
    make("disk", 4096)
    run(OUR_IMG, "create", "-q", "-f", "raw", "raw", "1M")
    with Daemon() as daemon:
        daemon.add("disk", "disk")
        daemon.add("raw", "raw", form="raw")
        daemon.do("blockdev-add", driver="qcow2", node_name="ro", read_only=True,
                  file={"driver": "file", "filename": "disk"}, force_share=True)
        assert "no metadata" in daemon.refuses("blockdev-check", job_id="j", node_name="raw")
        assert "read-only" in daemon.refuses("blockdev-check", job_id="j", node_name="ro", repair="all")
        daemon.refuses("blockdev-check", job_id="j", node_name="gone")
        start_check(daemon, "all", speed=4096)  # one table a second
        assert "in use" in daemon.refuses("blockdev-del", node_name="disk")
        daemon.refuses("blockdev-check", job_id="other", node_name="disk")
        end = time.monotonic() + 60
        while not daemon.status("check")["current-progress"]:
            assert time.monotonic() < end, "no progress"
            time.sleep(0.02)
        daemon.do("job-pause", id="check")
        daemon.wait("check", "paused")
        daemon.do("job-resume", id="check")
        daemon.do("job-cancel", id="check")
        daemon.wait("check", "concluded")
        daemon.do("job-dismiss", id="check")
        daemon.do("blockdev-check", job_id="ro-check", node_name="ro", auto_dismiss=True)
        daemon.wait("ro-check", "null")


def snapshots():
    """A snapshot in the middle of a check changes all counts: the check begins anew, and is right."""
    make("disk", 4096)
    with Daemon() as daemon:
        daemon.add("disk", "disk")
        daemon.export("disk")
        with Guest("disk", size=SIZE // 2) as guest:
            guest.progress()
            start_check(daemon, "all", speed=MIB)
            for number in range(3):
                guest.progress(4)
                daemon.do("blockdev-snapshot-internal-sync", device="disk", name=f"s{number}")
            daemon.do("blockdev-snapshot-delete-internal-sync", device="disk", name="s1")
            found = finish_check(daemon)
            equal((found["leaks"], found["corruptions"], found["corruptions-fixed"], found["leaks-fixed"]), (0, 0, 0, 0), "findings")
            guest.stop()
    clean("disk")


commands()
snapshots()
without_damage()
damage()
broken_structures()
refused_writes()
