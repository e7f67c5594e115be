# SPDX-License-Identifier: Apache-2.0
"""Runs of the image tools of which one operation fails (lib/faults.py), as a table of scenarios:

    Scenario("info raw", raw_image, [OUR_IMG, "info", "-f", "raw", "a"])
    ...
    tool_faults.main()

The program says why it fails, with a message and an exit status that mean this, or does without and its result is the right one. It
does not crash, hang, leak or fail an assertion, nor change what it only reads; what it writes stays consistent.
"""
import os
import shutil
import subprocess
import sys
import time

import faults
from faults import quietly
from image import OUR_IMG, content
from patience import patience

BUDGET = 6  # orders a scenario, when sampling
scenarios = []


class Scenario:
    """prepare() makes the files in an empty folder. `command` runs there. `changes` are the files that it may change or make.
    good(stdout) is asked after success and says what is wrong; bad() after failure."""

    def __init__(self, name, prepare, command, changes=(), good=None, bad=None, status=0, failed=None):
        self.name, self.prepare, self.command, self.changes = name, prepare, [str(word) for word in command], set(changes)
        self.good, self.bad, self.status = good, bad, status
        self.failed = failed or (lambda status: status == 1)
        scenarios.append(self)


# --- what is wrong with files -----------------------------------------------------------------------------------------


def read_image(name, form="qcow2"):
    result = quietly(OUR_IMG, "convert", "-f", form, "-O", "raw", name, "flat")
    assert result.returncode == 0, f"{name} cannot be read: {result.stderr.decode()}"
    data = content("flat")
    os.unlink("flat")
    return data


def same_content(name, form, other, other_form):
    result = quietly(OUR_IMG, "compare", "-f", form, "-F", other_form, name, other)
    return None if result.returncode == 0 else f"{name} differs from {other}: {result.stdout.decode()}{result.stderr.decode()}"


def first(*problems):
    return next((problem for problem in problems if problem), None)


def mixture_problem(data, versions):
    """Each sector has to be that of one of the versions."""
    for start in range(0, max(len(data), len(versions[0])), 512):
        piece = data[start:start + 512]
        if all(piece != version[start:start + 512] for version in versions):
            return f"the sector at {start} is neither old nor new"
    return None


# --- the loop ---------------------------------------------------------------------------------------------------------


def execute(scenario, order, log):
    try:
        done = subprocess.run(scenario.command, capture_output=True, timeout=patience(60), env=faults.environment(log, order), stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        return None, "", (late.stderr or b"").decode(errors="replace")


def untold(text):
    """Numbers that differ between runs that are both right."""
    return [line for line in text.splitlines() if "sec" not in line]


def judge(scenario, order, result, quiet):
    status, out, err = result
    if order.may_kill:
        if status != -6 or "out of memory" not in err or "Sanitizer" in err:
            return "does not end by abort() with a message"
    elif problem := faults.broken(status, err + out):
        return problem
    elif status == quiet[0]:
        if untold(out) == untold(quiet[1]) or scenario.changes or order.kind in ("seek", "stat"):
            return scenario.good(out) if scenario.good else None
        if not order.explains(out + err):
            return "succeeds with another result"
        return None
    elif order.must_succeed:
        return "fails because of a short transfer"
    elif not scenario.failed(status):
        return "has an exit status that means something else"
    elif not order.explains(err + out):
        return "does not say why it fails"
    elif not err.startswith(("spindle-", "write", "read", "discard", "aio", "flush", "truncate")) and not out:
        return "does not say who fails"
    return scenario.bad() if scenario.bad else None


def untouched(scenario, template):
    for name in os.listdir(template):
        if name not in scenario.changes and content(os.path.join(template, name)) != content(name):
            return f"changed {name}, which it only reads"
    return None


def in_folder(scenario, template, order, quiet):
    """One run in a copy of the template; None or what was wrong."""
    shutil.rmtree("work", ignore_errors=True)
    shutil.copytree(template, "work")
    log = os.path.abspath("log")
    if os.path.exists(log):
        os.unlink(log)
    os.chdir("work")
    try:
        result = execute(scenario, order, log)
        if quiet is None:
            return result
        if not faults.happened(log):
            return None
        try:
            problem = judge(scenario, order, result, quiet) or untouched(scenario, template)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as trouble:
            problem = str(trouble)
        return problem and f"{scenario.name}: {order}: {problem}\n    $ {' '.join(scenario.command)}\n    status {result[0]}\n    {result[1]}{result[2]}"
    finally:
        os.chdir("..")


def run_scenario(scenario):
    os.makedirs("template")
    os.chdir("template")
    scenario.prepare()
    os.chdir("..")
    template = os.path.abspath("template")
    quiet = in_folder(scenario, template, None, None)
    assert quiet[0] == scenario.status, f"{scenario.name}: without any failure: {quiet}"
    counts = faults.count_operations("log")
    chosen = faults.orders(counts, scenario.name, BUDGET)
    problems = [problem for problem in (in_folder(scenario, template, order, quiet) for order in chosen) if problem]
    shutil.rmtree("template")
    return len(chosen), problems


def main():
    total, problems, started = 0, [], time.monotonic()
    for scenario in scenarios:
        if faults.ONLY not in scenario.name:
            continue
        count, found = run_scenario(scenario)
        total += count
        problems += found
        for problem in found:
            print(problem, flush=True)
        if faults.FULL:
            print(f"{scenario.name}: {count} failures, {len(found)} problems", flush=True)
    print(f"{len(scenarios)} scenarios, {total} failures, {len(problems)} problems, {time.monotonic() - started:.0f} s")
    sys.exit(1 if problems else 0)
