#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img dd` copies something else than dd(1) operands say, `img bench` does not run, or `img measure` is wrong about raw.
# labels: quick
# timeout: 60
import os
import re

from image import check, equal, img, img_json, io

with open("in", "wb") as file:
    file.write(b"".join(bytes([n]) * 65536 for n in range(1, 5)))
whole = open("in", "rb").read()


def dd(*operands, form="raw"):
    img("dd", "-f", "raw", "-O", form, "if=in", "of=out", *operands)
    if form != "raw":
        img("convert", "-f", form, "-O", "raw", "out", "out.raw")
        os.rename("out.raw", "out")
    return open("out", "rb").read()


equal(dd(), whole, "all of it")
equal(dd("bs=64k", "skip=1"), whole[65536:], "skip")
equal(dd("bs=64k", "skip=1", "count=2"), whole[65536:131072], "count ends the input, as ever")
equal(dd("count=3"), whole[:1536], "blocks of 512 bytes")
equal(dd("bs=64k", "skip=3", form="qcow2"), whole[196608:], "into qcow2")
result = img("dd", "-f", "raw", "if=in", "of=out", "bs=64k", "skip=5")
check("cannot skip to specified offset" in result.err, f"{result}")
equal(os.path.getsize("out"), 0, "nothing to copy")
for words, text in ((["if=in"], "Must specify both input and output files"), (["if=in", "of=x", "foo=1"], "unrecognized operand foo"),
                    (["if=in", "of=x", "bs=0"], "Invalid bs specified"), (["if=in", "of=x", "what"], "unrecognized operand what"),
                    (["if=in", "of=x", "count=y"], "count")):
    result = img("dd", "-f", "raw", *words, status=1)
    check(text in result.err and not os.path.exists("x"), f"wanted '{text}': {result}")

result = img("bench", "-f", "raw", "-c", "500", "-d", "8", "in")
check(re.fullmatch(r"Sending 500 read requests, 4096 bytes each, 8 in parallel \(starting at offset 0, step size 4096\)\n"
                   r"Run completed in \d+\.\d{3} seconds\.\n", result.out), f"{result}")
img("bench", "-f", "raw", "-w", "--pattern=9", "-c", "64", "-d", "4", "-s", "4k", "-S", "4k", "--flush-interval=8", "-q", "in")
io("in", "read -P 9 0 256k")
for words, text in ((["--flush-interval=3"], "only available in write tests"), (["-w", "--flush-interval=3"], "smaller than depth"),
                    (["-s", "1M"], "do not fit"), (["-d", "0"], "queue depth"), (["-i", "magic"], "Invalid aio option")):
    result = img("bench", "-f", "raw", *words, "in", status=1)
    check(text in result.err, f"wanted '{text}': {result}")

equal(img("measure", "--size", "5").out, "required size: 512\nfully allocated size: 512\n", "measure of 5 bytes")
equal(img_json("measure", "-O", "raw", "-f", "raw", "in"), {"required": 262144, "fully-allocated": 262144}, "measure of a file")
for words, text in (([], "Either --size N or one filename must be specified."), (["--size", "1M", "in"], "cannot be used together"),
                    (["--size", "x"], "Invalid size"), (["-O", "nope", "--size", "1M"], "Unknown file format 'nope'")):
    result = img("measure", *words, status=1)
    check(text in result.err, f"wanted '{text}': {result}")
