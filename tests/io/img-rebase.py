#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img rebase` takes options that it must refuse, or an unsafe rebase does not just change the name.
# labels: quick
# timeout: 60
from image import check, equal, img, img_json, io

img("create", "-q", "-f", "qcow2", "base", "1M")
img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
io("base", "write -P 7 0 64k", form="qcow2")
for words, text in ((["top"], "Must specify backing file (-b) or use unsafe mode (-u)"),
                    (["-b", "nowhere", "-F", "qcow2", "top"], "Could not open new backing file 'nowhere'"),
                    (["-b", "base", "-F", "zork", "top"], "Invalid format name: 'zork'"),
                    (["-b", "base", "top"], "backing format must be specified"),
                    (["-f", "raw", "-b", "base", "-F", "qcow2", "top"], "Could not change the backing file to 'base'"),
                    (["-u", "-c", "-b", "", "top"], "-c has no effect")):
    result = img("rebase", *words, status=1)
    check(text in result.err, f"wanted '{text}': {result}")
img("rebase", "-u", "-b", "nowhere", "-F", "raw", "top")
info = img_json("info", "-f", "qcow2", "top")
equal((info["backing-filename"], info["backing-filename-format"]), ("nowhere", "raw"), "after an unsafe rebase")
for turn in range(8):  # names move about in the header
    name = "x" * (1023 if turn % 2 else 20 * turn + 1)
    img("rebase", "-u", "-b", name, "-F", "raw", "top")
    equal(img_json("info", "-f", "qcow2", "top")["backing-filename"], name, "name")
result = img("rebase", "-u", "-b", "x" * 1024, "-F", "raw", "top", status=1)
check("1024 bytes" in result.err, f"{result}")
img("rebase", "-u", "-b", "base", "-F", "qcow2", "top")
io("top", "read -P 7 0 64k", form="qcow2")
out = img("rebase", "-p", "-b", "", "top").out
check("(100.00/100%)" in out, f"progress: {out!r}")
check("backing-filename" not in img_json("info", "-f", "qcow2", "top"), "still has a backing file")
io("top", "read -P 7 0 64k", "read -P 0 64k 960k", form="qcow2")
img("check", "top")
