#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a mistake in an instruction table gets past the generator instead of being named with its line.
# labels: quick
"""Feeds tables with one mistake each to tools/decode/generate.py: it must refuse them, say where and why, and write nothing."""
import os
import subprocess
import sys

GENERATOR = os.path.join(os.environ["SPINDLE_SRC"], "tools/decode/generate.py")
FIELDS = """unit 16
field rd 5 rd x
field rs1 5 rs1 x
field rs2 5 rs2 x
immediate imm imm signed
extension I
"""
GOOD = "add | 0000000 rs2 rs1 000 rd 0110011 | rd,rs1,rs2 | rd = rs1 + rs2\n"
MISTAKES = {
    "two patterns for one word": (GOOD + "sum | 0000000 rs2 rs1 --- rd 0110011 | rd | rd = rs1\n", "t.decode:8: sum overlaps add"),
    "a name twice": (GOOD + GOOD.replace("0110011", "0110111"), "t.decode:8: add stands also at t.decode:7"),
    "an unknown field": ("add | 0000000 rs9 rs1 000 rd 0110011 | rd | rd = rs1\n", "t.decode:7: 'rs9' is neither bits nor a declared field"),
    "bits missing": ("add | 000000 rs2 rs1 000 rd 0110011 | rd | rd = rs1\n", "t.decode:7: add: 31 bits are no multiple of 16"),
    "an immediate without slices": ("addi | imm rs1 000 rd 0010011 | rd | rd = rs1\n", "needs its slices"),
    "a meaning with an unknown function": (GOOD.replace("rs1 + rs2", "frob(rs1)"), "t.decode:7: add: 'rd = frob(rs1)': no function 'frob'"),
    "widths mixed": (GOOD.replace("rs1 + rs2", "low(rs1) + rs2"), "has 64 bits where 32 are wanted"),
    "a 32-bit value written": (GOOD.replace("rs1 + rs2", "low(rs1)"), "has 32 bits where 64 are wanted"),
    "a field that is not there": (GOOD.replace("rs1 + rs2", "rs1 + imm"), "no field 'imm'"),
    "an abbreviation with too few operands": (GOOD + "c.x | 0000000000000 000 | | add(1)\n", "t.decode:8: add has the operands rd, rs1, rs2"),
}


def generate(text):
    with open("t.decode", "w", encoding="ascii") as table:
        table.write(FIELDS + text)
    return subprocess.run([sys.executable, GENERATOR, "--prefix", "x", "--folder", "x", "--out", "out", "t.decode"],
                          capture_output=True, text=True, check=False)


def main():
    wrong = 0
    for name, (text, message) in MISTAKES.items():
        result = generate(text)
        if result.returncode == 0 or message not in result.stderr or os.path.exists("out"):
            print(f"{name}: exit {result.returncode}, '{result.stderr.strip()}' instead of '{message}'")
            wrong += 1
    if generate(GOOD).returncode or not os.path.exists("out/insn_decode.c"):
        print("a table without mistakes is refused")
        wrong += 1
    sys.exit(1 if wrong else 0)


main()
