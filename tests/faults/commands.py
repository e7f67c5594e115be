#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, some failure of memory or of a file makes a QMP command crash or hang the daemon, lie about its result, or spoil an image.
# labels: full
# timeout: 400
"""Every QMP command of the daemon and every kind of job, with one operation of the daemon failing (lib/daemon_faults.py).

SCRIPTS is the table; a command of the schema that is in none of them fails the test. Afterwards each image of a script is consistent,
and what a guest reads from `a` is what it was: none of these commands is a guest's write. Where all was well, copies are complete.
"""
import os
import shutil
import sys
import time

import daemon_faults
from daemon_faults import Case, Hangs, Session, Wrong
from faults import check_problem
from image import content, img, io
from patience import patience

KIB, MIB = 1 << 10, 1 << 20
BUDGET = 9
SIZE = 2 * MIB

# --- steps ------------------------------------------------------------------------------------------------------------


def spelled(arguments):
    """In Python's calls a dash cannot be in a name."""
    return {name.replace("_", "-"): value for name, value in arguments.items()}


class Do:
    """A command."""

    def __init__(self, command, /, **arguments):
        self.command, self.arguments = command, spelled(arguments)

    def __call__(self, session):
        return session.qmp(self.command, self.arguments)


class DoWithFd(Do):
    """A command and a descriptor of the image."""

    def __call__(self, session):
        with open("a", "rb") as file:
            return session.qmp(self.command, self.arguments, file.fileno())


def end_of(session, job):
    """A job that is not there any more has told its end by an event; {} if that went with a lost connection."""
    for event in session.qmp_client.events if session.qmp_client else ():
        if event["event"] == "BLOCK_JOB_COMPLETED" and event["data"]["device"] == job:
            return event["data"]
    return {}


class Until:
    """The job has this state, or has ended for whatever reason; what it complains about is taken down."""
    command = "query-jobs"

    def __init__(self, job, *states):
        self.job, self.states = job, (*states, "concluded", "null")

    def __call__(self, session):
        end = time.monotonic() + patience(daemon_faults.PATIENCE)
        while session.alive:
            jobs = session.ask("query-jobs")
            state = None if jobs is None else next((job for job in jobs if job["id"] == self.job), {"status": "null"})
            if state and state["status"] in self.states:
                error = (end_of(session, self.job) if state["status"] == "null" else state).get("error")
                if error:
                    session.complaints.append(f"job {self.job}: {error}")
                return
            if time.monotonic() > end:
                raise Hangs(f"job '{self.job}' stays in {state and state['status']}")
            time.sleep(0.005)


class IfThere:
    """A command on a job, which may be gone already: by an error, or because it was quicker."""

    def __init__(self, job, command, /, **arguments):
        self.job, self.command, self.arguments = job, command, spelled(arguments)

    def __call__(self, session):
        before = len(session.complaints)
        if session.qmp(self.command, self.arguments):
            return
        if session.complaints[-1:] == [f"{self.command}: connection lost"]:  # perhaps before anybody read it; the job may wait for it
            session.qmp(self.command, self.arguments)
        else:
            jobs = session.ask("query-jobs") or []
            if not any(job["id"] == self.job and job["status"] in ("running", "ready", "pending") for job in jobs):
                del session.complaints[before:]


def add(name, filename, driver="qcow2", **more):
    return Do("blockdev-add", driver=driver, node_name=name, file={"driver": "file", "filename": filename}, **more)


# --- images -----------------------------------------------------------------------------------------------------------


def one_image():
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", "a", SIZE)
    io("a", "write -q -P 17 0 150k", "write -q -P 19 1M 200000", form="qcow2")
    img("convert", "-f", "qcow2", "-O", "raw", "a", "flat")


def and_target():
    one_image()
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", "target", SIZE)


def chain():
    for name, below in (("base", None), ("mid", "base"), ("a", "mid")):
        words = ["-b", below, "-F", "qcow2"] if below else []
        img("create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", *words, name, *([] if below else [SIZE]))
        io(name, f"write -q -P {len(name)} {len(name) * 100}k 150k", f"write -q -P 9 {len(name) * 300}k 32k", form="qcow2")
    img("convert", "-f", "qcow2", "-O", "raw", "a", "flat")


def judge(*others, made=(), copies=(), grown=0):
    """`a` shows what it did; the others are consistent, which those that the script makes need not be when somebody was told that they
    could not be made; `copies` are complete unless somebody was told otherwise."""
    def problem(session):
        for name in ("a", *others, *(() if session.complaints or session.process.returncode else made)):
            if trouble := check_problem(name):
                return trouble
        wanted = content("flat")
        is_whole = not session.complaints and session.process.returncode == 0 and not session.last_words
        for name in ("a", *(copies if is_whole else ())):
            img("convert", "-f", "qcow2", "-O", "raw", name, "after")
            after = content("after")
            if after != wanted and after != wanted + bytes(grown):
                return f"{name} does not show what it should"
        return None
    return problem


# --- the table --------------------------------------------------------------------------------------------------------

THROTTLE = {"qom-type": "throttle-group", "id": "g", "limits": {"iops-total": 1000}}
CHAIN = [add("base", "base"), add("mid", "mid", backing="base"), add("a", "a", backing="mid")]
BITMAP = {"node": "a", "name": "one"}
SERVER = Do("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd"}})

SCRIPTS = {
    "questions": (one_image, judge(), [
        add("a", "a"),
        *(Do(name) for name in ("query-version", "query-commands", "query-qmp-schema", "query-named-block-nodes", "query-block",
                                "query-blockstats", "query-block-exports", "query-block-jobs", "query-jobs", "query-chardev-backends",
                                "x-debug-query-block-graph"))]),
    "objects": (one_image, judge(), [
        Do("object-add", qom_type="secret", id="s", data="opensesame"), Do("object-add", **THROTTLE),
        add("a", "a"), Do("blockdev-add", driver="throttle", node_name="slow", throttle_group="g", file="a"),
        Do("qom-list", path="/objects"), Do("qom-get", path="/objects/g", property="limits"),
        Do("qom-set", path="/objects/g", property="limits", value={"iops-total": 2000}), Do("qom-list-types"),
        Do("qom-list-properties", typename="throttle-group"), Do("qom-list-get", paths=["/objects/g", "/objects/s"]),
        Do("blockdev-del", node_name="slow"), Do("object-del", id="g"), Do("object-del", id="s")]),
    "chardevs": (one_image, judge(), [
        Do("chardev-add", id="c", backend={"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c"}}}}),
        Do("query-chardev"), Do("chardev-change", id="c", backend={"type": "null", "data": {}}), Do("chardev-remove", id="c")]),
    "descriptors": (one_image, judge(), [
        DoWithFd("getfd", fdname="one"), Do("closefd", fdname="one"), DoWithFd("add-fd", fdset_id=7, opaque="a"), Do("query-fdsets"),
        add("a", "/dev/fdset/7", read_only=True), Do("blockdev-del", node_name="a"), Do("remove-fd", fdset_id=7)]),
    "exports": (one_image, judge(), [
        add("a", "a"), Do("block-dirty-bitmap-add", **BITMAP, disabled=True), SERVER, Do("nbd-server-add", device="a", name="old", bitmap="one"),
        Do("block-export-add", type="nbd", id="e", node_name="a", writable=True), Do("query-block-exports"),
        Do("nbd-server-remove", name="old", mode="hard"), Do("block-export-del", id="e"), Do("nbd-server-stop")]),
    "iothreads": (one_image, judge(), [
        Do("object-add", qom_type="iothread", id="t"), Do("object-add", qom_type="iothread", id="u"), Do("query-iothreads"), add("a", "a"), SERVER,
        Do("x-blockdev-set-iothread", node_name="a", iothread="u"), Do("block-export-add", type="nbd", id="e", node_name="a", writable=True, iothread="t"),
        Do("block-export-add", type="vhost-user-blk", id="v", node_name="a", writable=True, addr={"type": "unix", "path": "v"}),
        Do("block-export-del", id="e"), Do("block-export-del", id="v"), Do("object-del", id="t"), Do("blockdev-del", node_name="a"), Do("object-del", id="u")]),
    "settings": (one_image, judge(grown=MIB), [
        add("a", "a"), Do("block-set-write-threshold", node_name="a", write_threshold=MIB),
        Do("block-latency-histogram-set", id="a", boundaries=[1000, 100000]), Do("block_resize", node_name="a", size=SIZE + MIB),
        Do("blockdev-set-active", node_name="a", active=False), Do("blockdev-set-active", node_name="a", active=True),
        Do("blockdev-del", node_name="a"), Do("blockdev-add", driver="file", node_name="f", filename="a"), Do("blockdev-add", driver="qcow2", node_name="a", file="f"),
        Do("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "a", "file": "f", "lazy-refcounts": True}]), Do("blockdev-del", node_name="a")]),
    "bitmaps": (one_image, judge(), [
        add("a", "a"), Do("block-dirty-bitmap-add", **BITMAP, persistent=True), Do("block-dirty-bitmap-add", node="a", name="two", granularity=4096),
        Do("block-dirty-bitmap-disable", **BITMAP), Do("block-dirty-bitmap-merge", node="a", target="two", bitmaps=["one"]),
        Do("x-debug-block-dirty-bitmap-sha256", **BITMAP), Do("block-dirty-bitmap-enable", **BITMAP), Do("block-dirty-bitmap-clear", **BITMAP),
        Do("block-dirty-bitmap-remove", node="a", name="two"), Do("blockdev-del", node_name="a")]),
    "internal snapshots": (one_image, judge(), [
        add("a", "a"), Do("blockdev-snapshot-internal-sync", device="a", name="one"), Do("blockdev-snapshot-internal-sync", device="a", name="two"),
        Do("blockdev-snapshot-delete-internal-sync", device="a", name="one"), Do("blockdev-del", node_name="a")]),
    "create and snapshot": (one_image, judge(made=("over",)), [
        Do("blockdev-create", job_id="f", options={"driver": "file", "filename": "over", "size": 0}), Until("f"), Do("job-dismiss", id="f"),
        Do("blockdev-add", driver="file", node_name="over-file", filename="over"),
        Do("blockdev-create", job_id="q", options={"driver": "qcow2", "file": "over-file", "size": SIZE, "backing-file": "a", "backing-fmt": "qcow2"}),
        Until("q"), Do("job-dismiss", id="q"), add("a", "a"), Do("blockdev-add", driver="qcow2", node_name="over", file="over-file", backing=None),
        Do("blockdev-snapshot", node="a", overlay="over"), Do("change-backing-file", device="over", image_node_name="over", backing_file="a")]),
    "snapshot-sync": (one_image, judge(made=("snap",)), [
        add("a", "a"), Do("blockdev-snapshot-sync", node_name="a", snapshot_file="snap", snapshot_node_name="snap"),
        Do("blockdev-del", node_name="snap")]),
    "commit": (chain, judge("mid", "base"), [
        *CHAIN, Do("block-commit", job_id="j", device="a", top_node="mid", base_node="base"), Until("j"),
        Do("blockdev-del", node_name="a")]),
    "commit the active layer": (chain, judge("mid", "base"), [
        *CHAIN, Do("block-commit", job_id="j", device="a", auto_dismiss=False), Until("j", "ready"), IfThere("j", "block-job-complete", device="j"),
        Until("j"), IfThere("j", "block-job-dismiss", id="j")]),
    "stream": (chain, judge("mid", "base"), [
        *CHAIN, Do("block-stream", job_id="j", device="a", base_node="base"), Until("j"), Do("block-stream", job_id="k", device="a"), Until("k"),
        Do("blockdev-del", node_name="a")]),
    "backup": (and_target, judge("target", copies=("target",)), [
        add("a", "a"), add("target", "target"), Do("block-dirty-bitmap-add", **BITMAP, persistent=True),
        Do("blockdev-backup", job_id="j", device="a", target="target", sync="full", speed=256 * KIB, auto_finalize=False, auto_dismiss=False),
        IfThere("j", "block-job-pause", device="j"), Do("query-block-jobs"), IfThere("j", "block-job-resume", device="j"),
        IfThere("j", "job-pause", id="j"), IfThere("j", "job-resume", id="j"), IfThere("j", "block-job-set-speed", device="j", speed=0),
        Until("j", "pending"), IfThere("j", "job-finalize", id="j"), Until("j"), IfThere("j", "job-dismiss", id="j")]),
    "drive-backup": (one_image, judge(made=("new",), copies=("new",)), [
        add("a", "a"), Do("drive-backup", job_id="j", device="a", target="new", format="qcow2", sync="full", auto_finalize=False), Until("j", "pending"),
        IfThere("j", "block-job-finalize", id="j"), Until("j")]),
    "mirror": (and_target, judge("target", copies=("target",)), [
        add("a", "a"), add("target", "target"), Do("blockdev-mirror", job_id="j", device="a", target="target", sync="full", auto_dismiss=False),
        IfThere("j", "block-job-change", id="j", type="mirror", copy_mode="write-blocking"), Until("j", "ready"), IfThere("j", "job-complete", id="j"),
        Until("j"), IfThere("j", "job-dismiss", id="j")]),
    "drive-mirror": (one_image, judge(made=("new",)), [
        add("a", "a"), Do("drive-mirror", job_id="j", device="a", target="new", format="qcow2", sync="full"), Until("j", "ready"),
        IfThere("j", "block-job-cancel", device="j"), Until("j")]),
    "cancel": (and_target, judge("target"), [
        add("a", "a"), add("target", "target"), Do("blockdev-backup", job_id="j", device="a", target="target", sync="full", speed=64 * KIB),
        IfThere("j", "job-cancel", id="j"), Until("j")]),
    "amend": (one_image, judge(), [
        add("a", "a"), Do("x-blockdev-amend", job_id="j", node_name="a", options={"driver": "qcow2", "lazy_refcounts": True}), Until("j"),
        IfThere("j", "job-dismiss", id="j"), Do("blockdev-del", node_name="a")]),
    "check": (one_image, judge(), [
        add("a", "a"), Do("blockdev-check", job_id="j", node_name="a", repair="all"), Until("j"), IfThere("j", "job-dismiss", id="j"),
        Do("blockdev-del", node_name="a")]),
    "quorum": (and_target, judge("target"), [
        add("a", "a"), add("target", "target"), Do("blockdev-add", driver="file", node_name="flat", filename="flat"),
        Do("blockdev-add", driver="quorum", node_name="q", vote_threshold=1, children=["a", "target"]),
        Do("x-blockdev-change", parent="q", node="flat"), Do("x-blockdev-change", parent="q", child="children.1")]),
    "transaction": (and_target, judge("target", made=("snap",)), [
        add("a", "a"), add("target", "target"), Do("block-dirty-bitmap-add", **BITMAP, persistent=True),
        Do("transaction", properties={"completion-mode": "grouped"}, actions=[
            {"type": "block-dirty-bitmap-add", "data": {"node": "a", "name": "two", "persistent": True}},
            {"type": "block-dirty-bitmap-clear", "data": BITMAP},
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": "a", "name": "s"}},
            {"type": "blockdev-backup", "data": {"job-id": "j", "device": "a", "target": "target", "sync": "full"}}]),
        Until("j"),
        Do("transaction", actions=[
            {"type": "block-dirty-bitmap-merge", "data": {"node": "a", "target": "two", "bitmaps": ["one"]}},
            {"type": "block-dirty-bitmap-disable", "data": {"node": "a", "name": "two"}},
            {"type": "blockdev-snapshot-sync", "data": {"node-name": "a", "snapshot-file": "snap", "snapshot-node-name": "snap"}}])]),
}
ALWAYS = {"qmp_capabilities", "quit"}  # Session has them in every script


def play(steps):
    def actions(session):
        for step in steps:
            if not session.alive:
                return
            step(session)
    return actions


def check_table():
    """Every command of the daemon is in some script, and no script has one that is not there."""
    os.makedirs("table")
    os.chdir("table")
    session = Session((), None, os.path.abspath("log"))
    there = {entry["name"] for entry in session.ask("query-commands")}
    if session.finish():
        raise Wrong(session.said())
    os.chdir("..")
    shutil.rmtree("table")
    done = {step.command for _, _, steps in SCRIPTS.values() for step in steps} | ALWAYS
    if done != there:
        sys.exit(f"FAILED: commands without a script: {sorted(there - done)}; scripts for commands that are not there: {sorted(done - there)}")


check_table()
daemon_faults.main({name: Case(prepare, (), play(steps), problem) for name, (prepare, problem, steps) in SCRIPTS.items()}, BUDGET)
