#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a daemon that is started in the place of a killed one may find the image locked, or QMP answers in two lines.
# labels: quick
# timeout: 120
"""The kernel finishes the I/O of a killed process in its own time, and keeps its files open and locked, and its sockets listening, until
then."""
import atexit
import os
import signal
import socket
import struct
import subprocess
import time

from image import BIN, check, equal, img
from qmp import Program, Qmp

DAEMON = os.path.join(BIN, "spindle-storage-daemon")
SIZE = 64 << 20
COMMAND = [DAEMON, "--blockdev", "file,node-name=disk,filename=disk.img,cache.direct=off",
           "--nbd-server", "addr.type=unix,addr.path=nbd", "--export", "nbd,id=e,node-name=disk,name=disk,writable=on"]


def start():
    daemon = subprocess.Popen(COMMAND, stderr=open("log", "ab"))
    atexit.register(daemon.kill)
    return daemon


def ask():
    """A client with many durable writes in flight; whoever kills the daemon leaves the kernel with them."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect("nbd")
    if not sock.recv(18, socket.MSG_WAITALL):
        raise ConnectionResetError("of the killed one")
    sock.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"disk")
    if not sock.recv(10, socket.MSG_WAITALL):
        raise ConnectionResetError("of the killed one")
    for i in range(64):
        sock.sendall(struct.pack(">IHHQQI", 0x25609513, 1, 1, i, i << 20, 1 << 18) + bytes(1 << 18))
    return sock


def keep_busy(daemon):
    end = time.monotonic() + 20
    while True:
        try:
            return ask()
        except (FileNotFoundError, ConnectionError):
            check(time.monotonic() < end and daemon.poll() is None, "the daemon does not come up: " + open("log").read())
            time.sleep(0.01)


def restarts():
    with open("disk.img", "wb") as out:
        out.truncate(SIZE)
    for _ in range(12):
        daemon = start()
        sock = keep_busy(daemon)
        daemon.send_signal(signal.SIGKILL)  # the next one is started before this one is even waited for
        sock.close()
        last, daemon = daemon, start()
        sock = keep_busy(daemon)
        check(daemon.poll() is None, "the second daemon ended: " + open("log").read())
        sock.close()
        daemon.kill()
        daemon.wait()
        last.wait()
    equal(open("log").read(), "", "what the daemons said")


def one_line():
    """The lock of another process is an answer of one line that names the file, after a moment of patience."""
    img("create", "-q", "-f", "qcow2", "disk.qcow2", "1M")
    with Program([DAEMON, "--blockdev", "qcow2,node-name=one,file.driver=file,file.filename=disk.qcow2",
                  "--chardev", "socket,id=m,path=m1,server=on,wait=off", "--monitor", "m"]):
        Qmp.connect("m1")
        with Program([DAEMON, "--chardev", "socket,id=m,path=m2,server=on,wait=off", "--monitor", "m"]):
            qmp = Qmp.connect("m2")
            started = time.monotonic()
            two = {"driver": "qcow2", "node-name": "two", "file": {"driver": "file", "filename": "disk.qcow2"}}
            text = str(qmp.error("blockdev-add", two))
            check(time.monotonic() - started > 0.5, "a conflict is not waited out")
            check('Failed to get "write" lock' in text and "disk.qcow2" in text and "\n" not in text, repr(text))


restarts()
one_line()
