#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a manual page does not render, or does not tell an option or command that the program has.
# labels: quick
# requires: groff
# timeout: 60
import os
import re

from image import OUR_IMG, OUR_IO, check, equal, run

DOCS = os.path.join(os.environ["SPINDLE_SRC"], "docs")


def manual(name):
    result = run("groff", "-ww", "-mdoc", "-Tascii", "-P-cbou", os.path.join(DOCS, "man", name + ".1"))
    equal(result.err, "", f"warnings about {name}.1")
    return re.sub(r"-\n *", "", result.out)


def letters(page):
    """Single-letter options, also of groups such as [-CcnpqUW]."""
    return {letter for group in re.findall(r"(?<![\w-])-([A-Za-z]+)", page) for letter in group}


img_page, io_page = manual("spindle-img"), manual("spindle-io")
for command in re.findall(r"^  ([a-z]+) ", run(OUR_IMG, "--help").out.split("\nOptions:")[0], re.M):
    section = re.search(rf"\n     {command} .*?(?=\n     [a-z]+ \[|\n   Options of new images)", img_page, re.S)
    check(section, f"spindle-img.1 has no section about {command}")
    for letter in re.findall(r"^  -([A-Za-z])\b", run(OUR_IMG, command, "--help").out, re.M):
        if letter not in "hbB" or (command, letter) == ("convert", "B"):
            check(letter in letters(section[0]), f"spindle-img.1: {command}: -{letter} is missing")
OUR_NBD = OUR_IMG.replace("spindle-img", "spindle-nbd")
nbd_page = manual("spindle-nbd")
for name in re.findall(r"--([a-z-]+)", run(OUR_NBD, "--help").out):
    check("--" + name in nbd_page or name in ("help", "version"), f"spindle-nbd.1: --{name} is missing")
OUR_USER = OUR_IMG.replace("spindle-img", "spindle-riscv64")
user_page = manual("spindle-riscv64")
for name in re.findall(r"^  (--?[A-Za-z0-9-]+) ", run(OUR_USER, "--help").out, re.M):
    check(re.search(rf"^     {re.escape(name)}\b", user_page, re.M), f"spindle-riscv64.1: {name} is missing")
for variable in re.findall(r"QEMU_[A-Z_0-9]+", run(OUR_USER, "--help").out):
    check(variable in user_page, f"spindle-riscv64.1: {variable} is missing")
for name in re.findall(r"--([a-z-]+)", run(OUR_IO, "--help").out):
    check("--" + name in io_page, f"spindle-io.1: --{name} is missing")
for command in re.findall(r"^([a-z_]+)\b.* -- ", run(OUR_IO, "-c", "help").out, re.M):
    check(re.search(rf"^     .*\b{command}\b", io_page, re.M), f"spindle-io.1: {command} is missing")
