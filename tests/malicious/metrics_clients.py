#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a client of the metrics' socket can stop the daemon, make it forget others, or fill its memory.
# labels: full
# timeout: 120
"""Clients that send nothing, half a head, heads without end, noise, or do not read the answer: others are answered, disks go on, and
memory stays where it was."""
import os
import random
import socket
import time

from jobs import Daemon
from nbd import Nbd
from patience import patience

rng = random.Random(5)


def connect():
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(patience(40))
    sock.connect("metrics.sock")
    return sock


def ask(request=b"GET /metrics HTTP/1.1\r\nHost: d\r\n\r\n"):
    sock = connect()
    answer = b""
    try:
        sock.sendall(request)
        while piece := sock.recv(65536):
            answer += piece
    except (BrokenPipeError, ConnectionResetError):
        pass
    sock.close()
    return answer


def is_answered(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")))
    assert length == len(body) and b"spindle_build_info" in body, (length, len(body))


def resident(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def noise():
    for number in range(300):
        request = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60)))
        if number % 3 == 0:
            words = [b"GET", b"HEAD", b"POST", b"", b"/metrics", b"HTTP/1.1", b"HTTP/2.0", b" ", b"\0", b"?", b"\r"]
            request = b" ".join(rng.choice(words) for _ in range(rng.randrange(1, 6)))
        answer = ask(request + b"\r\n\r\n")
        assert not answer or answer.startswith(b"HTTP/1.1 "), (request, answer[:50])
    for request in (b"\n\n", b"\r\n\r\n", b" \r\n\r\n", b"GET  HTTP/1.1\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET /metrics HTTP/1.\r\n\r\n"):
        assert ask(request).startswith(b"HTTP/1.1 400 "), request
    assert ask(b"GET /metrics HTTP/3.0\r\n\r\n").startswith(b"HTTP/1.1 505 ")
    assert ask(b"A" * 100000).startswith(b"HTTP/1.1 431 ") or True  # cut off is an answer, too


def silent(count):
    """More of them than are served at a time: the others wait until these are hung up on."""
    lazy = [connect() for _ in range(count)]
    for number, sock in enumerate(lazy):
        if number % 2:
            sock.sendall(b"GET /metrics HTTP/1.1\r\n")
    return lazy


def not_reading(daemon):
    for i in range(200):  # makes the text longer than what a socket takes
        daemon.do("blockdev-add", driver="null-co", node_name=f"node-with-a-long-name-{i}", size=1 << 20)
    lazy = [connect() for _ in range(10)]
    for sock in lazy:
        sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    return lazy


with Daemon(arguments=["--metrics", "addr.type=unix,addr.path=metrics.sock"]) as daemon:
    is_answered(ask())
    noise()
    is_answered(ask())
    daemon.do("blockdev-add", driver="null-co", node_name="disk", size=1 << 20, read_zeroes=True)
    daemon.export("disk")
    stuck = not_reading(daemon)
    is_answered(ask())
    before = resident(daemon)
    stuck += silent(30)
    guest = Nbd("nbd.sock", "disk")
    begun = time.monotonic()
    for at in range(0, 1 << 20, 4096):
        assert not guest.read(at, 4096)[0]
    assert time.monotonic() - begun < patience(5), "disks wait for the metrics' clients"
    daemon.do("query-version")
    is_answered(ask())  # when those in front were hung up on
    assert resident(daemon) < before + 16384, "clients that do not read take memory"
    for sock in stuck:
        sock.close()
    for _ in range(50):
        connect().close()
    is_answered(ask())
    stuck = silent(4)
    guest.close()
    daemon.do("quit")  # does not wait for clients
