#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img rebase` changes what a guest reads from the image, or breaks the image.
# labels: full interop
# requires: qemu-img qemu-io cmp
# timeout: 120
"""Random chains, made and judged by the peer; each is put on no backing file, on a deeper one of its chain, or on a stranger."""
import json
import random

from image import equal, fail, img, run

FIRST, COUNT = 1, 25


def write_random(chance, name):
    size = json.loads(run("qemu-img", "info", "--output=json", name).out)["virtual-size"]
    words = []
    for _ in range(chance.randrange(0, 12)):
        offset = chance.randrange(0, size // 512) * 512
        length = min(chance.randrange(1, 200) * 512, size - offset)
        kind = chance.choice(["-z", f"-P {chance.randrange(1, 4)}", f"-P {chance.randrange(1, 4)}"])
        words += ["-c", f"write {kind} {offset} {length}"]
    if words:
        run("qemu-io", "-f", "qcow2", *words, name)


def make_chain(chance):
    below = []
    for name in ("a", "b", "c"):
        options = chance.choice([["-o", "extended_l2=on,cluster_size=64k"], ["-o", "cluster_size=4k"], [], ["-o", "cluster_size=128k"]])
        run("qemu-img", "create", "-q", "-f", "qcow2", *options, *below, name, str(chance.randrange(1, 60) << 16))
        below = ["-b", name, "-F", "qcow2"]
    run("qemu-img", "create", "-q", "-f", "qcow2", "stranger", str(chance.randrange(1, 60) << 16))
    for name in ("a", "b", "c", "stranger"):
        write_random(chance, name)


for seed in range(FIRST, FIRST + COUNT):
    chance = random.Random(seed)
    make_chain(chance)
    run("qemu-img", "convert", "-O", "raw", "c", "before")
    backing = chance.choice(["", "a", "stranger"])
    words = ["-b", backing] + (["-F", "qcow2"] if backing else []) + chance.choice([[], ["-c"]])
    img("rebase", *words, "c")
    run("qemu-img", "convert", "-O", "raw", "c", "after")
    if run("cmp", "before", "after", status=None).status:
        fail(f"seed {seed}: rebase {words} changed the content")
    run("qemu-img", "check", "-q", "c")
    info = json.loads(run("qemu-img", "info", "--output=json", "c").out)
    equal(info.get("backing-filename", ""), backing, f"seed {seed}: name of the backing file")
