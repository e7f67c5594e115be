#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a mistake in the schema builds, or is reported without its place, or the manual lacks something.
# labels: quick
# timeout: 60
"""The generator refuses mistakes with file and line, and writes what the schema says."""
import os
import subprocess
import sys

SOURCE = os.environ["SPINDLE_SRC"]
GENERATOR = os.path.join(SOURCE, "tools/schema/generate.py")

MISTAKES = [  # schema, what the message must contain
    ("{ 'struct': 'A', 'data': {} }", "s.json:1: 'A' needs a documentation block"),
    ("##\n# @A: x\n##\n{ 'struct': 'A', 'data': { 'a': 'int' } }", "s.json:4: 'A': member 'a' is not documented"),
    ("##\n# @A: x\n# @z: x\n##\n{ 'struct': 'A', 'data': {} }", "documents 'z', which it does not have"),
    ("##\n# @A: x\n# @a: x\n##\n{ 'struct': 'A', 'data': { 'a': 'Nope' } }", "unknown type 'Nope'"),
    ("##\n# @A: x\n##\n{ 'struct': 'A', 'data': {}, 'colour': 'red' }", "unknown key 'colour'"),
    ("##\n# @A: x\n# @a: x\n##\n{ 'struct': 'A', 'data': { '*a': { 'type': 'int', 'default': 7, 'max': 5 } } }", "default 7 does not fit"),
    ("##\n# @A: x\n# @a: x\n##\n{ 'struct': 'A', 'data': { 'a': { 'type': 'int', 'default': 7 } } }", "only an optional scalar"),
    ("##\n# @A: x\n# @a: x\n##\n{ 'struct': 'A', 'data': { '*a': { 'type': 'uint8', 'max': 256 } } }", "limits do not fit"),
    ("##\n# @A: x\n# @a: x\n##\n{ 'struct': 'A', 'data': { 'a': { 'type': 'int', 'maximum': 5 } } }", "unknown key 'maximum'"),
    ("##\n# @A: x\n# @a-b: x\n# @a_b: x\n##\n{ 'struct': 'A', 'data': { 'a-b': 'int', 'a_b': 'int' } }", "become 'a_b' in C"),
    ("##\n# @E: x\n# @a: x\n##\n{ 'enum': 'E', 'data': [ 'a', 'b' ] }", "value 'b' is not documented"),
    ("##\n# @A: x\n# @a: x\n# @b: x\n##\n{ 'alternate': 'A', 'data': { 'a': 'int', 'b': 'number' } }", "'b' cannot be told from 'a'"),
    ("##\n# @A: x\n# @t: x\n##\n{ 'union': 'A', 'base': { 't': 'str' }, 'discriminator': 't', 'data': {} }", "discriminator must be"),
    ("##\n# @A: x\n##\n{ 'struct': 'A', 'data': {} }\n##\n# @A: x\n##\n{ 'struct': 'A', 'data': {} }", "s.json:8: 'A' is defined twice"),
    ("{ 'struct': 'A' 'data': {} }", "s.json:1: "),
    ("{ 'struct': \"A\" }", "s.json:1: unexpected"),
    ("##\n# @A: x\n", "has no closing '##'"),
    ("{ 'include': 'missing.json' }", "missing.json"),
]


def generate(*arguments):
    return subprocess.run([sys.executable, "-B", GENERATOR, *arguments], capture_output=True, text=True, check=False)


def test_mistakes():
    for text, message in MISTAKES:
        with open("s.json", "w", encoding="utf-8") as file:
            file.write(text)
        done = generate("s.json", "--sources", "out")
        assert done.returncode == 1, f"accepted: {text}"
        assert message in done.stderr and "Traceback" not in done.stderr, f"{text}\n{done.stderr}"
        assert not os.path.exists("out"), "something was written in spite of a mistake"


def test_nothing_is_touched_without_need():
    schema = os.path.join(SOURCE, "qmp/schema/schema.json")
    assert generate(schema, "--sources", "gen", "--manual", "qmp.md").returncode == 0
    before = {name: os.stat(os.path.join("gen", name)).st_mtime_ns for name in os.listdir("gen")}
    assert generate(schema, "--sources", "gen").returncode == 0
    assert before == {name: os.stat(os.path.join("gen", name)).st_mtime_ns for name in os.listdir("gen")}
    listed = generate(schema, "--list", "gen").stdout.split()
    assert sorted(map(os.path.basename, listed)) == sorted(before), "CMake is told of other files than are written"
    with open("qmp.md", encoding="utf-8") as file:
        manual = file.read()
    assert "### Command `blockdev-add`" in manual and "[BlockdevOptions](#blockdevoptions)" in manual
    assert "default 65536; 512 to 2097152; bytes" in manual


test_mistakes()
test_nothing_is_touched_without_need()
print(f"{len(MISTAKES)} mistakes are reported")
