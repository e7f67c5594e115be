#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a file includes a folder that the house plan does not let it know, or a third-party header has a second home.
# labels: quick
# timeout: 30
"""Checks every #include of the tree against tools/arrows.txt."""
import os
import re
import sys

root = os.environ.get("SPINDLE_SRC") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
arrows = {}
for line in open(os.path.join(root, "tools/arrows.txt"), encoding="utf-8"):
    if line.startswith("#") or "|" not in line:
        continue
    folder, uses, _ = (cell.strip() for cell in line.split("|"))
    for used in uses.split():
        if used not in arrows:
            sys.exit(f"tools/arrows.txt: '{folder}' may use '{used}', which does not stand above it")
    arrows[folder] = set(uses.split()) | {folder}

THIRD_PARTY = {"json-c": "qmp/schema", "json.h": "qmp/schema", "liburing": "base", "libaio": "base", "zlib": "formats/qcow2", "zstd": "formats/qcow2",
               "libdeflate": "formats/qcow2", "libnbd": "nbd-client", "libfdt": "emulator/hw", "seccomp": "walls"}


def folder_of(path):
    """The longest row of the table that is a prefix of the path."""
    part = os.path.dirname(path)
    while part and part not in arrows:
        part = os.path.dirname(part)
    return part


def sources():
    """Every C and assembly file below the folders of the table; no git needed, so a source archive can be checked, too."""
    for top in sorted({folder.split("/")[0] for folder in arrows}):
        for directory, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".S")):
                    yield os.path.relpath(os.path.join(directory, name), root)


def third_party_home(header):
    return next((home for name, home in THIRD_PARTY.items() if re.match(rf"{re.escape(name)}([./]|$)", header)), None)


problems = []
for path in sources():
    own = folder_of(path)
    if not own:
        continue
    for number, line in enumerate(open(os.path.join(root, path), encoding="utf-8"), 1):
        match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if not match:
            continue
        style, header = match.groups()
        if style == '"':
            target = folder_of(header)
            if not target:
                problems.append(f'{path}:{number}: "{header}" is not written from the root')
            elif target not in arrows[own]:
                problems.append(f"{path}:{number}: {own} may not use {target}")
        else:
            home = third_party_home(header)
            if home and home != own:
                problems.append(f"{path}:{number}: <{header}> belongs to {home} alone")
if not arrows:
    sys.exit("tools/arrows.txt has no rows")
print("\n".join(problems) or f"{len(arrows)} folders, every include follows an arrow")
sys.exit(bool(problems))
