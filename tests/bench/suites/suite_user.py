# SPDX-License-Identifier: Apache-2.0
"""User mode beyond instructions (those are guest/user): system calls, signals, faults, threads, mappings, and how long a process takes that does nothing."""
import os
import shutil
import subprocess

from measure import Failure, run
from suite_guest import check_sums, results_of
from table import Benchmark

TITLES = {
    "user.calls": "300 000 calls of getppid", "user.pipe": "100 000 writes and reads of a pipe", "user.signals": "20 000 signals to itself",
    "user.faults": "5000 faults that a handler mends", "user.threads": "1500 threads, one after the other", "user.mappings": "20 000 mappings of 64 KiB"}
SYSROOT = "/usr/riscv64-linux-gnu"
STARTS = 10


def build(context, kind):
    if not shutil.which("riscv64-linux-gnu-gcc"):
        raise Failure("riscv64-linux-gnu-gcc is not installed")
    source = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "user_kernels.c")

    def write(path):
        flags = ["-O2", "-s", "-pthread"] + (["-static"] if kind == "static" else [])
        done = subprocess.run(["riscv64-linux-gnu-gcc", *flags, "-o", path, source], stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failure(f"user_kernels.c: {done.stderr.decode(errors='replace')[-300:]}")
    return context.file("user-" + kind, write)


class CallsSession:
    def __init__(self, context, program):
        self.context, self.argv = context, program + [build(context, "static")]

    def sample(self, _):
        figures = run(self.context, self.argv)
        done = subprocess.run(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=90, check=False)
        results = results_of(done.stdout)
        if len(results) != len(TITLES):
            raise Failure(f"{len(results)} of {len(TITLES)} results, exit status {done.returncode}")
        check_sums(self.context, results)
        rows = {TITLES[name]: {"wall": seconds} for name, (seconds, _) in results.items()}
        rows["the whole program"] = {"wall": figures["wall"], "cpu": figures["cpu"], "peak": figures["peak"]}
        return rows

    def calls(self, _):
        return None

    def close(self):
        pass


class StartSession:
    """A process that does nothing, ten times in a row."""

    def __init__(self, context, program):
        self.context = context
        self.argv = {"static": program + [build(context, "static"), "nothing"],
                     "dynamic": program + ["-L", SYSROOT, build(context, "dynamic"), "nothing"]}

    def sample(self, point):
        figures = [run(self.context, self.argv[point]) for _ in range(STARTS)]
        return {"wall": sum(f["wall"] for f in figures) / STARTS, "cpu": sum(f["cpu"] for f in figures) / STARTS,
                "peak": max(f["peak"] for f in figures)}

    def calls(self, _):
        return None

    def close(self):
        pass


def session(kind):
    def open_session(context, contender):
        program = contender.command("user")
        return kind(context, program) if program else None
    return open_session


BENCHMARKS = [
    Benchmark("user/calls", "user-mode", "system calls, signals, threads", "wall", "", session(CallsSession), ("program:user",), joint=True, weight=2),
    Benchmark("user/start", "user-mode", "a process that does nothing", "wall", "", session(StartSession), ("program:user",), axis="program",
              points=("static", "dynamic"), weight=1),
]
