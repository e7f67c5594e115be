#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a privileged RISC-V behaviour is wrong: traps, interrupts, PMP, paging, counters, code that is overwritten.
# labels: quick
# requires: riscv64-linux-gnu-gcc
# timeout: 300
"""Every machine/*.S is assembled and run bare on our board, by the evaluator and by host code. Where qemu-system-riscv64 is
installed it must pass too, so that a test that is wrong does not go unnoticed; what QEMU 7.2 gets wrong is left out for
it (ORACLE)."""
import glob
import os
import re
import shutil
import subprocess
import sys

from patience import patience

HERE = os.path.dirname(os.path.abspath(__file__))
MACHINE = os.environ.get("SPINDLE_MACHINE") or os.path.join(os.environ["SPINDLE_BIN"], "spindle-system-riscv64")
ORACLE = shutil.which("qemu-system-riscv64")


def build(source, out, *options):
    subprocess.run(["riscv64-linux-gnu-gcc", "-march=rv64gc", "-mabi=lp64d", "-nostdlib", "-static", "-fno-pic", "-no-pie",
                    "-mcmodel=medany", "-Wl,--build-id=none", "-T", f"{HERE}/machine/link.ld", "-I", f"{HERE}/machine", *options, source, "-o", out],
                   check=True)


def harts(source):
    with open(source, encoding="utf-8") as text:
        found = re.search(r"^# smp: (\d+)", text.read(), re.M)
    return found[1] if found else "1"


def oracle_options(source):
    with open(source, encoding="utf-8") as text:
        found = re.search(r"^# oracle: (.+)", text.read(), re.M)
    return found[1].split() if found else []


def run(program, image, smp, translate="", options=()):
    """-> 0, the number of the step that failed (+ 128: by a trap nobody expected), or 'hangs'"""
    command = [program, "-M", "virt", "-smp", smp, "-m", "256", "-bios", "none", "-kernel", image, "-display", "none", "-serial", "none",
               "-monitor", "none", *options]
    try:
        return subprocess.run(command, env=dict(os.environ, SPINDLE_TRANSLATE=translate), timeout=patience(30)).returncode
    except subprocess.TimeoutExpired:
        return "hangs"


def main():
    wrong = 0
    for source in sorted(glob.glob(f"{HERE}/machine/*.S")):
        name = os.path.basename(source)[:-2]
        build(source, "test.elf")
        results = {"evaluator": run(MACHINE, "test.elf", harts(source), "eval"),
                   "evaluator with recovery maps": run(MACHINE, "test.elf", harts(source), "eval-sunk"),
                   "host code": run(MACHINE, "test.elf", harts(source))}
        if ORACLE:
            build(source, "oracle.elf", "-Wa,--defsym,ORACLE=1")
            results["QEMU"] = run(ORACLE, "oracle.elf", harts(source), options=oracle_options(source))
        bad = {who: result for who, result in results.items() if result}
        print(f"{name}: {'ok' if not bad else bad}", flush=True)
        wrong += bool(bad)
    sys.exit(1 if wrong else 0)


main()
