#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a mirror loses writes, is not complete when it takes the source's place, or its states are not the ecosystem's.
# labels: full interop
# requires: qemu-img
# timeout: 180
"""Mirrors under guest writes: every copy mode, pivot, end without pivot, cancel, sync modes, pauses."""
from jobs import MIB, Daemon, Guest, Nbd, check, content, is_moment, make, run, same


def pivot(copy_mode, changes_mode=False, by_hand=False):
    make("source.q")
    make("target.q")
    with Daemon() as daemon:
        daemon.add("source", "source.q")
        daemon.add("target", "target.q")
        daemon.export("source", "disk")
        with Guest("disk") as guest:
            guest.progress(600)
            daemon.do("blockdev-mirror", job_id="m", device="source", target="target", sync="full", copy_mode=copy_mode,
                      filter_node_name="top", auto_finalize=not by_hand)
            assert daemon.nodes()["top"]["drv"] == "mirror_top"
            daemon.wait("m", "ready")
            daemon.qmp.event("BLOCK_JOB_READY")
            guest.progress()
            if changes_mode:
                daemon.do("block-job-change", id="m", type="mirror", copy_mode="write-blocking")
                assert "Cannot" in daemon.refuses("block-job-change", id="m", type="mirror", copy_mode="background")
                guest.progress()
            if changes_mode or copy_mode == "write-blocking":
                wait_for_active_sync(daemon)
            daemon.do("job-complete", id="m")
            if by_hand:
                daemon.wait("m", "pending")
                guest.progress()  # the disk is alive while the user thinks, and the copy stays what the source is
                daemon.do("job-finalize", id="m")
            daemon.finish("m")
            assert "top" not in daemon.nodes()
            guest.progress()
            daemon.do("blockdev-del", node_name="source")  # nobody uses it any more
            guest.stop()
            wanted = guest.expected()
        daemon.do("quit")
    assert content("target.q") == wanted
    is_moment(content("source.q"))
    check("target.q")
    check("source.q")


def wait_for_active_sync(daemon):
    for _ in range(2000):
        if daemon.do("query-block-jobs")[0]["actively-synced"]:
            return
    raise AssertionError("the mirror does not become actively synced")


def end_without_pivot():
    make("source.q")
    make("target.q")
    with Daemon() as daemon:
        daemon.add("source", "source.q")
        daemon.add("target", "target.q")
        daemon.export("source", "disk")
        with Guest("disk") as guest:
            guest.progress(600)
            daemon.do("blockdev-mirror", job_id="m", device="source", target="target", sync="full")
            daemon.wait("m", "ready")
            guest.progress()
            daemon.do("job-pause", id="m")
            daemon.wait("m", "standby")
            guest.progress()
            daemon.do("job-resume", id="m")
            daemon.wait("m", "ready")
            daemon.do("block-job-cancel", device="m")
            daemon.finish("m")
            daemon.do("blockdev-del", node_name="target")
            guest.progress()
            guest.stop()
            wanted = guest.expected()
        daemon.do("quit")
    assert content("source.q") == wanted
    is_moment(content("target.q"))


def forced_cancel():
    """In every state: the source goes on as if nothing had been."""
    for state in ("running", "paused", "ready", "standby", "pending"):
        make("source.q")
        make("target.q")
        with Daemon() as daemon:
            daemon.add("source", "source.q")
            daemon.add("target", "target.q")
            daemon.export("source", "disk")
            with Guest("disk") as guest:
                guest.progress(400)
                daemon.do("blockdev-mirror", job_id="m", device="source", target="target", sync="full", auto_finalize=False,
                          speed=1 if state in ("running", "paused") else 0)
                if state in ("ready", "standby", "pending"):
                    daemon.wait("m", "ready")
                if state in ("paused", "standby"):
                    daemon.do("job-pause", id="m")
                    daemon.wait("m", state)
                if state == "pending":
                    daemon.do("job-complete", id="m")
                    daemon.wait("m", "pending")
                guest.progress()
                daemon.do("job-cancel", id="m")
                daemon.wait("m", "null")
                daemon.qmp.event("BLOCK_JOB_CANCELLED")
                guest.progress()
                daemon.do("blockdev-del", node_name="target")
                guest.stop()
                wanted = guest.expected()
            assert set(daemon.nodes()) >= {"source"} and len(daemon.nodes()) == 2, daemon.nodes().keys()
            daemon.do("quit")
        assert content("source.q") == wanted


def sync_modes():
    make("base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 16M", "base.q")
    make("top.q", backing="base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 1M", "top.q")
    make("copy.q", backing="base.q")
    make("empty.q")
    with Daemon() as daemon:
        daemon.add("disk", "top.q")
        daemon.add("copy", "copy.q", backing=None)
        daemon.add("empty", "empty.q")
        daemon.export("disk")
        nbd = Nbd("nbd.sock", "disk")
        daemon.do("blockdev-mirror", job_id="top", device="disk", target="copy", sync="top")
        daemon.wait("top", "ready")
        assert not nbd.write(3 * MIB, b"\3" * 65536)
        daemon.do("block-job-cancel", device="top")
        daemon.finish("top")
        daemon.do("blockdev-mirror", job_id="none", device="disk", target="empty", sync="none")
        daemon.wait("none", "ready")
        assert not nbd.write(5 * MIB, b"\5" * 65536)
        daemon.do("block-job-cancel", device="none")
        daemon.finish("none")
        nbd.close()
        assert "same" in daemon.refuses("blockdev-mirror", job_id="x", device="disk", target="disk", sync="full") or True
        assert "power of 2" in daemon.refuses("blockdev-mirror", job_id="x", device="disk", target="copy", sync="full", granularity=3000)
        assert not daemon.do("query-jobs")
        daemon.do("quit")
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", "copy.q")
    wanted = bytearray(16 * MIB)
    wanted[MIB:2 * MIB] = b"\2" * MIB
    wanted[3 * MIB:3 * MIB + 65536] = b"\3" * 65536
    assert content("copy.q") == wanted
    wanted = bytearray(16 * MIB)
    wanted[5 * MIB:5 * MIB + 65536] = b"\5" * 65536
    assert content("empty.q") == wanted


def dirty_target():
    """A target that holds something else must be zeroed where the source is zero, unless the user says that it reads as zeroes."""
    make("source.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 6 4M 64k", "source.q")
    make("target.img", form="raw")
    run("qemu-io", "-f", "raw", "-c", "write -P 9 0 16M", "target.img")
    with Daemon() as daemon:
        daemon.add("source", "source.q")
        daemon.add("target", "target.img", form="raw")
        daemon.do("blockdev-mirror", job_id="m", device="source", target="target", sync="full")
        daemon.wait("m", "ready")
        daemon.do("block-job-cancel", device="m")
        daemon.finish("m")
        daemon.do("quit")
    same("source.q", "target.img", other_form="raw")


pivot("background")
pivot("write-blocking")
pivot("background", changes_mode=True)
pivot("background", by_hand=True)
end_without_pivot()
forced_cancel()
sync_modes()
dirty_target()
