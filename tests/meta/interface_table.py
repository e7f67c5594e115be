#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, docs/interface.md promises what is not there, leaves out what is, or names a test that nothing runs.
# labels: quick
# timeout: 60
"""The page against the programs: their --help, and what the daemon says about itself by query-qmp-schema."""
import json
import os
import re
import subprocess
import sys

ROOT, BIN = os.environ["SPINDLE_SRC"], os.environ["SPINDLE_BIN"]
problems = []


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=50, **options).stdout


def program(name, *words):
    return run(os.path.join(BIN, "spindle-" + name), *words)


def read_page():
    """{section: {name: state}}; an option is there by each of its spellings."""
    sections, rows = {}, None
    with open(os.path.join(ROOT, "docs/interface.md"), encoding="utf-8") as page:
        for line in page:
            if line.startswith("#"):
                rows = sections.setdefault(line.strip("# \n"), {})
            elif line.startswith("| `"):
                name, state, test = [cell.strip() for cell in line.strip().strip("|").split("|")]
                for spelling in re.findall(r"`([^`]+)`", name):
                    if spelling in rows:
                        problems.append(f"{spelling} has two rows in one section")
                    rows[spelling] = state
                check_row(name, state, test)
    return sections


def check_row(name, state, test):
    if state not in ("there", "not there"):
        problems.append(f"{name}: the state is '{state}'")
    if state == "not there" or test == "none yet":
        return
    path = test.strip("`")
    full = os.path.join(ROOT, path)
    if not os.path.isfile(full):
        problems.append(f"{name}: the test {path} does not exist")
    elif path.endswith((".sh", ".py")) and not os.access(full, os.X_OK):
        problems.append(f"{name}: {path} cannot be executed, so nothing runs it")
    elif path.endswith(".c") and not re.match(r"tests/(unit/.+/test_|fuzz/fuzz_)[^/]+\.c$", path):
        problems.append(f"{name}: {path} is not where tests are found")


def options_in(help_text):
    """Every spelling, from lines such as "  -f, --format FMT   what it is"."""
    found = set()
    for letter, word in re.findall(r"^  (?:(-[A-Za-z])(?:, )?)?\s*(--[a-z0-9-]+)?(?=[ =\n])", help_text, re.M):
        found.update(spelling for spelling in (letter, word) if spelling)
    return found - {"-h", "--help"}


def compare(sections, section, told):
    rows = sections.get(section, {})
    if not told:
        problems.append(f"{section}: the program tells nothing: has the form of its help changed?")
    for name in sorted(told):
        if rows.get(name) != "there":
            problems.append(f"{section}: {name} is there, but has no row that says so")
    for name, state in rows.items():
        if state == "there" and name not in told:
            problems.append(f"{section}: {name} is said to be there, and is not")


def values_of(schema, command, tag):
    arguments = schema[schema[command]["arg-type"]]
    kind = next(member["type"] for member in arguments["members"] if member["name"] == tag)
    return set(schema[kind]["values"])


def compare_schema(sections):
    lines = '{"execute":"qmp_capabilities"}\n{"execute":"query-qmp-schema"}\n{"execute":"quit"}\n'
    answers = program_input("storage-daemon", lines, "--chardev", "stdio,id=m", "--monitor", "m")
    schema = next(json.loads(line)["return"] for line in answers.splitlines() if '"meta-type"' in line)
    by_name = {entry["name"]: entry for entry in schema}
    compare(sections, "QMP commands", {entry["name"] for entry in schema if entry["meta-type"] == "command"})
    compare(sections, "QMP events", {entry["name"] for entry in schema if entry["meta-type"] == "event"})
    compare(sections, "Exports", values_of(by_name, "block-export-add", "type"))
    compare(sections, "Block drivers", values_of(by_name, "blockdev-add", "driver"))
    compare(sections, "Objects", values_of(by_name, "object-add", "qom-type"))


def program_input(name, text, *words):
    return run(os.path.join(BIN, "spindle-" + name), *words, input=text)


sections = read_page()
commands = re.findall(r"^  ([a-z]+) ", program("img", "--help").split("\nOptions:")[0].split("Commands:")[1], re.M)
for command in commands:
    compare(sections, f"img {command}", options_in(program("img", command, "--help")))
for section in sections:
    if section.startswith("img ") and section[4:] not in commands:
        problems.append(f"{section} is not a command")
for name, section in (("io", "io"), ("nbd", "nbd"), ("storage-daemon", "daemon options")):
    compare(sections, section, options_in(program(name, "--help")))
compare(sections, "io commands", set(re.findall(r"^([a-z_]+)\b.* -- ", program("io", "-c", "help"), re.M)))
compare_schema(sections)
print("\n".join(problems) or f"{sum(map(len, sections.values()))} rows, as the programs tell")
sys.exit(bool(problems))
