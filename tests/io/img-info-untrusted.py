#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a crafted image makes info, map or check crash, hang, or take memory without bound.
# labels: full
# timeout: 200
"""Services run these commands on images of strangers, under limits of processor time and memory. Here headers and tables
are overwritten with nasty numbers at random places; every command must end by itself, soon, and small."""
import os
import random
import struct
import subprocess
import time

from image import OUR_IMG, content, fail, img, io, write_file

SEED = int(os.environ.get("SPINDLE_SEED", "1"))
SECONDS = float(os.environ.get("SPINDLE_SECONDS", "40"))
MEMORY_LIMIT_KIB = 700 * 1024  # room for a sanitizer's shadow memory
NASTY = [0, 1, 2, 511, 512, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def make_seeds():
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "base.qcow2", "1M")
    io("base.qcow2", "write -P 7 0 300k", "write -c -P 9 400k 4k", "write -z 500k 64k", form="qcow2")
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=16k,extended_l2=on,compression_type=zstd", "-b", "base.qcow2",
        "-F", "qcow2", "top.qcow2")
    io("top.qcow2", "write -P 7 0 10k", "write -c -P 9 64k 16k", form="qcow2")
    return [content("base.qcow2"), content("top.qcow2")]


def spoil(rng, image):
    image = bytearray(image)
    for _ in range(rng.randrange(1, 4)):
        where = rng.choice([rng.randrange(0, 112), rng.randrange(0, 8192), rng.randrange(0, len(image) - 8)])
        if where < 112:
            where -= where % 4
        size, code = rng.choice([(1, ">B"), (4, ">I"), (8, ">Q")])
        struct.pack_into(code, image, where, rng.choice(NASTY) % (1 << 8 * size))
    if rng.random() < 0.2:
        del image[rng.randrange(len(image)):]
    return bytes(image)


def run_limited(words):
    start = time.monotonic()
    process = subprocess.Popen([OUR_IMG, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    timer_end = start + 30
    with open("errors", "wb") as errors:
        errors.write(process.stderr.read(1 << 20))
        process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    text = content("errors").decode(errors="replace")
    if os.WIFSIGNALED(status) or "Sanitizer" in text or "runtime error" in text:
        fail(f"{words}: crashed\n{text}")
    if time.monotonic() > timer_end:
        fail(f"{words}: took {time.monotonic() - start:.0f} s")
    if usage.ru_maxrss > MEMORY_LIMIT_KIB:
        fail(f"{words}: took {usage.ru_maxrss >> 10} MiB of memory")


def main():
    seeds = make_seeds()
    end = time.monotonic() + SECONDS
    number = SEED
    while time.monotonic() < end:
        rng = random.Random(number)
        write_file("spoiled", spoil(rng, rng.choice(seeds)))
        command = rng.choice([["info"], ["info", "--backing-chain"], ["map", "--output", "json"], ["check"],
                              ["check", "-r", "all"], ["compare", "-q", "base.qcow2"]])
        print(f"image {number}: {command}", flush=True)
        run_limited([*command, "spoiled"])
        number += 1
    print(f"{number - SEED} images")


main()
