#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, rules of blkdebug let other requests fail, or at other moments, than those of qemu-io do.
# labels: full interop
# requires: qemu-io qemu-img
# timeout: 120
"""The same rules and commands for both programs: the same requests succeed, fail and wait."""
import os
import subprocess

from patience import patience

OURS = os.path.join(os.environ["SPINDLE_BIN"], "spindle-io")
RULES = {
    "one.cfg": '# a comment\n[inject-error]\nevent = "read_aio"\nerrno = "28"\nonce = "on"\n',
    "states.cfg": '[set-state]\nevent = "write_aio"\nstate = "1"\nnew_state = "2"\n\n'
                  '[inject-error]\nevent = "read_aio"\nstate = "2"\nonce = "on"\nimmediately = "on"\n',
}
RULE = "file.inject-error.0"
W, R = "write 0 4k", "read 0 4k"
CASES = [
    ({"event": "read_aio"}, [W, R, W, R, "flush"]),
    ({"event": "none", "iotype": "read", "errno": "5"}, [W, R]),
    ({"event": "write_aio", "once": "on"}, [W, W, R]),
    ({"event": "write_aio", "once": "on", "errno": "28", "immediately": "on"}, [W, W, R]),
    ({"event": "write_aio", "state": "2"}, [W, R, W, "write 64k 4k", R]),
    ({"event": "none", "iotype": "discard"}, ["discard 0 64k", W, R]),
    ({"event": "pwritev", "once": "on"}, [W, W, R]),
    ({"event": "cow_write", "once": "on"}, ["write 0 64k", "write 64k 64k", R]),
    ({"event": "none", "iotype": "block-status"}, [W, R]),
    ({}, ["break write_aio A", "aio_write 0 4k", "wait_break A", R, "resume A", "aio_flush", "break write_aio A", "remove_break A", W]),
    ({}, ["break cow_write A", "break write_aio B", "aio_write 512 4k", "wait_break B", "resume B", "aio_flush", "remove_break A", W]),
    ({}, ["remove_break B"]),
    ({}, ["resume X"]),
    ({}, ["break nonsense A"]),
]


def told(program, arguments, commands):
    """What the commands said about themselves, without rates, and without what programs say when they end."""
    for name in ("disk", "base"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", name, "1M"], check=True)
    line = [program, *(part for command in commands for part in ("-c", command)), *arguments]
    result = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=patience(30))
    starts = ("wrote", "read", "write", "discard", "aio", "blkdebug:", "Could not")
    lines = [line.split(":")[0] if line.startswith("Could not") else line for line in result.stdout.splitlines() if line.startswith(starts)]
    return [line for line in lines if "Could not open" not in line], result.returncode != 0 and "open" in result.stdout


compared = 0
for rule, commands in CASES:
    options = "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk"
    options += "".join(f",{RULE}.{name}={value}" for name, value in rule.items())
    if rule.get("state"):
        options += ",file.set-state.0.event=read_aio,file.set-state.0.new_state=2"
    ours, theirs = (told(program, ["--image-opts", options], commands) for program in (OURS, "qemu-io"))
    assert ours == theirs, f"{rule} {commands}:\n{ours}\ninstead of\n{theirs}"
    compared += len(ours[0])

for name, text in RULES.items():
    with open(name, "w", encoding="ascii") as file:
        file.write(text)
    ours, theirs = (told(program, ["-f", "qcow2", f"blkdebug:{name}:disk"], [W, R, R, W]) for program in (OURS, "qemu-io"))
    assert ours == theirs and any("failed" in line for line in ours[0]), f"{name}: {ours} instead of {theirs}"
assert compared > 25, compared

# Limits: align, and what cannot be met.
for options, good in (("align=4096", True), ("align=100", False), ("max-transfer=65536", True), ("align=4096,max-transfer=1000", False),
                      ("opt-discard=65536,max-discard=131072", True), ("opt-discard=65536,max-discard=1000", False), ("config=none.cfg", False),
                      ("take-child-perms.0=write", True), ("inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.sector=1", False),
                      ("inject-error.0.event=none,inject-error.0.sector=5", True)):
    for program in (OURS, "qemu-io"):
        answer = subprocess.run([program, "-c", "write -P 7 512 512", "-c", "read -P 7 512 512", "--image-opts",
                                 f"driver=blkdebug,image.driver=file,image.filename=disk,{options}"], capture_output=True, text=True)
        assert (answer.returncode == 0) == good, f"{program} {options}: {answer}"
print(f"{compared} answers compared")
