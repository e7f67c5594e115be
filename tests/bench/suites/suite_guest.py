# SPDX-License-Identifier: Apache-2.0
"""The translator: the loops of guest_kernels.c as init of a Debian kernel (system mode) and as a program (user mode), boot time, several processors.

Every emulator gets the same command line; the checksums of all loops must be equal, or the times mean nothing. The guest is what tools/guest/build made."""
import os
import re
import shutil
import subprocess
import time

from measure import Failure, run
from table import Benchmark

TITLES = {
    "int.coremark-like": "lists, CRC, state machine, matrices", "int.calls": "recursion and function pointers", "fp.matrix": "floating point: matrix product",
    "fp.bodies": "floating point: n bodies", "fp.mandelbrot": "floating point: Mandelbrot set", "mem.copy": "memcpy and strlen",
    "mem.random": "random access to 8 MiB", "sys.processes": "300 processes: fork, exit, wait", "sys.faults": "32 768 page faults",
    "sys.switches": "10 000 round trips through pipes", "smp.pieces": "4 processes of integer work"}


def newc(files):
    """A cpio archive (newc) of (name, mode, content); devices as (name, mode, (major, minor))."""
    out = bytearray()

    def entry(name, mode, content, device=(0, 0)):
        encoded = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, device[0], device[1], len(encoded), 0]
        out.extend(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(content)
        out.extend(b"\0" * (-len(out) % 4))

    for name, mode, content in files:
        entry(name, mode, *((b"", content) if isinstance(content, tuple) else (content,)))
    entry("TRAILER!!!", 0, b"")
    return bytes(out)


def guest_program(context):
    if not shutil.which("riscv64-linux-gnu-gcc"):
        raise Failure("riscv64-linux-gnu-gcc is not installed")
    return context.program("guest_kernels", "riscv64-linux-gnu-gcc", ("-O2", "-static", "-s", "-ffp-contract=off"))


def initrd(context):
    def write(path):
        with open(path, "wb") as out:
            out.write(newc([("dev", 0o040755, b""), ("dev/console", 0o020600, (5, 1)), ("init", 0o100755, open(guest_program(context), "rb").read())]))
    return context.file("initrd", write)


def guest_files(context):
    directory = os.environ.get("SPINDLE_GUEST", os.path.join(context.source, "build/guest"))
    if not os.path.exists(f"{directory}/Image"):
        raise Failure("there is no guest: tools/guest/build makes it")
    return directory


def results_of(text):
    return {m[1].decode(): (int(m[2]) / 1e9, m[3].decode()) for m in re.finditer(rb"KERNEL (\S+) (\d+) (\w+)", text)}


def check_sums(context, results):
    """The first to run a loop says what its checksum is; all others must agree."""
    for name, (_, checksum) in results.items():
        first = context.made.setdefault(("checksum", name), checksum)
        if first != checksum:
            raise Failure(f"{name}: checksum {checksum}, another emulator has {first}")


class SystemSession:
    """Boots once a sample: power-on to power-off, to init, and every loop by the guest's own clock."""

    def __init__(self, context, program, select):
        self.context, self.program, self.select = context, program, select
        self.directory, self.initrd = guest_files(context), initrd(context)

    def boot(self, cpus):
        argv = self.program + ["-M", "virt", "-smp", str(cpus), "-m", "512M", "-nographic", "-no-reboot", "-bios", f"{self.directory}/fw_dynamic.bin", "-kernel",
                               f"{self.directory}/Image", "-initrd", self.initrd, "-append", "console=ttyS0 quiet" + (f" kernels={self.select}" if self.select else "")]
        start = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text, first = b"", None
        for line in process.stdout:
            text += line
            if first is None and b"KERNELS START" in line:
                first = time.monotonic() - start
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        results = results_of(text)
        if process.returncode or first is None or b"KERNELS DONE" not in text:
            raise Failure(f"the guest did not come to its end (exit status {process.returncode}): {text[-300:].decode(errors='replace')}")
        check_sums(self.context, results)
        return results, first, time.monotonic() - start, usage.ru_utime + usage.ru_stime

    def calls(self, _):
        return None

    def close(self):
        pass


class KernelsSession(SystemSession):
    def sample(self, _):
        results, first, whole, cpu = self.boot(1)
        rows = {TITLES[name]: {"wall": seconds} for name, (seconds, _) in results.items()}
        rows["power-on to init"] = {"wall": first}
        rows["power-on to power-off"] = {"wall": whole, "cpu": cpu}
        return rows


class ScalingSession(SystemSession):
    def sample(self, cpus):
        return {"wall": self.boot(cpus)[0]["smp.pieces"][0]}


class UserSession:
    """The same loops as a program of its own: only the processor is emulated, system calls are the host's."""

    def __init__(self, context, program):
        self.context, self.argv = context, program + [guest_program(context)]

    def sample(self, _):
        figures = run(self.context, self.argv)
        done = subprocess.run(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        results = results_of(done.stdout)
        if not results:
            raise Failure(f"the program printed no result, exit status {done.returncode}")
        check_sums(self.context, results)
        rows = {TITLES[name]: {"wall": seconds} for name, (seconds, _) in results.items()}
        rows["the whole program"] = {"wall": figures["wall"], "cpu": figures["cpu"], "peak": figures["peak"]}
        return rows

    def calls(self, _):
        return None

    def close(self):
        pass


def system(kind, select=""):
    def open_session(context, contender):
        program = contender.command("system")
        return kind(context, program, select) if program else None
    return open_session


def open_user(context, contender):
    program = contender.command("user")
    return UserSession(context, program) if program else None


PROCESSORS = tuple(n for n in (1, 2, 4, 8) if n <= max(2, os.cpu_count() or 1))
BENCHMARKS = [
    Benchmark("guest/system", "emulator", "system mode", "wall", "", system(KernelsSession), ("program:system",), joint=True, weight=8),
    Benchmark("guest/user", "user-mode", "user mode", "wall", "", open_user, ("program:user",), joint=True, weight=2),
    Benchmark("guest/vcpus", "emulator", "4 processes of integer work by virtual processors", "wall", "", system(ScalingSession, "smp"), ("program:system",),
              axis="virtual processors", points=PROCESSORS, law=True, weight=4),
]
