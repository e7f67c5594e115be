# SPDX-License-Identifier: Apache-2.0
"""Benchmarks as table entries, and the one loop that runs any of them: contenders take turns (A B A B ...), a time share says how often."""
import dataclasses
import math
import os
import statistics
import subprocess
import sys
import time

from measure import Failure


@dataclasses.dataclass
class Metric:
    title: str
    better: str  # "less" or "more"
    digits: int


METRICS = {
    "wall": Metric("s", "less", 3),
    "cpu": Metric("CPU s", "less", 3),
    "rate": Metric("operations/s", "more", 0),
    "cpu_op": Metric("CPU µs an operation", "less", 1),
    "p50": Metric("median µs", "less", 0),
    "p99": Metric("p99 µs", "less", 0),
    "calls": Metric("system calls an operation", "less", 2),
    "peak": Metric("peak MiB", "less", 1),
    "disk": Metric("MiB a disk", "less", 3),
}


@dataclasses.dataclass
class Benchmark:
    """`open(context, contender)` prepares and returns a session (sample(point), calls(point), close()), or None when the contender has no such program.
    A `joint` session measures everything at once: its sample(None) is a dict of points."""
    name: str
    section: str
    title: str
    primary: str           # the metric that ratios are about
    counted: str           # what one operation is
    open: object
    needs: tuple = ()      # what ours must be able to do
    contenders: tuple = ("spindle", "qemu")
    axis: str = ""         # what the points are
    points: tuple = (None,)
    quick_points: tuple = None
    law: bool = False      # the points are sizes, and cost against size is the question
    joint: bool = False
    weight: float = 1.0    # of its share of the time


@dataclasses.dataclass
class Context:
    """Where the run's files are and how big they may be."""
    work: str
    source: str   # of the project
    quick: bool
    seconds: float  # of one load
    tool: str     # an img program that prepares and compares: the system's where there is one, so that nobody proves himself right
    made: dict = dataclasses.field(default_factory=dict)

    def size(self, usual, quick):
        return quick if self.quick else usual

    def file(self, name, write, *arguments):
        """A file of the common data, made on first use."""
        path = os.path.join(self.work, name)
        if name not in self.made:
            self.made[name] = True
            write(path, *arguments)
        return path

    def scratch(self, name):
        return os.path.join(self.work, name)

    def program(self, name, compiler="cc", flags=("-O2", "-pthread")):
        """A load client or guest program next to this folder, compiled."""
        def build(path):
            source = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), name + ".c")
            done = subprocess.run([compiler, "-std=gnu17", *flags, "-o", path, source, "-lm"], stderr=subprocess.PIPE, check=False)
            if done.returncode:
                raise Failure(f"{compiler} cannot build {name}.c: {done.stderr.decode(errors='replace')[-300:]}")
        return self.file(f"{name}-{compiler}", build)


def fitted_exponent(points):
    """The slope of log(cost) over log(size), by least squares over the upper half of the sizes, where start-up costs no longer hide it."""
    points = [(math.log(x), math.log(y)) for x, y in sorted(points) if x > 0 and y > 0]
    points = points[-max(2, (len(points) + 1) // 2):]
    if len(points) < 2:
        return None
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else None


def open_sessions(benchmark, context, contenders, notes):
    sessions = {}
    for contender in contenders:
        if contender.family not in benchmark.contenders:
            continue
        try:
            session = benchmark.open(context, contender)
        except Failure as failure:
            notes.append((contender.name, str(failure)))
            continue
        if session:
            sessions[contender.name] = session
    return sessions


class Patience:
    """Larger points of a law are left out for whom they would take far longer than the entry's share."""

    def __init__(self, benchmark, seconds):
        self.is_law, self.limit, self.last = benchmark.law, max(10.0, seconds), {}

    def allows(self, name, point):
        if not self.is_law or name not in self.last:
            return True
        last_point, took = self.last[name]
        return took * point / last_point <= self.limit

    def learn(self, name, point, took):
        self.last[name] = (point, took)


def run_rounds(benchmark, sessions, points, rounds, seconds, notes):
    """{(point, contender): [figures]}. At least one round; further ones while there is time for another like the last."""
    samples = {}
    patience, end = Patience(benchmark, seconds), time.monotonic() + 0.8 * seconds
    for number in range(rounds):
        start = time.monotonic()
        for point in [None] if benchmark.joint else points:
            for name in list(sessions):
                if not patience.allows(name, point):
                    notes.append((name, f"{benchmark.axis} {point}: left out, it would take too long"))
                    continue
                began = time.monotonic()
                try:
                    figures = sessions[name].sample(point)
                except Failure as failure:
                    notes.append((name, f"{benchmark.axis} {point}: {failure}" if point is not None else str(failure)))
                    sessions.pop(name).close()
                    continue
                patience.learn(name, point, time.monotonic() - began)
                for at, row in figures.items() if benchmark.joint else [(point, figures)]:
                    samples.setdefault((at, name), []).append(row)
        now = time.monotonic()
        if number + 1 < rounds and now + (now - start) > end:
            break
    return samples


def run_benchmark(benchmark, context, contenders, rounds, seconds):
    """One entry of the results."""
    points = benchmark.quick_points if context.quick and benchmark.quick_points else benchmark.points
    notes = []
    start = time.monotonic()
    sessions = open_sessions(benchmark, context, contenders, notes)
    try:
        samples = run_rounds(benchmark, sessions, points, rounds, seconds, notes)
        rows = []
        for (point, name), runs in samples.items():
            row = {"point": point, "contender": name, "rounds": len(runs)}
            for metric in runs[0]:
                values = [run[metric] for run in runs if run.get(metric) is not None]
                if values:
                    row[metric] = statistics.median(values)
                    if metric == benchmark.primary:
                        row["range"] = [min(values), max(values)]
            rows.append(row)
        for name, session in sessions.items() if seconds else ():  # late: no counting
            counted = points[-1] if benchmark.law else None
            for row in rows:
                if row["contender"] == name and not benchmark.joint and (counted is None or row["point"] == counted):
                    try:
                        calls = session.calls(row["point"])
                    except Failure as failure:
                        notes.append((name, f"counting: {failure}"))
                        break
                    if calls is not None:
                        row["calls"] = calls
    finally:
        for session in sessions.values():
            session.close()
    result = {"name": benchmark.name, "section": benchmark.section, "title": benchmark.title, "primary": benchmark.primary, "counted": benchmark.counted,
              "axis": benchmark.axis, "law": benchmark.law, "rows": rows, "notes": notes, "seconds": time.monotonic() - start}
    if benchmark.law:
        result["exponents"] = {name: fitted_exponent([(row["point"], row[benchmark.primary]) for row in rows if row["contender"] == name])
                               for name in dict.fromkeys(row["contender"] for row in rows)}
    add_ratios(result)
    return result


def add_ratios(result):
    """A peer's figure against ours, always so that above 1 we are better."""
    primary = result["primary"]
    ours = {row["point"]: row.get(primary) for row in result["rows"] if row["contender"] == "spindle"}
    for row in result["rows"]:
        mine, theirs = ours.get(row["point"]), row.get(primary)
        if row["contender"] != "spindle" and mine and theirs:
            row["ratio"] = theirs / mine if METRICS[primary].better == "less" else mine / theirs


def run_all(benchmarks, context, contenders, rounds, budget, say=lambda text: print(text, file=sys.stderr, flush=True)):
    """`budget` is in seconds; what is left of it is shared by weight among the entries still to come."""
    results, not_yet = [], []
    ours = contenders[0] if contenders and contenders[0].family == "spindle" else None
    end = time.monotonic() + budget
    left = sum(benchmark.weight for benchmark in benchmarks)
    for benchmark in benchmarks:
        share = max(0.0, end - time.monotonic()) * benchmark.weight / left
        left -= benchmark.weight
        if time.monotonic() > end + 0.1 * budget:
            say(f"{benchmark.name:34} left out: the budget of time is used up")
            continue
        missing = ours.lacks(benchmark.needs) if ours else []
        if missing:
            not_yet.append({"name": benchmark.name, "title": benchmark.title, "missing": missing})
            continue  # figures of peers alone say nothing
        result = run_benchmark(benchmark, context, contenders, rounds, share)
        say(f"{benchmark.name:34} {result['seconds']:6.1f} s" + "".join(f"\n    {name}: {text}" for name, text in result["notes"]))
        results.append(result)
    return results, not_yet
