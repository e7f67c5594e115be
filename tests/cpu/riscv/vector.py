#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an instruction of the RISC-V vector extension computes something else than on QEMU, or is illegal where it is not there.
# labels: full
# requires: riscv64-linux-gnu-gcc qemu-riscv64
# timeout: 300
"""Random vector instructions under random vl, vtype, masks and rounding, run by our machine (the IR evaluator, and host code) and by
qemu-riscv64; final states and the number of illegal instructions must be equal. `vector.py SEED CASES LENGTH [NAME,...]` repeats or
extends a run, or keeps to some instructions."""
import os
import random
import re
import struct
import subprocess
import sys

from patience import patience

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "fuzz"))
from generate import BASES, CODE_BASE, CODE_SIZE, KEPT, MEMORY, Generator, compare, floating, integer, never_translated, tables  # noqa: E402

MACHINE = os.environ.get("SPINDLE_MACHINE") or os.path.join(os.environ["SPINDLE_BIN"], "spindle-system-riscv64")
STATE_BASE, STATE_SIZE, VECTORS = 0x80800000, 4096, 2048
OFFSETS = (10, 11, 12, 13)  # registers that hold small numbers: strides, distances, lengths
INDICES = range(24, 32)  # vector registers that hold small ones and are never written: offsets that stay in the case's memory
CONFIGURATION = {"vsetvli", "vsetivli", "vsetvl"}
ORACLE = os.environ.get("ORACLE", "qemu-riscv64")
# QEMU 7.2 ends with an assertion at these; with ORACLE=... a newer one is asked. machine/vector.S has them.
LEFT_OUT = {"vfcvt.rtz.xu.f.v", "vfcvt.rtz.x.f.v", "vfwcvt.rtz.xu.f.v", "vfwcvt.rtz.x.f.v", "vfncvt.rtz.xu.f.w", "vfncvt.rtz.x.f.w",
            "vfncvt.rod.f.f.w"} if ORACLE == "qemu-riscv64" else set()
GROUPS = (1, 1, 1, 2, 2, 4, 4, 8)


class Vectors(Generator):
    def __init__(self, table, rng, only):
        super().__init__(table, rng, lambda insn: insn.extension == "V" and (not only or insn.name in only or insn.name in CONFIGURATION))
        self.others = [i for i in self.instructions if i.name not in CONFIGURATION | LEFT_OUT]

    def vtype(self):
        kind = self.rng.random()
        if kind < 0.03:
            return self.rng.getrandbits(10)
        return self.rng.choice((0, 0, 0, 1, 1, 2, 3, 5, 6, 7)) | self.rng.randrange(4) << 3 | self.rng.getrandbits(2) << 6

    def register(self, insn, field):
        if field.name == "vs2" and "xei" in insn.name:
            return self.rng.choice(INDICES)
        step = self.rng.choice(GROUPS)
        low, high = {"vd": (0, 24), "vs2": (0, 32), "vs1": (0, 32)}.get(field.name, (0, 32))
        return self.rng.randrange(low, high, step)

    def value(self, insn, field):
        memory = "(" in insn.operands
        if field.type.kind == "v":
            return self.register(insn, field)
        if field.name == "vtype":
            return self.vtype()
        if field.name == "rs1" and memory:
            return self.rng.choice(BASES)
        if field.name == "rs2" and memory:
            return self.rng.choice(OFFSETS)
        if field.name == "rs1" and (insn.name in CONFIGURATION or self.rng.random() < 0.5):
            return self.rng.choice(OFFSETS + (0,))
        if field.name == "nf":
            return self.rng.choice((0, 0, 0, 0, 1, 2, 3, 7))
        return self.rng.getrandbits(field.bits)

    def fields(self, insn):
        word = insn.match
        for field in insn.fields:
            value = self.value(insn, field)
            if field.name == "rd" and (value in KEPT or value in OFFSETS):
                return None
            word = self.put(insn, field, value, word)
        return self.apart(insn, word)

    def apart(self, insn, word):
        """A register that is read with two widths is reserved; newer machines refuse what QEMU 7.2 takes."""
        mask = insn.field_named("vm")
        least, always = {}, False
        if insn.operands.endswith(",v0") or (mask and not word >> mask.slices[0][0] & 1):
            least = {"vs1": 8, "vs2": 8, "vs3": 8}
        if re.match(r"vf?w|vn|vfn|vrgatherei16|vcompress|vfwred|vwred", insn.name):
            least, always = {"vs1": 24, "vs2": 8}, True
            if re.match(r"vf?wn?m(acc|sac)", insn.name):
                least["vd"] = 16
        if "xei" in insn.name:
            least, always = {"vs3": 16}, True
        for name, start in least.items():
            field = insn.field_named(name)
            if field and (always or word >> field.slices[0][0] & 31 < start):
                word = self.put(insn, field, start + (word >> field.slices[0][0] & 7), word)
        return word

    def one(self):
        while True:
            insn = self.named[self.rng.choice(("vsetvli", "vsetvli", "vsetivli"))] if self.rng.random() < 0.2 else self.rng.choice(self.others)
            word = self.fields(insn)
            if word is None:
                continue
            if re.match("vf|vmf|vmv.r", insn.name) and insn.name != "vfirst.m":
                return [self.width_of_a_float(), (4, word, insn)]
            return [(4, word, insn)]

    def width_of_a_float(self):
        """QEMU 7.2 takes 16 bits for one, without the extension that says so; and moves whole registers without a vtype."""
        configure = self.named["vsetivli"]
        word = self.put(configure, configure.field_named("avl"), self.rng.randrange(20), configure.match)
        vtype = self.rng.choice((16, 24)) | self.rng.choice((0, 0, 1, 2, 3)) if self.rng.random() < 0.9 else 23
        return (4, self.put(configure, configure.field_named("vtype"), vtype, word), configure)

    def vector(self, number):
        if number in INDICES:
            return struct.pack("<2Q", self.rng.randrange(200), self.rng.randrange(200)) if self.rng.random() < 0.5 else self.rng.randbytes(1) + bytes(15)
        kind = self.rng.choice((integer, floating))
        return b"".join(struct.pack("<Q", kind(self.rng)) for _ in range(2))

    def state(self, index):
        base = STATE_BASE + index * STATE_SIZE + MEMORY + 511 & ~15
        x = [integer(self.rng) for _ in range(32)]
        for number in OFFSETS:
            x[number] = self.rng.choice((0, 1, 2, 3, 5, 8, 16, -1 & (1 << 64) - 1, self.rng.randrange(20)))
        for number in BASES:
            x[number] = base
        x[3] = 0
        state = struct.pack("<32Q", *x) + struct.pack("<32Q", *[floating(self.rng) for _ in range(32)])
        state += struct.pack("<QQQ", self.rng.randrange(5) << 5, CODE_BASE + index * CODE_SIZE, 0)
        state = (state + self.rng.randbytes(VECTORS - len(state))) + b"".join(self.vector(n) for n in range(32))
        state += struct.pack("<QQQQ", self.rng.randrange(40), self.vtype(), self.rng.getrandbits(3), 0)
        return state.ljust(STATE_SIZE, b"\0")


def generate(cases, length, seed, only):
    generator = Vectors(tables(), random.Random(seed), only)
    with open("code.bin", "wb") as code, open("states.bin", "wb") as states:
        for index in range(cases):
            code.write(generator.block(length).ljust(CODE_SIZE, b"\0"))
            states.write(generator.state(index))


def build(name, *options):
    subprocess.run(["riscv64-linux-gnu-gcc", "-march=rv64gc", "-mabi=lp64d", "-nostdlib", "-static", "-fno-pic", "-no-pie", "-mcmodel=medany",
                    "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-Wa,--defsym,VECTOR=1", "-T", f"{HERE}/fuzz/link.ld", *options,
                    f"{HERE}/fuzz/harness.S", "-o", name], check=True)


def run_oracle():
    return subprocess.run([ORACLE, "-cpu", os.environ.get("ORACLE_CPU", "rv64,v=true,vlen=128,elen=64,vext_spec=v1.0"), "./linux.elf"], check=True, capture_output=True,
                          timeout=patience(60)).stdout


def run_machine(translate):
    environment = dict(os.environ, SPINDLE_TRANSLATE=translate, SPINDLE_COVERAGE="coverage")
    subprocess.run([MACHINE, "-M", "virt", "-m", "256", "-bios", "none", "-kernel", "bare.elf", "-display", "none", "-monitor", "none",
                    "-serial", "file:out.bin"], check=True, env=environment, timeout=patience(100))
    with open("out.bin", "rb") as out:
        return out.read()


def places():
    for number in range(32):
        yield f"x{number}", number * 8, 8
    for number in range(32):
        yield f"f{number}", 256 + number * 8, 8
    yield "fcsr", 512, 8
    for number in range(32):
        yield f"v{number}", VECTORS + number * 16, 16
    for index, name in enumerate(("vl", "vtype", "vcsr", "illegal instructions")):
        yield name, VECTORS + 512 + index * 8, 8
    for offset in range(MEMORY, VECTORS, 8):
        yield f"memory +{offset - MEMORY}", offset, 8


def differences(ours, theirs):
    for name, offset, size in places():
        a, b = (state[offset:offset + size][::-1].hex() for state in (ours, theirs))
        if a != b and name != "x3":
            yield f"{name}: ours {a}, QEMU {b}"


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 20261122
    cases = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    length = int(sys.argv[3]) if len(sys.argv) > 3 else 12
    only = sys.argv[4].split(",") if len(sys.argv) > 4 else None
    generate(cases, length, seed, only)
    build("linux.elf")
    build("bare.elf", "-Wa,--defsym,BARE=1")
    theirs = run_oracle()
    wrong = 0
    for translate in ("eval", ""):
        count = compare(run_machine(translate), theirs, cases, STATE_SIZE, differences)
        print(f"{translate or 'host code'}: {cases} cases of {length} instructions, seed {seed}: {count} differ")
        wrong += count
    missing = never_translated(lambda insn: insn.extension == "V" and insn.name not in LEFT_OUT | {"vsetvl"}) if cases >= 1500 and not only else []
    if missing:
        print("never translated:", *missing)
    sys.exit(1 if wrong or missing else 0)


main()
