#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img rebase` changes what a guest reads from the image, or breaks the image.
# labels: full interop
# requires: qemu-img qemu-io cmp
# timeout: 120
"""Random chains, made and judged by the peer; each is put on no backing file, on a deeper one of its chain, or on a stranger."""
import random

from chains import make_chain, make_raw, random_size, same, write_random
from image import equal, img, img_json, their_img

FIRST, COUNT = 1, 25


for seed in range(FIRST, FIRST + COUNT):
    chance = random.Random(seed)
    make_chain(chance)
    their_img("create", "-q", "-f", "qcow2", "stranger", random_size(chance))
    write_random(chance, "stranger")
    make_raw("c", "before")
    backing = chance.choice(["", "a", "stranger"])
    words = ["-b", backing] + (["-F", "qcow2"] if backing else []) + chance.choice([[], ["-c"]])
    img("rebase", *words, "c")
    make_raw("c", "after")
    same("before", "after", f"seed {seed}, rebase {words}")
    their_img("check", "-q", "c")
    info = img_json("info", "c", tool="qemu-img")
    equal(info.get("backing-filename", ""), backing, f"seed {seed}: name of the backing file")
