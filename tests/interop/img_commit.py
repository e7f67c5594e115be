#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img commit` changes what a guest reads, leaves a broken image behind, or tells consumers other things than the peer.
# labels: full interop
# requires: qemu-img qemu-io cmp
# timeout: 120
"""Random chains, made by the peer; each is committed by us and, as a copy, by the peer: afterwards both must be the same."""
import random
import shutil

from chains import LAYERS, make_chain, make_raw, same, size_of
from image import check, equal, img, img_json, run, their_img

FIRST, COUNT = 1, 20


def data_in(name):
    """What the image itself holds."""
    extents = img_json("map", name, tool="qemu-img")
    return [extent for extent in extents if extent["depth"] == 0 and extent["present"]]


def copy_for_peer():
    for name in LAYERS:
        shutil.copy(name, "peer." + name)
    for upper, lower in (("peer.b", "peer.a"), ("peer.c", "peer.b")):
        their_img("rebase", "-u", "-b", lower, "-F", "qcow2", upper)


for seed in range(FIRST, FIRST + COUNT):
    chance = random.Random(seed)
    make_chain(chance)
    copy_for_peer()
    make_raw("c", "before")
    deep = chance.random() < 0.4
    keep = chance.random() < 0.3
    words = (["-b", "a"] if deep else []) + (["-d"] if keep else []) + chance.choice([[], ["-f", "qcow2"], ["-t", "none"], ["-r", "1G"]])
    equal(img("commit", *words, "c").out, "Image committed.\n", f"seed {seed}")
    their_img("commit", *[word if word != "a" else "peer.a" for word in words], "peer.c")
    target = "a" if deep else "b"
    for name in ("c", target):
        make_raw(name, "ours")
        make_raw("peer." + name, "peer")
        same("ours", "peer", f"seed {seed}, commit {words}, {name}")
        run("qemu-img", "check", "-q", name)
        equal(size_of(name), size_of("peer." + name), f"seed {seed}, commit {words}: size of {name}")
    make_raw("c", "after")
    same("before", "after", f"seed {seed}, commit {words}: what the guest reads")
    if not keep and not deep:
        equal(data_in("c"), [], f"seed {seed}: the image was emptied")

# The texts that consumers look for, and what cannot be done.
their_img("create", "-q", "-f", "qcow2", "alone", "1M")
for words in (["alone"], ["-b", "nope", "c"], ["-f", "nonsense", "c"], ["-t", "nonsense", "c"], []):
    ours, theirs = img("commit", *words, status=1), their_img("commit", *words, status=1)
    if words in (["alone"], ["-b", "nope", "c"]):
        equal(ours.err.split(": ", 1)[1], theirs.err.split(": ", 1)[1], f"message of commit {words}")
    equal(ours.out, "", f"commit {words} prints nothing")
equal(img("commit", "-q", "c").out, "", "quiet")
check("(100.00/100%)\r" in img("commit", "-p", "c").out, "progress")
equal(img("commit", "--image-opts", "driver=qcow2,file.filename=c").out, "Image committed.\n", "image options")

# Into a raw file, which cannot be told from its content: named, it is written.
their_img("create", "-q", "-f", "raw", "disk.raw", "1M")
their_img("create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "over", "2M")
run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", "over")
img("commit", "over")
equal(size_of("disk.raw"), 2 << 20, "the base grew")
run("qemu-io", "-f", "raw", "-r", "-c", "read -v -P 7 1M 64k", "disk.raw")
equal(data_in("over"), [], "emptied")

# Somebody else writes to the base: refused, and nothing changed.
with open("over", "rb") as file:
    before = file.read()
holder = __import__("subprocess").Popen(["qemu-io", "-f", "raw", "disk.raw"], stdin=-1, stdout=-1)
holder.stdin.write(b"length\n")
holder.stdin.flush()
holder.stdout.readline()
img("commit", "over", status=1)
holder.communicate(b"quit\n")
with open("over", "rb") as file:
    equal(file.read(), before, "a refused commit leaves the image alone")
