#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, the daemon, a tool or the emulator runs without its walls, or does not take the options about them.
# labels: quick
# timeout: 120
"""The walls as the kernel describes a process that is at work, and the options. What calls are refused: tests/unit/walls."""
import os
import subprocess
import time

from image import OUR_IO, check, equal, img, run
from patience import patience
from qmp import Qmp

BIN = os.environ["SPINDLE_BIN"]
DAEMON = os.path.join(BIN, "spindle-storage-daemon")
EMULATOR = os.path.join(BIN, "spindle-system-riscv64")
ADMIN = 1 << 21 | 1 << 19 | 1 << 16 | 1 << 7 | 1 << 12  # CAP_SYS_ADMIN, SYS_PTRACE, SYS_MODULE, SETUID, NET_ADMIN


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def look_at(pid, what, walls=True, kept=~0):
    status = status_of(pid)
    equal(status["Seccomp"].strip(), "2" if walls else "0", f"the filter of {what}")
    equal(status["NoNewPrivs"].strip(), "1" if walls else "0", f"new privileges of {what}")
    if walls:
        equal(int(status["CapPrm"], 16) & (ADMIN | ~kept), 0, f"capabilities of {what}")
        with open(f"/proc/{pid}/limits") as file:
            core = next(line for line in file if line.startswith("Max core file size"))
        equal(core.split()[4:6], ["0", "0"], f"core dumps of {what}")


def with_monitor(program, arguments, look, **options):
    path = "m.sock"
    process = subprocess.Popen([program, *arguments, "-chardev" if program == EMULATOR else "--chardev",
                                f"socket,id=c,path={path},server=on,wait=off", "-mon" if program == EMULATOR else "--monitor",
                                "c,mode=control" if program == EMULATOR else "c"])
    try:
        qmp = Qmp.connect(path)
        look(process.pid, **options)
        qmp.command("quit")
        equal(process.wait(patience(30)), 0, f"status of {program}")
    finally:
        process.kill()
        process.wait()
        if os.path.exists(path):
            os.unlink(path)


def networks(pid):
    return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


with_monitor(DAEMON, [], lambda pid: look_at(pid, "the daemon"))
with_monitor(DAEMON, ["--sandbox", "on"], lambda pid: look_at(pid, "the daemon that was told so"))
with_monitor(DAEMON, ["--sandbox", "off"], lambda pid: look_at(pid, "the daemon without", walls=False))
if os.geteuid() == 0:
    with_monitor(DAEMON, ["--sandbox", "on,network=deny"],
                 lambda pid: check(networks(pid), "the daemon is in the host's network"))
machine = ["-M", "virt", "-S", "-nodefaults", "-display", "none", "-bios", "none"]
with_monitor(EMULATOR, machine, lambda pid: look_at(pid, "the emulator", kept=0))
with_monitor(EMULATOR, [*machine, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
             lambda pid: look_at(pid, "the emulator that was told so", kept=0))
with_monitor(EMULATOR, [*machine, "-sandbox", "off"], lambda pid: look_at(pid, "the emulator without", walls=False))

# A tool that waits: io reads commands from its standard input.
img("create", "-q", "-f", "qcow2", "d.qcow2", "1M")
tool = subprocess.Popen([OUR_IO, "-f", "qcow2", "d.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
for _ in range(200):
    if status_of(tool.pid)["Seccomp"].strip() == "2":
        break
    time.sleep(0.05)
look_at(tool.pid, "a tool")
tool.communicate(b"quit\n", timeout=patience(30))
equal(tool.returncode, 0, "status of a tool")

for program, option in ((DAEMON, "--sandbox"), (EMULATOR, "-sandbox")):
    for text, reason in (("maybe", "expected on or off"), ("on,spawn=perhaps", "expected allow or deny"), ("on,colour=red", "is unknown")):
        result = run(program, option, text, status=1)
        check(reason in result.err, f"wanted '{reason}': {result}")
print("the walls stand")
