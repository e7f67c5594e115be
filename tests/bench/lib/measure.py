# SPDX-License-Identifier: Apache-2.0
"""What is measured, and how. All figures are the kernel's:

    wall     elapsed seconds of a program                         launch.c around it
    cpu      its processor seconds, user and system, all threads  wait4(2), children included
    peak     MiB of memory at the most                            ru_maxrss of a program (launch.c), VmHWM of a server
    rate     operations a second that a load client got           the client's count
    cpu_op   processor microseconds of a server an operation      /proc/PID/stat of it and its children, before and after
    calls    system calls an operation                            strace -f -c, in a run of its own that is not timed
"""
import json
import os
import resource
import shutil
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A contender did not do what was asked; the text is for the report."""


def more_files():
    """For preexec_fn: servers of a thousand disks hold more files open than the usual soft limit."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def run(context, argv):
    """Runs a command to its end and returns {"wall", "cpu", "peak"}."""
    path = context.scratch("cost")
    process = subprocess.Popen([context.program("launch"), path] + argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               start_new_session=True)
    try:
        errors = process.communicate(timeout=90)[1]
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Failure(f"{' '.join(argv[:6])}...: no end after 90 seconds") from error
    wall, cpu, peak, status = open(path).read().split() if process.returncode == 0 else (0, 0, 0, process.returncode)
    if int(status):
        raise Failure(f"{' '.join(argv[:6])}...: exit status {status}: {errors.decode(errors='replace').strip()[-300:]}")
    return {"wall": float(wall), "cpu": float(cpu), "peak": int(peak) / 1024}


def total_calls(path):
    """The sum that strace -c prints last; the errors' column may be empty."""
    for line in reversed(open(path).read().splitlines()):
        fields = line.split()
        if fields and fields[-1] == "total":
            return int(fields[3])
    raise Failure("strace counted nothing")


def count_calls(context, argv):
    """System calls of a command from its start to its end; None without strace."""
    if not shutil.which("strace"):
        return None
    path = context.scratch("strace.count")
    run(context, ["strace", "-f", "-c", "-o", path, "--"] + argv)
    return total_calls(path)


def tree(pid):
    """A process and its descendants."""
    pids = [pid]
    for one in pids:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                pids += [int(child) for child in open(f"/proc/{one}/task/{task}/children").read().split()]
        except OSError:
            pass
    return pids


class Server:
    """A program that serves until it is told to end. `ready()` says when it is up."""

    def __init__(self, argv, ready, work, environment=None, timeout=30):
        self.log = open(os.path.join(work, "server.log"), "wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=more_files,
                                        env=dict(os.environ, **environment) if environment else None)
        while not ready():
            if self.process.poll() is not None or time.monotonic() - self.started > timeout:
                self.stop()
                raise Failure(f"{' '.join(argv[:4])}... does not start: {open(self.log.name).read().strip()[-300:]}")
            time.sleep(0.002)

    def cpu(self):
        ticks = 0
        for pid in tree(self.process.pid):
            try:
                fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
            except OSError:
                pass
        return ticks / TICKS

    def memory(self, field="VmHWM"):
        """MiB; of the whole tree."""
        kib = 0
        for pid in tree(self.process.pid):
            try:
                kib += sum(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith(field + ":"))
            except OSError:
                pass
        return kib / 1024

    def calls_during(self, action, work):
        """System calls of the server while action() runs; None without strace."""
        if not shutil.which("strace"):
            return None
        path = os.path.join(work, "strace.count")
        pids = [argument for pid in tree(self.process.pid) for argument in ("-p", str(pid))]
        strace = subprocess.Popen(["strace", "-f", "-c", "-o", path] + pids, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        os.set_blocking(strace.stderr.fileno(), True)
        try:
            if b"attached" not in strace.stderr.readline():
                return None
            time.sleep(0.1)
            action()
        finally:
            strace.send_signal(signal.SIGINT)
            strace.stderr.read()
            strace.wait()
            strace.stderr.close()
        return total_calls(path)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class CommandSession:
    """A contender of a benchmark that runs a program. `command(point)` gives the arguments, `before(point)` clears the way, `after(point)` proves the
    result once, `operations(point)` says what the work consists of."""

    def __init__(self, context, command, before=None, after=None, operations=None, counting=True):
        self.context, self.command, self.before, self.after, self.operations = context, command, before, after, operations
        self.counting, self.proved = counting, set()

    def sample(self, point):
        if self.before:
            self.before(point)
        figures = run(self.context, self.command(point))
        if self.after and point not in self.proved:
            self.after(point)
            self.proved.add(point)
        if self.operations:
            figures["cpu_op"] = figures["cpu"] * 1e6 / self.operations(point)
        return figures

    def calls(self, point):
        if not self.counting:
            return None
        if self.before:
            self.before(point)
        calls = count_calls(self.context, self.command(point))
        return calls if calls is None or not self.operations else calls / self.operations(point)

    def close(self):
        pass


class ServerSession:
    """A contender of a benchmark that loads a server. `load(point, operations)` runs the client: for the usual time, or for so many operations, and
    returns {"operations", "seconds", "p50_us", "p99_us"}. Few are enough to count system calls: strace makes each of them slow."""

    COUNTED_OPERATIONS = 500

    def __init__(self, context, server, load, counting=True):
        self.context, self.server, self.load, self.counting = context, server, load, counting
        self.warm = set()

    def sample(self, point):
        if point not in self.warm:
            self.load(point, 500)
            self.warm.add(point)
        before = self.server.cpu()
        result = self.load(point, None)
        spent = self.server.cpu() - before
        return {"rate": result["operations"] / result["seconds"], "cpu_op": spent * 1e6 / result["operations"], "p50": result["p50_us"],
                "p99": result["p99_us"], "peak": self.server.memory()}

    def calls(self, point):
        if not self.counting:
            return None
        done = {}
        calls = self.server.calls_during(lambda: done.update(self.load(point, self.COUNTED_OPERATIONS)), self.context.work)
        return calls / done["operations"] if calls else None

    def close(self):
        self.server.stop()


def json_of(argv):
    """The JSON that a load client prints."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{' '.join(argv[:4])}...: no end after a minute") from error
    if done.returncode:
        raise Failure(f"{' '.join(argv[:4])}...: {done.stderr.decode(errors='replace').strip()[-300:]}")
    text = done.stdout.decode()
    return json.loads(text[text.index("{"):])
