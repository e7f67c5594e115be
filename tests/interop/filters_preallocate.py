#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a file below preallocate does not grow in steps, or is not given back, or its image is not what was written.
# labels: full interop
# requires: qemu-io qemu-img
# timeout: 120
"""The same writes to the same image in both programs: the file has the same size after each of them. Then what a crash leaves behind,
and a daemon whose node changes hands."""
import fcntl
import os
import re
import subprocess
import termios
import time

from image import their_img
from jobs import Daemon
from nbd import Nbd

IO = os.path.join(os.environ["SPINDLE_BIN"], "spindle-io")
KIB, MIB = 1 << 10, 1 << 20


def options(image, step="1M", align="64k", form="qcow2"):
    return f"driver={form},file.driver=preallocate,file.prealloc-size={step},file.prealloc-align={align},file.file.driver=file,file.file.filename={image}"


class Session:
    """A program that takes commands; each returns when its answer is there."""

    def __init__(self, program, options):
        self.process = subprocess.Popen([program, "--image-opts", options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)

    def do(self, command):
        for line in (command, "length"):
            os.write(self.process.stdin.fileno(), line.encode() + b"\n")
            while any(fcntl.ioctl(self.process.stdin, termios.FIONREAD, bytes(4))):  # the peer forgets a second line in its buffer
                time.sleep(0.005)
                assert self.process.poll() is None, f"{command}: the program has ended"
        answer = b""
        while not re.search(rb"(^|> |\n)[0-9.]+ ([KMG]iB|bytes)\n", answer):  # what `length` prints
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"{command}: the program has ended: {answer}"
            answer += data
        return answer.decode()

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self.process.stdout.close()


def size(name="image"):
    return os.stat(name).st_size


def sizes(program, commands, **more):
    their_img("create", "-q", "-f", "qcow2", "image", "100M")
    session = Session(program, options("image", **more))
    found = []
    for command in commands:
        answer = session.do(command)
        assert "ailed" not in answer, f"{program}: {command}: {answer}"
        found.append((command, size()))
    session.end()
    their_img("check", "-q", "-f", "qcow2", "image")
    their_img("convert", "-f", "qcow2", "-O", "raw", "image", "flat")
    with open("flat", "rb") as flat:
        return found, size(), flat.read()


COMMANDS = ["write -P 1 0 64k", "write -P 2 64k 64k", "write -P 3 1M 3M", "flush", "reopen -r", "reopen -w", "write -P 4 10M 64k",
            "write -z 1M 64k", "write -P 5 20M 64k"]
for more in ({}, {"step": "128k", "align": "4k"}, {"step": "0", "align": "1M"}, {"step": "8M", "align": "3M"}):
    ours, theirs = sizes(IO, COMMANDS, **more), sizes("qemu-io", COMMANDS, **more)
    assert ours == theirs, f"{more}: {ours[:2]}\ninstead of {theirs[:2]}"
    grown = [found for _, found in ours[0]]
    assert len(set(grown)) > 2 and grown[4] < grown[3] or more.get("step") == "0", "the file never grew ahead of the writes"
    assert ours[1] < max(grown), "nothing was given back"

# The space is really there, and reads as zeroes; writes into it do not make the file longer.
their_img("create", "-q", "-f", "qcow2", "image", "100M")
session = Session(IO, options("image"))
session.do("write -P 1 0 64k")
assert os.stat("image").st_blocks * 512 >= MIB and size() >= MIB
first = size()
session.do("write -P 1 64k 512k")
assert size() == first
# Killed: the image is whole, the file too long, and the next user makes nothing of it.
session.process.kill()
session.process.wait()
session.process.stdin.close()
session.process.stdout.close()
assert size() == first
their_img("check", "-q", "-f", "qcow2", "image", status=None)
result = subprocess.run([IO, "-c", "read -P 0 10M 64k", "-c", "write -P 7 50M 1M", "--image-opts", options("image")], check=True, capture_output=True)
their_img("check", "-q", "-f", "qcow2", "image", status=None)

# A raw disk: as long as it was, or as it is made.
their_img("create", "-q", "-f", "raw", "disk", "1M")
RAW = "driver=preallocate,prealloc-size=1M,prealloc-align=64k,file.driver=file,file.filename=disk"
session = Session(IO, RAW)
for command, wanted in (("write -P 1 0 1M", MIB), ("truncate 1028k", 1028 * KIB), ("write -P 2 1028k 4k", 1028 * KIB + 4 * KIB + MIB),
                        ("write -P 3 1500k 4k", None), ("truncate 1600k", None), ("truncate 100k", 100 * KIB), ("truncate 3M", 3 * MIB)):
    assert "ailed" not in session.do(command)
    if command == "write -P 2 1028k 4k":
        assert size("disk") == (1032 * KIB + MIB + 65535) // 65536 * 65536, size("disk")
    elif wanted:
        assert size("disk") == wanted, f"{command}: {size('disk')}"
    else:
        assert size("disk") == (1032 * KIB + MIB + 65535) // 65536 * 65536, f"{command}: {size('disk')}"
session.do("write -P 4 3M 4k")
session.end()
with open("disk", "rb") as file:
    data = file.read()
assert data == b"\1" * 100 * KIB + bytes(3 * MIB - 100 * KIB) + b"\4" * 4 * KIB, "the raw disk is not what was written"

# A daemon: given back when the writer goes, when the node is handed over, and when its options change.
their_img("create", "-q", "-f", "qcow2", "image", "100M")
FILE = {"driver": "preallocate", "node-name": "p", "prealloc-size": MIB, "prealloc-align": 65536,
        "file": {"driver": "file", "filename": "image", "node-name": "f"}}
with Daemon() as daemon:
    daemon.do("blockdev-add", **FILE)
    daemon.do("blockdev-add", driver="qcow2", node_name="q", file="p")
    daemon.export("q")
    with Nbd("nbd.sock", "q") as nbd:
        assert nbd.write(0, b"\1" * 65536) == 0
        long = size()
        assert long > MIB
        daemon.do("blockdev-reopen", options=[{**FILE, "prealloc-size": 4 * MIB, "file": "f"}])
        short = size()
        assert short < MIB, f"reopened: {short}"
        assert nbd.write(65536, b"\2" * 65536) == 0
        assert 4 * MIB < size() < 5 * MIB, size()
        refused = daemon.refuses("blockdev-reopen", options=[{**FILE, "prealloc-align": 1000, "file": "f"}])
        assert "512" in refused, refused
    daemon.do("block-export-del", id="q", mode="hard")
    daemon.qmp.event("BLOCK_EXPORT_DELETED")
    daemon.do("blockdev-set-active", node_name="q", active=False)
    assert size() < MIB, f"handed over: {size()}"
    their_img("check", "-q", "-f", "qcow2", "image")
    daemon.do("blockdev-set-active", node_name="q", active=True)
    daemon.export("q")
    with Nbd("nbd.sock", "q") as nbd:
        assert nbd.write(1 * MIB, b"\3" * 65536) == 0 and nbd.read(0, 131072) == (0, b"\1" * 65536 + b"\2" * 65536)
assert size() < MIB, f"after the end: {size()}"
their_img("check", "-q", "-f", "qcow2", "image")
for bad in ("prealloc-align=1000", "prealloc-size=-1"):
    for program in (IO, "qemu-io"):
        assert subprocess.run([program, "-c", "length", "--image-opts", f"driver=preallocate,{bad},file.driver=file,file.filename=disk"],
                              capture_output=True).returncode == 1, f"{program}: {bad}"
print("ok")
