#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `convert --checksum` takes a bad copy for a good one or the other way round, or programs cannot follow the progress.
# labels: quick
# requires: qemu-img qemu-io
# timeout: 60
import json

from image import check, equal, img, run, their_img, their_io

their_img("create", "-q", "-f", "qcow2", "a.q", "8M")
their_io("a.q", "write -q -P 1 64k 1M", "write -q -P 2 5M 100k", "write -q -z 3M 64k", form="qcow2")
for words in (["-O", "raw"], ["-O", "qcow2"], ["-c", "-O", "qcow2"], ["-O", "raw", "-S", "0"], ["-O", "raw", "-t", "none"]):
    img("convert", "--checksum", *words, "a.q", "t")
    run("qemu-img", "compare", "a.q", "t")
    equal(img("convert", "-q", "--checksum", *words, "a.q", "a.q", "t").out, "", "two sources")

# A target that is said to be zero and is not: the copy is not good, and the first byte that differs is told.
with open("dirty", "wb") as file:
    file.write(b"x" * (8 << 20))
plain = img("convert", "-n", "--target-is-zero", "-O", "raw", "a.q", "dirty")
result = img("convert", "-n", "--target-is-zero", "--checksum", "-O", "raw", "a.q", "dirty", status=1)
check("The copy is not good: 'dirty' has other content than 'a.q' at byte 0" in result.err, f"{result}")
result = img("convert", "--checksum", "--salvage", "a.q", "t", status=1)
check("exclude each other" in result.err, f"{result}")

# Progress for programs: whole lines of JSON that never go back and end at the end.
lines = [json.loads(line) for line in img("convert", "--output", "json", "-O", "raw", "a.q", "t").out.splitlines()]
check(len(lines) > 1, f"{lines}")
equal([line["done"] for line in lines], sorted(line["done"] for line in lines), "it only grows")
equal(lines[-1], {"done": 8 << 20, "total": 8 << 20}, "the end")
equal(img("convert", "-q", "--output", "json", "-O", "raw", "a.q", "t").out, "", "quiet")
img("convert", "--output", "nonsense", "a.q", "t", status=1)

# Creating without the backing format names what was found, and leaves no file; no secret is asked for to create over LUKS.
result = img("create", "-f", "qcow2", "-b", "a.q", "new.q", status=1)
check("new.q: Backing file specified without backing format\nDetected format of qcow2." in result.err, f"{result}")
equal(result.err.split(": ", 1)[1], their_img("create", "-f", "qcow2", "-b", "a.q", "new.q", status=1).err.split(": ", 1)[1] + "\n" * result.err.endswith("\n"), "as the peer")
run("qemu-img", "create", "-q", "--object", "secret,id=s,data=geheim", "-f", "luks", "-o", "key-secret=s,iter-time=10", "locked", "2M")
img("create", "-q", "-f", "qcow2", "-b", "locked", "-F", "luks", "over.q")
equal(json.loads(their_img("info", "-U", "--output=json", "over.q").out)["virtual-size"], 2 << 20, "size of the encrypted backing file")
