#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a quorum of children answers, fails, corrects or reports in another way than qemu-storage-daemon's, or loses what was
# written to it.
# labels: full interop
# requires: qemu-storage-daemon qemu-img
# timeout: 180
"""The same disks, options and requests for both daemons: the same bytes, errors, events and files. Then what is ours: reads and writes of
the same places at the same time never make children differ."""
import json
import os
import subprocess
import threading

from jobs import Daemon, OURS, QmpError
from nbd import Nbd

THEIRS = "qemu-storage-daemon"
MIB = 1 << 20
A, B, C = b"\1", b"\2", b"\3"
IO, IMG = (os.path.join(os.environ["SPINDLE_BIN"], f"spindle-{name}") for name in ("io", "img"))


def fails(kind, number=5):
    return {"inject-error": [{"event": "none", "iotype": kind, "errno": number}]}


def child(number, rules=None):
    file = {"driver": "file", "filename": f"c{number}"}
    if rules:
        file = {"driver": "blkdebug", "image": file, **rules}
    return {"driver": "raw", "node-name": f"c{number}", "file": file}


def quorum_events(daemon, until):
    """The events of quorums before the one of a command that comes later."""
    daemon.do("block-export-del", id="q", mode="hard")
    daemon.qmp.event(until)
    found = [(event["event"], tuple(sorted(event["data"].items()))) for event in daemon.qmp.events if event["event"].startswith("QUORUM")]
    daemon.qmp.events.clear()
    return sorted(found)


def request(nbd, action):
    kind, *arguments = action
    if kind == "read":
        error, data = nbd.read(*arguments)
        return error, data[:1] * len(data) == data and data[:1]
    return nbd.write(arguments[0], arguments[1]) if kind == "write" else nbd.simple(3)


def told(program, contents, options, actions, rules):
    """What a daemon answers and tells, and what is in the files after it."""
    for number, content in enumerate(contents):
        with open(f"c{number}", "wb") as file:
            file.write(content * MIB)
    with Daemon(program) as daemon:
        try:
            daemon.do("blockdev-add", driver="quorum", node_name="q", **options,
                      children=[child(number, rules.get(number)) for number in range(len(contents))])
        except QmpError as problem:
            return problem.kind
        daemon.export("q")
        with Nbd("nbd.sock", "q") as nbd:
            answers = [request(nbd, action) for action in actions]
        events = quorum_events(daemon, "BLOCK_EXPORT_DELETED")
    files = [[(byte, data.count(byte)) for byte in sorted(set(data))] for data in (open(f"c{n}", "rb").read() for n in range(len(contents)))]
    return answers, events, files


R, W, F = ("read", 0, 4096), ("write", 0, b"\7" * 4096), ("flush",)
SMALL = ("read", 512, 1024)
CASES = [
    ("most agree", [A, A, B], {"vote-threshold": 2}, [R], {}),
    ("unaligned", [A, B, A], {"vote-threshold": 2}, [("read", 700, 100)], {}),
    ("corrected", [B, A, A], {"vote-threshold": 2, "rewrite-corrupted": True}, [SMALL], {}),
    ("nobody agrees", [A, B, C], {"vote-threshold": 2}, [R], {}),
    ("two of four", [A, B, C, A], {"vote-threshold": 2}, [R], {}),
    ("three of four needed", [A, B, A, C], {"vote-threshold": 3}, [R], {}),
    ("one cannot read", [A, A, A], {"vote-threshold": 2}, [R], {1: fails("read")}),
    ("two cannot read", [A, A, A], {"vote-threshold": 2}, [R], {0: fails("read", 28), 2: fails("read", 28)}),
    ("one cannot read, the others differ", [A, A, B], {"vote-threshold": 2}, [R], {1: fails("read")}),
    ("one cannot write", [A, A, A], {"vote-threshold": 2}, [W, R], {1: fails("write")}),
    ("two cannot write", [A, A, A], {"vote-threshold": 2}, [W], {1: fails("write", 28), 2: fails("write", 28)}),
    ("most fail for want of space", [A, A, A], {"vote-threshold": 2}, [W], {0: fails("write", 28), 1: fails("write"), 2: fails("write", 28)}),
    ("one cannot flush", [A, A, A], {"vote-threshold": 2}, [W, F], {1: fails("flush")}),
    ("two cannot flush", [A, A, A], {"vote-threshold": 2}, [W, F], {1: fails("flush"), 2: fails("flush")}),
    ("fifo", [B, A, C], {"vote-threshold": 2, "read-pattern": "fifo"}, [R], {}),
    ("fifo, the first fails", [B, A, C], {"vote-threshold": 2, "read-pattern": "fifo"}, [R], {0: fails("read")}),
    ("fifo, all fail", [B, A, C], {"vote-threshold": 2, "read-pattern": "fifo"}, [R],
     {0: fails("read"), 1: fails("read", 28), 2: fails("read", 28)}),
    ("one child", [A], {"vote-threshold": 1}, [R, W, R], {}),
    ("threshold too high", [A, A], {"vote-threshold": 3}, [R], {}),
    ("no threshold", [A, A], {"vote-threshold": 0}, [R], {}),
    ("sizes differ", [A, A + A], {"vote-threshold": 1}, [R], {}),
    ("three cannot be compared", [A, A, A], {"vote-threshold": 2, "blkverify": True}, [R], {}),
    ("two can", [A, A], {"vote-threshold": 2, "blkverify": True}, [R, W, R], {}),
    ("comparing corrects nothing", [A, A], {"vote-threshold": 2, "blkverify": True, "rewrite-corrupted": True}, [R], {}),
]
heard = set()
for name, contents, options, actions, rules in CASES:
    arguments = ({key.replace("-", "_"): value for key, value in options.items()}, actions, rules)
    ours, theirs = told(OURS, contents, *arguments), told(THEIRS, contents, *arguments)
    assert ours == theirs, f"{name}:\n{ours}\ninstead of\n{theirs}"
    heard |= {(event, dict(data).get("type")) for event, data in ours[1]} if isinstance(ours, tuple) else set()
assert heard == {("QUORUM_FAILURE", None), *(("QUORUM_REPORT_BAD", kind) for kind in ("read", "write", "flush"))}, heard


# Children come and go; the same names, the same refusals.
def shape(daemon):
    graph = daemon.do("x-debug-query-block-graph")
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    return sorted((edge["name"], names[edge["child"]], sorted(edge["perm"]), sorted(edge["shared-perm"])) for edge in graph["edges"]
                  if edge["name"].startswith("children"))


def changes(program):
    for number in range(4):
        with open(f"c{number}", "wb") as file:
            file.write(A * MIB)
    with Daemon(program) as daemon:
        daemon.do("blockdev-add", driver="quorum", node_name="q", vote_threshold=2, children=[child(number) for number in range(3)])
        daemon.do("blockdev-add", driver="quorum", node_name="r", vote_threshold=1, rewrite_corrupted=True,
                  children=[{"driver": "null-co", "node-name": "null"}])
        daemon.do("blockdev-add", **child(3))
        yield shape(daemon)
        daemon.export("q")
        yield shape(daemon)
        nbd = Nbd("nbd.sock", "q")
        for arguments in ({"child": "children.1"}, {"child": "children.2"}, {"child": "children.7"}, {}, {"child": "children.0", "node": "c3"},
                          {"node": "c3"}, {"node": "c3"}, {"node": "none"}, {"node": "null"}, {"child": "children.3"}, {"node": "c3"},
                          {"node": "c1"}):
            try:
                daemon.do("x-blockdev-change", parent="q", **arguments)
                yield arguments
            except QmpError as problem:
                yield arguments, problem.kind
            yield shape(daemon), nbd.write(0, B * 512), nbd.read(0, 512)
        daemon.do("blockdev-add", driver="raw", node_name="c4", file={"driver": "file", "filename": "c1"})
        daemon.do("x-blockdev-change", parent="q", node="c4")
        yield shape(daemon), nbd.write(512, C * 512)
        for arguments in ({"parent": "c0", "node": "null"}, {"parent": "c0", "child": "file"}, {"parent": "none", "child": "file"}):
            yield daemon.qmp.error("x-blockdev-change", arguments).kind
        nbd.close()
    for number in range(4):
        with open(f"c{number}", "rb") as file:
            yield file.read(1024)


ours, theirs = list(changes(OURS)), list(changes(THEIRS))
for one, other in zip(ours, theirs, strict=True):
    assert one == other, f"{one}\ninstead of\n{other}"
assert ours[-4:][0] == B * 512 + C * 512 and ours[-3][:512] == A * 512, "the child that was away has a write, or another has not"

# Guests that write and read the same places at the same time: children never differ, and no vote fails.
for number in range(3):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"w{number}", "1M"], check=True)
with Daemon() as daemon:
    daemon.do("blockdev-add", driver="quorum", node_name="q", vote_threshold=3,
              children=[{"driver": "qcow2", "node-name": f"w{n}", "file": {"driver": "file", "filename": f"w{n}"}} for n in range(3)])
    daemon.export("q")
    problems = []

    def work(number):
        with Nbd("nbd.sock", "q") as nbd:
            for turn in range(150):
                place = turn % 3 * 3000
                answers = nbd.write(place, bytes([number]) * 9000), nbd.read(place, 9000)[0]
                problems.extend(error for error in answers if error)

    guests = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.join()
    assert not problems, problems
    daemon.do("block-export-del", id="q")
    assert not any(event["event"].startswith("QUORUM") for event in daemon.qmp.events), daemon.qmp.events
for number in (1, 2):
    subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", "w0", f"w{number}"], check=True, stdout=subprocess.DEVNULL)

# The tools, by both kinds of options; block status is what most say.
for number in range(3):
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", f"t{number}", "1M"], check=True)
OPTIONS = "driver=quorum,vote-threshold=2," + ",".join(f"children.{n}.driver=raw,children.{n}.file.driver=file,children.{n}.file.filename=t{n}"
                                                      for n in range(3))
TREE = {"driver": "quorum", "vote-threshold": 2, "children": [{"driver": "raw", "file": {"filename": f"t{n}"}} for n in range(3)]}
DOTTED = {"driver": "quorum", "vote-threshold": 2, **{f"children.{n}.{key}": value for n in range(3)
                                                       for key, value in (("driver", "raw"), ("file.filename", f"t{n}"))}}
subprocess.run([IO, "-c", "write -P 5 64k 64k", "-c", "write -z 80k 4k", "--image-opts", OPTIONS], check=True, stdout=subprocess.DEVNULL)
subprocess.run([IO, "-f", "raw", "-c", "write -P 9 0 4k", "t1"], check=True, stdout=subprocess.DEVNULL)  # outvoted: still zero
maps = [json.loads(subprocess.run([program, "map", "--output=json", *words], check=True, capture_output=True).stdout)
        for program, words in ((IMG, ["--image-opts", OPTIONS]), ("qemu-img", ["--image-opts", OPTIONS]), (IMG, ["json:" + json.dumps(TREE)]),
                               (IMG, ["json:" + json.dumps(DOTTED)]))]
for found in maps:
    assert [(e["start"], e["length"], e["zero"], e["data"]) for e in found] == [(e["start"], e["length"], e["zero"], e["data"])
                                                                                for e in maps[1]], maps
assert len(maps[1]) > 3, maps[1]
subprocess.run([IO, "-c", "read -P 5 64k 16k", "-c", "read -P 0 80k 4k", "-c", "read -P 0 0 64k", "json:" + json.dumps(TREE)], check=True,
               stdout=subprocess.DEVNULL)

# Two children that are compared: the same words for where they differ. The request fails, and the program says so in the end.
subprocess.run([IO, "-f", "raw", "-c", "write -P 9 70000 1", "t0"], check=True, stdout=subprocess.DEVNULL)
PAIR = "driver=quorum,vote-threshold=2,blkverify=on,children.0.driver=file,children.0.filename=t0,children.1.driver=file,children.1.filename=t2"
words = []
for program in (IO, "qemu-io"):
    result = subprocess.run([program, "-c", "read 64k 512", "-c", "read 64k 8k", "--image-opts", PAIR], capture_output=True, text=True)
    assert result.returncode == 1 and "read 512/512" in result.stdout and "8192/8192" not in result.stdout, result
    words.append([line for line in result.stderr.splitlines() if line.startswith("quorum:")])
assert words[0] == words[1] and len(words[0]) == 1, words
print(f"{len(CASES)} cases")
