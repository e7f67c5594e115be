#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""img convert against qemu-img: the same images, alternating, in one run.

Prints the median wall time and CPU time (user + system, all threads) of each direction and the peer's time divided by ours: above 1 we
are faster. Outputs are compared byte by byte with the source once per direction.

    tests/bench/convert.py [--ours build/release/bin/spindle-img] [--peer qemu-img] [--size 1024] [--rounds 5] [--dir .]
"""
import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def make_source(path, megabytes):
    """Half data (a third of it easy to compress), half holes, in pieces of 64 KiB to 4 MiB: like a used disk."""
    rng = random.Random(7)
    with open(path, "wb") as out:
        out.truncate(megabytes << 20)
        offset = 0
        while offset < megabytes << 20:
            piece = rng.choice([64 << 10, 256 << 10, 1 << 20, 4 << 20])
            piece = min(piece, (megabytes << 20) - offset)
            kind = rng.randrange(6)
            if kind < 2:
                out.seek(offset)
                out.write(rng.randbytes(piece))
            elif kind == 2:
                words = b" ".join(str(rng.randrange(9999)).encode() for _ in range(2000))
                out.seek(offset)
                out.write((words * (piece // len(words) + 1))[:piece])
            offset += piece


def timed(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=f"{ROOT}/build/release/bin/spindle-img")
    parser.add_argument("--peer", default="qemu-img")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the source image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=None, help="where the images are made")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as work:
        raw, qcow2, out = (os.path.join(work, name) for name in ("source.raw", "source.qcow2", "out"))
        make_source(raw, args.size)
        subprocess.run([args.peer, "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
        compressed = os.path.join(work, "compressed.qcow2")
        subprocess.run([args.peer, "convert", "-c", "-f", "raw", "-O", "qcow2", raw, compressed], check=True)
        directions = {
            "raw to qcow2": ["convert", "-f", "raw", "-O", "qcow2", raw, out],
            "qcow2 to raw": ["convert", "-f", "qcow2", "-O", "raw", qcow2, out],
            "qcow2 to qcow2": ["convert", "-f", "qcow2", "-O", "qcow2", qcow2, out],
            "raw to qcow2 -c (zlib)": ["convert", "-c", "-f", "raw", "-O", "qcow2", raw, out],
            "raw to qcow2 -c (zstd)": ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", raw, out],
            "compressed to raw": ["convert", "-f", "qcow2", "-O", "raw", compressed, out],
        }
        result = {}
        for name, arguments in directions.items():
            samples = {"ours": [], "peer": []}
            for round_number in range(args.rounds):
                for who, program in (("ours", args.ours), ("peer", args.peer)):
                    if os.path.exists(out):
                        os.unlink(out)
                    samples[who].append(timed([program] + arguments))
                    if round_number == 0:
                        same = subprocess.run([args.peer, "compare", "-f", "raw", "-F", arguments[arguments.index("-O") + 1], raw, out],
                                              stdout=subprocess.DEVNULL, check=False)
                        if same.returncode:
                            sys.exit(f"{name}: {who} made an image that differs from its source")
            row = {}
            for who, values in samples.items():
                row[f"{who}_wall_s"] = statistics.median(wall for wall, _ in values)
                row[f"{who}_cpu_s"] = statistics.median(cpu for _, cpu in values)
            row["wall_ratio"] = row["peer_wall_s"] / row["ours_wall_s"]
            row["cpu_ratio"] = row["peer_cpu_s"] / row["ours_cpu_s"]
            result[name] = row
    if args.json:
        json.dump(result, sys.stdout, indent=4)
        return
    print(f"{'':24}{'ours wall/cpu (s)':>20}{'peer wall/cpu (s)':>20}{'wall':>8}{'cpu':>8}")
    for name, row in result.items():
        print(f"{name:24}{row['ours_wall_s']:11.3f}{row['ours_cpu_s']:9.3f}{row['peer_wall_s']:11.3f}{row['peer_cpu_s']:9.3f}"
              f"{row['wall_ratio']:8.2f}{row['cpu_ratio']:8.2f}")


if __name__ == "__main__":
    main()
