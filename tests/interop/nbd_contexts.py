#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, clients do not see dirty bitmaps and allocation depth as QEMU's own server shows them, or several NBD servers in
# one daemon get into each other's way.
# labels: full interop
# requires: nbdinfo qemu-img qemu-io qemu-nbd
# timeout: 120
import json
import os
import subprocess
import time

from patience import patience
from qmp import Program, Qmp

BIN = os.environ["SPINDLE_BIN"]
HERE = os.getcwd()


def run(*command, good=True):
    result = subprocess.run(command, capture_output=True, text=True, timeout=patience(60))
    assert (result.returncode == 0) == good, (command, result.returncode, result.stdout, result.stderr)
    return result.stdout if good else result.stderr


def uri(sock, export):
    return f"nbd+unix:///{export}?socket={HERE}/{sock}"


def extents(context, where):
    return [(e["offset"], e["length"], e["type"]) for e in json.loads(run("nbdinfo", "--json", f"--map={context}", where))]


def merged(entries):
    result = []
    for offset, length, kind in entries:
        if result and result[-1][2] == kind:
            result[-1] = (result[-1][0], result[-1][1] + length, kind)
        else:
            result.append((offset, length, kind))
    return result


# base <- middle <- top, data in each; a bitmap that the peer has made is in the top.
run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "16M")
run("qemu-io", "-f", "qcow2", "-c", "write 0 1M", "-c", "write 8M 2M", "base.qcow2")
run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "middle.qcow2")
run("qemu-io", "-f", "qcow2", "-c", "write 512k 1M", "middle.qcow2")
run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "top.qcow2")
run("qemu-img", "bitmap", "--add", "-f", "qcow2", "-g", "64k", "top.qcow2", "b0")
run("qemu-io", "-f", "qcow2", "-c", "write 9M 128k", "-c", "write -z 0 64k", "top.qcow2")
run("qemu-img", "bitmap", "--disable", "-f", "qcow2", "top.qcow2", "b0")

print("== as QEMU's server has it")
peer = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", f"{HERE}/peer.sock", "-A", "-B", "b0", "-x", "disk", "top.qcow2"])
while not os.path.exists("peer.sock"):
    time.sleep(0.02)
theirs = {context: merged(extents(context, uri("peer.sock", "disk")))
          for context in ("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0")}
peer.terminate()
peer.wait()

with Program([f"{BIN}/spindle-storage-daemon", "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m",
              "--blockdev", "file,node-name=file,filename=top.qcow2", "--blockdev", "qcow2,node-name=disk,file=file",
              "--nbd-server", f"addr.type=unix,addr.path={HERE}/one.sock",
              "--nbd-server", f"id=second,addr.type=unix,addr.path={HERE}/two.sock,max-connections=1",
              "--export", "nbd,id=e,node-name=disk,name=disk,allocation-depth=on,bitmaps.0=b0"]):
    qmp = Qmp.connect("qmp.sock")
    while not qmp.command("query-block-exports"):
        time.sleep(0.02)  # the monitor answers while the rest of the command line is carried out
    for context, expected in theirs.items():
        ours = merged(extents(context, uri("one.sock", "disk")))
        assert ours == expected, (context, ours, expected)
    listed = json.loads(run("nbdinfo", "--list", "--json", f"nbd+unix://?socket={HERE}/one.sock"))["exports"]
    assert [e["contexts"] for e in listed] == [["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"]], listed

    print("== a bitmap in use cannot be changed; one that records is refused for readers, and seen live by writers")
    for command in ("block-dirty-bitmap-clear", "block-dirty-bitmap-remove"):
        assert "b0" in str(qmp.error(command, {"node": "disk", "name": "b0"}))
    qmp.command("block-dirty-bitmap-add", {"node": "disk", "name": "live", "granularity": 65536})
    reader = {"type": "nbd", "id": "r", "node-name": "disk", "name": "r", "bitmaps": ["live"], "server": "second"}
    assert "disable it first" in str(qmp.error("block-export-add", reader))
    writer = {"type": "nbd", "id": "w", "node-name": "disk", "name": "w", "writable": True, "server": "second",
              "bitmaps": [{"node": "disk", "name": "live"}]}
    qmp.command("block-export-add", writer)
    run("qemu-io", "-f", "raw", "-c", "write 4M 64k", uri("two.sock", "w"))
    assert extents("qemu:dirty-bitmap:live", uri("two.sock", "w")) == [(0, 4 << 20, 0), (4 << 20, 65536, 1), ((4 << 20) + 65536, (12 << 20) - 65536, 0)]

    print("== two servers: exports of the one are not on the other; the limit of connections is the server's own")
    run("nbdinfo", "--size", uri("one.sock", "w"), good=False)
    run("nbdinfo", "--size", uri("two.sock", "disk"), good=False)
    hold = subprocess.Popen(["qemu-io", "-r", "-f", "raw", uri("two.sock", "w")], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    second = subprocess.Popen(["nbdinfo", "--size", uri("two.sock", "w")], stdout=subprocess.DEVNULL)
    time.sleep(1)
    assert second.poll() is None, "a second client came in where one is allowed"
    assert int(run("nbdinfo", "--size", uri("one.sock", "disk"))) == 16 << 20
    hold.stdin.close()
    hold.wait(patience(20))
    assert second.wait(patience(20)) == 0
    qmp.command("nbd-server-stop", {"id": "second"})
    assert [e["id"] for e in qmp.command("query-block-exports")] == ["e"]
    qmp.error("block-export-add", writer)

    print("== the old commands")
    qmp.command("nbd-server-add", {"device": "disk", "name": "old", "description": "as ever", "bitmap": "live", "writable": True})
    assert "as ever" in run("nbdinfo", "--list", f"nbd+unix://?socket={HERE}/one.sock")
    qmp.command("nbd-server-remove", {"name": "old"})
    qmp.error("nbd-server-remove", {"name": "old"})
    qmp.error("nbd-server-add", {"device": "nothing"})
    qmp.command("nbd-server-stop")
    assert qmp.command("query-block-exports") == []
print("good")
