#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, amend, measure, bitmaps, snapshots or the write log of a qcow2 image mean something else to other programs.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 120
import json
import os
import shutil
import subprocess
import time

BIN = os.environ["SPINDLE_BIN"]
IMG, IO, NBD = (os.path.join(BIN, name) for name in ("spindle-img", "spindle-io", "spindle-nbd"))


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def both(*arguments):
    """The same question to both; the answer, if it is one."""
    ours, theirs = run(IMG, *arguments), run("qemu-img", *arguments)
    assert ours == theirs, f"{arguments}:\n{ours}\n{theirs}"
    return ours


def good(image):
    run("qemu-img", "check", "-q", image)
    run(IMG, "check", "-q", image)


def measure():
    for size, options in ((1 << 30, ""), (10 << 30, "cluster_size=4k"), (10 << 30, "refcount_bits=64"), (10 << 30, "extended_l2=on"),
                          (100 << 20, "compat=0.10"), (1 << 40, ""), (1 << 30, "preallocation=full"), (1 << 30, "preallocation=metadata"),
                          (0, ""), (513, ""), (1 << 30, "cluster_size=512"), (1 << 30, "data_file=x,data_file_raw=on"),
                          (16 << 40, "cluster_size=2M"), (3 << 30, "refcount_bits=1,cluster_size=1k")):
        both("measure", "-O", "qcow2", "--size", str(size), *(("-o", options) if options else ()))
    run("qemu-img", "create", "-q", "-f", "qcow2", "m.qcow2", "100M")
    run("qemu-io", "-c", "write 1M 3M", "-c", "write 30000k 5k", "-c", "write -z 50M 1M", "m.qcow2")
    run("qemu-img", "bitmap", "--add", "m.qcow2", "b0")
    run("qemu-img", "bitmap", "--add", "-g", "4k", "m.qcow2", "b1")
    for options in ((), ("-o", "cluster_size=4k"), ("-o", "compat=0.10"), ("-o", "preallocation=falloc")):
        both("measure", "-O", "qcow2", *options, "m.qcow2")


def amend():
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "10M")
    run("qemu-io", "-c", "write -P 7 0 10M", "base.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2", "20M")
    run("qemu-io", "-c", "write -P 3 1M 1M", "-c", "write -z 3M 1M", "-c", "write -z 15M 1M", "-c", "discard 1M 64k",
        "-c", "write -c -P 9 5M 64k", "a.qcow2")
    run("qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw")
    for options in ("compat=0.10", "compat=1.1", "refcount_bits=64", "refcount_bits=1", "refcount_bits=16,compat=0.10",
                    "compat=1.1,lazy_refcounts=on", "lazy_refcounts=off", "backing_file=other.qcow2,backing_fmt=qcow2"):
        if "other" in options:
            shutil.copy("base.qcow2", "other.qcow2")
        run(IMG, "amend", "-q", "-o", options, "a.qcow2")
        good("a.qcow2")
        run("qemu-img", "compare", "-q", "a.qcow2", "a.raw")
        info = json.loads(run("qemu-img", "info", "--output=json", "a.qcow2"))
        data = info["format-specific"]["data"]
        for option in options.split(","):
            name, value = option.split("=")
            found = {"compat": data["compat"], "refcount_bits": str(data["refcount-bits"]), "backing_file": info["backing-filename"],
                     "backing_fmt": info["backing-filename-format"],
                     "lazy_refcounts": "on" if data.get("lazy-refcounts") else "off"}[name]
            assert found == value, (options, name, found)


def bitmaps():
    """Made by either, used by the other."""
    def flags_of(tool, image):
        data = json.loads(run(tool, "info", "--output=json", image))["format-specific"]["data"]
        return sorted((b["name"], b["granularity"], b["flags"]) for b in data.get("bitmaps", []))

    for maker, user, user_io in (("qemu-img", IMG, IO), (IMG, "qemu-img", "qemu-io")):
        run(maker, "create", "-q", "-f", "qcow2", "b.qcow2", "64M")
        run(maker, "bitmap", "--add", "-g", "64k", "b.qcow2", "one")
        run(maker, "bitmap", "--add", "-g", "4k", "--disable", "b.qcow2", "two")
        run(user_io, "-f", "qcow2", "-c", "write -P 1 10M 1M", "b.qcow2")
        good("b.qcow2")
        wanted = [("one", 65536, ["auto"]), ("two", 4096, [])]
        assert flags_of(IMG, "b.qcow2") == flags_of("qemu-img", "b.qcow2") == wanted, flags_of(IMG, "b.qcow2")
        run(user, "bitmap", "--merge", "one", "b.qcow2", "two")
        run(user, "bitmap", "--remove", "b.qcow2", "one")
        good("b.qcow2")
        assert flags_of("qemu-img", "b.qcow2") == [("two", 4096, [])]
        run(maker, "resize", "-q", "b.qcow2", "128M")
        run(user, "bitmap", "--remove", "b.qcow2", "two")
        good("b.qcow2")
        assert flags_of("qemu-img", "b.qcow2") == []


def write_log():
    """A killed writer of ours; the next writer is somebody else: then our log must not come back."""
    run(IMG, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "w.qcow2", "8M")
    server = subprocess.Popen([NBD, "-t", "-f", "qcow2", "-k", "w.sock", "w.qcow2"])
    while not os.path.exists("w.sock"):
        assert server.poll() is None, "the server does not start"
        time.sleep(0.02)
    run(IO, "-t", "unsafe", "-f", "raw", "-c", "write -q -P 5 0 64k", "-c", "write -q -P 6 1M 64k", f"nbd+unix:///?socket={os.getcwd()}/w.sock")
    server.kill()
    server.wait()
    shutil.copy("w.qcow2", "theirs.qcow2")
    run("qemu-img", "check", "-q", "theirs.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 128k", "theirs.qcow2")
    run(IO, "-f", "qcow2", "-c", "read -P 9 0 128k", "-c", "read -P 0 1M 64k", "theirs.qcow2")
    run("qemu-img", "check", "-q", "theirs.qcow2")
    run(IO, "-f", "qcow2", "-c", "read -P 5 0 64k", "-c", "read -P 6 1M 64k", "w.qcow2")
    run("qemu-img", "check", "-q", "w.qcow2")
    run("qemu-io", "-f", "qcow2", "-r", "-c", "read -P 5 0 64k", "-c", "read -P 6 1M 64k", "w.qcow2")


def discards():
    """Over a backing file a discard reads as zeroes, and its space is given back."""
    for tool in (IO, "qemu-io"):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "d.qcow2")
        run(tool, "-f", "qcow2", "-d", "unmap", "-c", "write -P 1 0 4M", "-c", "flush", "-c", "discard 0 6M", "d.qcow2")
        run("qemu-io", "-f", "qcow2", "-r", "-c", "read -P 0 0 6M", "-c", "read -P 7 6M 4M", "d.qcow2")
        run("qemu-img", "check", "-q", "d.qcow2")
        assert os.stat("d.qcow2").st_blocks * 512 < 1 << 20, (tool, os.stat("d.qcow2").st_blocks)


measure()
amend()
bitmaps()
write_log()
discards()
