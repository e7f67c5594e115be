#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a management program that waits for the states and events of jobs waits for ever, or acts too early.
# labels: full interop
# requires: qemu-img qemu-io qemu-storage-daemon
# timeout: 180
"""The same commands to QEMU's storage daemon and to ours: the events of jobs, their order, and what is refused are the same."""
import os
import signal

from jobs import OURS, Daemon, make, run

# Our pauses are the user's; the peer's also pause while they drain.
SIZES = ("len", "offset")


class Recorder:
    def __init__(self, daemon):
        self.daemon, self.history, self.searched = daemon, [], 0

    def note(self, event):
        data = {key: value for key, value in event["data"].items() if key not in SIZES}
        self.history.append((event["event"], tuple(sorted(data.items()))))

    def flush(self):
        for event in self.daemon.qmp.events:
            self.note(event)
        self.daemon.qmp.events.clear()

    def do(self, command, **arguments):
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.history.append(("asked", command))
        self.daemon.qmp.send({"execute": command, "arguments": arguments})
        answer = self.daemon.qmp.answer()
        self.flush()
        error = answer.get("error", {}).get("class")
        self.history.append(("answer", command, error))
        return answer.get("return")

    def until(self, *wanted):
        """An event, ours since the last one waited for: until("running", "j"), until("BLOCK_JOB_READY")."""
        while True:
            while self.searched < len(self.history):
                name, data = self.history[self.searched][:2]
                self.searched += 1
                if name == wanted[0] or (name == "JOB_STATUS_CHANGE" and dict(data) == {"id": (wanted + ("j",))[1], "status": wanted[0]}):
                    return
            self.note(self.daemon.qmp.receive())

    def query(self, job="j"):
        jobs = [dict(entry) for entry in self.daemon.qmp.command("query-jobs")]
        blocks = [dict(entry) for entry in self.daemon.qmp.command("query-block-jobs")]
        self.flush()
        for entry in jobs + blocks:
            for key in ("current-progress", "total-progress", "len", "offset", "busy", "actively-synced"):
                entry.pop(key, None)
            if entry["status"] == "pending":
                entry.pop("paused", None)  # the peer holds guests' requests until the user finalizes
        self.history.append(("query", str([sorted(e.items()) for e in jobs]), str([sorted(e.items()) for e in blocks])))

    def settled(self):
        """Events and answers, each in their order: which comes first of an event and the answer that makes it is chance. The pauses
        that nobody asked for are left out, with the going on after them."""
        events, answers, open_pauses, expects_pauses = [], [], set(), False
        for entry in self.history:
            if entry[0] in ("answer", "query"):
                answers.append(entry)
                continue
            expects_pauses |= entry == ("asked", "job-pause") or (entry[0] == "BLOCK_JOB_ERROR" and ("action", "stop") in entry[1])
            if entry[0] == "asked":
                continue
            data = dict(entry[1])
            if not expects_pauses and data.get("status") in ("paused", "standby"):
                open_pauses.add(data["id"])
            elif data.get("status") in ("running", "ready") and data["id"] in open_pauses:
                open_pauses.remove(data["id"])
            else:
                events.append(entry)
        return events + answers


def images():
    for name in "abt":
        make(f"{name}.q", "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 8M", "a.q")
    make("o.q", backing="a.q")
    make("p.q", backing="o.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 6 1M 4M", "o.q")


def nodes(r, *names, **backing):
    for name in names:
        r.daemon.add(name, f"{name}.q", **({"backing": backing[name]} if name in backing else {}))


def backup_alone(r):
    nodes(r, "a", "t")
    r.do("blockdev-backup", job_id="j", device="a", target="t", sync="full")
    r.until("null")
    r.query()


def backup_by_hand(r):
    nodes(r, "a", "t")
    r.do("blockdev-backup", job_id="j", device="a", target="t", sync="full", auto_finalize=False, auto_dismiss=False)
    r.until("BLOCK_JOB_PENDING")
    r.query()
    for verb in ("job-dismiss", "job-pause", "job-complete", "job-resume"):
        r.do(verb, id="j")
    r.do("block-job-set-speed", device="j", speed=1)
    r.do("job-finalize", id="j")
    r.query()
    for verb in ("job-cancel", "job-finalize"):
        r.do(verb, id="j")
    r.do("job-dismiss", id="j")
    r.query()


def unknown_jobs(r):
    for verb in ("pause", "resume", "cancel", "complete", "finalize", "dismiss"):
        r.do(f"job-{verb}", id="nobody")
        r.do(f"block-job-{verb}", **{"id" if verb in ("finalize", "dismiss") else "device": "nobody"})
    r.do("block-job-set-speed", device="nobody", speed=1)


def cancelled_while_running(r):
    nodes(r, "a", "t")
    r.do("blockdev-backup", job_id="j", device="a", target="t", sync="full", speed=1, auto_dismiss=False)
    r.do("job-complete", id="j")
    r.do("job-finalize", id="j")
    r.do("blockdev-backup", job_id="j", device="a", target="b", sync="full")
    r.do("job-cancel", id="j")
    r.until("concluded")
    r.query()
    r.do("job-dismiss", id="j")


def mirror(end, by_hand=False):
    def scenario(r):
        nodes(r, "a", "t")
        r.do("blockdev-mirror", job_id="j", device="a", target="t", sync="full", auto_finalize=not by_hand)
        r.until("BLOCK_JOB_READY")
        r.query()
        end(r)
        if by_hand:
            r.until("BLOCK_JOB_PENDING")
            r.query()
            r.do("job-finalize", id="j")
        else:
            r.until("null")
        r.query()
    scenario.__name__ = f"mirror, {end.__name__}{', by hand' if by_hand else ''}"
    return scenario


def complete(r):
    r.do("job-complete", id="j")


def gentle(r):
    r.do("block-job-cancel", device="j")


def forced(r):
    r.do("job-cancel", id="j")


def paused_mirror(r):
    nodes(r, "a", "t")
    r.do("blockdev-mirror", job_id="j", device="a", target="t", sync="full")
    r.until("BLOCK_JOB_READY")
    r.do("job-pause", id="j")
    r.until("standby")
    r.do("job-pause", id="j")
    r.query()
    r.do("block-job-cancel", device="j")
    r.do("job-resume", id="j")
    r.until("ready")
    r.do("job-resume", id="j")
    r.do("job-complete", id="j")
    r.until("null")


def commit(active):
    def scenario(r):
        nodes(r, "a", "o", "p", o="a", p="o")
        more = {} if active else {"top_node": "o", "base_node": "a"}
        r.do("block-commit", job_id="j", device="p", **more)
        if active:
            r.until("BLOCK_JOB_READY")
            r.query()
            r.do("job-complete", id="j")
        r.until("null")
    scenario.__name__ = f"commit, {'active' if active else 'between'}"
    return scenario


def stream(r):
    nodes(r, "a", "o", "p", o="a", p="o")
    r.do("block-stream", job_id="j", device="p", base_node="a")
    r.until("null")
    r.do("block-stream", job_id="1bad", device="p")
    r.do("block-stream", device="p")
    r.do("block-stream", job_id="j", device="p", base_node="t")


def create(r):
    r.do("blockdev-create", job_id="j", options={"driver": "file", "filename": "new.q", "size": 0})
    r.until("concluded")
    r.query()
    r.do("job-dismiss", id="j")
    r.do("blockdev-add", driver="file", node_name="new", filename="new.q")
    r.do("blockdev-create", job_id="j", options={"driver": "qcow2", "file": "new", "size": 1 << 20})
    r.until("concluded")
    r.query()
    r.do("job-dismiss", id="j")
    r.do("blockdev-create", job_id="j", options={"driver": "file", "filename": "/nowhere/x", "size": 0})
    r.until("concluded")
    r.do("job-dismiss", id="j")


def two_jobs(mode):
    def scenario(r):
        make("t2.q", "8M")
        nodes(r, "a", "t", "b", "t2")
        r.do("transaction", properties={"completion-mode": mode}, actions=[
            {"type": "blockdev-backup", "data": {"job-id": "one", "device": "a", "target": "t", "sync": "full", "speed": 1}},
            {"type": "blockdev-backup", "data": {"job-id": "two", "device": "b", "target": "t2", "sync": "full"}}])
        r.until("waiting" if mode == "grouped" else "null", "two")
        r.do("job-cancel", id="one")
        r.until("null", "one")
        r.query()
    scenario.__name__ = f"two jobs, {mode}"
    return scenario


def failed_transaction(r):
    nodes(r, "a", "t")
    r.do("transaction", actions=[
        {"type": "block-dirty-bitmap-add", "data": {"node": "a", "name": "new"}},
        {"type": "blockdev-backup", "data": {"job-id": "one", "device": "a", "target": "t", "sync": "full"}},
        {"type": "abort", "data": {}}])
    r.query()
    assert r.daemon.bitmap("a", "new") is None


def full_target(policy):
    """The target's file may not grow: an error of the host, the same for both."""
    def scenario(r):
        nodes(r, "a", "t")
        import resource
        pid = r.daemon.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        r.do("blockdev-backup", job_id="j", device="a", target="t", sync="full", on_target_error=policy, auto_dismiss=False,
             x_perf={"max-workers": 1})
        if policy == "stop":
            r.until("BLOCK_JOB_ERROR")
            r.until("paused")
            r.query()
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            r.do("job-resume", id="j")
        r.until("concluded")
        r.query()
        r.do("job-dismiss", id="j")
    scenario.__name__ = f"full target, {policy}"
    return scenario


SCENARIOS = [backup_alone, backup_by_hand, unknown_jobs, cancelled_while_running, mirror(complete), mirror(gentle), mirror(forced),
             mirror(complete, by_hand=True), paused_mirror, commit(False), commit(True), stream, create, two_jobs("individual"),
             two_jobs("grouped"), failed_transaction, full_target("report"), full_target("stop")]


def record(program, scenario):
    images()
    for path in ("new.q",):
        if os.path.exists(path):
            os.unlink(path)
    with Daemon(program, preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN)) as daemon:
        recorder = Recorder(daemon)
        scenario(recorder)
        daemon.process.terminate()
    return recorder.settled()


problems = []
for scenario in SCENARIOS:
    theirs, ours = record("qemu-storage-daemon", scenario), record(OURS, scenario)
    if theirs != ours:
        lines = [f"== {scenario.__name__}"]
        for i in range(max(len(theirs), len(ours))):
            their, our = (history[i] if i < len(history) else None for history in (theirs, ours))
            lines.append(f"  {'  ' if their == our else '! '}{their}" + ("" if their == our else f"\n    ours: {our}"))
        problems.append("\n".join(lines))
assert not problems, "\n".join(problems)
print(f"{len(SCENARIOS)} scenarios are the same")
