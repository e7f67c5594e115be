#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, our check and the ecosystem's judge a damaged image differently, or one cannot accept what the other repaired.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 120
"""Refcounts of random clusters are overwritten; either side checks and repairs. A repair must satisfy both checks and keep
the content."""
import os
import random
import shutil
import struct
import time

from image import OUR_IMG, content, equal, img_json, run, write_file

SEED = int(os.environ.get("SPINDLE_SEED", "1"))
SECONDS = float(os.environ.get("SPINDLE_SECONDS", "15"))


def make_image(rng):
    cluster = rng.choice([512, 4096, 65536])
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", "image", cluster * rng.randrange(8, 300))
    size = img_json("info", "image")["virtual-size"]
    words = []
    for _ in range(rng.randrange(1, 20)):
        start = rng.randrange(0, size)
        words += ["-c", f"write -q -P {rng.randrange(1, 256)} {start} {min(size - start, rng.randrange(1, cluster * 8))}"]
    run("qemu-io", "-f", "qcow2", *words, "image")
    return cluster


def damage(rng, cluster):
    image = bytearray(content("image"))
    table = struct.unpack_from(">Q", image, 48)[0]
    for _ in range(rng.randrange(1, 6)):
        index = rng.randrange(1, len(image) // cluster)  # the header's own cluster is left alone
        block = struct.unpack_from(">Q", image, table + index // (cluster // 2) * 8)[0]
        if block:
            struct.pack_into(">H", image, block + index % (cluster // 2) * 2, rng.choice([0, 0, 1, 2, 3, 65535]))
    write_file("damaged", image)


def verdict(tool):
    result = run(tool, "check", "--output", "json", "-f", "qcow2", "damaged", status=None)
    return result.status


def main():
    end = time.monotonic() + SECONDS
    seed = SEED
    while time.monotonic() < end:
        rng = random.Random(seed)
        cluster = make_image(rng)
        damage(rng, cluster)
        ours, theirs = verdict(OUR_IMG), verdict("qemu-img")
        print(f"image {seed}: cluster size {cluster}, status {ours}", flush=True)
        equal(ours, theirs, f"seed {seed}: exit status of check")
        for tool in (OUR_IMG, "qemu-img"):
            shutil.copy("damaged", "repaired")
            run(tool, "check", "-q", "-r", "all", "-f", "qcow2", "repaired")
            for judge in (OUR_IMG, "qemu-img"):
                run(judge, "check", "-q", "-f", "qcow2", "repaired")
            run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", "image", "repaired")
        seed += 1
    print(f"{seed - SEED} images")


main()
