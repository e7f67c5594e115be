#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img compare` calls different images the same (or the reverse), or reports the wrong place.
# labels: quick
# timeout: 60
import random

from image import check, equal, img, io, write_file

rng = random.Random(7)
data = rng.randbytes(5 << 20)
write_file("a", data)
img("convert", "-f", "raw", "-O", "qcow2", "a", "a.qcow2")
RAW = ("compare", "-f", "raw", "-F", "raw")

equal(img("compare", "-f", "raw", "a", "a.qcow2").out, "Images are identical.\n", "the same content in two formats")
for place in [0, 511, 512, 1 << 20, (1 << 20) - 1, 3333333, len(data) - 1]:
    changed = bytearray(data)
    changed[place] ^= 1
    if place < 4 << 20:
        changed[(4 << 20) + 5] ^= 1  # a later difference must not be the one that is reported
    write_file("b", changed)
    for pair in (("a", "b"), ("b", "a")):
        result = img(*RAW, *pair, status=1)
        equal(result.out, f"Content mismatch at offset {place - place % 512}!\n", "the first difference")
equal(img(*RAW, "-q", "a", "b", status=1).out, "", "-q")

write_file("longer", data + bytes(1 << 20))
equal(img(*RAW, "a", "longer").out, "Warning: Image size mismatch!\nImages are identical.\n", "zeroes behind the end")
equal(img(*RAW, "-s", "a", "longer", status=1).out, "Strict mode: Image size mismatch!\n", "strict")
write_file("longer", data + bytes(70000) + b"x")
for pair in (("a", "longer"), ("longer", "a")):
    result = img(*RAW, *pair, status=1)
    check(f"Content mismatch at offset {len(data) + 70000 - 70000 % 512}!" in result.out, f"data behind the end: {result}")

for name in ("p", "q"):
    img("create", "-q", "-f", "qcow2", name, "1M")
io("p", "write -P 0 64k 64k", form="qcow2")
img("compare", "-q", "p", "q")
equal(img("compare", "-s", "p", "q", status=1).out, "Strict mode: Offset 65536 block status mismatch!\n", "allocation")

img("compare", "a", "missing", status=2)
img("compare", "a", status=2)
img("create", "-q", "-f", "qcow2", "broken", "1M")
io("broken", "write -c -P 1 0 64k", form="qcow2")
with open("broken", "r+b") as file:  # spoil the one compressed cluster: the header names L1, that names L2, that names it
    def number_at(offset):
        file.seek(offset)
        return int.from_bytes(file.read(8), "big")
    entry = number_at(number_at(number_at(40)) & 0x00fffffffffffe00)
    equal(entry >> 62, 1, "the cluster is compressed")
    file.seek(entry & ((1 << 54) - 1))  # clusters of 64k: 8 of the 62 bits count sectors
    file.write(b"\xff" * 64)
result = img("compare", "broken", "a.qcow2", status=4)
check("broken" in result.err, f"{result}")
