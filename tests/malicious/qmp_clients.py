#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a monitor client that talks nonsense, does not read, or leaves in the middle hurts the daemon or its other clients.
# labels: quick malicious
# timeout: 120
import json
import os
import random
import socket
import subprocess
import time
from qmp import Program, Qmp

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")


def raw(path):
    """A monitor serves one client after the other; who comes meanwhile may find the queue full."""
    end = time.monotonic() + 20
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        try:
            sock.connect(path)
            return sock
        except BlockingIOError:
            sock.close()
            assert time.monotonic() < end, "the monitor does not take the next client"
            time.sleep(0.005)


def drain(sock):
    """Everything until the daemon hangs up or is silent for a moment."""
    sock.settimeout(0.3)
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except (TimeoutError, ConnectionError):
        pass
    return data


def good_client_goes_on(good):
    good.command("blockdev-add", {"driver": "null-co", "node-name": "n", "size": 1 << 20})
    assert [n["node-name"] for n in good.command("query-named-block-nodes")] == ["n"]
    good.command("blockdev-del", {"node-name": "n"})


def nonsense():
    deep = b"[" * 100000
    wide = b'{"execute":"blockdev-add","arguments":{' + b",".join(b'"k%d":1' % i for i in range(20000)) + b"}}"
    long_name = json.dumps({"execute": "x" * 200000}).encode()
    for data in (b"\0" * 1000, b"\xff\xfe" * 500, b"GET / HTTP/1.1\r\n\r\n", b"{", b"}", b"[]", b"1", b"null", b'"x"', b"{}", b'{"execute":1}',
                 b'{"execute":"query-version","arguments":[]}', b'{"execute":"query-version","extra":1}', b'{"exec":"oob"}',
                 b'{"execute":"blockdev-add","arguments":{"driver":{"driver":"file"}}}', b'{"execute":"' + b"\\u0000" * 10 + b'"}',
                 b'{"execute":"blockdev-del","arguments":{"node-name":"\\ud800"}}', deep, wide, long_name, b'{"a":' * 5000,
                 b'{"execute":"block-export-add","arguments":{"type":"nbd","id":"' + b"i" * 100000 + b'","node-name":"n"}}'):
        for negotiated in (False, True):
            sock = raw("bad")
            if negotiated:
                sock.sendall(b'{"execute":"qmp_capabilities"}')
            try:
                sock.sendall(data + b"\n")
                for line in drain(sock).splitlines():
                    message = json.loads(line)  # what comes back is always JSON
                    assert message.keys() & {"QMP", "return", "error", "event"}, message
            except (BrokenPipeError, ConnectionError):
                pass
            sock.close()


def endless(pid):
    """A string that does not end: it is skipped once it is too long, and the client hears of it."""
    before = resident(pid)
    sock = raw("bad")
    sock.sendall(b'{"execute":"qmp_capabilities"}\n{"execute":"')
    sent = peak = 0
    try:
        while sent < 192 << 20:
            sent += sock.send(b"x" * (1 << 20))
            peak = max(peak, resident(pid) - before)
        sock.sendall(b'"}\n{"execute":"query-version"}\n')
    except ConnectionError:
        pass
    assert peak < 160 << 20, f"{peak >> 20} MiB for one string"
    assert b'"error"' in drain(sock)
    sock.close()


def leaves_in_the_middle():
    text = b'{"execute":"qmp_capabilities"}{"execute":"query-named-block-nodes"}{"execute":"query-qmp-schema"}'
    for size in range(0, len(text) + 1, 3):
        sock = raw("bad")
        sock.sendall(text[:size])
        sock.close()


def does_not_read(pid):
    """Asks for the long answers for ever and reads none: it is made to wait, and costs no memory."""
    sock = raw("bad")
    sock.settimeout(1)
    sock.sendall(b'{"execute":"qmp_capabilities"}')
    before = resident(pid)
    try:
        for _ in range(200000):
            sock.sendall(b'{"execute":"query-qmp-schema"}')
    except TimeoutError:
        pass
    else:
        raise AssertionError("200000 requests were taken though no answer was read")
    assert resident(pid) - before < 100 << 20, resident(pid) - before
    sock.close()


def resident(pid):
    return int(open(f"/proc/{pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def random_commands(seed, count=1500):
    """Real commands with arguments drawn from names and values that occur, most of them wrong."""
    rng = random.Random(seed)
    qmp = Qmp.connect("bad")
    commands = [c["name"] for c in qmp.command("query-commands") if c["name"] not in ("quit", "qmp_capabilities")]
    keys = ["node-name", "id", "driver", "file", "filename", "size", "type", "name", "mode", "options", "addr", "read-only", "writable", "flat"]
    values = ["a", "b", "null-co", "raw", "qcow2", "file", "nbd", "vhost-user-blk", "hard", "/dev/null", "", 0, -1, 4096, 1 << 63, 1e308, True, None, [],
              {}, {"type": "unix", "data": {"path": "x.sock"}}, {"type": "unix", "path": "y.sock"}, {"driver": "null-co"},
              [{"driver": "raw", "file": "a", "node-name": "b"}]]
    useful = [("blockdev-add", {"driver": "null-co", "node-name": "a", "size": 4096}), ("blockdev-add", {"driver": "raw", "node-name": "b", "file": "a"}),
              ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "x.sock"}}}), ("nbd-server-stop", {}),
              ("block-export-add", {"type": "nbd", "id": "e", "node-name": "b"}), ("block-export-del", {"id": "e", "mode": "hard"}),
              ("block-export-add", {"type": "vhost-user-blk", "id": "v", "node-name": "b", "addr": {"type": "unix", "path": "y.sock"}}),
              ("block-export-del", {"id": "v"}), ("blockdev-del", {"node-name": "b"}), ("blockdev-del", {"node-name": "a"})]
    for number in range(count):
        if rng.random() < 0.5:
            name, arguments = rng.choice(useful)
        else:
            name, arguments = rng.choice(commands), {key: rng.choice(values) for key in rng.sample(keys, rng.randrange(5))}
        qmp.send({"execute": name, "arguments": arguments, "id": number})
        answer = qmp.answer()
        assert answer["id"] == number, answer
        qmp.events.clear()
    for name, arguments in [("nbd-server-stop", {}), ("block-export-del", {"id": "v"}), ("block-export-del", {"id": "e"}),
                            ("blockdev-del", {"node-name": "b"}), ("blockdev-del", {"node-name": "a"})]:
        qmp.send({"execute": name, "arguments": arguments})
        qmp.answer()
    for node in qmp.command("query-named-block-nodes"):
        qmp.command("blockdev-del", {"node-name": node["node-name"]})
    qmp.socket.close()


with Program([DAEMON, "--chardev", "socket,id=bad,path=bad,server=on,wait=off", "--monitor", "bad",
              "--chardev", "socket,id=good,path=good,server=on,wait=off", "--monitor", "good"], stderr=subprocess.DEVNULL) as daemon:
    client = Qmp.connect("good")
    for attack in (nonsense, leaves_in_the_middle, lambda: endless(daemon.pid), lambda: does_not_read(daemon.pid), lambda: random_commands(1),
                   lambda: random_commands(2)):
        attack()
        assert daemon.poll() is None, "the daemon is gone"
        good_client_goes_on(client)
