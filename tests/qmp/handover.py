#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, two daemons cannot hand a disk over: both write to it, or neither does, or clients get what is not theirs.
# labels: quick
# requires: qemu-img
# timeout: 60
"""The second daemon knows the disk before the first has let go of it (active=false), and exports it (allow-inactive): clients see a disk of
the right size whose requests fail. Then the first lets go, the second takes over, and back again."""
import os
import subprocess

from jobs import OURS, check, make, run
from nbd import FLUSH, TRIM, ZEROES, Nbd
from qmp import Program, Qmp, QmpError

MIB = 1 << 20
EPERM = 1


class Host:
    """A daemon with the disk, in named layers."""

    def __init__(self, name):
        self.name = name
        self.program = Program([OURS, "--chardev", f"socket,id=m,path={name}.qmp,server=on,wait=off", "--monitor", "m",
                                "--nbd-server", f"addr.type=unix,addr.path={name}.nbd"])

    def __enter__(self):
        self.program.__enter__()
        self.qmp = Qmp.connect(f"{self.name}.qmp")
        return self

    def __exit__(self, *problem):
        self.program.__exit__(*problem)

    def do(self, command, **arguments):
        return self.qmp.command(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    def refuses(self, command, *words, **arguments):
        answer = str(self.qmp.error(command, {name.replace("_", "-"): value for name, value in arguments.items()}))
        assert all(word in answer for word in words), f"{command} {arguments}: {answer}"

    def add(self, active=None):
        state = {} if active is None else {"active": active}
        self.do("blockdev-add", driver="file", node_name="base-file", filename="base", read_only=True, **state)
        self.do("blockdev-add", driver="qcow2", node_name="base", file="base-file", backing=None, read_only=True, **state)
        self.do("blockdev-add", driver="file", node_name="file", filename="disk", **state)
        self.do("blockdev-add", driver="qcow2", node_name="disk", file="file", backing="base", **state)

    def export(self, **more):
        self.do("block-export-add", type="nbd", id="e", node_name="disk", name="disk", writable=True, **more)

    def client(self):
        return Nbd(f"{self.name}.nbd", "disk")

    def active(self):
        return {node["node-name"]: node["active"] for node in self.do("query-named-block-nodes", flat=True)}

    def set_active(self, active, node="disk"):
        self.do("blockdev-set-active", active=active, **({"node_name": node} if node else {}))


LAYERS = ("base-file", "base", "file", "disk")


def refused(client):
    """Every kind of request that would touch the image."""
    return {client.write(0, b"x" * 512), client.read(0, 512)[0], client.simple(TRIM, 0, 4096), client.simple(ZEROES, 0, 4096)}


def handover():
    make("base", "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", "base")
    make("disk", backing="base")
    with Host("first") as first, Host("second") as second:
        first.add()
        first.export(allow_inactive=True)
        one = first.client()
        assert one.size == 8 * MIB and one.write(MIB, b"\2" * 65536) == 0

        # The image is locked by the first; the second only knows of it.
        second.refuses("blockdev-add", "lock", driver="qcow2", node_name="x", file={"driver": "file", "filename": "disk"})
        second.add(active=False)
        assert second.active() == dict.fromkeys(LAYERS, False)
        second.refuses("block-export-add", "lock", type="nbd", id="e", node_name="disk", writable=True)  # without allow-inactive it activates
        assert second.active() == dict.fromkeys(LAYERS, False), "what could not become active has left children that are"
        second.export(allow_inactive=True)
        two = second.client()
        assert two.size == 8 * MIB and refused(two) == {EPERM}, refused(two)
        second.refuses("blockdev-set-active", "lock", active=True, node_name="disk")
        second.refuses("block_resize", "inactive", node_name="disk", size=MIB)
        second.refuses("blockdev-backup", "inactive", job_id="j", device="disk", target="base", sync="full")
        second.refuses("blockdev-add", "inactive", driver="raw", node_name="r", file="disk")
        second.refuses("blockdev-add", "No such file", driver="file", node_name="none", filename="none", active=False)

        # What is in use by an active node or a user that minds stays.
        first.refuses("blockdev-set-active", "in use", "disk", active=False, node_name="file")
        first.do("block-export-add", type="nbd", id="strict", node_name="disk", name="strict")
        first.refuses("blockdev-set-active", "in use", "strict", active=False, node_name="disk")
        first.do("block-export-del", id="strict")
        assert one.write(2 * MIB, b"\3" * 65536) == 0, "a refusal has cost the export its permission"

        for turn in range(3):
            first.set_active(False)
            assert first.active() == dict.fromkeys(LAYERS, False), "children that nobody else uses follow"
            assert refused(one) == {EPERM} and one.simple(FLUSH) == 0
            check("disk")  # anybody may look at it now
            second.set_active(True, None if turn == 1 else "disk")
            assert second.active() == dict.fromkeys(LAYERS, True), "children come first"
            first.refuses("blockdev-set-active", "lock", active=True, node_name="disk")
            assert refused(one) == {EPERM}
            answers = two.read(MIB - 512, 512), two.read(2 * MIB, 512)
            assert answers == ((0, b"\1" * 512), (0, b"\3" * 512)), f"{turn}: {[(error, data[:4]) for error, data in answers]}"
            assert two.write((3 + turn) * MIB, bytes([4 + turn]) * 65536) == 0 and two.simple(FLUSH) == 0
            second.set_active(False, None if turn == 2 else "disk")
            first.set_active(True)
            assert one.read((3 + turn) * MIB, 512)[1] == bytes([4 + turn]) * 512
            assert one.write(turn * 65536, b"\7" * 65536) == 0
        # A resize by the other one shows.
        first.set_active(False)
        second.set_active(True)
        second.do("block_resize", node_name="disk", size=16 * MIB)
        second.set_active(False)
        first.set_active(True)
        with first.client() as again:
            assert again.size == 16 * MIB and again.write(12 * MIB, b"\x09" * 512) == 0
        one.close()
        two.close()
    check("disk")
    data = subprocess.run(["qemu-io", "-r", "-f", "qcow2", "-c", "read -P 9 12M 512", "-c", "read -P 6 5M 64k", "-c", "read -P 7 0 192k", "disk"],
                          capture_output=True, text=True)
    assert data.returncode == 0 and "failed" not in data.stdout, data


def other_exports():
    with Host("first") as host:
        make("lone", "4M")
        host.do("blockdev-add", driver="qcow2", node_name="disk", file={"driver": "file", "filename": "lone"}, active=False)
        for kind, more in (("vhost-user-blk", {"addr": {"type": "unix", "path": "v.sock"}}), ("fuse", {"mountpoint": "lone"})):
            host.refuses("block-export-add", "allow-inactive", type=kind, id="e", node_name="disk", allow_inactive=True, **more)
        assert not host.active()["disk"]
        # Without allow-inactive the node becomes active, and stays so as long as the export is there.
        host.export()
        assert host.active()["disk"]
        host.refuses("blockdev-set-active", "in use", active=False, node_name="disk")
        host.refuses("blockdev-set-active", "in use", active=False)
        # A bitmap that clients look at must not go.
        host.do("block-export-del", id="e")
        host.do("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        host.export(allow_inactive=True, bitmaps=["b"])
        host.refuses("blockdev-set-active", "bitmap 'b'", active=False, node_name="disk")
        host.do("block-export-del", id="e")
        host.set_active(False)
        assert "dirty-bitmaps" not in next(n for n in host.do("query-named-block-nodes") if n["node-name"] == "disk")
        host.set_active(True)
        assert [b["name"] for n in host.do("query-named-block-nodes") if n["node-name"] == "disk" for b in n["dirty-bitmaps"]] == ["b"]
        host.set_active(False)
        host.do("blockdev-del", node_name="disk")
    check("lone")


handover()
other_exports()
print("ok")
