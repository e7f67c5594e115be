#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, throttle groups answer differently from QEMU's, or their limits do not hold for real requests.
# labels: full interop
# requires: qemu-storage-daemon
# timeout: 60
"""The same commands to both daemons: the same values come back, and the same ones are refused."""
import os
import subprocess
import time

from qmp import Program, Qmp, QmpError

BIN = os.environ["SPINDLE_BIN"]


def daemon(program, path):
    return Program([program, "--chardev", f"socket,id=c,path={path},server=on,wait=off", "--monitor", "c"])


NAMES = [f"{kind}-{way}" for kind in ("bps", "iops") for way in ("total", "read", "write")]
SETS = [{"iops-total": 10}, {"bps-write": 55}, {"bps-total": 55}, {"iops-total-max": 5}, {"iops-total-max": 50},
        {"iops-total-max-length": 5}, {"iops-total-max-length": 0}, {"iops-total-max": 0}, {"iops-total-max-length": 1, "iops-total-max": 0},
        {"iops-total": -1}, {"iops-total": 1 << 51}, {"iops-write-max": 20}, {"iops-size": 20, "iops-total": 0},
        {"iops-size": 4096}, {"iops-total": 0, "iops-size": 0}, {"bps-write-max": 50}, {"bps-write-max": 55}, {"bps-write": 0},
        {"bps-write": 0, "bps-write-max": 0}, {"bps-read-max-length": 3}, {"bps-read": 10, "bps-read-max": 1000, "bps-read-max-length": 1 << 45},
        {"bps-read": 10, "bps-read-max": 1000, "bps-read-max-length": 30}, {"unknown": 1}, {"iops-read": "x"}]


def ask(qmp, name, arguments):
    try:
        return qmp.command(name, arguments)
    except QmpError as problem:
        return problem.kind


def conversation(qmp):
    yield "add", ask(qmp, "object-add", {"qom-type": "throttle-group", "id": "g", "limits": {"iops-total": 10, "bps-read": 7}, "x-bps-read": 5})
    yield "bad", ask(qmp, "object-add", {"qom-type": "throttle-group", "id": "h", "limits": {"iops-total": 10, "iops-read": 7}})
    yield "limits", ask(qmp, "qom-get", {"path": "/objects/g", "property": "limits"})
    for limits in SETS:
        yield str(limits), ask(qmp, "qom-set", {"path": "/objects/g", "property": "limits", "value": limits})
        yield "then", ask(qmp, "qom-get", {"path": "/objects/g", "property": "limits"})
    for name in NAMES:
        for end in ("", "-max", "-max-length"):
            yield name + end, ask(qmp, "qom-get", {"path": "/objects/g", "property": "x-" + name + end})
    yield "x-", ask(qmp, "qom-set", {"path": "/objects/g", "property": "x-bps-write", "value": 7})
    disk = {"driver": "null-co"}
    yield "nobody", ask(qmp, "blockdev-add", {"driver": "throttle", "node-name": "t", "throttle-group": "none", "file": disk})
    yield "node", ask(qmp, "blockdev-add", {"driver": "throttle", "node-name": "t", "throttle-group": "g", "file": disk})
    yield "used", ask(qmp, "object-del", {"id": "g"})
    yield "gone", ask(qmp, "blockdev-del", {"node-name": "t"})
    yield "free", ask(qmp, "object-del", {"id": "g"})


answers = []
for program in (os.path.join(BIN, "spindle-storage-daemon"), "qemu-storage-daemon"):
    path = f"{os.path.basename(program)}.sock"
    with daemon(program, path):
        qmp = Qmp.connect(path)
        answers.append(list(conversation(qmp)))
        qmp.command("quit")
for ours, theirs in zip(*answers):
    assert ours == theirs, f"{ours} instead of {theirs}"
assert len(answers[0]) > 60 and len(answers[0]) == len(answers[1])

# The tools have the filter too; 2 MiB at 1 MiB a second take about two seconds, with the same figures for both.
with open("disk", "wb") as disk:
    disk.truncate(8 << 20)
for program in (os.path.join(BIN, "spindle-io"), "qemu-io"):
    start = time.monotonic()
    subprocess.run([program, "--object", "throttle-group,id=g,x-bps-total=1048576", "--image-opts", "-c", "write -P 1 0 1M",
                    "-c", "write -P 2 1M 1M", "-c", "read -P 2 1M 4k",
                    "driver=throttle,throttle-group=g,file.driver=file,file.filename=disk"], check=True, stdout=subprocess.DEVNULL)
    took = time.monotonic() - start
    assert 1.7 < took < 6, f"{program}: {took:.2f} s"
print("ok")
