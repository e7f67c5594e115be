#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a transaction does a part of what it was told, or its actions happen at different moments.
# labels: full interop
# requires: qemu-img qemu-storage-daemon
# timeout: 180
"""Transactions: all or nothing, at one moment; and the commands on bitmaps and nodes that stand beside them."""
import os
import struct
import threading
import time

from jobs import MIB, OURS, Daemon, Nbd, check, content, make, run, same


class TwoDisks:
    """Writes a number to one disk, then to the other, and so on: at any moment the first is equal to the second, or one ahead."""

    def __init__(self):
        self.disks = [Nbd("nbd.sock", "a"), Nbd("nbd.sock", "b")]
        self.stopping, self.number, self.problem = False, 0, None
        self.thread = threading.Thread(target=self.work)

    def work(self):
        try:
            while not self.stopping:
                self.number += 1
                for disk in self.disks:
                    assert not disk.write(MIB, struct.pack(">I", self.number) * 1024)
        except Exception as problem:
            self.problem = problem

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()
        for disk in self.disks:
            disk.close()
        if self.problem:
            raise self.problem


def number_in(name):
    return struct.unpack(">I", content(name)[MIB:MIB + 4])[0]


def one_moment():
    for name in ("a", "b", "ta", "tb"):
        make(f"{name}.q")
    with Daemon() as daemon:
        for name in ("a", "b", "ta", "tb"):
            daemon.add(name, f"{name}.q")
        daemon.export("a")
        daemon.export("b")
        with TwoDisks() as guest:
            for attempt in range(5):
                while guest.number < 50 * (attempt + 1) and not guest.problem:
                    time.sleep(0.002)
                daemon.do("transaction", properties={"completion-mode": "grouped"}, actions=[
                    {"type": "blockdev-backup", "data": {"job-id": f"j{name}", "device": name, "target": f"t{name}", "sync": "full"}}
                    for name in "ab"])
                for name in "ba":
                    daemon.wait(f"j{name}", "null")
                first, second = number_in_open("ta.q"), number_in_open("tb.q")
                assert first - second in (0, 1), (first, second)
        daemon.do("quit")
    assert number_in("a.q") == number_in("b.q")


def number_in_open(name):
    run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", name, name + ".raw")
    with open(name + ".raw", "rb") as file:
        file.seek(MIB)
        return struct.unpack(">I", file.read(4))[0]


def all_or_nothing():
    make("disk.q")
    make("other.q", "8M")
    make("over.q")
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.add("other", "other.q")
        daemon.add("over", "over.q", backing=None)
        daemon.export("disk")
        nbd = Nbd("nbd.sock", "disk")
        for name in ("one", "two", "gone"):
            daemon.do("block-dirty-bitmap-add", node="disk", name=name, persistent=name == "gone")
        assert not nbd.write(0, b"x" * 65536)
        daemon.do("block-dirty-bitmap-disable", node="disk", name="two")
        assert not nbd.write(MIB, b"x" * 65536)
        before = daemon.nodes()
        problem = daemon.refuses("transaction", actions=[
            {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "new"}},
            {"type": "block-dirty-bitmap-clear", "data": {"node": "disk", "name": "one"}},
            {"type": "block-dirty-bitmap-enable", "data": {"node": "disk", "name": "two"}},
            {"type": "block-dirty-bitmap-merge", "data": {"node": "disk", "target": "two", "bitmaps": ["new"]}},
            {"type": "block-dirty-bitmap-remove", "data": {"node": "disk", "name": "gone"}},
            {"type": "blockdev-snapshot", "data": {"node": "disk", "overlay": "over"}},
            {"type": "blockdev-snapshot-sync", "data": {"node-name": "other", "snapshot-file": "new.q", "snapshot-node-name": "new"}},
            {"type": "blockdev-backup", "data": {"job-id": "j", "device": "disk", "target": "other", "sync": "full"}}])
        assert "different sizes" in problem, problem
        after = daemon.nodes()
        assert before == after, (before, after)
        assert not daemon.do("query-jobs")
        assert not nbd.write(2 * MIB, b"x" * 65536)  # goes where it went before
        assert daemon.bitmap("disk", "one")["count"] == 3 * 65536 and daemon.bitmap("disk", "two")["count"] == 65536
        # And with nothing wrong all of it happens.
        daemon.do("transaction", actions=[
            {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "new", "granularity": 4096}},
            {"type": "block-dirty-bitmap-merge", "data": {"node": "disk", "target": "new", "bitmaps": ["one", {"node": "disk", "name": "two"}]}},
            {"type": "block-dirty-bitmap-clear", "data": {"node": "disk", "name": "one"}},
            {"type": "block-dirty-bitmap-remove", "data": {"node": "disk", "name": "gone"}},
            {"type": "blockdev-snapshot", "data": {"node": "disk", "overlay": "over"}}])
        assert not nbd.write(4 * MIB, b"y" * 65536)
        assert daemon.bitmap("disk", "new")["count"] == 3 * 65536
        assert daemon.bitmap("disk", "one")["count"] == 0 and daemon.bitmap("disk", "gone") is None
        assert daemon.nodes()["over"]["backing_file"] == "disk.q"
        nbd.close()
        daemon.do("quit")
    assert content("over.q")[4 * MIB:4 * MIB + 65536] == b"y" * 65536
    assert content("disk.q")[4 * MIB:4 * MIB + 65536] == bytes(65536)
    check("disk.q")


def bitmaps_like_the_peers():
    """The same writes and commands: the same bits, to the last (x-debug-block-dirty-bitmap-sha256)."""
    hashes = []
    for program in (OURS, "qemu-storage-daemon"):
        make("disk.q", "100M")
        with Daemon(program) as daemon:
            daemon.add("disk", "disk.q")
            daemon.export("disk")
            nbd = Nbd("nbd.sock", "disk")
            for name, granularity in (("fine", 512), ("default", None), ("coarse", 1 << 20)):
                daemon.do("block-dirty-bitmap-add", node="disk", name=name, **({"granularity": granularity} if granularity else {}))
            for number in range(60):
                offset, length = number * number * 20011 % (99 * MIB), 512 + number * 3011
                assert not nbd.write(offset, b"z" * length)
            assert not nbd.write(100 * MIB - 100, b"z" * 100)
            daemon.do("block-dirty-bitmap-add", node="disk", name="sum", granularity=4096)
            daemon.do("block-dirty-bitmap-merge", node="disk", target="sum", bitmaps=["fine", "coarse"])
            hashes.append([(name, daemon.do("x-debug-block-dirty-bitmap-sha256", node="disk", name=name)["sha256"],
                            daemon.bitmap("disk", name)["count"], daemon.bitmap("disk", name)["granularity"])
                           for name in ("fine", "default", "coarse", "sum")])
            nbd.close()
            daemon.do("quit")
    assert hashes[0] == hashes[1], hashes


def nodes_in_use():
    make("disk.q")
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.export("disk")
        nbd = Nbd("nbd.sock", "disk")
        daemon.do("block-set-write-threshold", node_name="disk", write_threshold=2 * MIB)
        daemon.do("block-latency-histogram-set", id="disk", boundaries=[1000, 1000000000], boundaries_flush=[5])
        assert "ascending" in daemon.refuses("block-latency-histogram-set", id="disk", boundaries=[5, 5])
        assert not nbd.write(0, b"x" * MIB)
        assert not nbd.write(2 * MIB - 512, b"x" * 4096)
        event = daemon.qmp.event("BLOCK_WRITE_THRESHOLD")["data"]
        assert event == {"node-name": "disk", "amount-exceeded": 3584, "write-threshold": 2 * MIB}, event
        assert daemon.nodes()["disk"]["write_threshold"] == 0
        assert not nbd.read(0, 4096)[0]
        assert not nbd.simple(3)
        stats = next(s for s in daemon.do("query-blockstats", query_nodes=True) if s["node-name"] == "disk")
        numbers = stats["stats"]
        assert (numbers["wr_operations"], numbers["wr_bytes"], numbers["rd_bytes"]) == (2, MIB + 4096, 4096)
        assert numbers["wr_highest_offset"] == 2 * MIB + 3584 and numbers["wr_total_time_ns"] > 0
        assert sum(numbers["wr_latency_histogram"]["bins"]) == 2 and len(numbers["wr_latency_histogram"]["bins"]) == 3
        assert numbers["flush_latency_histogram"]["boundaries"] == [5]
        assert stats["parent"]["stats"]["wr_bytes"] > MIB
        assert daemon.do("query-block") == [] and daemon.do("query-blockstats") == []
        daemon.do("block_resize", node_name="disk", size=32 * MIB)
        assert daemon.nodes()["disk"]["image"]["virtual-size"] == 32 * MIB
        graph = daemon.do("x-debug-query-block-graph")
        root = next(edge for edge in graph["edges"] if edge["name"] == "root")
        assert "write" in root["perm"]
        nbd.close()
        assert "in use" in daemon.refuses("blockdev-set-active", node_name="disk", active=False)
        daemon.do("block-export-del", id="disk", mode="hard")
        daemon.qmp.event("BLOCK_EXPORT_DELETED")
        daemon.do("blockdev-set-active", node_name="disk", active=False)
        assert not daemon.nodes()["disk"]["active"]
        assert "inactive" in daemon.refuses("block_resize", node_name="disk", size=MIB)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 64k", "disk.q")  # it is another program's now
        daemon.do("blockdev-set-active", active=True)
        daemon.export("disk")
        nbd = Nbd("nbd.sock", "disk")
        assert nbd.read(0, 65536)[1] == b"\x09" * 65536
        nbd.close()
        daemon.do("quit")
    check("disk.q")


def backing_names():
    make("base.q")
    make("top.q", backing="base.q")
    os.link("base.q", "same.q")
    with Daemon() as daemon:
        daemon.add("base", "base.q", read_only=True)
        daemon.add("top", "top.q", backing="base")
        daemon.do("change-backing-file", device="top", image_node_name="top", backing_file="same.q")
        assert "same chain" in daemon.refuses("change-backing-file", device="base", image_node_name="top", backing_file="x")
        daemon.do("quit")
    assert '"backing-filename": "same.q"' in run("qemu-img", "info", "--output=json", "top.q")


def amend():
    make("disk.q")
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.do("x-blockdev-amend", job_id="a", node_name="disk", options={"driver": "qcow2", "lazy_refcounts": True})
        daemon.wait("a", "concluded")
        assert "error" not in daemon.status("a"), daemon.status("a")
        daemon.do("job-dismiss", id="a")
        assert "support" in daemon.refuses("x-blockdev-amend", job_id="a", node_name="disk", options={"driver": "file"})
        daemon.do("quit")
    assert '"lazy-refcounts": true' in run("qemu-img", "info", "--output=json", "disk.q")
    check("disk.q")


one_moment()
all_or_nothing()
bitmaps_like_the_peers()
nodes_in_use()
backing_names()
amend()
