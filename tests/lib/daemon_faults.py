# SPDX-License-Identifier: Apache-2.0
"""Sessions with a storage daemon of which one operation fails (lib/faults.py): what its clients were promised, and what is asked of it.

    daemon_faults.main({"NBD": Case(prepare, words, actions, problem), ...}, budget)

It may refuse to start and say why, answer with an error, or close a connection. It may not crash or hang; it still answers afterwards
and ends in good order. What it may have made of the images, each case says itself.
"""
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import typing

import faults
from image import BIN, content
from patience import patience
from qmp import Qmp

DAEMON = os.path.join(BIN, "spindle-storage-daemon")
PATIENCE = 15


@dataclasses.dataclass
class Case:
    """prepare() makes the files in an empty folder; the daemon is started there with `words`; actions(session) are its clients;
    problem(session) says what is wrong with the files afterwards, or None. `done` are the commands that actions() uses, where it knows."""
    prepare: typing.Callable
    words: tuple
    actions: typing.Callable
    problem: typing.Callable = lambda session: None
    done: frozenset = frozenset()


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
        self.last_words = ""  # on its standard error
        self.trimmed = range(0)
        self.possible = [content("flat")] if os.path.exists("flat") else []
        monitor = ["--chardev", "socket,id=m,path=qmp,server=on,wait=off", "--monitor", "m"]
        with open("stderr", "wb") as err:
            self.process = subprocess.Popen([DAEMON, *monitor, *words], stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                                            env=faults.environment(log, order))

    @property
    def alive(self):
        return self.process.poll() is None

    def said(self):
        with open("stderr", errors="replace") as text:
            self.last_words = text.read()
        return self.last_words

    def until(self, attempt):
        """Tries again while the daemon lives and its sockets are not there, or are closed at once."""
        end = time.monotonic() + patience(PATIENCE)
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

    def qmp(self, command, arguments=None, fd=None):
        """True when it succeeded; a lost connection is as good as an error, and may be either."""
        return self.ask(command, arguments, fd) is not None

    def ask(self, command, arguments=None, fd=None):
        """What it returned; None when it failed."""
        client = self.monitor()
        if not client:
            return None
        try:
            message = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode()
            if fd is not None:
                message = message[socket.send_fds(client.socket, [message], [fd]):]
            client.send(message)
            answer = client.answer()
        except (OSError, EOFError) as lost:
            if "silent" in str(lost):
                raise Hangs(f"no answer to {command}") from lost
            client.socket.close()
            self.qmp_client = None
            self.complaints.append(f"{command}: connection lost")
            return None
        if "error" in answer:
            text = answer["error"]["desc"]
            if not text or "\n" in text:
                raise Wrong(f"{command}: an error of no or many lines: {text!r}")
            self.complaints.append(f"{command}: {text}")
        return answer.get("return")

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
            return self.process.wait(patience(PATIENCE))
        except subprocess.TimeoutExpired as late:
            raise Hangs("does not end") from late
        finally:
            if self.qmp_client:
                self.qmp_client.socket.close()


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


def run(case, order, log):
    """(problem or None, session)"""
    session = Session(case.words, order, log)
    try:
        case.actions(session)
        status = session.finish()
        problem = judge(session, status) or case.problem(session)
    except (Hangs, Wrong) as trouble:
        problem = f"{type(trouble).__name__.lower()}: {trouble}"
    finally:
        if session.alive:
            session.process.kill()
        session.process.wait()
        session.said()
    return problem, session


def run_case(name, case, budget):
    os.makedirs("template")
    os.chdir("template")
    case.prepare()
    os.chdir("..")
    log = os.path.abspath("log")

    def once(order):
        shutil.rmtree("work", ignore_errors=True)
        shutil.copytree("template", "work")
        if os.path.exists(log):
            os.unlink(log)
        os.chdir("work")
        try:
            return run(case, order, log)
        finally:
            os.chdir("..")
    problem, session = once(None)
    assert not problem and not session.complaints and session.process.returncode == 0, \
        f"{name}: without a failure: {problem} {session.complaints} {session.process.returncode} {session.last_words}"
    chosen = faults.orders(faults.count_operations(log), name, budget)
    problems = 0
    for order in chosen:
        problem, session = once(order)
        if problem and faults.happened(log):
            problems += 1
            print(f"{name}: {order}: {problem}\n    {session.complaints}\n    {session.last_words[:3000]}", flush=True)
    shutil.rmtree("template")
    return len(chosen), problems


def main(cases, budget):
    total = bad = 0
    started = time.monotonic()
    for name, case in cases.items():
        if faults.ONLY in name:
            count, problems = run_case(name, case, budget)
            total += count
            bad += problems
            if faults.FULL:
                print(f"{name}: {count} failures, {problems} problems", flush=True)
    print(f"{len(cases)} sessions, {total} failures, {bad} problems, {time.monotonic() - started:.0f} s")
    sys.exit(1 if bad else 0)
