#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an option of the image tools that few scripts use does not do what it says, or not what the peer's does.
# labels: full
# requires: qemu-img qemu-io
# timeout: 180
"""One paragraph an option (docs/interface.md names this file in their rows). Where the peer has the option, both run."""
import json
import os
import re
import subprocess
import time

from image import BIN, OUR_IMG, OUR_IO, check, content, equal, img, img_json, io, run, their_img, their_io, write_file
from patience import patience

M = 1 << 20
SECRET = ("--object", "secret,id=s,data=geheim")
LUKS = "driver=luks,key-secret=s,file.driver=file,file.filename={}"


def qcow2(name, size="4M", *writes):
    their_img("create", "-q", "-f", "qcow2", name, size)
    if writes:
        their_io(name, *writes, form="qcow2")


def both(*words, prepare=lambda: None, status=0):
    """What ours prints, after a look at what theirs does with the same image."""
    prepare()
    theirs = their_img(*words, status=status)
    prepare()
    ours = img(*words, status=status)
    return ours, theirs


def traced(*words):
    """Names and flags of the files that a command opens."""
    run("strace", "-f", "-e", "trace=openat", "-o", "trace", *words, env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
    return content("trace").decode(errors="replace")


def opens_direct(name, *words):
    lines = [line for line in traced(OUR_IMG, *words).splitlines() if f'"{name}"' in line]
    check(lines, f"{words} does not open {name}")
    return any("O_DIRECT|" in line or "O_DIRECT," in line for line in lines)


img("create", "-q", *SECRET, "-f", "luks", "-o", "key-secret=s,iter-time=100", "locked", "2M")
run("qemu-io", *SECRET, "--image-opts", "-c", "write -q -P 5 0 1M", LUKS.format("locked"))
qcow2("a.q", "4M", "write -q -P 1 0 1M", "write -q -P 2 3M 64k")
qcow2("b.q", "4M", "write -q -P 1 0 1M")

# amend: -f, -t, -p, --force, --object.
for words in (["-f", "qcow2"], ["-t", "none"], ["-t", "directsync"], ["-p"]):
    ours, theirs = both("amend", *words, "-o", "lazy_refcounts=on", "x.q", prepare=lambda: qcow2("x.q"))
    check(img_json("info", "x.q")["format-specific"]["data"]["lazy-refcounts"], f"amend {words}")
    if words == ["-p"]:
        for result in (ours, theirs):
            check("(100.00/100%)" in result.out, f"{result}")
img("amend", "-f", "raw", "-o", "lazy_refcounts=on", "x.q", status=1)
img("amend", "-t", "nonsense", "-o", "lazy_refcounts=on", "x.q", status=1)
check(opens_direct("x.q", "amend", "-t", "none", "-o", "lazy_refcounts=off", "x.q"), "amend -t none")
check(not opens_direct("x.q", "amend", "-t", "writeback", "-o", "lazy_refcounts=on", "x.q"), "amend -t writeback")
erase = ["amend", *SECRET, "--image-opts", "-o", "state=inactive,keyslot=0", LUKS.format("locked")]
img(*erase, status=1)  # the only key: the data would be lost
their_img(*erase, status=1)
for tool in ("qemu-img", OUR_IMG):
    run("cp", "locked", "copy")
    erase[-1] = LUKS.format("copy")
    run(tool, *erase[:1], "--force", *erase[1:])
    run("qemu-img", "info", "copy")
    run("qemu-io", *SECRET, "--image-opts", "-c", "read 0 512", LUKS.format("copy"), status=1)

# bench: -o, --no-drain.
ours, theirs = both("bench", "-f", "raw", "-c", "8", "-o", "1M", "-s", "64k", "-w", "--pattern", "7", "z.raw", prepare=lambda: write_file("z.raw", bytes(4 * M)))
for result in (ours, theirs):
    check("starting at offset 1048576, step size 65536" in result.out, f"{result}")
equal(content("z.raw"), bytes(M) + b"\7" * (M // 2) + bytes(5 * M // 2), "bench -o")
img("bench", "-f", "raw", "-o", "4M", "z.raw", status=1)
ours, theirs = both("bench", "-f", "raw", "-w", "-c", "64", "-d", "8", "--flush-interval", "8", "--no-drain", "z.raw")
for result in (ours, theirs):
    check("Sending flush every 8 requests" in result.out and "Run completed in" in result.out, f"{result}")

# bitmap: --enable, --image-opts, --object.
for tool in ("qemu-img", OUR_IMG):
    qcow2("x.q")
    run(tool, "bitmap", "--add", "--disable", "x.q", "b0")
    equal(img_json("info", "x.q")["format-specific"]["data"]["bitmaps"][0]["flags"], [], "disabled")
    run(tool, "bitmap", "--enable", "x.q", "b0")
    equal(img_json("info", "x.q")["format-specific"]["data"]["bitmaps"][0]["flags"], ["auto"], "enabled")
    run(tool, "bitmap", "--add", "--image-opts", "driver=qcow2,file.filename=x.q", "b1")
    equal(len(img_json("info", "x.q")["format-specific"]["data"]["bitmaps"]), 2, "--image-opts")
    run(tool, "bitmap", *SECRET, "--remove", "x.q", "b1")

# --object with commands that read or write an encrypted image; a type that does not exist is refused by all.
their_img("convert", *SECRET, "--image-opts", "-O", "raw", LUKS.format("locked"), "plain")
img("dd", *SECRET, "--image-opts", f"if={LUKS.format('locked')}", "of=out")
equal(content("out"), content("plain"), "dd --image-opts --object")
for words in (["measure", "-O", "qcow2"], ["map", "--output", "json"], ["snapshot", "-l"]):
    ours, theirs = both(*words[:1], *SECRET, "--image-opts", *words[1:], LUKS.format("locked"))
    if words[0] == "measure":
        equal(ours.out, theirs.out, "measure of an encrypted image")
run("cp", "locked", "grown")
img("resize", *SECRET, "--image-opts", LUKS.format("grown"), "3M")
run("cp", "locked", "theirs")
their_img("resize", *SECRET, "--image-opts", LUKS.format("theirs"), "3M")
equal(os.path.getsize("grown"), os.path.getsize("theirs"), "resize --object")
for words in (["amend", "-o", "compat=1.1", "x.q"], ["bitmap", "--add", "x.q", "n"], ["dd", "if=a.q", "of=out"], ["measure", "a.q"],
              ["rebase", "-b", "", "x.q"], ["resize", "x.q", "5M"], ["snapshot", "-l", "x.q"], ["commit", "x.q"]):
    img(words[0], "--object", "nonsense,id=x", *words[1:], status=1)
qcow2("backing.q", "2M")
run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "json:" + json.dumps({"driver": "luks", "key-secret": "s", "file": {"driver": "file", "filename": "locked"}}),
    "-F", "luks", *SECRET, "over.q")
for tool in ("qemu-img", OUR_IMG):
    run("cp", "over.q", "x.q")
    run(tool, "rebase", *SECRET, "-f", "qcow2", "-b", "backing.q", "-F", "qcow2", "x.q")  # what the encrypted one had is copied
    run("qemu-img", "rebase", "-u", "-b", "", "x.q")
    their_io("x.q", "read -q -P 5 0 1M", form="qcow2")

# -U: an image that another program writes to. Without it, ours and theirs refuse.
qcow2("held.q", "4M", "write -q -P 1 0 1M")
run(OUR_IMG, "create", "-q", "-f", "qcow2", "-b", "b.q", "-F", "qcow2", "over.q")
holder = subprocess.Popen(["qemu-io", "-f", "qcow2", "held.q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
holder.stdin.write("length\n")
holder.stdin.flush()
holder.stdout.readline()
for words in (["dd", "if=held.q", "of=out"], ["measure", "-O", "qcow2", "held.q"], ["snapshot", "-l", "held.q"]):
    for tool in ("qemu-img", OUR_IMG):
        refused = run(tool, *words, status=1)
        check("lock" in refused.err, f"{refused}")
        run(tool, words[0], "-U", *words[1:])
for tool in ("qemu-img", OUR_IMG):  # rebase reads the new backing file, and looks at the old one
    run(tool, "rebase", "-U", "-f", "qcow2", "-b", "a.q", "-F", "qcow2", "over.q")
    run(tool, "rebase", "-U", "-f", "qcow2", "-b", "b.q", "-F", "qcow2", "over.q")
holder.communicate("quit\n")

# map --confined says what map says; convert --image-opts is in img-confined.py.
equal(img("map", "--confined", "--output", "json", "a.q").out, img("map", "--output", "json", "a.q").out, "map --confined")
equal(img("map", "--confined", "a.q").out.split("\n")[1].split()[:2], img("map", "a.q").out.split("\n")[1].split()[:2], "map --confined")

# measure: -l, --image-opts.
qcow2("snap.q", "4M", "write -q 0 1M")
their_img("snapshot", "-c", "first", "snap.q")
their_io("snap.q", "write -q 2M 1M", form="qcow2")
for selector in ("first", "snapshot.name=first", "snapshot.id=1"):
    ours, theirs = both("measure", "-O", "qcow2", "-l", selector, "snap.q")
    equal(ours.out, theirs.out, f"measure -l {selector}")
check(img("measure", "-O", "qcow2", "snap.q").out != img("measure", "-O", "qcow2", "-l", "first", "snap.q").out, "the snapshot has less")
img("measure", "-O", "qcow2", "-l", "none", "snap.q", status=1)
ours, theirs = both("measure", "-O", "qcow2", "--image-opts", "driver=qcow2,file.filename=snap.q")
equal(ours.out, theirs.out, "measure --image-opts")

# rebase: -B is another name of -F; -T is the cache mode of the backing files.
for letter in ("-F", "-B"):
    img("rebase", "-u", "-b", "a.q", letter, "qcow2", "over.q")
    equal(img_json("info", "over.q")["backing-filename-format"], "qcow2", letter)
check(opens_direct("b.q", "rebase", "-T", "none", "-b", "b.q", "-F", "qcow2", "over.q"), "rebase -T none")
check(not opens_direct("a.q", "rebase", "-T", "writeback", "-b", "a.q", "-F", "qcow2", "over.q"), "rebase -T writeback")
img("rebase", "-T", "nonsense", "-b", "b.q", "-F", "qcow2", "over.q", status=1)
their_img("rebase", "-T", "nonsense", "-b", "b.q", "-F", "qcow2", "over.q", status=1)

# info: --limits names what BlockLimitsInfo has; nothing is told of it otherwise.
limits = img_json("info", "--limits", "a.q")
for node in (limits, limits["children"][0]["info"]):
    equal(set(node["limits"]) - {"discard-alignment", "write-zeroes-alignment", "opt-transfer", "max-transfer", "max-discard", "max-write-zeroes"},
          {"request-alignment", "max-iov", "min-mem-alignment", "opt-mem-alignment"}, "limits that are always there")
    check(all(isinstance(value, int) and value > 0 for value in node["limits"].values()), f"{node['limits']}")
equal(limits["limits"]["discard-alignment"], 65536, "a cluster")
direct = img_json("info", "--limits", "-t", "none", "-f", "raw", "plain")["children"][0]["info"]["limits"]
check(direct["request-alignment"] >= 512 and direct["min-mem-alignment"] >= 512, f"O_DIRECT: {direct}")
check("limits" not in img("info", "--output", "json", "a.q").out and "limits" not in img("info", "a.q").out, "not asked for")
equal(re.findall(r"^( *)Block limits:\n\1    request alignment: \d+$", img("info", "--limits", "a.q").out, re.M), ["", "    "], "for people")
equal(img("info", "-b", "over.q").out, img("info", "--backing-chain", "over.q").out, "-b")

# convert and compare of what cannot be read: exit status as the peer's.
broken = "driver=raw,file.driver=blkdebug,file.inject-error.0.event=pwritev,file.image.driver=file,file.image.filename=plain"
for words, status in ((["a.q", "a.q"], 0), (["a.q", "b.q"], 1), (["a.q", "missing"], 2), (["a.q"], 2), (["-f", "nonsense", "a.q", "a.q"], 2),
                      (["-s", "a.q", "plain"], 1), (["-T", "nonsense", "a.q", "a.q"], 2)):
    img("compare", *words, status=status)
    if len(words) > 1:  # for the peer, a wrong command line has the status of a difference
        equal(their_img("compare", *words, status=None).status, status, f"the peer's status of compare {words}")

# io: -V, aio -i, -b; zone_* of what has no zones.
check(re.match(r"spindle-io version \d", run(OUR_IO, "-V").out) and run(OUR_IO, "--version").out == run(OUR_IO, "-V").out, "io --version")
for ours, theirs in ((io("plain", "aio_read -i 0 512", "aio_write -i 0 512"), their_io("plain", "aio_read -i 0 512", "aio_write -i 0 512")),
                     (io("plain", "write -b 0 512", status=1), their_io("plain", "write -b 0 512", status=1)),
                     (io("plain", "read -b 0 512", status=1), their_io("plain", "read -b 0 512", status=1)),
                     (io("plain", "write -bz 0 512", status=1), their_io("plain", "write -bz 0 512", status=1)),
                     (io("plain", "write -bc 0 512", status=1), their_io("plain", "write -bc 0 512", status=1))):
    equal(ours.out, theirs.out, "as the peer")
# What a zoned device does is in tests/interop/zoned_device.py: that needs a kernel with null_blk.
for form, image in (("raw", "plain"), ("qcow2", "a.q")):
    for command, verb in (("zone_report 0 1", "report"), ("zrp 0 1", "report"), ("zone_open 0 1M", "open"), ("zo 0 1M", "open"), ("zone_close 0 1M", "close"),
                          ("zc 0 1M", "close"), ("zone_finish 0 1M", "finish"), ("zf 0 1M", "finish"), ("zone_reset 0 1M", "reset"), ("zrs 0 1M", "reset"),
                          ("zone_append 0 4k", "append"), ("zap 0 4k 4k", "append")):
        equal(io(image, command, form=form, status=1).out, f"zone {verb} failed: Operation not supported\n", command)
for command in ("zone_report 0", "zone_report x 1", "zone_open 0", "zone_append 0", "zone_append 0 x", "zone_reset 0 1M 2M"):
    io("plain", command, status=1)
check("error: the image is open read-only" in (result := io("plain", "zone_reset 0 1M", status=1, options=["-r"])).err + result.out or result.status == 1, "read-only")

# The daemon's --version and --trace.
daemon = os.path.join(BIN, "spindle-storage-daemon")
if os.path.exists(daemon):
    for word in ("--version", "-V"):
        check(re.match(r"spindle-storage-daemon version \d", run(daemon, word).out), word)
    check(re.search(r"^\w+$", run(daemon, "--trace", "help").out, re.M), "--trace help")
    process = subprocess.Popen([daemon, "--trace", "*", "--blockdev", "qcow2,node-name=f,file.driver=file,file.filename=a.q", "--chardev", "socket,id=c,path=qmp,server=on,wait=off",
                                "--monitor", "c"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    for _ in range(int(patience(100))):
        if os.path.exists("qmp"):
            break
        time.sleep(0.1)
    process.terminate()
    err = process.communicate(timeout=patience(30))[1].decode()
    check(re.search(r"^\S*\w+", err) and process.returncode == 0, f"{process.returncode}: {err}")
    run(daemon, "--trace", "no_such_point_*x", status=1)
