# SPDX-License-Identifier: Apache-2.0
"""Orders for failures (base/fault.h), and the loop that gives each operation of a program its turn to fail.

    for order in orders(count_operations(log), rng, budget):
        run the program with order.environment(...), then judge what it said and left behind

A program is first run untouched, which tells how many operations of each kind there are. With SPINDLE_FAULTS_FULL=1 each of them
fails in each way that its kind can; else a sample does, drawn by SPINDLE_SEED (default 1). SPINDLE_FAULTS_ONLY and SPINDLE_FAULTS_KINDS choose.
"""
import os
import random
import resource
import subprocess

from image import OUR_IMG, content
from patience import patience

FULL = bool(os.environ.get("SPINDLE_FAULTS_FULL"))
SEED = int(os.environ.get("SPINDLE_SEED", "1"))
ONLY = os.environ.get("SPINDLE_FAULTS_ONLY", "")  # scenarios whose name contains this
KINDS = os.environ.get("SPINDLE_FAULTS_KINDS", "").split()  # of operations; none: all
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

# How operations of a kind can fail. "+": from then on all do.
WAYS = {
    "alloc": ("",),
    "xalloc": ("",),
    "open": (":EIO", ":EACCES", ":EMFILE"),
    "read": (":EIO", ":short", "+:EIO"),
    "write": (":EIO", ":ENOSPC", ":after:EIO", ":short", "+:ENOSPC", "+:EIO"),
    "sync": (":EIO", "+:EIO", ":ENOSPC"),
    "fallocate": (":EIO", ":ENOSPC", ":EOPNOTSUPP", "+:EOPNOTSUPP", "+:ENOSPC"),
    "truncate": (":EIO", ":ENOSPC", ":after:EIO"),
    "copy": (":EIO", ":EXDEV", ":ENOSPC"),
    "stat": (":EIO",),
    "seek": (":EIO",),
    "lock": (":EIO", "+:ENOLCK"),
    "recv": (":ECONNRESET", ":short", "+:short"),
    "send": (":ECONNRESET",),
    "listen": (":EACCES",),
    "accept": (":EMFILE",),
    "connect": (":EIO",),
}
REASONS = {"EIO": "Input/output error", "ENOSPC": "No space left on device", "EACCES": "Permission denied", "EMFILE": "Too many open files",
           "EXDEV": "Invalid cross-device link", "EOPNOTSUPP": "Operation not supported", "ENOLCK": "No locks available",
           "ECONNRESET": "Connection reset by peer"}


class Order:
    def __init__(self, kind, number, way):
        self.kind, self.number, self.way = kind, number, way

    def __str__(self):
        return f"{self.kind}:{self.number}{self.way}"

    @property
    def must_succeed(self):
        """Short transfers are no failures."""
        return self.way.endswith("short")

    @property
    def may_kill(self):
        return self.kind == "xalloc"

    def explains(self, text):
        """Does an error message give this failure as its reason?"""
        if self.kind in ("alloc", "xalloc"):
            return "memory" in text
        return REASONS[self.way.split(":")[-1]] in text or ("EOPNOTSUPP" in self.way and "cannot do it" in text)


def quietly(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, timeout=patience(60), check=False)


def check_problem(name, form="qcow2", leaks_allowed=True):
    if form == "qcow2" and content(name)[79] & 1:  # marked dirty: whoever opens it for writing counts everything anew
        quietly(OUR_IMG, "check", "-q", "-r", "all", "-f", form, name)
    result = quietly(OUR_IMG, "check", "-f", form, name)
    if result.returncode not in ((0, 3) if leaks_allowed else (0,)):
        return f"check of {name}: status {result.returncode}: {result.stdout.decode()[-300:]}{result.stderr.decode()[:400]}"
    return None


def environment(log, order=None):
    made = dict(os.environ, SPINDLE_FAULT_LOG=log)
    if order:
        made["SPINDLE_FAULT"] = str(order)
    return made


def count_operations(log):
    """By kind, from the log of a run that has ended in good order."""
    with open(log, encoding="ascii") as lines:
        return {kind: int(count) for word, kind, count in (line.split() for line in lines) if word == "count"}


def happened(log):
    if not os.path.exists(log):
        return False
    with open(log, encoding="ascii") as lines:
        return any(line.startswith("failed") for line in lines)


def orders(counts, name, budget):
    every = [Order(kind, number, way) for kind in KINDS or WAYS for way in WAYS[kind] for number in range(1, counts.get(kind, 0) + 1)]
    if FULL or len(every) <= budget:
        return every
    # A few of each kind first: the rare ones would else hardly ever be drawn.
    rng = random.Random(f"{SEED} {name}")
    rng.shuffle(every)
    chosen = []
    seen = {}
    for order in every:
        seen[order.kind] = seen.get(order.kind, 0) + 1
        if seen[order.kind] <= max(1, budget // 10):
            chosen.append(order)
    rest = [order for order in every if order not in chosen]
    return (chosen + rest)[:budget]


def broken(status, text):
    """Why a program's end cannot be excused by any failure; None if it can."""
    if status is None:
        return "hangs"
    if "Sanitizer" in text or "runtime error" in text:
        return "was stopped by a sanitizer"
    if "Assertion" in text:
        return "failed an assertion"
    if status < 0:
        return f"died of signal {-status}"
    return None
