#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, names that stand in an image command the terminal of whoever looks at it, or forge lines that look like the program's own.
# labels: full
# requires: qemu-img
# timeout: 120
"""Images whose names for backing file, its format, snapshots, bitmaps and data file hold escape sequences; what every tool prints about them
is looked at byte by byte. JSON keeps the names: there they are escaped, and come out as they were."""
import json
import os
import shutil
import struct
import sys

from image import OUR_IMG, OUR_IO, check, content, equal, run, their_img, write_file

EVIL = "a\x1b[2J\x1b]0;owned\x07b\nspindle-img: all is well\rc\td\x7f\u009b31m\u202etxt"
SHORT = "\x1b[31m\u009b7m\n"
NAMES = (EVIL, SHORT)


def shown(result, *extra):
    """No byte that a terminal obeys."""
    for text in (result.out, result.err):
        for character in text:
            harmless = character in "\n" or (0x20 <= ord(character) < 0x7f) or (ord(character) >= 0xa0 and character not in "\u202e\u2028") \
                or 0xdc80 <= ord(character)
            check(harmless and not 0xdc80 <= ord(character) <= 0xdc9f, f"{character!r} of {extra} reaches the terminal: {result.command!r}\n{text!r}")
        check("\nspindle-img: all is well" not in text, f"a forged line: {text!r}")


def tool(*words, wanted=None, **options):
    result = run(*words, status=None, **options)
    shown(result)
    if wanted:
        check(wanted in result.out + result.err, f"no {wanted!r} in {result.out + result.err!r}")
    return result


# A backing file that is not there; its name and its format.
for name in NAMES:
    their_img("create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", "over.q", "1M")
    forged = content("over.q")
    format_at = forged.index(struct.pack(">II", 0xE2792ACA, 3)) + 8
    write_file("format.q", forged[:format_at] + b"\x1b7x" + forged[format_at + 3:])
    for image in ("over.q", "format.q"):
        tool(OUR_IMG, "info", image, wanted="\\x1b")
        tool(OUR_IMG, "info", "--confined", image)
        found = tool(OUR_IMG, "info", "--output", "json", image)
        equal(json.loads(found.out)["backing-filename"], name, "the name in JSON")
        for words in (["info", "--backing-chain", image], ["map", image], ["map", "--output", "json", image], ["check", image], ["compare", image, "over.q"],
                      ["convert", "-O", "raw", image, "out"], ["commit", image], ["rebase", "-b", "", image], ["measure", "-O", "qcow2", image],
                      ["snapshot", "-l", image], ["bench", "-c", "1", image], ["dd", f"if={image}", "of=out"], ["resize", image, "2M"],
                      ["amend", "-o", "compat=1.1", image], ["bitmap", "--remove", image, "b"], ["create", "-f", "qcow2", "-b", image, "-F", "qcow2", "o.q"]):
            tool(OUR_IMG, *words)
        tool(OUR_IO, "-c", "info", "-c", "read 0 512", image)

# Files that are there and have such names.
their_img("create", "-q", "-f", "raw", "./base-" + EVIL, "1M")
their_img("create", "-q", "-f", "qcow2", "-b", "./base-" + EVIL, "-F", "raw", "over.q")
tool(OUR_IMG, "info", "--backing-chain", "over.q", wanted="image: ./base-a\\x1b[2J")
run("qemu-io", "-f", "raw", "-c", "write -q 0 64k", "./base-" + EVIL)
tool(OUR_IMG, "map", "over.q", wanted="base-a\\x1b[2J")
tool(OUR_IMG, "info", "no-such-" + SHORT, wanted="\\x1b[31m")

# Snapshots, bitmaps, a data file.
their_img("create", "-q", "-f", "qcow2", "s.q", "1M")
for name in NAMES:
    their_img("snapshot", "-c", name, "s.q")
    their_img("bitmap", "--add", "s.q", name)
tool(OUR_IMG, "snapshot", "-l", "s.q", wanted="\\x1b[31m")
tool(OUR_IMG, "snapshot", "-d", "none" + SHORT, "s.q", wanted="\\x1b[31m")
tool(OUR_IMG, "info", "s.q", wanted="\\x1b[31m")
equal(sorted(b["name"] for b in json.loads(tool(OUR_IMG, "info", "--output", "json", "s.q").out)["format-specific"]["data"]["bitmaps"]), sorted(NAMES), "bitmaps in JSON")
tool(OUR_IMG, "bitmap", "--merge", "none" + SHORT, "s.q", SHORT, wanted="\\x1b[31m")
tool(OUR_IMG, "convert", "-O", "qcow2", "--bitmaps", "s.q", "out")
tool(OUR_IO, "-c", "info", "s.q")
damaged = bytearray(content("s.q"))  # a broken bitmap is warned about, by its name
shutil.copy("s.q", "d.q")
directory_at = struct.unpack_from(">Q", damaged, damaged.index(struct.pack(">II", 0x23852875, 24)) + 8 + 16)[0]
struct.pack_into(">I", damaged, directory_at + 12, struct.unpack_from(">I", damaged, directory_at + 12)[0] | 1)
write_file("d.q", damaged)
tool(OUR_IMG, "convert", "-O", "qcow2", "--bitmaps", "d.q", "out")
tool(OUR_IMG, "convert", "-O", "qcow2", "--bitmaps", "--skip-broken-bitmaps", "d.q", "out", wanted="\\x1b")
their_img("create", "-q", "-f", "qcow2", "-o", "data_file=data" + SHORT, "e.q", "1M")
tool(OUR_IMG, "info", "e.q", wanted="data\\x1b[31m")
os.unlink("data" + SHORT)
tool(OUR_IMG, "map", "e.q", wanted="\\x1b[31m")

# Letters of other scripts are no commands.
their_img("create", "-q", "-f", "qcow2", "-u", "-b", "größe-磁盤-💾", "-F", "raw", "u.q", "1M")
check("backing file: größe-磁盤-💾\n" in tool(OUR_IMG, "info", "u.q", env=dict(os.environ, LC_ALL="C.UTF-8")).out, "letters")
sys.exit(0)
