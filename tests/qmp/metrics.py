#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, monitoring cannot read the daemon's metrics, or they say what is not so.
# labels: full
# requires: curl promtool
# timeout: 120
"""GET /metrics with curl, judged by promtool and by an own reader of the format; numbers are compared with what was done, and with
what QMP tells."""
import os
import re
import subprocess
import threading
import time

from image import OUR_IMG, equal, run
from jobs import Daemon, MIB
from nbd import Nbd, FLUSH
from qmp import Program, Qmp
from vhost_user import FrontEnd, WRITE

OURS = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
SAMPLE = re.compile(r'([a-z_]+)(?:\{(.*)\})? ([0-9.eE+-]+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def curl(*words, status=0):
    return run("curl", "-sS", "--max-time", "20", *words, status=status).out


def scrape():
    """{(name, ((label, value), ...)): number}; what the format forbids fails."""
    text = curl("--unix-socket", "metrics.sock", "http://daemon/metrics")
    judge = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert judge.returncode == 0, f"promtool: {judge.stdout}{judge.stderr}"
    found, kinds, family = {}, {}, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family, kind = line.split()[2:]
            assert family not in kinds, f"{family} comes twice"
            kinds[family] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            name, labels, value = match.groups()
            assert re.sub("_(bucket|sum|count)$", "", name) == family or name == family, f"{name} in {family}"
            key = (name, tuple(sorted(LABEL.findall(labels or ""))))
            assert key not in found, f"{key} comes twice"
            found[key] = float(value)
    return found


def get(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


def numbers(daemon):
    before = scrape()
    equal(get(before, "spindle_node_operations_total", node="disk", operation="write"), 0, "writes before the first")
    guest = Nbd("nbd.sock", "disk")
    for i in range(10):
        assert not guest.write(i * 65536, b"x" * 65536)
    assert not guest.read(0, 4096)[0] and not guest.simple(FLUSH)
    found = scrape()
    equal(get(found, "spindle_node_operations_total", node="disk", operation="write"), 10, "writes")
    equal(get(found, "spindle_node_bytes_total", node="disk", operation="write"), 10 * 65536, "bytes written")
    equal(get(found, "spindle_export_bytes_total", export="disk", operation="write"), 10 * 65536, "bytes of the export")
    equal(get(found, "spindle_export_bytes_total", export="disk", operation="read"), 4096, "bytes read")
    equal(get(found, "spindle_export_clients", export="disk"), 1, "clients")
    equal(get(found, "spindle_node_size_bytes", node="disk"), 16 * MIB, "size")
    equal(get(found, "spindle_node_info", node="disk", driver="qcow2"), 1, "driver")
    equal(get(found, "spindle_node_latency_seconds_count", node="disk", operation="write"), 10, "latencies")
    stats = next(entry["stats"] for entry in daemon.do("query-blockstats", query_nodes=True) if entry["node-name"] == "disk")
    seconds = get(found, "spindle_node_latency_seconds_sum", node="disk", operation="write")
    assert abs(seconds - stats["wr_total_time_ns"] / 1e9) < 1e-6, (seconds, stats)
    buckets = [(float(dict(labels)["le"]), value) for (name, labels), value in found.items()
               if name == "spindle_node_latency_seconds_bucket" and dict(labels)["operation"] == "write" and dict(labels)["node"] == "disk"]
    counts = [value for _, value in sorted(buckets)]
    assert counts == sorted(counts) and counts[-1] == 10, buckets
    assert sorted(buckets)[-1][0] == float("inf"), buckets
    assert get(found, "spindle_node_cache_hits_total", node="disk", cache="l2") > 5, "hits of the cache"
    equal(get(found, "spindle_node_cache_limit_bytes", node="disk", cache="l2") > 0, True, "limit of the cache")
    assert 1 * MIB < get(found, "process_resident_memory_bytes") < 4096 * MIB
    assert abs(get(found, "process_start_time_seconds") - time.time()) < 120
    guest.close()


def state(daemon):
    daemon.do("block-dirty-bitmap-add", node="disk", name="quote\"and\\back", granularity=65536)
    guest = Nbd("nbd.sock", "disk")
    assert not guest.write(0, b"y" * 4096)
    guest.send(0, 32 * MIB, 512)  # a read behind the end
    guest.close()
    daemon.do("blockdev-check", job_id="look", node_name="disk")
    daemon.wait("look", "concluded")
    found = scrape()
    equal(get(found, "spindle_bitmap_dirty_bytes", node="disk", bitmap="quote\\\"and\\\\back"), 65536, "dirty bytes")
    equal(get(found, "spindle_job_info", job="look", type="check", status="concluded"), 1, "the job")
    equal(get(found, "spindle_job_progress", job="look"), get(found, "spindle_job_end", job="look"), "its progress")
    daemon.do("job-dismiss", id="look")
    assert not [key for key in scrape() if "look" in str(key)], "a job that is gone"


def protocol():
    socket = ("--unix-socket", "metrics.sock")
    for words, status in ((["http://d/metrics?x=1"], 200), (["-I", "http://d/metrics"], 200), (["http://d/"], 404),
                          (["-X", "POST", "-d", "a", "http://d/metrics"], 405), (["-0", "http://d/metrics"], 200),
                          (["-H", "A: " + "b" * 9000, "http://d/metrics"], 431)):
        found = curl(*socket, "-o", "body", "-w", "%{http_code} %{content_type}", *words).split(" ", 1)
        equal(found[0], str(status), f"status of {words}")
        if status == 200:
            equal(found[1], "text/plain; version=0.0.4; charset=utf-8", "type")
    equal(os.path.getsize("body") > 0, True, "errors say something")


def tcp():
    command = [OURS, "--chardev", "stdio,id=m", "--monitor", "m", "--metrics", "addr.type=inet,addr.host=127.0.0.1,addr.port=0"]
    refused = subprocess.run([*command, "--metrics", "addr.type=unix,addr.path=/no/such/place"], capture_output=True, text=True,
                             stdin=subprocess.DEVNULL)
    assert refused.returncode == 1 and "/no/such/place" in refused.stderr, refused
    port = 20000 + os.getpid() % 20000
    with Program([OURS, "--chardev", "socket,id=m,path=tcp.sock,server=on,wait=off", "--monitor", "m", "--metrics",
                  f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}", "--metrics", "addr.type=unix,addr.path=both.sock"]):
        qmp = Qmp.connect("tcp.sock")
        for words in ((f"http://127.0.0.1:{port}/metrics",), ("--unix-socket", "both.sock", "http://d/metrics")):
            assert "spindle_build_info{" in curl(*words)
        qmp.command("quit")
    assert not os.path.exists("both.sock"), "the socket is taken away"


class Clients(threading.Thread):
    """They come, write `bytes` altogether, and go, one after the other, until they are stopped."""

    def __init__(self, visit):
        super().__init__(daemon=True)  # a failed test does not wait for them
        self.visit, self.bytes, self.is_stopped, self.problem = visit, 0, threading.Event(), None

    def run(self):
        try:
            while not self.is_stopped.is_set():
                self.visit()
                self.bytes += 20 * 4096
        except Exception as problem:
            self.problem = problem

    def stop(self):
        self.is_stopped.set()
        self.join()
        assert not self.problem and self.bytes, self.problem


def nbd_visit():
    guest = Nbd("nbd.sock", "n")
    for i in range(20):
        assert not guest.write(i * 65536, b"n" * 4096)
    guest.close()


def vhost_visit():
    with FrontEnd("vhost.sock") as front:
        front.start()
        queue = front.queues[0]
        answers = queue.wait([queue.submit(WRITE, 8 * i, b"v" * 4096) for i in range(20)])
        assert not any(answers.values()), answers


def iothreads():
    """Exports that live in threads of their own are read from the daemon's first: no number is lost, none is torn, none goes back."""
    with Daemon(arguments=["--metrics", "addr.type=unix,addr.path=metrics.sock", "--object", "iothread,id=t0", "--object", "iothread,id=t1",
                           "--nbd-server", "addr.type=unix,addr.path=nbd.sock"]) as daemon:
        for name, image, form in (("n", "disk.qcow2", "qcow2"), ("v", "other.raw", "raw")):
            daemon.add(name, image, form=form)
        daemon.do("block-export-add", type="nbd", id="n", node_name="n", writable=True, iothread="t0", fixed_iothread=True)
        daemon.do("block-export-add", type="vhost-user-blk", id="v", node_name="v", writable=True, iothread="t1", fixed_iothread=True,
                  addr={"type": "unix", "path": "vhost.sock"})
        all_clients = {"n": Clients(nbd_visit), "v": Clients(vhost_visit)}
        for clients in all_clients.values():
            clients.start()
        before = dict.fromkeys(all_clients, 0)
        for _ in range(25):
            found = scrape()
            for export in before:
                written = get(found, "spindle_export_bytes_total", export=export, operation="write")
                assert before[export] <= written and written % 4096 == 0, (export, before, written)
                assert get(found, "spindle_export_clients", export=export) <= 2, "one that goes, one that comes"
                before[export] = written
        for clients in all_clients.values():
            clients.stop()
        guest, front = Nbd("nbd.sock", "n"), FrontEnd("vhost.sock")
        front.start()
        found = scrape()
        for export, clients in all_clients.items():
            equal(get(found, "spindle_export_bytes_total", export=export, operation="write"), clients.bytes, f"bytes of {export}")
            equal(get(found, "spindle_node_bytes_total", node=export, operation="write"), clients.bytes, f"bytes of its node {export}")
        equal(get(found, "spindle_export_clients", export="v"), 1, "front ends")
        assert get(found, "spindle_export_clients", export="n") >= 1, "clients of NBD"
        front.disconnect()
        guest.close()


run(OUR_IMG, "create", "-q", "-f", "qcow2", "disk.qcow2", "16M")
run(OUR_IMG, "create", "-q", "-f", "raw", "other.raw", "16M")
with Daemon(arguments=["--metrics", "addr.type=unix,addr.path=metrics.sock"]) as daemon:
    scrape()  # an empty daemon
    daemon.add("disk", "disk.qcow2")
    daemon.export("disk")
    numbers(daemon)
    state(daemon)
    protocol()
tcp()
iothreads()
