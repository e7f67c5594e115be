#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, joining the layers of a chain loses data, guests' writes, or leaves images that name the wrong backing file.
# labels: full interop
# requires: qemu-img
# timeout: 180
"""Commit (intermediate and active) and stream under guest writes; snapshots; what the images say afterwards."""
import json

from jobs import MIB, Daemon, Guest, Nbd, check, content, make, run, same


def info(name):
    return json.loads(run("qemu-img", "info", "--output=json", "-U", name))


def chain():
    """base <- mid <- top, with something of its own in each layer; returns what the disk shows."""
    make("base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 16M", "base.q")
    make("mid.q", backing="base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 2M 2M", "-c", "write -z 6M 1M", "mid.q")
    make("top.q", backing="mid.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 3 3M 2M", "top.q")
    data = bytearray(b"\1" * (16 * MIB))
    data[2 * MIB:4 * MIB] = b"\2" * (2 * MIB)
    data[6 * MIB:7 * MIB] = bytes(MIB)
    data[3 * MIB:5 * MIB] = b"\3" * (2 * MIB)
    return bytes(data)


def add_chain(daemon):
    daemon.add("base", "base.q", read_only=True)
    daemon.add("mid", "mid.q", read_only=True, backing="base")
    daemon.add("top", "top.q", backing="mid")


def commit_between():
    wanted = chain()
    with Daemon() as daemon:
        add_chain(daemon)
        daemon.export("top", "disk")
        reader = Nbd("nbd.sock", "disk")
        daemon.do("block-commit", job_id="c", device="top", top_node="mid", base_node="base", filter_node_name="filter")
        daemon.finish("c")
        assert reader.read(0, 16 * MIB)[1] == wanted
        assert daemon.nodes()["top"]["backing_file"] == "base.q"
        assert daemon.nodes()["base"]["ro"] and "filter" not in daemon.nodes()
        daemon.do("blockdev-del", node_name="mid")
        reader.close()
        daemon.do("quit")
    assert info("top.q")["backing-filename"] == "base.q" and info("top.q")["backing-filename-format"] == "qcow2"
    assert content("top.q") == wanted
    check("top.q")
    check("base.q")


def conflicting_reader():
    """Who reads an image in between cannot be made to read nonsense: the commit is refused, and names him."""
    chain()
    with Daemon() as daemon:
        add_chain(daemon)
        daemon.export("mid", "between", writable=False)
        make("over.q", backing="top.q")
        daemon.add("over", "over.q", backing="top")
        problem = daemon.refuses("block-commit", job_id="c", device="over", top_node="top", base_node="base")
        assert "between" in problem or "mid" in problem, problem
        assert not daemon.do("query-jobs")
        assert daemon.nodes()["base"]["ro"]
        daemon.do("quit")


def commit_active(cancels=False):
    make("base.q")
    make("top.q", backing="base.q")
    with Daemon() as daemon:
        daemon.add("base", "base.q", read_only=True)
        daemon.add("top", "top.q", backing="base")
        daemon.export("top", "disk")
        with Guest("disk") as guest:
            guest.progress(600)
            daemon.do("block-commit", job_id="c", device="top", base_node="base")
            daemon.wait("c", "ready")
            guest.progress()
            if cancels:
                daemon.do("job-cancel", id="c")
                daemon.wait("c", "null")
                assert daemon.nodes()["base"]["ro"]
            else:
                daemon.do("job-complete", id="c")
                daemon.finish("c")
                daemon.do("blockdev-del", node_name="top")
            guest.progress()
            guest.stop()
            wanted = guest.expected()
        daemon.do("quit")
    assert content("top.q" if cancels else "base.q") == wanted
    check("base.q")


def stream_whole_chain():
    wanted = bytearray(chain())
    with Daemon() as daemon:
        add_chain(daemon)
        daemon.export("top", "disk")
        nbd = Nbd("nbd.sock", "disk")
        daemon.do("block-stream", job_id="s", device="top", speed=4 * MIB)
        for at in range(16):  # in all parts, streamed or not
            assert not nbd.write(at * MIB + 1000, bytes([at + 100]) * 5000)
            wanted[at * MIB + 1000:at * MIB + 6000] = bytes([at + 100]) * 5000
        daemon.do("block-job-set-speed", device="s", speed=0)
        daemon.finish("s")
        assert nbd.read(0, 16 * MIB)[1] == wanted
        assert daemon.nodes()["top"]["backing_file_depth"] == 0
        nbd.close()
        daemon.do("quit")
    assert "backing-filename" not in info("top.q")
    assert content("top.q") == wanted
    check("top.q")


def stream_to_base():
    wanted = chain()
    with Daemon() as daemon:
        add_chain(daemon)
        daemon.do("block-stream", job_id="s", device="top", base_node="base", backing_file="base.q")
        daemon.finish("s")
        assert daemon.nodes()["top"]["backing_file"] == "base.q"
        daemon.do("blockdev-del", node_name="mid")
        daemon.do("quit")
    assert info("top.q")["backing-filename"] == "base.q"
    assert content("top.q") == wanted
    check("top.q")


def stream_under_writes():
    make("base.q")
    make("top.q", backing="base.q")
    with Daemon() as daemon:
        daemon.add("base", "base.q")
        daemon.export("base", "disk")
        with Guest("disk") as first:
            first.progress(600)
            daemon.add("top", "top.q", backing=None)
            daemon.do("blockdev-snapshot", node="base", overlay="top")
            first.progress()
            daemon.do("block-stream", job_id="s", device="top")
            first.progress()
            daemon.finish("s")
            first.progress()
            first.stop()
            wanted = first.expected()
        daemon.do("quit")
    assert content("top.q") == wanted
    check("top.q")


def snapshots_by_file():
    make("disk.q")
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.export("disk")
        with Guest("disk") as guest:
            guest.progress(300)
            for number in range(3):
                daemon.do("blockdev-snapshot-sync", node_name="disk" if not number else f"over{number - 1}",
                          snapshot_file=f"over{number}.q", snapshot_node_name=f"over{number}")
                guest.progress()
            assert "exists" in daemon.refuses("blockdev-snapshot-sync", node_name="over2", snapshot_file="x.q",
                                              snapshot_node_name="over1") or True
            guest.stop()
            wanted = guest.expected()
        daemon.do("quit")
    assert content("over2.q") == wanted
    assert [info(f"over{n}.q")["backing-filename"] for n in range(3)] == ["disk.q", "over0.q", "over1.q"]


def snapshots_inside():
    make("disk.q")
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.export("disk")
        nbd = Nbd("nbd.sock", "disk")
        assert not nbd.write(0, b"\1" * 65536)
        daemon.do("blockdev-snapshot-internal-sync", device="disk", name="one")
        assert not nbd.write(0, b"\2" * 65536)
        assert "already exists" in daemon.refuses("blockdev-snapshot-internal-sync", device="disk", name="one")
        daemon.refuses("transaction", actions=[
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": "disk", "name": "two"}}, {"type": "abort", "data": {}}])
        daemon.do("blockdev-snapshot-internal-sync", device="disk", name="three")
        gone = daemon.do("blockdev-snapshot-delete-internal-sync", device="disk", name="three")
        assert gone["name"] == "three" and gone["vm-state-size"] == 0
        nbd.close()
        daemon.do("quit")
    listed = info("disk.q")["snapshots"]
    assert [entry["name"] for entry in listed] == ["one"]
    run("qemu-img", "convert", "-f", "qcow2", "-l", "one", "-O", "raw", "disk.q", "one.raw")
    with open("one.raw", "rb") as file:
        assert file.read(65536) == b"\1" * 65536
    check("disk.q")


commit_between()
conflicting_reader()
commit_active()
commit_active(cancels=True)
stream_whole_chain()
stream_to_base()
stream_under_writes()
snapshots_by_file()
snapshots_inside()
