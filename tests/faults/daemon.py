#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, some failure of memory, of a file or of a socket makes the storage daemon crash, hang, leak, lie, or spoil an image.
# labels: full
# timeout: 400
"""Sessions with the storage daemon (its start, QMP commands, NBD and vhost-user requests, its end), with one of its allocations, reads,
writes, receives ... failing. It may refuse to start and say why, answer with an error, or close a connection. It may not crash or hang; it
still answers afterwards and ends in good order; what a flush has acknowledged is there, and the image is consistent.

SPINDLE_FAULTS_FULL=1: all operations in all ways, else a sample. SPINDLE_FAULTS_ONLY chooses sessions.
"""
import os
import select
import shutil
import socket
import subprocess
import sys
import time

import faults
import vhost_user as v
from image import BIN, OUR_IMG, content, img, io
from nbd import FLUSH, FUA, TRIM, ZEROES, Nbd
from patience import patience
from qmp import Qmp

DAEMON = os.path.join(BIN, "spindle-storage-daemon")
MIB = 1 << 20
SIZE = 4 * MIB
BUDGET = 14
PATIENCE = 15


class Hangs(Exception):
    pass


class Wrong(Exception):
    pass


def connect_monitor():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect("qmp")
    client = Qmp(sock.fileno(), sock.fileno(), PATIENCE)
    client.socket = sock  # keeps the descriptor open
    return client


class Session:
    """A daemon, and what its clients have been promised: `versions` of the content, of which the last are sure to be there after a
    flush that succeeded."""

    def __init__(self, words, order, log):
        self.order = order
        self.complaints = []  # what clients were told
        self.qmp_client = None
        self.trimmed = range(0)
        self.possible = [content("flat")]
        monitor = ["--chardev", "socket,id=m,path=qmp,server=on,wait=off", "--monitor", "m"]
        with open("stderr", "wb") as err:
            self.process = subprocess.Popen([DAEMON, *monitor, *words], stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                                            env=faults.environment(log, order))

    @property
    def alive(self):
        return self.process.poll() is None

    def said(self):
        with open("stderr", errors="replace") as text:
            return text.read()

    def until(self, attempt):
        """Tries again while the daemon lives and its sockets are not there, or are closed at once."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return attempt()
            except TimeoutError as late:
                raise Hangs("a client is not answered") from late
            except (OSError, EOFError) as problem:
                if "silent" in str(problem):
                    raise Hangs("the monitor is not answered") from problem
                if not self.alive:
                    return None
                if time.monotonic() > end:
                    raise Hangs(f"cannot be reached: {problem}") from problem
                time.sleep(0.01)

    def monitor(self):
        if not self.qmp_client:
            self.qmp_client = self.until(connect_monitor)
        return self.qmp_client

    def qmp(self, command, arguments=None):
        """True when it succeeded; a lost connection is as good as an error, and may be either."""
        client = self.monitor()
        if not client:
            return False
        try:
            client.send({"execute": command, **({"arguments": arguments} if arguments else {})})
            answer = client.answer()
        except (OSError, EOFError) as lost:
            if "silent" in str(lost):
                raise Hangs(f"no answer to {command}") from lost
            client.socket.close()
            self.qmp_client = None
            self.complaints.append(f"{command}: connection lost")
            return False
        if "error" in answer:
            text = answer["error"]["desc"]
            if not text or "\n" in text:
                raise Wrong(f"{command}: an error of no or many lines: {text!r}")
            self.complaints.append(f"{command}: {text}")
        return "error" not in answer

    def wrote(self, offset, data):
        self.possible.append(self.possible[-1][:offset] + data + self.possible[-1][offset + len(data):])

    def flushed(self):
        """A flush was acknowledged: what is there is certain, unless some write has failed, by which a sector is old or new."""
        if not self.complaints:
            self.possible = [self.possible[-1]]

    def may_be(self, start, sector):
        """A trim is a wish: what it names may have become zeroes."""
        return any(sector == version[start:start + 512] for version in self.possible) or start in self.trimmed and not any(sector)

    def finish(self):
        """Asks it to end; the exit status."""
        if self.alive and not self.qmp("query-named-block-nodes") and self.alive and not self.qmp("query-named-block-nodes"):
            try:
                self.process.wait(patience(1))  # it may be about to end
            except subprocess.TimeoutExpired:
                raise Wrong("does not answer any more") from None
        if self.alive and not self.qmp("quit") and self.alive:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired as late:
            raise Hangs("does not end") from late
        finally:
            if self.qmp_client:
                self.qmp_client.socket.close()


def nbd_requests(session, name="disk"):
    """Returns True when a flush was acknowledged after writes that all were."""
    def connect():
        return Nbd("nbd", name, PATIENCE) if session.alive else None
    try:
        client = Nbd("nbd", None, PATIENCE) if os.path.exists("nbd") else None
    except OSError:
        client = None
    if not client:
        return
    client.close()
    started = time.monotonic()
    client = None
    while not client and session.alive and time.monotonic() < started + 3:
        try:
            client = connect()
        except (EOFError, ConnectionError, FileNotFoundError):
            time.sleep(0.01)
        except TimeoutError as late:
            raise Hangs("NBD handshake") from late
    if not client:
        return
    good = True
    try:
        for offset, data, flags in ((0, b"\x41" * 70000, 0), (MIB, b"\x42" * 512, FUA), (3 * MIB + 512, b"\x43" * 150000, 0)):
            session.wrote(offset, data)
            good &= not client.write(offset, data, flags)
        session.wrote(2 * MIB, bytes(65536))
        good &= not client.simple(ZEROES, 2 * MIB, 65536)
        if good and not client.simple(FLUSH):
            session.flushed()
        elif not good:
            session.complaints.append("NBD: a request failed")
        session.trimmed = range(MIB + 65536, MIB + 2 * 65536, 512)
        if client.simple(TRIM, MIB + 65536, 65536):
            session.complaints.append("NBD: a trim failed")
        error, data = client.read(0, MIB)
        if not error and not all(session.may_be(i, data[i:i + 512]) for i in range(0, MIB, 512)):
            raise Wrong("NBD: a read brought what nobody wrote")
        if error:
            session.complaints.append("NBD: a read failed")
        if client.simple(FLUSH):
            session.complaints.append("NBD: a flush failed")
    except TimeoutError as late:
        raise Hangs("an NBD request is not answered") from late
    except (EOFError, ConnectionError):
        session.complaints.append("NBD: connection lost")
    client.close()


def wait(session, queue, slots):
    """queue.wait(), for daemons that may have died: the front end has no deadline of its own."""
    end, done = time.monotonic() + PATIENCE, {}
    while True:
        done.update(queue.collect())
        if set(slots) <= done.keys():
            return {slot: done[slot] for slot in slots}
        if select.select([queue.call], [], [], 0.5)[0]:
            os.eventfd_read(queue.call)
        elif not session.alive:
            raise EOFError("the daemon is gone")
        elif time.monotonic() > end:
            raise TimeoutError("requests are not answered")


def vhost_requests(session):
    if not os.path.exists("vhost"):
        return
    try:
        with v.FrontEnd("vhost", timeout=PATIENCE) as front:
            front.start(inflight=True)
            queue = front.queues[0]
            writes = [(8 * i, bytes([i + 1]) * 4096) for i in range(8)]
            for sector, data in writes:
                session.wrote(512 * sector, data)
            done = wait(session, queue, [queue.submit(v.WRITE, sector, data) for sector, data in writes])
            flush = queue.submit(v.FLUSH, 0)
            status = wait(session, queue, [flush])[flush]
            if not any(done.values()) and not status:
                session.flushed()
            else:
                session.complaints.append("vhost-user: a request failed")
            slot = queue.submit(v.READ, 0, length=4096)
            if wait(session, queue, [slot])[slot]:
                session.complaints.append("vhost-user: a read failed")
    except (EOFError, ConnectionError, AssertionError, BrokenPipeError):
        session.complaints.append("vhost-user: connection lost")
    except TimeoutError as late:
        if session.order and session.order.kind in ("recv", "accept", "alloc", "send"):
            session.complaints.append(f"vhost-user: {late}")  # the front end has no deadline of its own: it connects again
        else:
            raise Hangs(f"vhost-user: {late}") from late


# --- sessions ---------------------------------------------------------------------------------------------------------

FILE = ("--blockdev", "file,node-name=file,filename=a")
QCOW2 = (*FILE, "--blockdev", "qcow2,node-name=disk,file=file")
SERVER = ("--nbd-server", "addr.type=unix,addr.path=nbd")


def requests_by_nbd(session):
    if session.monitor():
        nbd_requests(session)


def requests_by_vhost(session):
    if session.monitor():
        vhost_requests(session)


def commands(session):
    address = {"type": "unix", "data": {"path": "nbd"}}
    session.qmp("query-version")
    session.qmp("blockdev-add", {"driver": "file", "node-name": "file", "filename": "a"})
    session.qmp("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
    session.qmp("nbd-server-start", {"addr": address})
    session.qmp("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": True})
    nbd_requests(session)
    session.qmp("query-block-exports")
    session.qmp("block-export-del", {"id": "e", "mode": "hard"})
    session.qmp("blockdev-reopen", {"options": [{"driver": "qcow2", "node-name": "disk", "file": "file", "read-only": True}]})
    session.qmp("blockdev-reopen", {"options": [{"driver": "qcow2", "node-name": "disk", "file": "file"}]})
    session.qmp("block-export-add", {"type": "vhost-user-blk", "id": "v", "node-name": "disk", "writable": True,
                                     "addr": {"type": "unix", "path": "vhost"}})
    vhost_requests(session)
    session.qmp("query-named-block-nodes")
    session.qmp("block-export-del", {"id": "v", "mode": "hard"})
    session.qmp("nbd-server-stop")
    session.qmp("blockdev-add", {"driver": "raw", "node-name": "window", "offset": 65536, "size": 65536,
                                 "file": {"driver": "file", "filename": "a2"}})
    session.qmp("blockdev-del", {"node-name": "window"})
    session.qmp("blockdev-del", {"node-name": "disk"})
    session.qmp("blockdev-del", {"node-name": "file"})


SESSIONS = {
    "start": ((*QCOW2, *SERVER, "--export", "nbd,id=e,node-name=disk,writable=on", "--export",
               "vhost-user-blk,id=v,node-name=disk,addr.type=unix,addr.path=vhost", "--pidfile", "pid", "--object", "main-loop,id=o"), Session.monitor),
    "start with an overlay": (("--blockdev", "qcow2,node-name=disk,file.driver=file,file.filename=overlay", *SERVER, "--export",
                               "nbd,id=e,node-name=disk,writable=on"), Session.monitor),
    "NBD": ((*QCOW2, *SERVER, "--export", "nbd,id=e,node-name=disk,writable=on"), requests_by_nbd),
    "NBD raw": (("--blockdev", "file,node-name=disk,filename=raw", *SERVER, "--export", "nbd,id=e,node-name=disk,writable=on"), requests_by_nbd),
    "NBD overlay": (("--blockdev", "qcow2,node-name=disk,file.driver=file,file.filename=overlay", *SERVER, "--export",
                     "nbd,id=e,node-name=disk,writable=on"), requests_by_nbd),
    "vhost-user": ((*QCOW2, "--export", "vhost-user-blk,id=v,node-name=disk,writable=on,addr.type=unix,addr.path=vhost"), requests_by_vhost),
    "commands": ((), commands),
}
IMAGES = {"NBD raw": ("raw", "raw"), "NBD overlay": ("overlay", "qcow2"), "start with an overlay": ("overlay", "qcow2")}


def make_images():
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", "a", SIZE)
    io("a", "write -q -P 17 0 300k", "write -q -P 19 1M 200000", "write -q -P 20 2M 100k", form="qcow2")
    shutil.copy("a", "a2")
    img("create", "-q", "-f", "qcow2", "-b", "a", "-F", "qcow2", "overlay")
    img("convert", "-f", "qcow2", "-O", "raw", "a", "flat")
    shutil.copy("flat", "raw")


def image_problem(name, session):
    path, form = IMAGES.get(name, ("a", "qcow2"))
    if form == "qcow2":
        checked = subprocess.run([OUR_IMG, "check", "-q", "-f", form, path], capture_output=True, timeout=patience(60), check=False)
        if checked.returncode not in (0, 3):
            return f"check: {checked.returncode}: {(checked.stdout + checked.stderr).decode()[:400]}"
    img("convert", "-f", form, "-O", "raw", path, "after")
    after = content("after")
    for start in range(0, SIZE, 512):
        if not session.may_be(start, after[start:start + 512]):
            return f"the sector at {start} is none that was written" + (" and acknowledged" if len(session.possible) == 1 else "")
    return None


def judge(session, status):
    text = session.said()
    order = session.order
    if order and order.may_kill:
        if status == -6 and "out of memory" in text and "Sanitizer" not in text:
            return None
        return f"ended with {status}, not by abort() with a message"
    if problem := faults.broken(status, text):
        return problem
    if status not in (0, 1, -15):
        return f"ended with {status}"
    if status == 1 and (not order or not order.explains(text)):
        return "ended with an error and does not say why"
    if order and order.must_succeed and (session.complaints or status):
        return f"a short transfer is taken for a failure: {session.complaints}"
    return None


def run(name, order, log):
    """(problem or None, session)"""
    words, actions = SESSIONS[name]
    session = Session(words, order, log)
    try:
        actions(session)
        status = session.finish()
        problem = judge(session, status) or image_problem(name, session)
    except (Hangs, Wrong) as trouble:
        problem = f"{type(trouble).__name__.lower()}: {trouble}"
    finally:
        if session.alive:
            session.process.kill()
        session.process.wait()
    return problem, session


def run_session(name):
    os.makedirs("template")
    os.chdir("template")
    make_images()
    os.chdir("..")
    log = os.path.abspath("log")

    def once(order):
        shutil.rmtree("work", ignore_errors=True)
        shutil.copytree("template", "work")
        if os.path.exists(log):
            os.unlink(log)
        os.chdir("work")
        try:
            return run(name, order, log)
        finally:
            os.chdir("..")
    problem, session = once(None)
    assert not problem and not session.complaints and session.process.returncode == 0, f"{name}: without a failure: {problem} {session.complaints} {session.process.returncode}"
    chosen = faults.orders(faults.count_operations(log), name, BUDGET)
    problems = 0
    for order in chosen:
        problem, session = once(order)
        if problem and faults.happened(log):
            problems += 1
            with open("work/stderr", errors="replace") as text:
                print(f"{name}: {order}: {problem}\n    {session.complaints}\n    {text.read()[:3000]}", flush=True)
    shutil.rmtree("template")
    return len(chosen), problems


def main():
    total = bad = 0
    started = time.monotonic()
    for name in SESSIONS:
        if faults.ONLY in name:
            count, problems = run_session(name)
            total += count
            bad += problems
            if faults.FULL:
                print(f"{name}: {count} failures, {problems} problems", flush=True)
    print(f"{len(SESSIONS)} sessions, {total} failures, {bad} problems, {time.monotonic() - started:.0f} s")
    sys.exit(1 if bad else 0)


main()
