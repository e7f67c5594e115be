#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a management program cannot drive the daemon through its monitors.
# labels: quick
# timeout: 60
"""Monitors of a whole daemon, from outside: sockets, standard input and output, several at once, bad input, quit."""
import json
import os
import subprocess

from patience import patience
from qmp import Program, Qmp

DAEMON = os.environ.get("QMP_TEST_DAEMON") or os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
IS_OURS = "QMP_TEST_DAEMON" not in os.environ  # the same test runs against other implementations


def socket_arguments(name):
    return ["--chardev", f"socket,id={name},path={name}.sock,server=on,wait=off", "--monitor", f"chardev={name}"]


def greeting_and_versions(qmp):
    version = qmp.greeting["QMP"]["version"]
    assert isinstance(qmp.greeting["QMP"]["capabilities"], list)
    assert set(version) == {"qemu", "package"} and set(version["qemu"]) == {"major", "minor", "micro"}, version
    assert qmp.command("query-version") == version
    if IS_OURS:
        assert version["qemu"] == {"major": 10, "minor": 0, "micro": 0}
        assert version["package"].startswith("spindle "), version


def errors_have_classes(qmp):
    assert qmp.error("no-such-command").kind == "CommandNotFound"
    assert qmp.error("qmp_capabilities").kind == "CommandNotFound"
    assert qmp.error("blockdev-add", {"driver": "no-such-driver"}).kind == "GenericError"
    problem = str(qmp.error("blockdev-add", {"driver": "raw", "file": {"driver": "null-co", "no-such-option": 1}}))
    assert "no-such-option" in problem, problem


def ids_come_back(qmp):
    for value in ("text", 7, {"a": [None, True]}, None):
        qmp.send({"execute": "query-version", "id": value})
        assert qmp.answer()["id"] == value
    qmp.send({"execute": "query-version"})
    assert "id" not in qmp.answer()


def bad_input_does_not_end_the_connection(qmp):
    qmp.send(b"{ \"execute\" } \n")
    assert qmp.answer()["error"]["class"] == "GenericError"
    qmp.send(b"[1, 2]\n")
    assert qmp.answer()["error"]["class"] == "GenericError"
    if IS_OURS:
        qmp.send(b"complete nonsense \x80\xfe\n")
        assert "JSON" in qmp.answer()["error"]["desc"]
        qmp.send(b"[" * 100000 + b"]" * 100000)
        assert "64 levels" in qmp.answer()["error"]["desc"]
    qmp.command("query-version")


def commands_are_listed(qmp):
    names = {command["name"] for command in qmp.command("query-commands")}
    described = {entry["name"] for entry in qmp.command("query-qmp-schema") if entry["meta-type"] == "command"}
    assert names >= {"qmp_capabilities", "query-commands", "quit", "blockdev-add", "block-export-add"}, names
    assert described == names, described ^ names


def pieces_of_any_size(qmp):
    request = json.dumps({"execute": "query-version", "id": "ä€😀"}, ensure_ascii=False).encode()
    for byte in request:
        qmp.send(bytes([byte]))
    assert qmp.answer()["id"] == "ä€😀"


def test_sockets():
    with Program([DAEMON, *socket_arguments("one"), *socket_arguments("two")]) as daemon:
        one = Qmp.connect("one.sock")
        greeting_and_versions(one)
        errors_have_classes(one)
        ids_come_back(one)
        bad_input_does_not_end_the_connection(one)
        commands_are_listed(one)
        pieces_of_any_size(one)
        two = Qmp.connect("two.sock")
        one.command("blockdev-add", {"driver": "null-co", "node-name": "made-by-one"})
        two.command("blockdev-del", {"node-name": "made-by-one"})
        one.socket.close()
        again = Qmp.connect("one.sock", negotiate=False)
        assert again.error("query-version").kind == "CommandNotFound"
        again.command("qmp_capabilities")
        again.command("query-version")
        two.command("quit")
        assert daemon.wait(patience(20)) == 0
        assert not os.path.exists("one.sock"), "the socket's path is left behind"


def test_stdio():
    arguments = [DAEMON, "--chardev", "stdio,id=c", "--monitor", "chardev=c,pretty=on"]
    text = '{"execute": "qmp_capabilities"} {"execute": "query-version", "id": 1}\n{"execute": "quit"}'
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=patience(30), check=True)
    decoder, rest, values = json.JSONDecoder(), done.stdout.strip(), []
    assert '\n    "QMP": {\n        "version": {' in rest, rest
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].strip()
    assert "QMP" in values[0] and values[1] == {"return": {}} and values[2]["id"] == 1 and values[3] == {"return": {}}, values


def test_inherited_socket():
    import socket
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("inherited.sock")
    listener.listen(1)
    arguments = [DAEMON, "--chardev", f"socket,id=c,fd={listener.fileno()},server=on,wait=off", "--monitor", "c"]
    with Program(arguments, pass_fds=[listener.fileno()]) as daemon:
        Qmp.connect("inherited.sock").command("quit")
        assert daemon.wait(patience(20)) == 0


test_sockets()
test_stdio()
test_inherited_socket()
print("monitors are fine")
