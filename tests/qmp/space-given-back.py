#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, discarded space is not given back to the file system, too much is, or a file stays open for writing without a writer.
# labels: quick
# requires: qemu-img
# timeout: 120
"""What guests discard becomes holes, and the file ends behind its last cluster in use: with a flush while the disk is idle, and at
close. Nothing that is in use is cut off, also after a kill. With auto-read-only, a file is open for writing as long as there is a writer."""
import glob
import os
import signal
import time

from image import OUR_IMG, equal, run
from jobs import Daemon, MIB
from nbd import Nbd, FLUSH
from patience import patience

TRIM = 4


def until(condition, what):
    end = time.monotonic() + patience(20)
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def check(name):
    for tool in (OUR_IMG, "qemu-img"):
        run(tool, "check", "-q", "-f", "qcow2", name)


def make(name, **options):
    extra = "".join(f",{key}={value}" for key, value in options.items())
    run(OUR_IMG, "create", "-q", "-f", "qcow2", "-o", f"cluster_size=64k{extra}", name, "64M")


def fill(guest, start, count):
    for i in range(start, start + count):
        assert not guest.write(i * MIB, bytes([1 + i]) * MIB)


def shrink_in_use(end, **options):
    make("disk", **options)
    with Daemon() as daemon:
        daemon.add("disk", "disk")
        daemon.export("disk")
        guest = Nbd("nbd.sock", "disk")
        fill(guest, 0, 32)
        assert not guest.simple(FLUSH)
        full = os.path.getsize("disk")
        assert full > 32 * MIB
        assert not guest.simple(TRIM, 16 * MIB, 16 * MIB)

        def is_short():
            assert not guest.simple(FLUSH)
            return os.path.getsize("disk") < 18 * MIB
        until(is_short, "a flush of an idle disk cuts off what is free at the file's end")
        fill(guest, 40, 4)  # takes places behind the new end
        assert not guest.simple(TRIM, 0, 4 * MIB) and not guest.simple(FLUSH)
        equal(os.path.getsize("disk") > 18 * MIB, True, "holes in the middle are no end")
        for i in (*range(4, 16), *range(40, 44)):
            equal(guest.read(i * MIB, MIB), (0, bytes([1 + i]) * MIB), f"what was written at {i} MiB")
        equal(guest.read(16 * MIB, 16 * MIB), (0, bytes(16 * MIB)), "what was discarded")
        if end == "kill":
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
        else:
            guest.simple(TRIM, 40 * MIB, 4 * MIB)
        guest.close()


def kill():
    try:
        shrink_in_use("kill")
    except AssertionError as end:
        assert "ended with -9" in str(end), end
    with Daemon() as daemon:  # a new one takes the image over
        daemon.add("disk", "disk")
        daemon.export("disk", writable=False)
        guest = Nbd("nbd.sock", "disk")
        for i in (*range(4, 16), *range(40, 44)):
            equal(guest.read(i * MIB, MIB), (0, bytes([1 + i]) * MIB), f"after a kill, at {i} MiB")
        guest.close()
    for tool in (OUR_IMG, "qemu-img"):
        status = run(tool, "check", "-q", "-f", "qcow2", "disk", status=None).status
        assert status in (0, 3), f"{tool} check after a kill: {status}"  # 3: leaks, of what was about to be freed


def close():
    for options in ({}, {"lazy_refcounts": "on"}, {"refcount_bits": 64}):
        shrink_in_use("close", **options)
        check("disk")
        assert os.path.getsize("disk") < 20 * MIB, f"closing cuts off the rest {options}: {os.path.getsize('disk')}"


def not_allowed():
    """discard=ignore: the file stays as it is."""
    make("disk")
    with Daemon() as daemon:
        daemon.do("blockdev-add", driver="qcow2", node_name="disk", file={"driver": "file", "filename": "disk"}, discard="ignore")
        daemon.export("disk")
        guest = Nbd("nbd.sock", "disk")
        fill(guest, 0, 8)
        assert not guest.simple(TRIM, 0, 8 * MIB) and not guest.simple(FLUSH)
        guest.close()
    assert os.path.getsize("disk") > 8 * MIB
    check("disk")


def access_of(pid, name):
    """The ways in which a process has a file open: {"r"}, {"w"} ..."""
    ways = set()
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            if os.readlink(path) == os.path.abspath(name):
                with open(path.replace("/fd/", "/fdinfo/"), encoding="ascii") as info:
                    flags = int(next(line.split()[1] for line in info if line.startswith("flags:")), 8)
                ways.add("rw"[bool(flags & os.O_RDWR)])
        except FileNotFoundError:
            pass
    return ways


def auto_read_only():
    run(OUR_IMG, "create", "-q", "-f", "raw", "raw", "1M")
    with Daemon() as daemon:
        daemon.do("blockdev-add", driver="raw", node_name="raw", auto_read_only=True, file={"driver": "file", "filename": "raw",
                                                                                            "auto-read-only": True})
        for _ in range(3):
            daemon.export("raw")
            equal(access_of(daemon.process.pid, "raw"), {"w"}, "with a writer")
            guest = Nbd("nbd.sock", "raw")
            assert not guest.write(0, b"z" * 512)
            guest.close()
            daemon.do("block-export-add", type="nbd", id="look", node_name="raw", name="look")
            reader = Nbd("nbd.sock", "look")
            daemon.do("block-export-del", id="raw", mode="hard")
            daemon.qmp.event("BLOCK_EXPORT_DELETED")
            equal(access_of(daemon.process.pid, "raw"), {"r"}, "when the last writer has gone")
            equal(reader.read(0, 512), (0, b"z" * 512), "readers go on")
            reader.close()
            daemon.do("block-export-del", id="look", mode="hard")
            daemon.qmp.event("BLOCK_EXPORT_DELETED")


close()
kill()
not_allowed()
auto_read_only()
