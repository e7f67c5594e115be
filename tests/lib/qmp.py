# SPDX-License-Identifier: Apache-2.0
"""A QMP client for tests: talks to a program over a UNIX socket or over its standard input and output.

    with Program([...,"--chardev", f"socket,id=m,path={path},server=on,wait=off", "--monitor", "m"]) as daemon:
        qmp = Qmp.connect(path)
        qmp.command("blockdev-add", {"driver": "null-co", "node-name": "n"})
        qmp.event("BLOCK_EXPORT_DELETED")
"""
import json
import os
import select
import socket
import subprocess
import time

from patience import patience


class QmpError(Exception):
    """An error answer; `kind` is the error class."""

    def __init__(self, error):
        super().__init__(error["desc"])
        self.kind = error["class"]


class Qmp:
    def __init__(self, read_fd, write_fd, timeout=20, negotiate=True):
        self.read_fd, self.write_fd, self.timeout = read_fd, write_fd, timeout
        self.pending = b""
        self.events = []
        self.greeting = self.receive()
        if negotiate:
            self.command("qmp_capabilities")

    @classmethod
    def connect(cls, path, timeout=20, **options):
        """Waits for the socket to appear: the program may just have been started."""
        end = time.monotonic() + patience(timeout)
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                break
            except OSError:
                sock.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        qmp = cls(sock.fileno(), sock.fileno(), timeout, **options)
        qmp.socket = sock  # keeps the descriptor open
        return qmp

    @classmethod
    def of_process(cls, process, **options):
        return cls(process.stdout.fileno(), process.stdin.fileno(), **options)

    def send(self, message):
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        while data:
            data = data[os.write(self.write_fd, data):]

    def line(self):
        end = time.monotonic() + patience(self.timeout)
        while b"\n" not in self.pending:
            ready = select.select([self.read_fd], [], [], max(0, end - time.monotonic()))[0]
            data = os.read(self.read_fd, 65536) if ready else None
            if not data:
                raise EOFError("the monitor is silent" if data is None else "the monitor has closed the connection")
            self.pending += data
        line, self.pending = self.pending.split(b"\n", 1)
        return line

    def receive(self):
        return json.loads(self.line())

    def answer(self):
        """The next answer; events on the way are kept."""
        while True:
            message = self.receive()
            if "event" not in message:
                return message
            self.events.append(message)

    def command(self, name, arguments=None):
        self.send({"execute": name, **({"arguments": arguments} if arguments is not None else {})})
        answer = self.answer()
        if "error" in answer:
            raise QmpError(answer["error"])
        return answer["return"]

    def error(self, name, arguments=None):
        """The error of a command that must fail."""
        try:
            result = self.command(name, arguments)
        except QmpError as problem:
            return problem
        raise AssertionError(f"{name} succeeded: {result}")

    def event(self, name):
        """The next event of this name; others on the way stay."""
        while True:
            for i, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(i)
            message = self.receive()
            assert "event" in message, f"expected event {name}, heard {message}"
            self.events.append(message)


class Program:
    """A program that is ended when the block is left; leaving it normally requires that it is still fit or has exited with 0."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, **options)

    def __enter__(self):
        return self.process

    def __exit__(self, kind, problem, trace):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        if kind is None and code not in (0, -15, 143):
            raise AssertionError(f"the program ended with {code}")
