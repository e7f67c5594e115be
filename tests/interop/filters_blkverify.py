#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, blkverify misses where an image differs from its raw copy, or says so in other words than qemu-io.
# labels: full interop
# requires: qemu-io qemu-img
# timeout: 120
"""The same disks and commands for both programs: the same line about the same place. The peer ends there; here the request fails, and
the program says so when it ends."""
import os
import random
import subprocess

from image import OUR_IMG, OUR_IO, check, content, equal, run, their_img

MIB = 1 << 20


def make(differ_at=None, form="raw", size="1M"):
    their_img("create", "-q", "-f", "raw", "raw", "1M")
    their_img("create", "-q", "-f", form, "test", size)
    for name, kind in (("raw", "raw"), ("test", form)):
        run("qemu-io", "-f", kind, "-c", "write -P 1 0 1M", name)
    if differ_at is not None:
        run("qemu-io", "-f", form, "-c", f"write -P 2 {differ_at} 1", "test")


def lines(program, commands, options):
    words = [word for command in commands for word in ("-c", command)]
    result = run(program, *words, *options, status=None)
    return [line for line in result.err.splitlines() if line.startswith("blkverify:")], result


def same(commands, options, found=1):
    (ours, our_result), (theirs, their_result) = (lines(program, commands, options) for program in (OUR_IO, "qemu-io"))
    equal(ours[:1], theirs[:1], f"what is said about {commands} {options}")
    check(len(theirs) == found, f"{theirs}: {their_result}")
    check((our_result.status != 0) == (their_result.status != 0), f"{our_result}\ninstead of\n{their_result}")
    return our_result


def tree(form="raw", **rules):
    words = "driver=blkverify"
    for name in ("raw", "test"):
        kind = form if name == "test" else "raw"
        file = f"{name}.file.driver=file,{name}.file.filename={name}"
        if rules.get(name):
            file = (f"{name}.file.driver=blkdebug,{name}.file.image.driver=file,{name}.file.image.filename={name},"
                    f"{name}.file.inject-error.0.event=none,{name}.file.inject-error.0.iotype={rules[name]}")
        words += f",{name}.driver={kind},{file}"
    return ["--image-opts", words]


for form in ("raw", "qcow2"):
    make(form=form)
    same(["read 0 1M", "write -P 3 5000 70k", "read 5000 70k", "flush", "read 0 1M"], tree(form), found=0)
    found, result = lines(OUR_IO, ["read -P 1 0 4k", "read -P 3 5000 70k", "write -z 64k 64k", "read -P 0 64k 64k", "read -P 1 128k 4k"], tree(form))
    check(not found and result.status == 0, str(result))  # the peer aborts at write -z
    for place, read in ((0, "0 4k"), (4095, "0 4k"), (700, "512 1k"), (100000, "64k 128k"), (MIB - 1, "1048064 512")):
        make(place, form)
        result = same([f"read {read}"], tree(form))
        check(f"contents mismatch at offset {place}" in result.err, str(result))
        same(["read 300k 64k"], tree(form), found=0)
        check("read failed" in result.out, f"who reads what is wrong must not get it\n{result}")
make()
for name in ("raw", "test"):
    for kind, command in (("read", "read 0 512"), ("write", "write 4k 512")):
        result = same([command], tree(**{name: kind}))
        check("return value mismatch" in result.err, str(result))
# Only the image that is tested needs to survive a crash.
same(["write -P 1 0 512", "flush"], tree(raw="flush"), found=0)

# By name: a file, and an image whose format is found.
for form in ("raw", "qcow2"):
    make(form=form)
    same(["read 0 1M", "write -P 7 1k 1k", "read -P 7 1k 1k"], ["-f", "raw", "blkverify:raw:test"], found=0)
    make(2000, form)
    same(["read 0 512", "read 512 4k"], ["-f", "raw", "blkverify:raw:test"])
for name in ("blkverify:", "blkverify:raw", "blkverify:none:raw", "blkverify:raw:none"):
    for program in (OUR_IO, "qemu-io"):
        check(run(program, "-c", "length", name, status=None).status != 0, f"{program} {name}")

# Such a name in an image leads nowhere: it could lead back to the image.
their_img("create", "-q", "-u", "-f", "qcow2", "-b", "blkverify:raw:loop", "-F", "raw", "loop", "1M")
result = run(OUR_IO, "-f", "qcow2", "-c", "read 0 512", "loop", status=1)
check("may stand in an image" in result.err, str(result))

# A program of many requests on a qcow2 image of ours: no difference at all; block status is the image's.
make(form="qcow2")
rng = random.Random(1)
commands = []
for turn in range(150):
    place, length = rng.randrange(0, MIB - 200000), rng.randrange(1, 200000)
    commands.append(rng.choice([f"write -P {turn + 1} {place} {length}", f"read {place} {length}", f"write -z {place} {length}", "flush"]))
found, result = lines(OUR_IO, commands + ["read 0 1M"], tree("qcow2"))
check(not found and result.status == 0, str(result))
their_img("convert", "-f", "qcow2", "-O", "raw", "test", "flat")
equal(content("flat") == content("raw"), True, "the image and its copy")
maps = [run(OUR_IMG, "map", "--output=json", "--image-opts", tree("qcow2")[1]).out, run(OUR_IMG, "map", "--output=json", "-f", "qcow2", "test").out]
check(maps[0].count("true") == maps[1].count("true"), f"{maps}")
print("ok")
