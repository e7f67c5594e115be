#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img resize` changes an image to the wrong size, loses data, or shrinks without being asked twice.
# labels: quick
# timeout: 60
from image import check, equal, img, img_json, io


def size(name):
    return img_json("info", "-f", FORMAT, name)["virtual-size"]


for FORMAT in ("raw", "qcow2"):
    name = "a." + FORMAT
    img("create", "-q", "-f", FORMAT, name, "2M")
    io(name, "write -P 3 0 2M", form=FORMAT)
    equal(img("resize", "-f", FORMAT, name, "+1M").out, "Image resized.\n", "output")
    equal(size(name), 3 << 20, "after +1M")
    io(name, "read -P 3 0 2M", "read -P 0 2M 1M", form=FORMAT)
    for words in (["-1M"], ["--", "-1M"], ["1M"]):
        result = img("resize", "-f", FORMAT, name, *words, status=1)
        check("Use the --shrink option to perform a shrink operation." in result.err, f"{result}")
        equal(size(name), 3 << 20, "after a refusal")
    equal(img("resize", "-q", "-f", FORMAT, "--shrink", name, "-2M").out, "", "-q")
    equal(size(name), 1 << 20, "after -2M")
    img("resize", "-q", "-f", FORMAT, name, "4M")
    io(name, "read -P 3 0 1M", "read -P 0 1M 3M", form=FORMAT)  # what was cut off must not come back
    for words, text in ((["+"], "size"), (["-9M"], "positive"), (["1M", "2M"], "many"), (["+8E"], "too large"),
                        (["--preallocation=foo", "+1M"], "foo"), (["--preallocation=full", "--shrink", "1M"], "growing")):
        result = img("resize", "-f", FORMAT, *words[:-1], name, words[-1], status=1) if len(words) < 3 or \
            words[0].startswith("--") else img("resize", "-f", FORMAT, name, *words, status=1)
        check(text in result.err, f"wanted '{text}': {result}")
    img("resize", "-q", "-f", FORMAT, "--preallocation=full", name, "+1M")
    check(img_json("info", "-f", FORMAT, name)["actual-size"] >= 2 << 20, "preallocation=full")
check("Unsupported preallocation mode" in
      img("resize", "-f", "raw", "--preallocation=metadata", "a.raw", "+1M", status=1).err, "raw has no metadata")

# What a snapshot shares with the end of the disk is the snapshot's, however often the end moves.
for options in ("cluster_size=64k", "cluster_size=64k,extended_l2=on", "cluster_size=4k"):
    img("create", "-q", "-f", "qcow2", "-o", options, "s.qcow2", "128k")
    io("s.qcow2", "write -P 3 0 128k", form="qcow2")
    img("snapshot", "-c", "kept", "s.qcow2")
    img("resize", "-q", "--shrink", "s.qcow2", "97k")
    img("resize", "-q", "s.qcow2", "128k")
    io("s.qcow2", "read -P 3 0 97k", "read -P 0 97k 31k", form="qcow2")
    img("convert", "-l", "kept", "-f", "qcow2", "-O", "raw", "s.qcow2", "s.raw")
    equal(open("s.raw", "rb").read(), b"\3" * (128 << 10), f"a snapshot after shrinking and growing, {options}")
    img("check", "-q", "s.qcow2")
