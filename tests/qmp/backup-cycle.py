#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a backup is not the state of one moment, an incremental chain cannot be restored, or guests' writes are lost meanwhile.
# labels: full interop
# requires: qemu-img
# timeout: 180
"""A backup cycle under guest writes: full, incremental ones, restore, compare. The images are judged by qemu-img."""
import os

import jobs
from jobs import Daemon, Guest, check, content, is_moment, make, run, same


def backup(daemon, target, sync, **more):
    daemon.do("blockdev-backup", job_id="backup", device="disk", target=target, sync=sync, **more)
    daemon.finish("backup")


def full_and_incremental():
    make("disk.q")
    make("full.q")
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.export("disk")
        with Guest("disk") as guest:
            guest.progress(600)
            daemon.add("full", "full.q")
            daemon.do("transaction", actions=[
                {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "since", "persistent": True}},
                {"type": "blockdev-backup", "data": {"job-id": "backup", "device": "disk", "target": "full", "sync": "full"}}])
            daemon.finish("backup")
            daemon.do("blockdev-del", node_name="full")
            guest.progress()
            for number in range(1, 4):
                name = f"inc{number}"
                make(f"{name}.q", backing=f"inc{number - 1}.q" if number > 1 else "full.q")
                daemon.add(name, f"{name}.q", backing=None)
                backup(daemon, name, "incremental", bitmap="since", auto_dismiss=True)
                daemon.do("blockdev-del", node_name=name)
                guest.progress()
            guest.stop()
            make("last.q", backing="inc3.q")
            daemon.add("last", "last.q", backing=None)
            backup(daemon, "last", "incremental", bitmap="since")
            assert daemon.bitmap("disk", "since")["count"] == 0
            daemon.do("blockdev-del", node_name="last")
            wanted = guest.expected()
        daemon.do("quit")
    moments = [is_moment(content(f"{name}.q")) for name in ("full", "inc1", "inc2", "inc3")]
    assert moments == sorted(moments), moments
    assert content("last.q") == wanted == content("disk.q")
    same("last.q", "disk.q")
    for name in ("disk", "full", "inc1", "inc2", "inc3", "last"):
        check(f"{name}.q")
    # The bitmap is in the image, and other programs find it.
    assert '"since"' in run("qemu-img", "info", "--output=json", "disk.q")


def bitmap_modes():
    """What the bitmap says after success and after failure, in each mode."""
    make("a.q")
    make("t.q")
    with Daemon() as daemon:
        daemon.add("disk", "a.q")
        daemon.add("target", "t.q")
        daemon.export("disk")
        nbd = jobs.Nbd("nbd.sock", "disk")
        daemon.do("block-dirty-bitmap-add", node="disk", name="b")
        for mode, cancels, keeps_old in (("never", False, True), ("on-success", False, False), ("always", False, False),
                                         ("never", True, True), ("on-success", True, True), ("always", True, True)):
            daemon.do("block-dirty-bitmap-clear", node="disk", name="b")
            assert not nbd.write(1 << 20, b"x" * 65536)
            daemon.do("blockdev-backup", job_id="j", device="disk", target="target", sync="bitmap", bitmap="b", bitmap_mode=mode,
                      auto_finalize=False, speed=1 if cancels else 0)
            busy = daemon.refuses("block-dirty-bitmap-remove", node="disk", name="b")
            assert "in use" in busy, busy
            if not cancels:
                daemon.wait("j", "pending")
            assert not nbd.write(8 << 20, b"y" * 65536)
            daemon.do("job-cancel" if cancels else "job-finalize", id="j")
            daemon.wait("j", "null")
            # With speed=1 the first chunk is copied at once: "always" then holds only what is new.
            old_copied = mode == "always" and cancels
            count = daemon.bitmap("disk", "b")["count"]
            assert count in ((65536, 131072) if old_copied else (131072,) if keeps_old else (65536,)), (mode, cancels, count)
            assert not daemon.bitmap("disk", "b")["busy"]
        daemon.do("quit")


def top_none_and_overlay():
    """sync=top copies the overlay alone; sync=none keeps what is overwritten, readable through an overlay of the disk."""
    make("base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 16M", "base.q")
    make("top.q", backing="base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 1M", "top.q")
    make("copy.q", backing="base.q")
    make("fleece.q")
    with Daemon() as daemon:
        daemon.add("disk", "top.q")
        daemon.add("copy", "copy.q", backing=None)
        backup(daemon, "copy", "top")
        daemon.do("blockdev-del", node_name="copy")
        daemon.export("disk")
        daemon.add("fleece", "fleece.q", backing="disk")
        daemon.do("blockdev-backup", job_id="none", device="disk", target="fleece", sync="none")
        daemon.export("fleece", writable=False)
        guest, reader = jobs.Nbd("nbd.sock", "disk"), jobs.Nbd("nbd.sock", "fleece")
        assert not guest.write(0, b"\x09" * (4 << 20))
        assert guest.read(0, 4096)[1] == b"\x09" * 4096
        error, data = reader.read(0, 8 << 20)
        assert not error and data == b"\1" * (1 << 20) + b"\2" * (1 << 20) + b"\1" * (6 << 20)
        daemon.do("block-job-cancel", device="none")
        daemon.wait("none", "null")
        reader.close()
        daemon.do("quit")
    assert content("copy.q") == b"\1" * (1 << 20) + b"\2" * (1 << 20) + b"\1" * (14 << 20)
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", "copy.q")
    assert content("copy.q") == b"\0" * (1 << 20) + b"\2" * (1 << 20) + b"\0" * (14 << 20)


def compressed_and_raw():
    make("data.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 5M", "-c", "write -z 2M 1M", "data.q")
    make("small.q")
    make("raw.img", form="raw")
    with Daemon() as daemon:
        daemon.add("disk", "data.q")
        daemon.add("small", "small.q")
        daemon.add("plain", "raw.img", form="raw")
        backup(daemon, "small", "full", compress=True)
        backup(daemon, "plain", "full")
        assert "ompress" in daemon.refuses("blockdev-backup", job_id="x", device="disk", target="plain", sync="full", compress=True)
        assert daemon.status("x") is None
        daemon.do("quit")
    same("data.q", "small.q")
    same("data.q", "raw.img", other_form="raw")
    check("small.q")
    assert os.stat("small.q").st_size < 1 << 20
    assert os.stat("raw.img").st_blocks * 512 < 6 << 20, "zeroes were written"


def two_at_once():
    """Backups of two moments: the end of one does not take the other out of the way of writes."""
    make("one.q")
    make("first.q")
    make("second.q")
    with Daemon() as daemon:
        for name in ("one", "first", "second"):
            daemon.add(name, f"{name}.q")
        daemon.export("one")
        nbd = jobs.Nbd("nbd.sock", "one")
        assert not nbd.write(0, b"1" * (4 << 20))
        daemon.do("blockdev-backup", job_id="first", device="one", target="first", sync="full", speed=1)
        assert not nbd.write(1 << 20, b"2" * (1 << 20))
        daemon.do("blockdev-backup", job_id="second", device="one", target="second", sync="full", speed=1)
        daemon.do("block-job-set-speed", device="first", speed=0)
        daemon.finish("first")
        assert not nbd.write(0, b"3" * (4 << 20))
        daemon.do("block-job-set-speed", device="second", speed=0)
        daemon.finish("second")
        daemon.do("quit")
    assert content("first.q") == b"1" * (4 << 20) + bytes(12 << 20)
    assert content("second.q") == b"1" * (1 << 20) + b"2" * (1 << 20) + b"1" * (2 << 20) + bytes(12 << 20)
    assert content("one.q") == b"3" * (4 << 20) + bytes(12 << 20)


def overlay_meanwhile():
    """A snapshot of a disk that is being backed up: the end of the backup leaves the overlay where it is. Of one that another kind of
    job has in use, there is none."""
    for name in ("below.q", "copy.q", "mirror.q"):
        if os.path.exists(name):
            os.unlink(name)
        make(name)
    with Daemon() as daemon:
        for name in ("below", "copy", "mirror"):
            daemon.add(name, f"{name}.q")
        daemon.export("below")
        nbd = jobs.Nbd("nbd.sock", "below")
        assert not nbd.write(0, b"1" * (4 << 20))
        daemon.do("blockdev-backup", job_id="j", device="below", target="copy", sync="full", speed=1)
        daemon.do("blockdev-snapshot-sync", node_name="below", snapshot_file="over.q", snapshot_node_name="over")
        assert not nbd.write(1 << 20, b"2" * (1 << 20))
        daemon.do("block-job-set-speed", device="j", speed=0)
        daemon.finish("j")
        assert not nbd.write(3 << 20, b"3" * (2 << 20))
        wanted = b"1" * (1 << 20) + b"2" * (1 << 20) + b"1" * (1 << 20) + b"3" * (2 << 20)
        assert nbd.read(0, 5 << 20)[1] == wanted
        daemon.do("blockdev-mirror", job_id="m", device="over", target="mirror", sync="none")
        snapshot = {"node_name": "over", "snapshot_file": "more.q", "snapshot_node_name": "more"}
        assert "in use by block job: mirror" in daemon.refuses("blockdev-snapshot-sync", **snapshot)
        assert "in use by block job: mirror" in daemon.refuses("blockdev-backup", job_id="j", device="over", target="copy", sync="full")
        daemon.do("quit")
    assert content("copy.q") == content("below.q") == b"1" * (4 << 20) + bytes(12 << 20)
    assert content("over.q") == wanted + bytes(11 << 20)


full_and_incremental()
bitmap_modes()
top_none_and_overlay()
compressed_and_raw()
two_at_once()
overlay_meanwhile()
