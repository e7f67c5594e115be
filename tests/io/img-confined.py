#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an image is read differently when a confined process parses it, or that process can do more than read its image.
# labels: quick
# requires: qemu-img qemu-io
# timeout: 120
"""Every kind of qcow2 image, by --confined and directly; chains; refusals; and the worker's process as the kernel describes it."""
import json
import os
import re
import signal
import subprocess
import time

from image import OUR_IMG, check, equal, fail, img, img_json, run, their_img, their_io
from patience import patience
from qmp import Program, Qmp, QmpError

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
VARIANTS = {
    "v2": "compat=0.10", "v3": "compat=1.1", "small": "cluster_size=512", "large": "cluster_size=2M",
    "subclusters": "extended_l2=on,cluster_size=128k", "counts1": "refcount_bits=1", "counts64": "refcount_bits=64",
    "lazy": "lazy_refcounts=on", "zstd": "compression_type=zstd", "metadata": "preallocation=metadata",
    "falloc": "preallocation=falloc",
}


def make(name, options):
    path = f"{name}.qcow2"
    their_img("create", "-q", "-f", "qcow2", "-o", options, path, "9M")
    their_io(path, "write -P 1 0 100k", "write -P 2 1M 70k", "write -z 2M 1M", "write -P 3 5000k 1k", form="qcow2")
    if "refcount_bits=1" not in options and "preallocation" not in options:
        their_io(path, "write -c -P 4 6M 2M" if "2M" in options else "write -c -P 4 4M 128k", form="qcow2")
    return path


def same_answers(path):
    for command in (["info"], ["check"], ["map", "--output=json"], ["info", "--output=json"], ["check", "--output=json"]):
        direct, confined = img(*command, path, status=None), img(*command, "--confined", path, status=None)
        equal((confined.status, confined.out), (direct.status, direct.out), f"{command} of {path}")
    form = "raw" if path.endswith(".raw") else "qcow2"
    equal(img("compare", "--confined", path, path).out, "Images are identical.\n", path)
    img("convert", "--confined", "-O", "raw", path, "out.raw")
    their_img("compare", "-f", form, "-F", "raw", path, "out.raw")
    os.unlink("out.raw")


def variants():
    for name, options in VARIANTS.items():
        same_answers(make(name, options))
    their_img("convert", "-O", "raw", "v3.qcow2", "plain.raw")
    same_answers("plain.raw")


def damaged():
    path = make("damaged", "compat=1.1")
    with open(path, "r+b") as file:
        file.seek(65536)  # the refcount table
        file.write(bytes(8))
    direct = img("check", path, status=None)
    confined = img("check", "--confined", path, status=None)
    equal((confined.status, confined.out), (direct.status, direct.out), "check of a damaged image")


def chains():
    make("base", "compat=1.1")
    their_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    their_io("top.qcow2", "write -P 9 64k 64k", form="qcow2")
    info = img_json("info", "--confined", "top.qcow2")
    equal((info["format"], info["backing-filename"]), ("qcow2", "base.qcow2"), "what is told of an overlay")
    refused = img("convert", "--confined", "-O", "raw", "top.qcow2", "out.raw", status=1)
    check("names a backing file, 'base.qcow2'" in refused.err, f"the reason is missing: {refused}")
    chain = ("driver=confined,read-only=on,file.driver=file,file.filename=top.qcow2,backing.driver=confined,backing.read-only=on,"
             "backing.file.driver=file,backing.file.filename=base.qcow2")
    img("convert", "--image-opts", "-O", "raw", chain, "out.raw")
    their_img("compare", "-f", "qcow2", "-F", "raw", "top.qcow2", "out.raw")


def refusals():
    for arguments, reason in ((["check", "--confined", "-r", "all", "base.qcow2"], ""),
                              (["info", "--confined", "nbd:unix:x"], "a file of this host"),
                              (["info", "--confined", "missing"], "No such file"),
                              (["info", "--confined", "-f", "nonsense", "base.qcow2"], "nonsense")):
        result = img(*arguments, status=None)
        if arguments[1:3] != ["--confined", "-r"]:
            check(result.status == 1 and reason in result.err, f"wanted '{reason}': {result}")
    with open("names.qcow2", "wb") as file, open("top.qcow2", "rb") as top:
        file.write(top.read().replace(b"base.qcow2", b"bas\x1b[2Jow2"))
    refused = img("info", "--confined", "names.qcow2", status=1)
    check("is not text" in refused.err and "\x1b" not in refused.err, f"orders for a terminal got through: {refused}")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def worker_of(daemon):
    (doorman,) = children(daemon)
    return children(doorman)[-1]


def look_at_worker(pid, image):
    status = status_of(pid)
    equal(status["Seccomp"].strip(), "2", "the worker has no filter")
    equal(status["NoNewPrivs"].strip(), "1", "the worker may gain privileges")
    equal(int(status["CapEff"], 16) | int(status["CapPrm"], 16), 0, "the worker has capabilities")
    equal(status["Threads"].strip(), "1", "the worker has threads")
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
        with open(f"/proc/{pid}/fdinfo/{fd}") as file:
            flags = int(file.read().split("flags:\t")[1].split()[0], 8)
        kind = target.split(":")[0] if ":" in target else target
        found.setdefault(kind, []).append((int(fd), flags & os.O_ACCMODE))
    equal(sorted(found), sorted(["/dev/null", os.path.realpath(image), "socket", "anon_inode"]), "the worker's descriptors")
    equal(found[os.path.realpath(image)], [(3, os.O_RDONLY)], "the image is open for more than reading")
    equal(len(found["socket"]), 1, "the worker has more than one socket")
    with open(f"/proc/{pid}/environ", "rb") as file:
        check(b"SECRET" not in file.read(), "the worker has its owner's environment")
    with open(f"/proc/{pid}/maps") as maps:
        is_sanitized = re.search("lib[at]san", maps.read())  # whose shadows of memory are larger than any limit
    if not is_sanitized:
        with open(f"/proc/{pid}/limits") as file:
            check("1073741824" in file.read(), "the worker's memory has no limit")


def in_the_daemon():
    path = "daemon.sock"
    environment = dict(os.environ, SECRET="hunter2")
    command = [DAEMON, "--chardev", f"socket,id=c,path={path},server=on,wait=off", "--monitor", "c"]
    process = subprocess.Popen(command, env=environment)
    try:
        qmp = Qmp.connect(path)
        for node, image in (("a", "v3.qcow2"), ("b", "zstd.qcow2")):
            qmp.command("blockdev-add", {"driver": "confined", "node-name": node, "read-only": True, "format": "qcow2",
                                         "file": {"driver": "file", "filename": image}})
        first, second = children(children(process.pid)[0])
        look_at_worker(first, "v3.qcow2")
        look_at_worker(second, "zstd.qcow2")
        qmp.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "n.sock"}}})
        for node in "ab":
            qmp.command("block-export-add", {"type": "nbd", "id": node, "node-name": node})
        read = "nbd+unix:///%s?socket=n.sock"
        their_img("compare", "-f", "raw", "-F", "qcow2", read % "a", "v3.qcow2")
        os.kill(second, signal.SIGKILL)  # once it is started again ...
        their_io(read % "b", "read -P 4 4M 64k", options=("-r",))
        again = children(children(process.pid)[0])
        check(second not in again and len(again) == 2, f"no new worker: {again}")
        os.kill(again[-1], signal.SIGKILL)  # ... but not twice
        time.sleep(0.1)
        result = run("qemu-io", "-r", "-f", "raw", "-c", "read -P 4 4M 64k", read % "b", status=None)
        check("read failed" in result.out + result.err, f"a dead worker's node gave data: {result}")
        their_img("compare", "-f", "raw", "-F", "qcow2", read % "a", "v3.qcow2")  # the neighbour lives
        try:
            qmp.command("blockdev-add", {"driver": "confined", "node-name": "w", "file": {"driver": "file", "filename": "v3.qcow2"}})
            fail("a confined node was opened for writing")
        except QmpError as error:
            check("cannot be written" in str(error), str(error))
        qmp.command("quit")
        equal(process.wait(patience(20)), 0, "status of the daemon")
        for _ in range(100):  # its parent's parent may take its time to bury it
            if not os.path.exists(f"/proc/{first}") or status_of(first)["State"].startswith("Z"):
                break
            time.sleep(0.05)
        else:
            fail("the worker outlives its daemon")
    finally:
        process.kill()
        process.wait()


variants()
damaged()
chains()
refusals()
in_the_daemon()
print(f"{len(VARIANTS)} variants are the same by a confined process")
