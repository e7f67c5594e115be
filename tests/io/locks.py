#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, two programs can write to one image at the same time, or a tool refuses what is harmless.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 60
"""Each side's program holds an image open, and each side's tools try to use it."""
import subprocess

from image import OUR_IMG, OUR_IO, check, img, run

img("create", "-q", "-f", "qcow2", "image", "1M")
for holder in (OUR_IO, "qemu-io"):
    for writing in (True, False):
        words = [holder, "-f", "qcow2"] + ([] if writing else ["-r"]) + ["image"]
        held = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        held.stdin.write("length\n")
        held.stdin.flush()
        held.stdout.readline()
        for tool, io_tool in ((OUR_IMG, OUR_IO), ("qemu-img", "qemu-io")):
            what = f"{' '.join(words)}: {tool}"
            refused = 1 if writing else 0
            for command in (["info"], ["check"], ["map"]):
                result = run(tool, *command, "-f", "qcow2", "image", status=refused)
                if writing:
                    check('Failed to get shared "write" lock' in result.err and "[image]" in result.err, f"{what}: {result}")
            run(tool, "info", "-U", "-f", "qcow2", "image")
            run(io_tool, "-f", "qcow2", "-r", "-c", "read -q 0 512", "image", status=refused)
            run(io_tool, "-f", "qcow2", "-r", "-U", "-c", "read -q 0 512", "image")
            run(io_tool, "-f", "qcow2", "-c", "write -q 0 512", "image", status=1)
            run(tool, "resize", "-f", "qcow2", "image", "+1M", status=1)
            run(tool, "create", "-f", "qcow2", "image", "1M", status=1)
        held.communicate("quit\n")
    run(OUR_IO, "-f", "qcow2", "-c", "write -q 0 512", "image")
