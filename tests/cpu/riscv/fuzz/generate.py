# SPDX-License-Identifier: Apache-2.0
"""Random RISC-V cases from the instruction table: code.bin and states.bin for harness.S.

x2, x4 and x9 point into the case's memory and are never written, gp (x3) belongs to the harness. Branches go forward to
an instruction of the same case. What would trap or differ between machines by design is left out: system instructions,
counters, reserved rounding modes, a store-conditional that does not directly follow its load-reserved.
"""

import os
import random
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ["SPINDLE_SRC"], "tools", "decode"))
from table import Table  # noqa: E402

CODE_BASE, CODE_SIZE = 0x80010000, 512
STATE_BASE, STATE_SIZE = 0x80800000, 2048
MEMORY, MEMORY_SIZE = 536, 1024  # within a state
BASES = (2, 4, 9)
KEPT = {2, 3, 4, 9}
LEFT_OUT = {"jalr", "c.jr", "c.jalr", "ecall", "ebreak", "c.ebreak", "sret", "mret", "wfi", "sfence.vma", "c.addi16sp",
            "cbo.inval", "cbo.clean", "cbo.flush", "cbo.zero", "sc.w", "sc.d", "ctzw"}  # QEMU 7.2 gets ctzw of 0 wrong; machine/bitmanip.S has it
JUMPS = {"jal", "c.j", "beq", "bne", "blt", "bge", "bltu", "bgeu", "c.beqz", "c.bnez"}
CSRS = {"csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"}
SPECIAL = [0, 1, 2, 3, 63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, 0xffffffff80000000, 0xffffffff7fffffff]
DOUBLES = [0, 1 << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000,
           0x7ff0000000000001, 0xfff4000000000000, 1, 0x8000000000000001, 0x000fffffffffffff, 0x0010000000000000,
           0x7fefffffffffffff, 0x43e0000000000000, 0xc3e0000000000000, 0x43f0000000000000, 0x41dfffffffc00000,
           0x41e0000000000000, 0xc1e0000000200000, 0x3fe0000000000000, 0x4004000000000000, 0x3ca0000000000000,
           0x380fffffffffffff, 0x36a0000000000000, 0x47efffffe0000000, 0x47effffff0000000]
SINGLES = [0, 1 << 31, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffa00000, 1, 0x80000001,
           0x007fffff, 0x00800000, 0x7f7fffff, 0x5f000000, 0xdf000000, 0x5f800000, 0x4f000000, 0x4effffff, 0x3f000000,
           0x40200000, 0x33800000]


def integer(rng):
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(SPECIAL)
    if kind < 0.6:
        return rng.getrandbits(rng.randrange(1, 65))
    return rng.getrandbits(64)


def floating(rng):
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(DOUBLES)
    if kind < 0.6:
        return 0xffffffff00000000 | rng.choice(SINGLES)
    if kind < 0.75:  # near one another, so that sums cancel and products overflow now and then
        return rng.getrandbits(1) << 63 | rng.randrange(1020, 1028) << 52 | rng.getrandbits(52)
    if kind < 0.9:
        return 0xffffffff00000000 | rng.getrandbits(1) << 31 | rng.randrange(120, 136) << 23 | rng.getrandbits(23)
    return rng.getrandbits(64)


class Generator:
    def __init__(self, table, rng, only=None):
        self.rng = rng
        self.instructions = [i for i in table.instructions if i.name not in LEFT_OUT and (not only or only(i))]
        self.named = {i.name: i for i in table.instructions}

    def put(self, insn, field, value, word):
        for low, to, width in field.slices:
            mask = (1 << width) - 1
            word = word & ~(mask << low) | (value >> to & mask) << low
        return word

    def fields(self, insn):
        """The instruction with random fields that obey the rules; None when they cannot."""
        word = insn.match
        memory = "(" in insn.operands
        for field in insn.fields:
            value = self.rng.getrandbits(field.bits) & sum(((1 << width) - 1) << to for _, to, width in field.slices)
            if field.type.member == "rd" and field.type.kind.startswith("x") and self.number(field, value) in KEPT:
                return None
            if field.type.member == "rs1" and memory:
                value = self.rng.choice(BASES)
                if field.type.kind == "x'":
                    value = 1  # x9
            if field.name == "imm" and memory:
                value = self.rng.randrange(-256, 240)
                if self.rng.random() < 0.8:
                    value &= ~7
                value &= (1 << field.bits) - 1
            if field.name == "rm" and value in (5, 6):
                value = 7
            if field.name == "rm" and "rmw" in insn.operands:
                value = 0
            if value in field.excluded:
                return None
            word = self.put(insn, field, value, word)
        return word

    @staticmethod
    def number(field, value):
        return value + 8 if field.type.kind.endswith("'") else value

    def csr(self, insn, word):
        """fflags at will, frm only to modes that exist."""
        field = insn.field_named("csr")
        if insn.name == "csrrwi" and self.rng.random() < 0.5:
            word = self.put(insn, insn.field_named("uimm"), self.rng.randrange(5), word)
            return self.put(insn, field, 2, word)
        return self.put(insn, field, 1, word)

    def one(self):
        """-> list of (length, word, instruction); a jump's target is still open"""
        while True:
            insn = self.rng.choice(self.instructions)
            word = self.fields(insn)
            if word is None:
                continue
            if insn.name in CSRS:
                word = self.csr(insn, word)
            if insn.name.startswith("lr."):
                follower = self.named["sc" + insn.name[2:]]
                store = self.fields(follower)
                if store is None:
                    continue
                base = insn.field_named("rs1")
                same = word >> base.slices[0][0] & 31
                return [(insn.length // 8, word, insn), (follower.length // 8, self.put(follower, base, same, store), follower)]
            return [(insn.length // 8, word, insn)]

    def block(self, count):
        pieces = [(4, 0x0f81bf83, None)]  # ld x31, 248(gp)
        while len(pieces) < count:
            pieces += self.one()
        starts = [0]
        for length, *_ in pieces:
            starts.append(starts[-1] + length)
        code = b""
        for index, (length, word, insn) in enumerate(pieces):
            if insn and insn.name in JUMPS:
                target = starts[self.rng.randrange(index + 1, min(index + 6, len(pieces)) + 1)]
                word = self.put(insn, insn.field_named("imm"), target - starts[index], word)
            code += word.to_bytes(length, "little")
        return code + struct.pack("<II", 0x2101b183, 0x00018067)  # ld gp, RETURN(gp); jr gp

    def state(self, index):
        base = STATE_BASE + index * STATE_SIZE + MEMORY + 271 & ~15
        x = [integer(self.rng) for _ in range(32)]
        for number in BASES:
            x[number] = base
        x[3] = 0
        state = struct.pack("<32Q", *x) + struct.pack("<32Q", *[floating(self.rng) for _ in range(32)])
        state += struct.pack("<QQQ", self.rng.randrange(5) << 5 | self.rng.getrandbits(5), CODE_BASE + index * CODE_SIZE, 0)
        memory = b"".join(struct.pack("<Q", self.rng.choice((integer, floating))(self.rng)) for _ in range(MEMORY_SIZE // 8))
        return (state + memory).ljust(STATE_SIZE, b"\0")


def tables():
    folder = os.path.join(os.environ["SPINDLE_SRC"], "emulator/cpu/riscv")
    names = ["fields"] + sorted(n[:-7] for n in os.listdir(folder) if n.endswith(".decode") and n != "fields.decode")
    return Table([os.path.join(folder, name + ".decode") for name in names])


def generate(cases, length, seed, only=None):
    rng = random.Random(seed)
    generator = Generator(tables(), rng, only)
    with open("code.bin", "wb") as code, open("states.bin", "wb") as states:
        for index in range(cases):
            block = generator.block(length)
            if len(block) > CODE_SIZE:
                raise ValueError("a case is too long")
            code.write(block.ljust(CODE_SIZE, b"\0"))
            states.write(generator.state(index))


def show_case(index):
    address = CODE_BASE + index * CODE_SIZE
    with open("code.bin", "rb") as code:
        code.seek(index * CODE_SIZE)
        size = len(code.read(CODE_SIZE).rstrip(b"\0"))
    subprocess.run(["riscv64-linux-gnu-objdump", "-d", "-M", "no-aliases", "-j", ".cases", f"--start-address={address:#x}",
                    f"--stop-address={address + size:#x}", "-D", "bare.elf"], check=False)


def compare(ours, theirs, cases, state_size, differences):
    """-> how many cases end differently; the first three are shown."""
    if len(ours) != len(theirs):
        print(f"{len(ours)} bytes of states, QEMU wrote {len(theirs)}")
        return 1
    wrong = 0
    for index in range(cases):
        part = slice(index * state_size, (index + 1) * state_size)
        found = list(differences(ours[part], theirs[part]))
        if found:
            wrong += 1
            if wrong <= 3:
                print(f"case {index}:", *found[:12], sep="\n  ", flush=True)
                show_case(index)
    return wrong


def never_translated(wanted):
    """Of the instructions that `wanted` says the generator makes, those that no case had."""
    with open("coverage", encoding="ascii") as lines:
        counts = dict(line.split() for line in lines)
    return [insn.name for insn in tables().instructions if wanted(insn) and counts.get(insn.name, "0") == "0"]
