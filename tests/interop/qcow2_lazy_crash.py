#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an image with lazy refcounts whose writer was killed is judged or repaired differently by the other side.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 60
"""Either side writes, flushes and is killed; the image is then marked as not closed cleanly. Both checks must say the same,
and whoever writes next must repair it first and keep what was flushed."""
import shutil
import subprocess

from image import OUR_IMG, OUR_IO, check, equal, fail, img, img_json, run

SCRIPT = ["write -q -P 5 0 1M", "write -q -P 6 3M 300k", "write -q -z 1M 1M", "flush"]


def wait_for_prompt(process):
    text = ""
    while not text.endswith("io> "):
        text += process.stdout.read(1) or fail(f"no prompt, but {text!r}")


for writer in (OUR_IO, "qemu-io"):
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "image", "8M")
    process = subprocess.Popen([writer, "-f", "qcow2", "image"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for_prompt(process)
    for line in SCRIPT:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        wait_for_prompt(process)
    process.kill()
    process.wait()
    check(img_json("info", "image")["dirty-flag"], f"{writer}: the image is not marked as in use")
    check("cleanly shut down: no\n" in img("info", "image").out, f"{writer}: info for people")
    reports = [img_json("check", "image", status=None, tool=tool) for tool in (OUR_IMG, "qemu-img")]
    equal(reports[0], reports[1], f"{writer}: check")
    for next_writer in (OUR_IO, "qemu-io"):
        shutil.copy("image", "copy")
        run(next_writer, "-f", "qcow2", "-c", "read -q -P 5 0 1M", "-c", "read -q -P 0 1M 1M", "-c", "read -q -P 6 3M 300k",
            "-c", "write -q -P 7 5M 64k", "copy")
        for tool in (OUR_IMG, "qemu-img"):
            run(tool, "check", "-q", "-f", "qcow2", "copy")
        run(OUR_IO, "-f", "qcow2", "-r", "-c", "read -q -P 5 0 1M", "-c", "read -q -P 7 5M 64k", "copy")
    shutil.copy("image", "copy")
    run(OUR_IMG, "check", "-q", "-r", "all", "copy")
    run("qemu-img", "check", "-q", "copy")
    equal(img_json("info", "copy")["dirty-flag"], False, f"{writer}: a repaired image")
