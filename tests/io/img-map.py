#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img map` tells backup programs wrong places, or in a form they cannot read.
# labels: quick
# timeout: 60
from image import check, equal, img, img_json, io

img("create", "-q", "-f", "raw", "base.raw", "4M")
io("base.raw", "write -P 1 1M 64k")
img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2", "5M")
io("top.qcow2", "write -P 2 0 64k", "write -z 2M 64k", "write -c -P 3 3M 64k", form="qcow2")


def entry(start, length, depth, present, zero, data, compressed=False, offset=None):
    made = {"start": start, "length": length, "depth": depth, "present": present, "zero": zero, "data": data,
            "compressed": compressed}
    return made if offset is None else dict(made, offset=offset)


K, M = 1024, 1024 * 1024
extents = img_json("map", "top.qcow2")
place = extents[0]["offset"]
equal(extents, [
    entry(0, 64 * K, 0, True, False, True, offset=place),
    entry(64 * K, M - 64 * K, 1, True, True, False, offset=64 * K),
    entry(M, 64 * K, 1, True, False, True, offset=M),
    entry(M + 64 * K, M - 64 * K, 1, True, True, False, offset=M + 64 * K),
    entry(2 * M, 64 * K, 0, True, True, False),
    entry(2 * M + 64 * K, M - 64 * K, 1, True, True, False, offset=2 * M + 64 * K),
    entry(3 * M, 64 * K, 0, True, False, True, compressed=True),
    entry(3 * M + 64 * K, M - 64 * K, 1, True, True, False, offset=3 * M + 64 * K),
    entry(4 * M, M, 0, False, True, False),
], "extents of an overlay")
check(img("map", "--output=json", "top.qcow2").out.startswith('[{ "start": 0, "length": 65536, "depth": 0, "present": true, '
                                                              '"zero": false, "data": true, '), "layout of a line")
equal(sum(extent["length"] for extent in extents), 5 * M, "no gaps")

result = img("map", "top.qcow2", status=1)
check("compressed" in result.err, f"the table cannot show compressed clusters: {result}")
equal(img("map", "-f", "raw", "base.raw").out,
      "Offset          Length          Mapped to       File\n"
      "0x100000        0x10000         0x100000        base.raw\n", "the table")
equal(img_json("map", "-s", "1M", "-l", "64k", "top.qcow2"), [entry(M, 64 * K, 1, True, False, True, offset=M)], "-s -l")
equal(img_json("map", "--start-offset", "9M", "top.qcow2"), [], "behind the end")
