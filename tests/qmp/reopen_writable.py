#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an image and its file cannot be made writable (or read-only again) together by one blockdev-reopen, or the locks on
# the file are not what they should be afterwards.
# labels: quick
# timeout: 60
import os
import subprocess

from qmp import Program, Qmp

BIN = os.environ["SPINDLE_BIN"]
IO = [f"{BIN}/spindle-io", "-f", "qcow2"]
subprocess.run([f"{BIN}/spindle-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M"], check=True)


def others_can(*options):
    return subprocess.run([*IO, *options, "-c", "read 0 512", "disk.qcow2"], capture_output=True).returncode == 0


with Program([f"{BIN}/spindle-storage-daemon", "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m"]):
    qmp = Qmp.connect("qmp.sock")
    file = {"driver": "file", "node-name": "file", "filename": "disk.qcow2"}
    disk = {"driver": "qcow2", "node-name": "disk", "file": "file"}
    qmp.command("blockdev-add", {**file, "read-only": True})
    qmp.command("blockdev-add", {**disk, "read-only": True})
    qmp.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd.sock"}}})
    export = {"type": "nbd", "id": "e", "node-name": "disk", "writable": True}
    for _ in range(3):
        qmp.error("block-export-add", export)
        assert others_can("-r") and not others_can()  # readers beside us, no writer
        qmp.command("blockdev-reopen", {"options": [{**file, "read-only": False}, {**disk, "read-only": False}]})
        assert not any(node["ro"] for node in qmp.command("query-named-block-nodes"))
        qmp.command("block-export-add", export)
        assert not others_can("-r") and not others_can()
        qmp.command("block-export-del", {"id": "e"})
        qmp.command("blockdev-reopen", {"options": [{**file, "read-only": True}, {**disk, "read-only": True}]})
        assert all(node["ro"] for node in qmp.command("query-named-block-nodes"))
    qmp.command("nbd-server-stop")
    qmp.command("blockdev-del", {"node-name": "disk"})
    qmp.command("blockdev-del", {"node-name": "file"})
    assert others_can()
print("good")
