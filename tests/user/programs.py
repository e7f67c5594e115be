#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# labels: quick user
# requires: riscv64-linux-gnu-gcc
# timeout: 240
"""Would be broken: Linux programs for RISC-V under spindle-riscv64: faults with their address, signals at any instruction, restarted
system calls, fork, vfork, exec, threads, mappings, code that changes while it runs.

Each program of programs/ checks itself and prints what it saw; the text is what it prints on a RISC-V Linux (programs/*.txt).
Where Debian's qemu-riscv64 differs from that (shared memory of vfork, wild addresses), Linux is what counts. They run translated,
and those with faults and changing code also with the evaluator, whose memory accesses take other ways.
"""
import os
import re
import subprocess
import sys

here = os.path.dirname(os.path.realpath(__file__))
emulator = os.environ["SPINDLE_BIN"] + "/spindle-riscv64"
sysroot = "/usr/riscv64-linux-gnu"
PATIENCE = 90 * int(os.environ.get("SPINDLE_TIMEOUT_FACTOR", "1"))


def build(name, *options):
    out = name + ("-static" if "-static" in options else "-dynamic")
    subprocess.run(["riscv64-linux-gnu-gcc", "-O1", "-pthread", "-Wall", "-Wno-unused-parameter", "-Wno-infinite-recursion",
                    *options, os.path.join(here, "programs", name + ".c"), "-o", out], check=True)
    return out


def run(program, status, text, how=""):
    environment = dict(os.environ)
    environment.pop("SPINDLE_TRANSLATE", None)
    if how:
        environment["SPINDLE_TRANSLATE"] = how
    done = subprocess.run([emulator, "-L", sysroot, "./" + program], capture_output=True, text=True, timeout=PATIENCE, env=environment)
    # AddressSanitizer remarks that the child of vfork() runs on a stack of its own.
    errors = re.sub(r"==\d+==WARNING: ASan is ignoring requested __asan_handle_no_return.*\n.*\n.*\n", "", done.stderr)
    if done.returncode != status or done.stdout != text or errors:
        sys.exit(f"{program} {how}: status {done.returncode}, wanted {status}\n{done.stdout}{errors}--- wanted\n{text}")


def main():
    names = sorted(n[:-2] for n in os.listdir(os.path.join(here, "programs")) if n.endswith(".c"))
    assert len(names) >= 4
    for name in names:
        with open(os.path.join(here, "programs", name + ".txt"), encoding="ascii") as file:
            first, text = file.read().split("\n", 1)
        assert first.startswith("status ")
        status = int(first.split()[1])
        for program in (build(name, "-static"), build(name)):
            run(program, status, text)
        if name in ("signals", "memory"):
            run(name + "-static", status, text, "eval")


main()
