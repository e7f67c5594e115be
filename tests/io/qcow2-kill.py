#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a killed storage daemon loses writes to a qcow2 image that it had answered, or a persistent dirty bitmap forgets what was written.
# labels: full
# requires: qemu-img qemu-nbd
# timeout: 300
"""Clients write through NBD, several at once, and never flush. The daemon is killed at a random moment and started again: every
answered write must be there, nothing may be damaged, and the dirty bitmap must know all that has changed since a "backup". What
others think of the image that the dead daemon left is asked too."""
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

from nbd import ZEROES, Nbd

BIN = os.environ["SPINDLE_BIN"]
DAEMON, IMG = os.path.join(BIN, "spindle-storage-daemon"), os.path.join(BIN, "spindle-img")
SECTOR, DISK, CLIENTS, ROUNDS = 4096, 16 << 20, 4, 12


def run(*command, status=0):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def start(extra=()):
    if os.path.exists("nbd.sock"):
        os.unlink("nbd.sock")
    daemon = subprocess.Popen([DAEMON, "--blockdev", "driver=qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename=image,file.discard=unmap",
                               "--nbd-server", "addr.type=unix,addr.path=nbd.sock,max-connections=0",
                               "--export", "nbd,id=e,node-name=disk,name=disk,writable=on", *extra])
    for _ in range(400):
        if os.path.exists("nbd.sock"):
            return daemon
        assert daemon.poll() is None, "the daemon does not start"
        time.sleep(0.05)
    raise AssertionError("no socket")


class Client(threading.Thread):
    """Writes blocks that nobody else writes: those whose number is its own modulo the number of clients."""

    def __init__(self, number, seed, answered):
        super().__init__()
        self.number, self.random, self.answered, self.in_flight = number, random.Random(seed), answered, {}

    def run(self):
        try:
            with Nbd("nbd.sock", "disk") as nbd:
                while True:
                    block = self.random.randrange(DISK // SECTOR // CLIENTS) * CLIENTS + self.number
                    kind = self.random.randrange(8)
                    value = 0 if kind == 0 else self.random.randrange(1, 256)
                    self.in_flight = {block: value}
                    if kind == 0:
                        error = nbd.simple(ZEROES, block * SECTOR, SECTOR)
                    else:
                        error = nbd.write(block * SECTOR, bytes([value]) * SECTOR)
                    assert not error, error
                    self.answered[block] = value
                    self.in_flight = {}
        except (OSError, EOFError):
            pass


def content():
    run(IMG, "convert", "-f", "qcow2", "-O", "raw", "image", "flat")
    with open("flat", "rb") as file:
        return file.read()


def one_kill(expected, seed, theirs_repair):
    answered = {}
    daemon = start()
    clients = [Client(i, seed * 100 + i, answered) for i in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(random.Random(seed).uniform(0.05, 0.8))
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    for client in clients:
        client.join()
    # Somebody else finds an image without errors, though without the last writes.
    shutil.copy("image", "theirs")
    run("qemu-img", "check", "-q", "-r", theirs_repair, "theirs")
    # A daemon that starts finds all of them.
    daemon = start()
    with Nbd("nbd.sock", "disk") as nbd:
        now = b"".join(nbd.read(at, 1 << 20)[1] for at in range(0, DISK, 1 << 20))
    daemon.terminate()
    assert daemon.wait() == 0
    run("qemu-img", "check", "-q", "-r", "leaks", "image")  # space may be lost, nothing else
    maybe = {block: value for client in clients for block, value in client.in_flight.items()}
    for block in range(DISK // SECTOR):
        found = now[block * SECTOR:(block + 1) * SECTOR]
        allowed = [bytes([answered[block]]) * SECTOR if block in answered else expected[block * SECTOR:(block + 1) * SECTOR]]
        if block in maybe:
            allowed.append(bytes([maybe[block]]) * SECTOR)
        assert found in allowed, f"seed {seed}: block {block} holds {found[0]:#x}.., answered was {answered.get(block)}"
    return now, len(answered)


def bitmap():
    info = json.loads(run(IMG, "info", "--output=json", "image"))
    return info["format-specific"]["data"]["bitmaps"][0]


def changed_clusters():
    """What an incremental backup would copy: by another implementation, from the clean image."""
    server = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-B", "b", "-k", os.path.abspath("q.sock"), "image"])
    while not os.path.exists("q.sock"):
        time.sleep(0.05)
    extents = json.loads(run("qemu-img", "map", "--output=json", "--image-opts", "driver=nbd,server.type=unix,server.path=q.sock,x-dirty-bitmap=qemu:dirty-bitmap:b"))
    server.terminate()
    server.wait()
    return [(e["start"], e["length"]) for e in extents if not e["data"]]


for options in ("cluster_size=64k", "cluster_size=4k", "cluster_size=64k,extended_l2=on", "cluster_size=4k,lazy_refcounts=on"):
    run(IMG, "create", "-q", "-f", "raw", "base", str(DISK))
    with open("base", "r+b") as base:
        base.write(b"\x55" * (DISK // 2))
    run(IMG, "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", options, "image")
    run(IMG, "bitmap", "--add", "-g", "64k", "image", "b")
    backup = expected = content()
    writes = 0
    for seed in range(ROUNDS // 4):
        expected, answered = one_kill(expected, seed, "all" if "lazy" in options else "leaks")
        writes += answered
        assert "in-use" not in bitmap()["flags"] and "auto" in bitmap()["flags"], bitmap()
        assert content() == expected
    dirty = changed_clusters()
    for at in range(0, DISK, 65536):
        if backup[at:at + 65536] != expected[at:at + 65536]:
            assert any(start <= at < start + length for start, length in dirty), f"{options}: {at:#x} changed, and the bitmap does not know"
    print(f"{options}: {writes} answered writes, all there")
