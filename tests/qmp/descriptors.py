#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, descriptors that a client hands over are lost, leaked or opened with the wrong access: getfd, closefd, add-fd,
# remove-fd, query-fdsets, addresses of type fd, file names /dev/fdset/N.
# labels: quick
# timeout: 60
import json
import os
import socket
import struct

from qmp import Program, Qmp, QmpError

BIN = os.environ["SPINDLE_BIN"]


class FdQmp(Qmp):
    def with_fd(self, fd, name, arguments=None):
        message = json.dumps({"execute": name, "arguments": arguments or {}}).encode()
        self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))])
        answer = self.answer()
        if "error" in answer:
            raise QmpError(answer["error"])
        return answer["return"]


def nbd_greets(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        return sock.recv(8, socket.MSG_WAITALL) == b"NBDMAGIC"


with open("disk.raw", "wb") as file:
    file.write(b"x" * (1 << 20))

with Program([f"{BIN}/spindle-storage-daemon", "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m"]) as daemon:
    qmp = FdQmp.connect("qmp.sock")
    open_before = len(os.listdir(f"/proc/{daemon.pid}/fd"))

    # Names: an address takes one, once.
    for number in range(2):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"s{number}.sock")
        listener.listen(5)
        qmp.with_fd(listener.fileno(), "getfd", {"fdname": "sock"})
        listener.close()
        qmp.command("nbd-server-start", {"id": f"n{number}", "addr": {"type": "fd", "data": {"str": "sock"}}})
        assert nbd_greets(f"s{number}.sock")
        assert "not found" in str(qmp.error("nbd-server-start", {"id": "again", "addr": {"type": "fd", "data": {"str": "sock"}}}))
        qmp.command("nbd-server-stop", {"id": f"n{number}"})
    with open("disk.raw", "rb") as file:
        try:
            qmp.with_fd(file.fileno(), "getfd", {"fdname": "1st"})
            raise AssertionError("a name that is a number")
        except QmpError as error:
            assert "begin with a digit" in str(error), error
        qmp.with_fd(file.fileno(), "getfd", {"fdname": "a"})
        qmp.with_fd(file.fileno(), "getfd", {"fdname": "a"})  # replaces
        qmp.command("closefd", {"fdname": "a"})
        assert "named 'a' not found" in str(qmp.error("closefd", {"fdname": "a"}))
    assert "No file descriptor supplied" in str(qmp.error("getfd", {"fdname": "b"}))

    # Sets: the access that fits is taken.
    reader, writer = os.open("disk.raw", os.O_RDONLY), os.open("disk.raw", os.O_RDWR)
    first = qmp.with_fd(reader, "add-fd", {"opaque": "to read"})
    assert first["fdset-id"] == 0, first
    node = {"driver": "file", "node-name": "n", "filename": "/dev/fdset/0"}
    assert "no descriptor of the set" in str(qmp.error("blockdev-add", node))
    qmp.command("blockdev-add", {**node, "read-only": True})
    qmp.command("blockdev-del", {"node-name": "n"})
    second = qmp.with_fd(writer, "add-fd", {"fdset-id": 0, "opaque": "to write"})
    os.close(reader)
    os.close(writer)
    sets = qmp.command("query-fdsets")
    assert [(s["fdset-id"], [f["opaque"] for f in s["fds"]]) for s in sets] == [(0, ["to read", "to write"])], sets
    os.rename("disk.raw", "elsewhere.raw")  # nothing but the descriptors leads to it now
    qmp.command("blockdev-add", node)
    qmp.command("remove-fd", {"fdset-id": 0, "fd": first["fd"]})
    qmp.command("remove-fd", {"fdset-id": 0})
    assert qmp.command("query-fdsets") == []
    info = qmp.command("query-named-block-nodes")
    assert info[0]["image"]["virtual-size"] == 1 << 20 and not info[0]["ro"], info
    qmp.command("blockdev-del", {"node-name": "n"})
    assert "no such set" in str(qmp.error("blockdev-add", node))
    assert "not found" in str(qmp.error("remove-fd", {"fdset-id": 0}))

    # Locks go with the node, though the client's descriptor stays.
    writer = os.open("elsewhere.raw", os.O_RDWR)
    assert qmp.with_fd(writer, "add-fd", {"fdset-id": 7})["fdset-id"] == 7
    os.close(writer)
    again = {**node, "filename": "/dev/fdset/7"}
    for _ in range(2):
        qmp.command("blockdev-add", again)
        qmp.command("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n"})
        qmp.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "l.sock"}}})
        qmp.command("block-export-add", {"type": "nbd", "id": "e", "node-name": "r", "writable": True})
        qmp.command("nbd-server-stop")
        qmp.command("blockdev-del", {"node-name": "r"})
        qmp.command("blockdev-del", {"node-name": "n"})
        qmp.command("blockdev-add", {"driver": "file", "node-name": "other", "filename": "elsewhere.raw"})
        qmp.command("blockdev-del", {"node-name": "other"})
    qmp.command("remove-fd", {"fdset-id": 7})

    # From read-only to writable and back: another descriptor of the set each time, and no lock stays behind.
    for flags in (os.O_RDONLY, os.O_RDWR):
        fd = os.open("elsewhere.raw", flags)
        qmp.with_fd(fd, "add-fd", {"fdset-id": 3})
        os.close(fd)
    fdset = {**node, "filename": "/dev/fdset/3"}
    above = {"driver": "raw", "node-name": "r", "file": "n"}
    qmp.command("blockdev-add", {**fdset, "read-only": True})
    qmp.command("blockdev-add", {**above, "read-only": True})
    qmp.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "w.sock"}}})
    for _ in range(2):
        qmp.command("block-export-add", {"type": "nbd", "id": "e", "node-name": "r"})
        qmp.command("blockdev-reopen", {"options": [fdset, above]})
        qmp.command("block-export-add", {"type": "nbd", "id": "w", "node-name": "r", "name": "w", "writable": True})
        qmp.command("block-export-del", {"id": "w"})
        qmp.command("blockdev-reopen", {"options": [{**fdset, "read-only": True}, {**above, "read-only": True}]})
        qmp.command("block-export-del", {"id": "e"})
    qmp.command("nbd-server-stop")
    qmp.command("blockdev-del", {"node-name": "r"})
    qmp.command("blockdev-del", {"node-name": "n"})
    qmp.command("remove-fd", {"fdset-id": 3})

    # Descriptors that no command has wanted are closed with the session at the latest.
    with open("elsewhere.raw", "rb") as file:
        for _ in range(50):
            qmp.with_fd(file.fileno(), "query-version")
    qmp.socket.close()
    qmp = FdQmp.connect("qmp.sock")
    now = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    assert now <= open_before + 2, (open_before, now)
print("good")
