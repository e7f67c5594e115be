#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, iothreads cannot be made, described, changed or removed by command, exports do not run where they are told to,
# or something is promised that does not happen.
# labels: quick
# timeout: 90
import os
import subprocess
import time

from nbd import Nbd, FLUSH
from qmp import Program, Qmp

BIN = os.environ["SPINDLE_BIN"]
DAEMON = os.path.join(BIN, "spindle-storage-daemon")
MIB = 1 << 20


def cpu_of(pid, thread):
    """Clock ticks that a thread has worked."""
    with open(f"/proc/{pid}/task/{thread}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def threads_of(pid):
    names = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii") as comm:
            names[int(thread)] = comm.read().strip()
    return names


def refused(*options):
    result = subprocess.run([DAEMON, *options], capture_output=True, text=True, timeout=20)
    assert result.returncode == 1, result
    return result.stderr


with open("disk.raw", "wb") as disk:
    disk.truncate(8 * MIB)

with Program([DAEMON, "--object", "iothread,id=t0", "--object", "iothread,id=thread-with-a-long-name,poll-max-ns=0,thread-pool-min=2",
              "--blockdev", "raw,node-name=disk,file.driver=file,file.filename=disk.raw",
              "--nbd-server", "addr.type=unix,addr.path=nbd.sock",
              "--export", "nbd,id=e0,node-name=disk,name=zero,writable=on,iothread=t0,fixed-iothread=on",
              "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m"]) as process:
    qmp = Qmp.connect("qmp.sock")

    # What there is.
    told = {entry["id"]: entry for entry in qmp.command("query-iothreads")}
    assert list(told) == ["t0", "thread-with-a-long-name"], told
    assert told["t0"]["poll-max-ns"] == 32768 and told["thread-with-a-long-name"]["poll-max-ns"] == 0, told
    names = threads_of(process.pid)
    assert names[told["t0"]["thread-id"]] == "t0" and names[told["thread-with-a-long-name"]["thread-id"]] == "thread-with-a-l", names
    assert process.pid not in {entry["thread-id"] for entry in told.values()}
    end = time.monotonic() + 20
    while list(threads_of(process.pid).values()).count("worker") < 2:
        assert time.monotonic() < end, threads_of(process.pid)
        time.sleep(0.01)

    # Exports of one node in two of them and in none see the same bytes.
    qmp.command("block-export-add", {"type": "nbd", "id": "e1", "node-name": "disk", "name": "one", "writable": True,
                                     "iothread": "thread-with-a-long-name"})
    qmp.command("block-export-add", {"type": "nbd", "id": "e2", "node-name": "disk", "name": "main", "writable": True})
    clients = [Nbd("nbd.sock", name) for name in ("zero", "one", "main")]
    for i, writer in enumerate(clients):
        data = bytes([i + 1]) * 70000
        assert writer.write(12345 * i, data) == 0 and writer.simple(FLUSH) == 0
        assert all(reader.read(12345 * i, 70000) == (0, data) for reader in clients)
    size = clients[0].size
    assert clients[0].write(size - 1, b"xy") == 28 and clients[1].read(size, 1)[0] == 22 and clients[1].read(size - 4, 4)[0] == 0

    # The work is where it should be: the protocol in the iothread, not on the main loop alone.
    before = cpu_of(process.pid, told["t0"]["thread-id"])
    end = time.monotonic() + 60
    while cpu_of(process.pid, told["t0"]["thread-id"]) < before + 3:
        assert time.monotonic() < end, "the iothread has nothing to do"
        for _ in range(50):
            assert clients[0].read(0, MIB)[0] == 0

    # A resize is seen by the clients of other loops.
    qmp.command("block_resize", {"node-name": "disk", "size": 9 * MIB})
    assert all(client.write(8 * MIB + 5, b"new") == 0 and client.read(8 * MIB + 5, 3) == (0, b"new") for client in clients)

    # Changing: what can, with the checks of the beginning.
    qmp.command("qom-set", {"path": "t0", "property": "poll-max-ns", "value": 1000})
    qmp.command("qom-set", {"path": "t0", "property": "thread-pool-min", "value": 1})
    assert qmp.command("query-iothreads")[0]["poll-max-ns"] == 1000
    assert "is more than" in str(qmp.error("qom-set", {"path": "t0", "property": "thread-pool-min", "value": 65}))
    assert "only 0 is possible" in str(qmp.error("qom-set", {"path": "t0", "property": "aio-max-batch", "value": 8}))
    assert clients[0].read(0, 4096)[0] == 0

    # What is in use stays; what is not there cannot be used.
    assert "in use" in str(qmp.error("object-del", {"id": "t0"}))
    more = {"type": "nbd", "id": "more", "node-name": "disk", "name": "more"}
    assert "no object 'nobody'" in str(qmp.error("block-export-add", {**more, "iothread": "nobody"}))
    qmp.command("object-add", {"qom-type": "secret", "id": "sec", "data": "x"})
    assert "expected 'iothread'" in str(qmp.error("block-export-add", {**more, "iothread": "sec"}))
    assert "already has an export" in str(qmp.error("block-export-add", {**more, "name": "zero", "iothread": "t0"}))
    assert "still in use" in str(qmp.error("block-export-del", {"id": "e0"}))
    qmp.command("block-export-del", {"id": "e0", "mode": "hard"})
    assert qmp.event("BLOCK_EXPORT_DELETED")["data"]["id"] == "e0"
    try:
        assert not clients[0].sock.recv(1)
    except ConnectionError:
        pass
    qmp.command("object-del", {"id": "t0"})
    assert told["t0"]["thread-id"] not in threads_of(process.pid)
    assert [entry["id"] for entry in qmp.command("query-iothreads")] == ["thread-with-a-long-name"]

    # An order for a node, for exports that say nothing themselves.
    order = {"node-name": "disk", "iothread": "t0"}
    assert "no object 't0'" in str(qmp.error("x-blockdev-set-iothread", {**order, "force": True}))
    qmp.command("object-add", {"qom-type": "iothread", "id": "t0"})
    assert "in use by export 'e" in str(qmp.error("x-blockdev-set-iothread", order))
    qmp.error("x-blockdev-set-iothread", {**order, "node-name": "nobody"})
    qmp.error("x-blockdev-set-iothread", {**order, "iothread": 5})
    qmp.command("x-blockdev-set-iothread", {**order, "force": True})
    qmp.command("block-export-add", more)
    thread = next(entry["thread-id"] for entry in qmp.command("query-iothreads") if entry["id"] == "t0")
    with Nbd("nbd.sock", "more") as client:
        end = time.monotonic() + 60
        while cpu_of(process.pid, thread) < 3:
            assert time.monotonic() < end, "the order is not followed"
            assert client.read(0, MIB)[0] == 0
    qmp.command("x-blockdev-set-iothread", {"node-name": "disk", "iothread": None, "force": True})
    assert "in use" in str(qmp.error("object-del", {"id": "t0"}))  # by the export, which has stayed
    qmp.command("block-export-del", {"id": "more", "mode": "hard"})
    while qmp.event("BLOCK_EXPORT_DELETED")["data"]["id"] != "more":
        pass
    qmp.command("object-del", {"id": "t0"})
    qmp.command("object-add", {"qom-type": "iothread", "id": "t1"})
    qmp.command("blockdev-add", {"driver": "null-co", "node-name": "brief", "size": MIB})
    qmp.command("x-blockdev-set-iothread", {"node-name": "brief", "iothread": "t1"})
    assert "in use" in str(qmp.error("object-del", {"id": "t1"}))
    qmp.command("blockdev-del", {"node-name": "brief"})
    qmp.command("object-del", {"id": "t1"})

    # A failed export holds nothing; the name of an iothread can be used again.
    qmp.command("object-add", {"qom-type": "iothread", "id": "t0", "poll-grow": 3, "poll-shrink": 2})
    assert qmp.command("query-iothreads")[1]["poll-grow"] == 3
    problem = str(qmp.error("block-export-add", {"type": "vhost-user-blk", "id": "v", "node-name": "disk", "iothread": "t0",
                                                 "addr": {"type": "unix", "path": "missing/v.sock"}}))
    assert "missing/v.sock" in problem, problem
    qmp.command("object-del", {"id": "t0"})
    assert clients[1].read(0, 4096)[0] == 0 and clients[2].read(0, 4096)[0] == 0
    process.terminate()
    assert process.wait(20) == 0  # with clients that are connected

assert "only 0 is possible" in refused("--object", "iothread,id=x,aio-max-batch=3")
assert "is more than" in refused("--object", "iothread,id=x,thread-pool-min=9,thread-pool-max=3")
assert "no object 'x'" in refused("--blockdev", "null-co,node-name=n,size=1M", "--nbd-server", "addr.type=unix,addr.path=other.sock",
                                  "--export", "nbd,id=e,node-name=n,iothread=x")
print("good")
