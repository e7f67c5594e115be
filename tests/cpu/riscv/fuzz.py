#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a RISC-V instruction computes something else than on QEMU: a register, a flag or memory differs.
# labels: full
# requires: riscv64-linux-gnu-gcc qemu-riscv64
# timeout: 300
"""Random instruction sequences with random registers and memory, run by our machine (the IR evaluator, and host code) and by
qemu-riscv64; the final states must be equal. `fuzz.py SEED CASES
LENGTH EXTENSION,...` repeats or extends a run."""
import os
import struct
import subprocess
import sys

from patience import patience

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "fuzz"))
from generate import LEFT_OUT, MEMORY, STATE_SIZE, compare, generate, never_translated  # noqa: E402

X_NAMES = ("zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6").split()
MACHINE = os.environ.get("SPINDLE_MACHINE") or os.path.join(os.environ["SPINDLE_BIN"], "spindle-system-riscv64")


def build(name, *options):
    subprocess.run(["riscv64-linux-gnu-gcc", "-march=rv64gc", "-mabi=lp64d", "-nostdlib", "-static", "-fno-pic", "-no-pie",
                    "-mcmodel=medany", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-T", f"{HERE}/fuzz/link.ld", *options, f"{HERE}/fuzz/harness.S",
                    "-o", name], check=True)


def run_oracle():
    return subprocess.run(["qemu-riscv64", "-cpu", "rv64,zba=true,zbb=true,zbs=true", "./linux.elf"], check=True,
                          capture_output=True, timeout=patience(60)).stdout


def run_machine(translate):
    environment = dict(os.environ, SPINDLE_TRANSLATE=translate, SPINDLE_COVERAGE="coverage")
    subprocess.run([MACHINE, "-M", "virt", "-m", "256", "-bios", "none", "-kernel", "bare.elf", "-display", "none",
                    "-monitor", "none", "-serial", "file:out.bin"], check=True, env=environment, timeout=patience(60))
    with open("out.bin", "rb") as out:
        return out.read()


def differences(ours, theirs):
    one, other = struct.unpack_from("<65Q", ours), struct.unpack_from("<65Q", theirs)
    for index, (a, b) in enumerate(zip(one, other)):
        if a != b and index != 3:
            name = X_NAMES[index] if index < 32 else f"f{index - 32}" if index < 64 else "fcsr"
            yield f"{name}: ours {a:#x}, QEMU {b:#x}"
    for offset in range(MEMORY, STATE_SIZE, 8):
        a, b = struct.unpack_from("<Q", ours, offset)[0], struct.unpack_from("<Q", theirs, offset)[0]
        if a != b:
            yield f"memory +{offset - MEMORY}: ours {a:#x}, QEMU {b:#x}"


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 20260101
    cases = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    length = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    extensions = sys.argv[4].split(",") if len(sys.argv) > 4 else None
    generate(cases, length, seed, lambda insn: insn.extension in extensions if extensions else insn.extension != "V")  # vector.py has V
    build("linux.elf")
    build("bare.elf", "-Wa,--defsym,BARE=1")
    theirs = run_oracle()
    wrong = 0
    for translate in ("eval", "eval-sunk", ""):
        count = compare(run_machine(translate), theirs, cases, STATE_SIZE, differences)
        print(f"{translate or 'host code'}: {cases} cases of {length} instructions, seed {seed}: {count} differ")
        wrong += count
    missing = never_translated(lambda insn: insn.extension != "V" and insn.name not in LEFT_OUT) if cases >= 1000 and not extensions else []
    if missing:
        print("never translated:", *missing)
    sys.exit(1 if wrong or missing else 0)


main()
