#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, management programs that drive jobs by the block-job-* and drive-* commands, or wait for a completion, a corruption or a
# broken snapshot, do not get what QEMU's storage daemon gives them.
# labels: full interop
# requires: qemu-img qemu-io qemu-storage-daemon
# timeout: 240
"""The same conversations with both daemons; what comes back, the events and the disks are the same."""
import os
import struct

from jobs import OURS, Daemon, content, make, run
from nbd import Nbd
from qmp import QmpError

THEIRS = "qemu-storage-daemon"
MIB = 1 << 20


class Talk:
    """What a daemon said, as far as it is no chance."""

    def __init__(self, daemon):
        self.daemon, self.said = daemon, []

    def do(self, command, **arguments):
        try:
            answer = self.daemon.do(command, **arguments)
        except QmpError as problem:
            answer = problem.kind
        self.said.append((command, str(arguments), answer if isinstance(answer, str) else bool(answer)))
        return answer

    def event(self, name, *leave_out):
        data = {key: value for key, value in self.daemon.qmp.event(name)["data"].items() if key not in leave_out}
        self.said.append((name, data))
        return data

    def note(self, what):
        self.said.append(what)

    def job(self):
        found = self.daemon.do("query-block-jobs")
        self.note([{key: entry[key] for key in ("type", "device", "paused", "ready", "speed", "auto-finalize", "auto-dismiss")}
                   for entry in found])
        return found


def images():
    make("a.q", "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 8M", "a.q")
    make("o.q", backing="a.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 6 1M 3M", "o.q")
    for name in "ctu":
        make(f"{name}.q", "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 4 0 4M", "c.q")


def verbs(talk):
    for name in "at":
        talk.daemon.add(name, f"{name}.q")
    for verb in ("pause", "resume", "complete", "cancel"):
        talk.do(f"block-job-{verb}", device="nobody")
    for verb in ("finalize", "dismiss"):
        talk.do(f"block-job-{verb}", id="nobody")
    talk.do("blockdev-backup", job_id="j", device="a", target="t", sync="full", speed=1 << 20, auto_finalize=False, auto_dismiss=False)
    for verb in ("complete",):
        talk.do(f"block-job-{verb}", device="j")
    for verb in ("finalize", "dismiss"):
        talk.do(f"block-job-{verb}", id="j")
    talk.do("block-job-resume", device="j")  # nobody has paused it
    talk.do("block-job-pause", device="j")
    assert talk.job()[0]["paused"]
    talk.do("block-job-pause", device="j")
    talk.do("block-job-resume", device="j")
    assert not talk.daemon.do("query-block-jobs")[0]["paused"]
    talk.do("block-job-set-speed", device="j", speed=0)
    talk.event("BLOCK_JOB_PENDING")
    talk.do("block-job-dismiss", id="j")
    talk.do("block-job-finalize", id="j")
    done = talk.event("BLOCK_JOB_COMPLETED")
    assert done == {"type": "backup", "device": "j", "len": 8 * MIB, "offset": 8 * MIB, "speed": 0}, done
    talk.do("block-job-finalize", id="j")
    talk.do("block-job-dismiss", id="j")
    assert talk.job() == []
    talk.do("block-job-dismiss", id="j")


def completion(talk):
    for name in "at":
        talk.daemon.add(name, f"{name}.q")
    talk.do("blockdev-mirror", job_id="m", device="a", target="t", sync="full", speed=1 << 20)
    talk.do("block-job-complete", device="m")  # too early
    talk.do("block-job-set-speed", device="m", speed=0)
    talk.event("BLOCK_JOB_READY")
    talk.do("block-job-complete", device="m")
    talk.event("BLOCK_JOB_COMPLETED")
    assert talk.job() == []
    # A job that fails says how.
    bad = {"driver": "qcow2", "node-name": "bad", "file": {"driver": "blkdebug", "image": {"driver": "file", "filename": "c.q"},
                                                           "inject-error": [{"event": "read_aio", "errno": 28}]}}
    talk.daemon.do("blockdev-add", **bad)
    talk.daemon.add("u", "u.q")
    talk.do("blockdev-backup", job_id="b", device="bad", target="u", sync="full")
    done = talk.event("BLOCK_JOB_COMPLETED", "offset", "len")
    assert done["error"] == "No space left on device", done


def drive_commands(talk):
    """By file names, as old programs say it."""
    talk.daemon.add("a", "a.q", read_only=True)
    talk.daemon.add("o", "o.q", backing="a")
    for number, (command, arguments) in enumerate((
            ("drive-backup", {"sync": "full", "format": "raw"}), ("drive-backup", {"sync": "full", "format": "qcow2"}),
            ("drive-backup", {"sync": "top", "format": "qcow2"}), ("drive-backup", {"sync": "full", "format": "qcow2", "mode": "existing", "target": "u.q"}),
            ("drive-backup", {"sync": "full", "mode": "existing", "target": "none.q"}), ("drive-backup", {"sync": "full", "format": "nonsense"}),
            ("drive-mirror", {"sync": "full", "format": "qcow2"}), ("drive-mirror", {"sync": "top", "format": "qcow2"}),
            ("drive-mirror", {"sync": "full", "format": "raw"}))):
        target = arguments.get("target", f"d{number}")
        answer = talk.do(command, job_id=f"d{number}", device="o", **{"target": target, **arguments})
        if isinstance(answer, str):
            continue
        if command == "drive-mirror":
            talk.event("BLOCK_JOB_READY")
            talk.do("block-job-cancel", device=f"d{number}")
            talk.event("BLOCK_JOB_COMPLETED")
        else:
            talk.event("BLOCK_JOB_COMPLETED")
        info = run("qemu-img", "info", "-U", "--output=json", target)
        talk.note([line.strip() for line in info.splitlines() if '"format":' in line or '"backing-filename"' in line or "virtual-size" in line])
        run("qemu-img", "convert", "-U", "-f", arguments["format"], "-O", "raw", target, target + ".raw")
        with open(target + ".raw", "rb") as file:
            data = file.read()
        talk.note((target, len(data), [(byte, data.count(byte)) for byte in sorted(set(data))]))
    talk.do("drive-backup", job_id="x", device="none", target="x", sync="full")
    talk.do("drive-mirror", job_id="x", device="none", target="x", sync="full")


def replacing(talk):
    """A broken child of a quorum gets a successor: `replaces` says which."""
    for name in "abc":
        run("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", "o.q", f"{name}.child")
    talk.daemon.do("blockdev-add", driver="quorum", node_name="q", vote_threshold=2,
                   children=[{"driver": "qcow2", "node-name": name, "file": {"driver": "file", "filename": f"{name}.child"}} for name in "abc"])
    talk.daemon.add("t", "t.q")
    talk.do("blockdev-mirror", job_id="m", device="q", target="t", sync="full", replaces="nobody")
    talk.do("blockdev-mirror", job_id="m", device="q", target="t", sync="full", replaces="b")
    talk.event("BLOCK_JOB_READY")
    talk.do("block-job-complete", device="m")
    talk.event("BLOCK_JOB_COMPLETED")
    graph = talk.daemon.do("x-debug-query-block-graph")
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    talk.note(sorted((edge["name"], names[edge["child"]]) for edge in graph["edges"] if edge["name"].startswith("children")))
    talk.daemon.export("q")
    with Nbd("nbd.sock", "q") as nbd:
        assert nbd.write(0, b"\7" * 65536) == 0 and nbd.read(0, 65536) == (0, b"\7" * 65536)
    talk.daemon.do("quit")
    talk.daemon.process.wait(30)
    for name, form in (("t.q", "new"), ("a.child", "kept"), ("b.child", "gone")):
        data = content(name)
        talk.note((form, [(byte, data.count(byte)) for byte in sorted(set(data))]))


def corruption(talk):
    """An L2 table where there cannot be one."""
    with open("a.q", "r+b") as image:
        image.seek(40)
        table = struct.unpack(">Q", image.read(8))[0]
        image.seek(table)
        image.write(struct.pack(">Q", 1 << 63 | 0x2A2A2A00))
    talk.daemon.add("a", "a.q")
    talk.daemon.export("a")
    with Nbd("nbd.sock", "a") as nbd:
        talk.note((nbd.write(0, b"x" * 65536), nbd.write(4 * MIB, b"x" * 512) != 0))
    found = talk.event("BLOCK_IMAGE_CORRUPTED", "msg", "offset", "size")  # the place that is named may be the entry or what it names
    assert found == {"device": "", "node-name": "a", "fatal": True}, found
    talk.note(sum(event["event"] == "BLOCK_IMAGE_CORRUPTED" and event["data"]["fatal"] for event in talk.daemon.qmp.events))
    talk.daemon.do("quit")
    talk.daemon.process.wait(30)
    with open("a.q", "rb") as image:
        image.seek(72)
        talk.note(("marked", image.read(8)[7] & 2))


def fleece(daemon, target, **options):
    daemon.add("a", "a.q")
    daemon.do("blockdev-add", **target)
    daemon.do("blockdev-add", driver="copy-before-write", node_name="cbw", file="a", target=target["node-name"], **options)
    daemon.do("blockdev-add", driver="snapshot-access", node_name="old", file="cbw")
    daemon.export("cbw")
    daemon.export("old", writable=False)


FILE_U = {"driver": "file", "filename": "u.q"}


def failing_snapshot(talk, on_error):
    target = {"driver": "qcow2", "node-name": "u", "file": {"driver": "blkdebug", "image": FILE_U,
                                                            "inject-error": [{"event": "none", "iotype": "write", "errno": 5}]}}
    fleece(talk.daemon, target, on_cbw_error=on_error)
    with Nbd("nbd.sock", "cbw") as guest, Nbd("nbd.sock", "old") as old:
        talk.note(("before", old.read(0, 512)))
        talk.note(("write", guest.write(0, b"\7" * 65536), guest.read(0, 512)))
        error = old.read(0, 512)[0]
        talk.note(("after", bool(error), bool(old.read(MIB, 512)[0])))


def break_guest_write(talk):
    failing_snapshot(talk, "break-guest-write")


def break_snapshot(talk):
    failing_snapshot(talk, "break-snapshot")


def slow_target(talk, on_error):
    talk.daemon.do("object-add", qom_type="throttle-group", id="slow", limits={"bps-write": 20000, "bps-write-max": 20000})
    target = {"driver": "throttle", "throttle-group": "slow", "node-name": "u", "file": {"driver": "qcow2", "file": FILE_U}}
    fleece(talk.daemon, target, on_cbw_error=on_error, cbw_timeout=1)
    with Nbd("nbd.sock", "cbw") as guest, Nbd("nbd.sock", "old") as old:
        talk.note([bool(guest.write(number * 65536, b"\7" * 65536)) for number in range(2)])
        talk.note(bool(old.read(4 * MIB, 512)[0]))


def timeout_breaks_write(talk):
    slow_target(talk, "break-guest-write")


def timeout_breaks_snapshot(talk):
    slow_target(talk, "break-snapshot")


def run_talk(program, conversation):
    images()
    for name in os.listdir("."):
        if name[0] == "d" and name[1:].isdigit():
            os.unlink(name)
    with Daemon(program) as daemon:
        talk = Talk(daemon)
        conversation(talk)
    return talk.said


for conversation in (verbs, completion, drive_commands, replacing, corruption, break_guest_write, break_snapshot, timeout_breaks_write,
                     timeout_breaks_snapshot):
    ours, theirs = run_talk(OURS, conversation), run_talk(THEIRS, conversation)
    for one, other in zip(ours, theirs):
        assert one == other, f"{conversation.__name__}: {one}\ninstead of\n{other}"
    assert len(ours) == len(theirs) and len(ours) > 1, f"{conversation.__name__}: {len(ours)} and {len(theirs)}"

# What the peer does not have yet: what is copied is given back in the source.
images()
with Daemon() as daemon:
    daemon.add("a", "a.q")
    daemon.add("t", "t.q")
    before = os.stat("a.q").st_blocks
    daemon.do("blockdev-backup", job_id="j", device="a", target="t", sync="full", discard_source=True)
    daemon.finish("j")
data = content("t.q")
assert data == b"\5" * (8 * MIB) and not any(content("a.q")), "the copy is not whole, or the source is still there"
assert os.stat("a.q").st_blocks < before / 8, f"{before} sectors, and still {os.stat('a.q').st_blocks}"
# A backup whose target fails: the guest's writes do (on-cbw-error=break-guest-write), or the backup does (break-snapshot).
for on_error in ("break-guest-write", "break-snapshot"):
    images()
    with Daemon() as daemon:
        daemon.add("a", "a.q")
        daemon.do("blockdev-add", driver="qcow2", node_name="u",
                  file={"driver": "blkdebug", "image": FILE_U, "inject-error": [{"event": "none", "iotype": "write", "sector": 6400}]})
        daemon.export("a")
        daemon.do("blockdev-backup", job_id="j", device="a", target="u", sync="none", on_cbw_error=on_error)
        with Nbd("nbd.sock", "a") as guest:
            errors = [guest.write(number * MIB, b"\7" * MIB) for number in range(8)]
            assert any(errors) == (on_error == "break-guest-write"), f"{on_error}: {errors}"
            assert guest.read(7 * MIB, 512)[0] == 0
        if daemon.status("j"):
            daemon.do("job-cancel", id="j")
print("ok")
