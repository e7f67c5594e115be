#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""NBD servers side by side: 4 KiB random reads of a raw image in the page cache, at depth 1 and 32, over a UNIX socket.

    tests/bench/nbd.py [--bin DIR] [--seconds N] [--rounds N] [--size MIB] [--depths 1,32] [--servers ours,nbdkit,qemu-nbd]
                       [--rw randread|randwrite|read|write] [--block BYTES] [--format raw|qcow2] [--engine io_uring|epoll] [--json]

The load is fio's nbd engine (libnbd). What is compared is the servers' processor time for one operation, from the kernel's accounting
of the process (utime + stime); it does not depend on what else the machine does, as operations per second do. The servers take turns in
every round, so that a noisy minute hits all of them; the median of the rounds is printed, with the ratio to the first server.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start(command, socket_path, **options):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    end = time.monotonic() + 10
    while not os.path.exists(socket_path):
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"{command[0]} does not start")
        time.sleep(0.02)
    return process


def start_ours(args, image, path):
    command = [os.path.join(args.bin, "spindle-storage-daemon"), "--blockdev", f"file,node-name=file,filename={image}"]
    if args.format != "raw":
        command += ["--blockdev", f"{args.format},node-name=disk,file=file"]
    command += ["--nbd-server", f"addr.type=unix,addr.path={path}",
                "--export", f"nbd,id=e,node-name={'file' if args.format == 'raw' else 'disk'},name=disk,writable=on"]
    environment = dict(os.environ, SPINDLE_LOOP=args.engine) if args.engine else None
    return start(command, path, env=environment), f"nbd+unix:///disk?socket={path}"


def start_nbdkit(args, image, path):
    if args.format != "raw":
        return None
    return start(["nbdkit", "-f", "-U", path, "file", image], path), f"nbd+unix:///?socket={path}"


def start_qemu_nbd(args, image, path):
    if args.format != "raw":  # only one program may have it open for writing
        image = shutil.copy(image, image + ".qemu")
    return (start(["qemu-nbd", "-t", "-k", path, "-f", args.format, "-x", "disk", "-e", "4", "--cache=writeback", image], path),
            f"nbd+unix:///disk?socket={path}")


STARTERS = {"ours": start_ours, "nbdkit": start_nbdkit, "qemu-nbd": start_qemu_nbd}


def load(args, uri, depth, seconds, work):
    """Operations and seconds of one run of fio."""
    result = os.path.join(work, "fio.json")
    subprocess.run(["fio", "--name=load", "--ioengine=nbd", f"--uri={uri}", f"--rw={args.rw}", f"--bs={args.block}",
                    f"--iodepth={depth}", "--time_based", f"--runtime={seconds}", f"--size={args.size}m", "--randrepeat=0",
                    "--norandommap", "--output-format=json", f"--output={result}"],
                   check=True, stdout=subprocess.DEVNULL, cwd=work)
    text = open(result).read()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    return side["total_ios"], side["iops"], side["clat_ns"]["percentile"]["99.000000"] / 1000


def make_image(args, work):
    image = os.path.join(work, "disk.img")
    raw = image if args.format == "raw" else os.path.join(work, "disk.raw")
    with open(raw, "wb") as out:
        for _ in range(args.size):
            out.write(os.urandom(1 << 20))
    if args.format != "raw":
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", args.format, raw, image], check=True)
        os.unlink(raw)
    return image


def measure(args, work):
    image = make_image(args, work)
    servers = {}
    for name in args.servers.split(","):
        started = STARTERS[name](args, image, os.path.join(work, name + ".sock")) if name == "ours" or shutil.which(name) else None
        if started:
            servers[name] = started
    results = {}
    try:
        for name, (process, uri) in servers.items():
            load(args, uri, 32, 1, work)  # warm
        for _ in range(args.rounds):
            for depth in [int(d) for d in args.depths.split(",")]:
                for name, (process, uri) in servers.items():
                    before = processor_seconds(process.pid)
                    operations, rate, p99 = load(args, uri, depth, args.seconds, work)
                    spent = processor_seconds(process.pid) - before
                    results.setdefault((depth, name), []).append((spent * 1e6 / operations, rate, p99))
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.environ.get("SPINDLE_BIN", "build/release/bin"))
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--depths", default="1,32")
    parser.add_argument("--servers", default="ours,nbdkit,qemu-nbd")
    parser.add_argument("--rw", default="randread")
    parser.add_argument("--block", type=int, default=4096)
    parser.add_argument("--format", default="raw", choices=["raw", "qcow2"])
    parser.add_argument("--engine", choices=["io_uring", "epoll"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        results = measure(args, work)
    rows = {key: tuple(statistics.median(run[i] for run in runs) for i in range(3)) for key, runs in results.items()}
    if args.json:
        print(json.dumps([{"depth": depth, "server": name, "cpu_us": row[0], "iops": row[1], "p99_us": row[2]}
                          for (depth, name), row in rows.items()]))
        return
    print(f"{args.rw} of {args.block} bytes, {args.format} image of {args.size} MiB, median of {args.rounds} rounds of {args.seconds} s")
    print(f"{'depth':>5} {'server':10} {'CPU us/op':>10} {'ratio':>6} {'IOPS':>9} {'ratio':>6} {'p99 us':>8}")
    for (depth, name), (cpu, rate, p99) in rows.items():
        base = rows[(depth, next(n for d, n in rows if d == depth))]
        print(f"{depth:5} {name:10} {cpu:10.2f} {cpu / base[0]:6.2f} {rate:9.0f} {rate / base[1]:6.2f} {p99:8.0f}")


main()
