#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a conversion that failed (a full disk, a bad sector, no memory) cannot go on with `--resume`, or makes a wrong image then.
# labels: full
# timeout: 400
"""`convert --resume`, with one of its operations failing (lib/tool_faults.py). After each failure the same command runs once more, without: it
must go on, or begin anew, and make the right image. Streams fail here too: what went out before is a beginning of the image."""
import random

import tool_faults
from faults import quietly
from image import OUR_IMG, img, write_file
from tool_faults import Scenario, first, same_content

K = 1024
SIZE = 640 * K


def source():
    rng = random.Random(4)
    data = bytearray(SIZE)
    for at in range(0, SIZE, 96 * K):
        data[at:at + 40 * K] = rng.randbytes(40 * K)
    write_file("a.raw", data)
    img("convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=16k", "a.raw", "a")


def check_problem(form):
    if form == "raw":
        return None
    result = quietly(OUR_IMG, "check", "-f", "qcow2", "target")
    return None if result.returncode == 0 else f"check: {result.stdout.decode()}{result.stderr.decode()}"


def resumed(name, form, *words):
    command = [OUR_IMG, "convert", "--resume", "-r", str(2 * SIZE), "-f", "qcow2", "-O", form, *words, "a", "target"]

    def good(_):
        return first(check_problem(form), same_content("a", "qcow2", "target", form))

    def bad():
        again = quietly(*[word for word in command if word not in ("-r", str(2 * SIZE))])
        if again.returncode:
            return f"the same command fails afterwards: {again.stderr.decode()}"
        return good("")
    Scenario(name, source, command, {"target", "target.resume", "target.resume.new"}, good, bad)


def streamed(name, *words):
    def good(out):
        return None  # judged by what is said, and by the status
    Scenario(name, source, ["sh", "-c", f'exec "$0" convert -f qcow2 {" ".join(words)} a - > target', OUR_IMG], {"target"}, good)


resumed("resume raw", "raw")
resumed("resume qcow2", "qcow2", "-o", "cluster_size=4k")
resumed("resume compressed", "qcow2", "-c", "-o", "cluster_size=16k")
resumed("resume direct", "raw", "-t", "none")
resumed("resume lazy", "qcow2", "-o", "cluster_size=4k,lazy_refcounts=on")
streamed("stream raw", "-O", "raw")
streamed("stream qcow2", "-O", "qcow2", "-o", "cluster_size=4k")
tool_faults.main()
