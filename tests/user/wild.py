#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# labels: quick user
# requires: riscv64-linux-gnu-gcc qemu-riscv64
# timeout: 240
"""Would be broken: random instructions of a program reach the emulator's own memory, or fault elsewhere or with other registers, memory
or flags than they should.

    tests/user/wild.py [SAMPLES [SEED]]        default: 150 from seed 1, then 50 from a new seed

Three judges: translated code, the evaluator (whose every access is checked one by one), Debian's qemu-riscv64. The last does not know
the address of accesses far out of its address space (it says 0), and lets misaligned load-reserved pass, which is SIGBUS here.
"""
import os
import re
import subprocess
import sys
import time

here = os.path.dirname(os.path.realpath(__file__))
emulator = os.environ["SPINDLE_BIN"] + "/spindle-riscv64"
PATIENCE = 100 * int(os.environ.get("SPINDLE_TIMEOUT_FACTOR", "1"))


def run(argv, how=""):
    environment = dict(os.environ, **({"SPINDLE_TRANSLATE": how} if how else {}))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    if done.returncode or done.stderr:
        sys.exit(f"{' '.join(argv)} {how}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr}")
    return done.stdout.splitlines()


def judge(samples, seed):
    words = ["./wild", str(samples), str(seed)]
    ours, evaluated, theirs = run([emulator] + words), run([emulator] + words, "eval"), run(["qemu-riscv64"] + words)
    if not len(ours) == len(evaluated) == len(theirs) == samples:
        sys.exit(f"seed {seed}: {len(ours)}, {len(evaluated)}, {len(theirs)} lines for {samples} samples")
    bad, ended = [], set()
    for our, other, their in zip(ours, evaluated, theirs):
        if "ended by signal" in our:
            bad.append(f"the child died: {our}")
        if "time is over" in our + other + their:
            continue # how far it came says nothing
        ended.add(our.split()[1])
        if our != other:
            bad.append(f"translated {our}\n evaluated {other}")
        same = our == their or re.sub("address [0-9a-f]+", "address 0", our) == their
        if not same and our.split()[1] != "7":
            bad.append(f"ours {our}\npeer {their}")
    if not {"11", "4"} <= ended:
        bad.append(f"the samples end by {ended} only: they say little")
    if bad:
        sys.exit(f"tests/user/wild.py {samples} {seed}\n" + "\n".join(bad))
    print(f"seed {seed}: {samples} samples agree")


def main():
    subprocess.run(["riscv64-linux-gnu-gcc", "-O1", "-static", "-Wall", "-Wno-unused-parameter", os.path.join(here, "wild.c"), "-o", "wild"], check=True)
    if len(sys.argv) > 1:
        judge(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    else:
        judge(150, 1)
        judge(50, int(time.time()) % 1000000 * 1000)


main()
