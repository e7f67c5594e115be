#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, internal snapshots that we take, apply, delete or read are not what the peer makes of them, or the other way round.
# labels: full interop
# requires: qemu-img qemu-io cmp
# timeout: 120
import random

from image import check, equal, fail, img, img_json, run

OPTIONS = (["-o", "cluster_size=4k"], [], ["-o", "extended_l2=on"], ["-o", "compat=0.10"])


def image_of(tool, selector, name):
    tool("convert", *(["-l", selector] if selector else []), "-f", "qcow2", "-O", "raw", "a", name)
    with open(name, "rb") as file:
        return file.read()


def theirs(*words):
    return run("qemu-img", *words)


for seed in range(1, 9):
    chance = random.Random(seed)
    theirs("create", "-q", "-f", "qcow2", *OPTIONS[seed % 4], "a", "4M")
    known = {}
    for step in range(12):
        tool = chance.choice((img, theirs))
        offset = chance.randrange(0, 8000) * 512
        length = min(chance.randrange(1, 2000) * 512, (4 << 20) - offset)
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {step + 1} {offset} {length}", "a")
        action = chance.choice("cccad") if known else "c"
        name = f"s{step}" if action == "c" else chance.choice(sorted(known))
        if action == "c":
            known[name] = image_of(theirs, None, "x")
        tool("snapshot", "-" + action, name, "a")
        if action == "a":
            equal(image_of(img, None, "x"), known[name], f"seed {seed}: after going back to {name}")
        elif action == "d":
            del known[name]
        run("qemu-img", "check", "-q", "a")
        img("check", "-q", "a")
    equal([s["name"] for s in img_json("info", "-f", "qcow2", "a").get("snapshots", [])], list(known), f"seed {seed}: list")
    for name, content in known.items():
        for tool, selector in ((img, name), (theirs, name), (img, f"snapshot.name={name}")):
            if image_of(tool, selector, "x") != content:
                fail(f"seed {seed}: snapshot {name} read by {tool.__name__}")

img("create", "-q", "-f", "qcow2", "b", "1M")
equal(img("snapshot", "b").out, "", "an image without snapshots")
img("snapshot", "-c", "a name", "b")
listing = img("snapshot", "-l", "b").out.splitlines()
equal(listing[:2], ["Snapshot list:", "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT"], "columns")
check(listing[2].startswith("1         a name                0 B "), listing[2])
check(listing[2] in img("info", "-f", "qcow2", "b").out, "info shows the same")
for words, text in ((["-d", "none", "b"], "Could not delete snapshot 'none': snapshot not found"),
                    (["-a", "none", "b"], "Could not apply snapshot 'none'"),
                    (["-l", "-c", "x", "b"], "Cannot mix '-l', '-a', '-c', '-d'")):
    result = img("snapshot", *words, status=1)
    check(text in result.err, f"wanted '{text}': {result}")
result = img("convert", "-l", "none", "-O", "raw", "b", "c", status=1)
check("Failed to load snapshot 'none'" in result.err, f"{result}")
