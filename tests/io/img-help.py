#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, help does not tell all options, or an option that is missing is not refused clearly.
# labels: quick
# timeout: 60
import os
import re

from image import OUR_IMG, OUR_IO, check, equal, img, run

COMMANDS = {
    "check": "-f --format -r --repair --output -T -q -U --image-opts",
    "compare": "-f -F -s --strict -T -p -q -U --image-opts",
    "convert": "-f -O -o -B -F -c -n --target-is-zero -S -m -W -C -r --salvage -t -T -p -q -U --image-opts "
               "--target-image-opts",
    "create": "-f --format -o --options -b --backing -F --backing-format -u -q",
    "info": "-f --backing-chain --output -t -U --image-opts",
    "map": "-f -s --start-offset -l --max-length --output -U --image-opts",
    "resize": "-f --preallocation --shrink -q --image-opts",
}
text = img("--help").out
for command, options in COMMANDS.items():
    check(re.search(rf"^  {command} ", text, re.M), f"{command} is not listed")
    for spelling in ("--help", "-h"):
        help_text = img(command, spelling).out
        words = set(re.findall(r"(?<!\S)--?[A-Za-z][A-Za-z-]*", help_text))
        for option in options.split() + ["-h", "--help"]:
            check(option in words, f"{command} {spelling} does not tell {option}:\n{help_text}")
check("Supported formats: " in text, text)

for program in (OUR_IMG, OUR_IO):
    name = os.path.basename(program)
    for spelling in ("--version", "-V"):
        check(re.match(rf"{name} version \d+\.\d+\.\d+\n", run(program, spelling).out), f"{program} {spelling}")
    check(run(program, "--help").out.startswith(f"Usage: {name} "), f"{program} --help")
    check("block_read" in run(program, "-T", "help").out, "trace points are listed")

# The name a program is called by stands in its messages.
os.symlink(OUR_IMG, "qemu-img")
result = run("./qemu-img", "info", "missing", status=1)
check(result.err.startswith("qemu-img: Could not open 'missing': "), f"{result}")
check(run("./qemu-img", "--version").out.startswith("qemu-img version "), "version under another name")

for words, wanted in [([], "Not enough arguments"), (["foo"], "Command not found: foo"), (["-x"], "unrecognized option '-x'")]:
    result = img(*words, status=1)
    check(wanted in result.err and "Try 'spindle-img --help'" in result.err, f"wanted '{wanted}': {result}")

with open("/dev/full", "w") as full:
    import subprocess
    process = subprocess.run([OUR_IMG, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    equal(process.returncode, 1, "output that cannot be written is an error")
