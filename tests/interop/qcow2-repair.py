#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a check and QEMU's disagree about damage, a repair leaves some behind or loses data, or internal snapshots are not respected.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 200
"""Refcounts and the refcount table of an image with compressed clusters and an internal snapshot are damaged at random;
both checks must come to the same verdict, our repair must satisfy both, and the content must not change. Then images
that QEMU left dirty, and snapshots that it takes, deletes and goes back to between our writes."""
import random
import struct

from image import check, content, equal, img, io, run, their_img, their_io, write_file

IMAGE = "i.qcow2"


def damaged(rng, data, number):
    """Wrong refcounts; in every fifth image the refcount block is lost."""
    table, = struct.unpack_from(">Q", data, 48)
    block, = struct.unpack_from(">Q", data, table)
    result = bytearray(data)
    for _ in range(rng.randrange(1, 12)):
        struct.pack_into(">H", result, block + 2 * rng.randrange(900), rng.choice([0, 0, 1, 2, 3]))
    if number % 5 == 0:
        struct.pack_into(">Q", result, table, 0)
    return bytes(result)


def repairs():
    rng = random.Random(3)
    their_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "good.qcow2", "8M")
    their_io("good.qcow2", "write -P 1 0 2M", "write -P 2 4M 1M", "write -c -P 3 6M 64k", form="qcow2")
    their_img("snapshot", "-c", "before", "good.qcow2")
    their_io("good.qcow2", "write -P 9 1M 256k", form="qcow2")
    good = content("good.qcow2")
    for number in range(15):
        write_file(IMAGE, damaged(rng, good, number))
        ours, theirs = img("check", "-f", "qcow2", IMAGE, status=None), their_img("check", "-f", "qcow2", IMAGE, status=None)
        equal(ours.status, theirs.status, f"verdict on damage {number}\n{ours}\n{theirs}")
        img("check", "-r", "all", "-f", "qcow2", IMAGE)
        img("check", "-f", "qcow2", IMAGE)
        their_img("check", "-f", "qcow2", IMAGE)
        img("compare", "-f", "qcow2", "-F", "qcow2", "good.qcow2", IMAGE)
        their_img("snapshot", "-a", "before", IMAGE)
        their_io(IMAGE, "read -P 1 0 2M", "read -P 3 6M 64k", form="qcow2")


def left_dirty():
    their_img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", IMAGE, "64M")
    run("sh", "-c", f"qemu-io -f qcow2 -c 'write -P 3 0 5M' -c flush -c abort {IMAGE} >/dev/null 2>&1; true")
    check('"dirty-flag": true' in img("info", "--output", "json", IMAGE).out, "the image that was left open is not dirty")
    io(IMAGE, "read -P 3 0 5M", "write -P 4 10M 1M", form="qcow2")
    check('"dirty-flag": false' in their_img("info", "--output", "json", IMAGE).out, "opening it did not repair the image")
    their_img("check", IMAGE)


def snapshots(options):
    their_img("create", "-q", "-f", "qcow2", "-o", options, IMAGE, "16M")
    their_io(IMAGE, "write -P 1 0 16M", form="qcow2")
    their_img("snapshot", "-c", "one", IMAGE)
    io(IMAGE, "write -P 2 1M 3M", "write -P 3 100k 70k", "discard 8M 1M", "write -z 9M 100k", "write -c -P 9 12M 2M", form="qcow2")
    for tool in (img, their_img):
        tool("check", "-f", "qcow2", IMAGE)
    their_img("snapshot", "-c", "two", IMAGE)
    io(IMAGE, "write -P 5 1M 14M", form="qcow2")
    img("check", "-f", "qcow2", IMAGE)
    their_img("snapshot", "-d", "two", IMAGE)
    io(IMAGE, "write -P 6 512k 1M", "read -P 6 512k 1M", "read -P 5 2M 13M", form="qcow2")
    for tool in (img, their_img):
        tool("check", "-f", "qcow2", IMAGE)
    their_img("snapshot", "-a", "one", IMAGE)
    io(IMAGE, "read -P 1 0 16M", form="qcow2")
    for tool in (img, their_img):
        tool("check", "-f", "qcow2", IMAGE)


repairs()
left_dirty()
for features in ("cluster_size=64k", "cluster_size=4k", "extended_l2=on", "compat=0.10"):
    snapshots(features)
