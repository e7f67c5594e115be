#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, the RISC-V instruction table disagrees with the GNU tools about an encoding or an operand.
# labels: quick
# requires: riscv64-linux-gnu-as riscv64-linux-gnu-objdump
"""Random encodings of every instruction of our table, disassembled by us and by objdump: the texts must be equal."""
import os
import re
import subprocess
import sys

PROGRAM = os.path.join(os.environ["SPINDLE_BUILD"], "tests/cpu/riscv/list_instructions")
EXTENSIONS = "rv64imafdcv_zicsr_zifencei_zba_zbb_zbs_zicbom_zicboz"


def instructions(code):
    position = 0
    while position < len(code):
        length = 4 if code[position] & 3 == 3 else 2
        yield int.from_bytes(code[position:position + length], "little")
        position += length


def objdump(path):
    """Through an object file: its attributes tell objdump which extensions to expect."""
    with open(path, "rb") as binary, open("code.s", "w", encoding="ascii") as source:
        source.write(f'.attribute arch, "{EXTENSIONS}"\n.text\n')
        source.writelines(f".insn {hex(bits)}\n" for bits in instructions(binary.read()))
    subprocess.run(["riscv64-linux-gnu-as", f"-march={EXTENSIONS}", "code.s", "-o", "code.o"], check=True)
    text = subprocess.run(["riscv64-linux-gnu-objdump", "-d", "-z", "-M", "no-aliases", "code.o"],
                          check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        parts = re.match(r"\s*([0-9a-f]+):\t[0-9a-f]+\s+\t?(.*)", line)
        if parts:
            yield int(parts[1], 16), normal(parts[2])


def normal(text):
    text = re.sub(r"\s+#.*", "", text)  # comments with computed addresses
    text = re.sub(r"\s*<.*>", "", text)
    text = text.strip()
    name, _, operands = text.partition("\t")
    operands = operands.replace("0x", "")
    if name.startswith("c.s") and name.endswith("64"):  # a shift by 0 has a name of its own there
        name, operands = name[:-2], operands + ",0"
    if name == "c.nop":  # objdump shows the C.ADDI that it is
        name, operands = "c.addi", f"zero,{operands}"
    return f"{name} {operands}".strip()


def without_csr(text):
    return re.sub(r",\w+,", ",,", text)


def main():
    subprocess.run([PROGRAM, "60", "20260101", "code.bin", "listing"], check=True)
    theirs = dict(objdump("code.bin"))
    wrong = total = 0
    by_name = {}
    with open("listing", encoding="ascii") as listing:
        for line in listing:
            address, _, text = line.rstrip("\n").partition("\t")
            total += 1
            ours, other = normal(text), theirs.get(int(address, 16), "")
            if re.match(r"csr.*,0x", text):  # a register that we do not have: objdump may know its name
                ours, other = without_csr(ours), without_csr(other)
            if other.startswith(".4byte") and re.match(r"fcvt\.d\.(s|w|wu) ", ours):
                continue  # conversions that never round: objdump knows them with the field 0 only
            if ours != other:
                wrong += 1
                by_name[ours.split()[0]] = by_name.get(ours.split()[0], 0) + 1
                if by_name[ours.split()[0]] < 3:
                    print(f"{address}: ours '{ours}', objdump '{other}'")
    print(f"{total} instructions, {wrong} differ {by_name or ''}")
    sys.exit(1 if wrong or not total else 0)


main()
