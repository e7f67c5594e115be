#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, docs/threat-model.md promises something and names a test for it that does not exist or that nothing runs.
# labels: quick
# timeout: 20
import os
import re
import sys

root = os.environ["SPINDLE_SRC"]
with open(os.path.join(root, "docs/threat-model.md"), encoding="utf-8") as page:
    text = page.read()
promises = text.split("## Promises")[1].split("\n## ")[0]
problems = []
named = set(re.findall(r"`(tests/[^`]+)`", text))
for path in sorted(named):
    full = os.path.join(root, path)
    if not os.path.isfile(full):
        problems.append(f"{path} does not exist")
    elif path.endswith((".sh", ".py")) and not os.access(full, os.X_OK):
        problems.append(f"{path} cannot be executed, so nothing runs it")
    elif path.endswith(".c") and not re.match(r"tests/(unit/.+/test_|fuzz/fuzz_)[^/]+\.c$", path):
        problems.append(f"{path} is not where tests are found")
for promise in re.split(r"\n\* ", promises)[1:]:
    told = promise.split("\n###")[0]
    if "`tests/" not in told and not told.startswith("So "):
        problems.append(f"no test is named for: {told.strip()[:100]}")
for section in promises.split("\n### ")[1:]:
    if "`tests/" not in section:
        problems.append(f"no test at all in: {section.splitlines()[0]}")
if len(named) < 15:
    problems.append("the page names hardly any test: has its form changed?")
print("\n".join(problems) or f"{len(named)} tests are named, all are there")
sys.exit(bool(problems))
