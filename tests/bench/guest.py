#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boot time and translator kernels: our riscv64 emulator and the peer's, alternating, in one run.

The guest is the kernel and firmware of build/guest (tools/guest/build); the loops of guest_kernels.c run as its init. Both emulators get
the same command line. Prints medians and ratios (peer's time / ours: above 1 we are faster), and JSON with --json.

    tests/bench/guest.py [--ours build/release/bin/spindle-system-riscv64] [--peer qemu-system-riscv64] [--rounds 5]
"""
import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def newc(files):
    """A cpio archive (newc) of (name, mode, content); devices as (name, mode, (major, minor))."""
    out = bytearray()

    def entry(name, mode, data, device=(0, 0)):
        encoded = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(encoded), 0]
        out.extend(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    for name, mode, content in files:
        if isinstance(content, tuple):
            entry(name, mode, b"", content)
        else:
            entry(name, mode, content)
    entry("TRAILER!!!", 0, b"")
    return bytes(out)


def build_initrd(directory):
    program = os.path.join(directory, "kernels")
    subprocess.run(["riscv64-linux-gnu-gcc", "-O2", "-static", "-ffp-contract=off", "-o", program, os.path.join(HERE, "guest_kernels.c"), "-lm"],
                   check=True)
    subprocess.run(["riscv64-linux-gnu-strip", program], check=True)
    path = os.path.join(directory, "initrd")
    with open(path, "wb") as out:
        out.write(newc([("dev", 0o040755, b""), ("dev/console", 0o020600, (5, 1)), ("init", 0o100755, open(program, "rb").read())]))
    return path


def run(program, guest, initrd, cpus):
    command = [program, "-M", "virt", "-smp", str(cpus), "-m", "512M", "-nographic", "-no-reboot", "-bios", f"{guest}/fw_dynamic.bin",
               "-kernel", f"{guest}/Image", "-initrd", initrd, "-append", "console=ttyS0 quiet"]
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    times, sums, first = {}, {}, None
    for raw in process.stdout:
        match = re.search(rb"KERNEL (\S+) (\d+) (\w+)", raw)
        if match:
            times[match[1].decode()] = int(match[2]) / 1e9
            sums[match[1].decode()] = match[3].decode()
            if first is None:
                first = time.monotonic() - start - int(match[2]) / 1e9
    process.wait(timeout=30)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not times or first is None:
        sys.exit(f"{program}: the guest printed no result (exit status {process.returncode})")
    times["boot to init"] = first
    times["power-on to power-off"] = time.monotonic() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return times, sums, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=f"{ROOT}/build/release/bin/spindle-system-riscv64")
    parser.add_argument("--peer", default="qemu-system-riscv64")
    parser.add_argument("--guest", default=f"{ROOT}/build/guest")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    samples = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as directory:
        initrd = build_initrd(directory)
        for _ in range(args.rounds):
            for who, program in (("ours", args.ours), ("peer", args.peer)):
                samples[who].append(run(program, args.guest, initrd, args.smp))
    reference = samples["peer"][0][1]
    wrong = [f"{who} {name}: {value} instead of {reference[name]}" for who in samples for _, sums, _ in samples[who] for name, value in sums.items()
             if reference.get(name) != value]
    if wrong:
        sys.exit("checksums differ, no comparison: " + "; ".join(wrong))
    result = {}
    for name in samples["peer"][0][0]:
        ours = statistics.median(times[name] for times, _, _ in samples["ours"])
        peer = statistics.median(times[name] for times, _, _ in samples["peer"])
        result[name] = {"ours_s": ours, "peer_s": peer, "ratio": peer / ours}
    if args.json:
        json.dump(result, sys.stdout, indent=4)
        return
    print(f"{'':24}{'ours (s)':>10}{'peer (s)':>10}{'peer/ours':>11}")
    for name, row in result.items():
        print(f"{name:24}{row['ours_s']:10.4f}{row['peer_s']:10.4f}{row['ratio']:11.2f}")


if __name__ == "__main__":
    main()
