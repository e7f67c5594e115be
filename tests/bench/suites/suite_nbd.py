# SPDX-License-Identifier: Apache-2.0
"""NBD servers over a UNIX socket; everything is in the page cache, so what is seen is what the servers cost. Every read is checked: the image's blocks carry
their own offsets."""
import os
import subprocess

import data
from measure import Failure, Server, ServerSession
from servers import daemon_nbd, fio_load, nbd_session, new_socket, socket_ready
from table import Benchmark

KIB = 1024
ALL = ("spindle", "qemu", "nbdkit")


def raw(context):
    return context.file("stamped.raw", data.write_stamped, context.size(256, 16) << 20)


def qcow2(context, contender):
    """One for each: only one program may have it open for writing."""
    size = context.size(256, 16) << 20
    return context.file(f"stamped-{contender.name}.qcow2", data.write_qcow2, size, range(size // data.CLUSTER), None, data.stamped_cluster)


def entry(name, title, load, form="raw", contenders=ALL, needs=(), **more):
    def open_session(context, contender):
        image = raw(context) if form == "raw" else qcow2(context, contender)
        return nbd_session(context, contender, image, form, load)
    return Benchmark(f"nbd/{name}", "nbd", title, "rate", "one request", open_session, ("program:daemon", "export:nbd") + needs, contenders, **more)


class Servers:
    """A server for each point, for laws in which the point is a property of the image."""

    def __init__(self, start):
        self.start, self.sessions = start, {}

    def of(self, point):
        if point not in self.sessions:
            self.sessions[point] = self.start(point)
        return self.sessions[point]

    def sample(self, point):
        return self.of(point).sample(point)

    def calls(self, point):
        return self.of(point).calls(point)

    def close(self):
        for session in self.sessions.values():
            session.close()


def over_images(image, load):
    def open_session(context, contender):
        if not (contender.command("nbd") or contender.command("daemon")):
            return None
        return Servers(lambda point: nbd_session(context, contender, image(context, point, "-" + contender.name), "qcow2", load))
    return open_session


# --- TLS: fio's nbd engine (libnbd with GnuTLS) is the client of all. Whose certificate it is does not cost anything, so it is not verified. ---

def certificates(context):
    def write(path):
        os.makedirs(path)
        new_key = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-batch"]
        for argv in (new_key + ["-x509", "-days", "7", "-subj", "/CN=benchmark", "-keyout", "ca-key.pem", "-out", "ca-cert.pem"],
                     new_key + ["-subj", "/CN=localhost", "-keyout", "server-key.pem", "-out", "server.csr"],
                     ["openssl", "x509", "-req", "-days", "7", "-in", "server.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-out",
                      "server-cert.pem"]):
            try:
                subprocess.run(argv, cwd=path, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except OSError as error:
                raise Failure("certificates: openssl is needed") from error
    return context.file("pki", write)


def open_tls(context, contender):
    image, directory = raw(context), certificates(context)
    credentials = ["--object", f"tls-creds-x509,id=tls,endpoint=server,dir={directory},verify-peer=off"]
    path, export = new_socket(context), "disk"
    if contender.family == "nbdkit":
        export = ""
        server = Server(contender.command("nbdkit") + ["-f", "-U", path, "--tls=require", f"--tls-certificates={directory}", "file", image],
                        socket_ready(path), context.work)
    elif contender.family == "qemu":
        nbd = contender.command("nbd")
        if not nbd:
            return None
        server = Server(nbd + ["-t", "-k", path, "-f", "raw", "-x", "disk", "-e", "16", *credentials, "--tls-creds", "tls", image], socket_ready(path), context.work)
    else:
        server, path = daemon_nbd(context, contender, image, "raw", credentials, server=",tls-creds=tls")
    uri = f"nbds+unix:///{export}?socket={path}&tls-verify-peer=false"

    def load(point, operations):
        block, depth = point
        return fio_load(context, operations, "--ioengine=nbd", f"--uri={uri}", "--rw=randread", f"--bs={block}", f"--iodepth={depth}",
                        f"--size={os.path.getsize(image)}")
    return ServerSession(context, server, load)


def tls_entry(name, title, block, depth):
    def open_session(context, contender):
        session = open_tls(context, contender)
        if not session:
            return None
        load = session.load
        session.load = lambda _, operations: load((block, depth), operations)
        return session
    return Benchmark(f"nbd/tls-{name}", "nbd", title, "rate", "one request", open_session, ("export:nbd", "object:tls-creds-x509"), ALL, weight=2)


SERVE = ("program:daemon", "export:nbd", "driver:qcow2")
BENCHMARKS = [
    entry("read-4k", "4 KiB random reads", lambda depth: {"depth": depth}, axis="depth", points=(1, 4, 32), quick_points=(1, 32), weight=5),
    entry("write-4k", "4 KiB random writes", lambda depth: {"depth": depth, "write": True}, axis="depth", points=(1, 32), weight=2.5),
    entry("read-64k", "64 KiB random reads", lambda depth: {"depth": depth, "block": 64 * KIB}, axis="depth", points=(1, 16), weight=1.5),
    entry("read-1m", "1 MiB sequential reads", lambda depth: {"depth": depth, "block": 1024 * KIB, "sequential": True}, axis="depth", points=(1, 8), weight=1.5),
    entry("write-128k", "128 KiB sequential writes", lambda depth: {"depth": depth, "block": 128 * KIB, "sequential": True, "write": True}, axis="depth",
          points=(8,), weight=1),
    entry("qcow2-read-4k", "4 KiB random reads, qcow2", lambda depth: {"depth": depth}, "qcow2", needs=("driver:qcow2",), axis="depth", points=(1, 32), weight=2),
    entry("qcow2-write-4k", "4 KiB random writes, qcow2", lambda depth: {"depth": depth, "write": True}, "qcow2", needs=("driver:qcow2",), axis="depth",
          points=(32,), weight=1),
    entry("connections", "4 KiB random reads, each connection at depth 4", lambda connections: {"depth": 4, "connections": connections},
          axis="connections", points=(1, 4, 16, 64), quick_points=(1, 16), weight=3),
    tls_entry("read-4k", "4 KiB random reads by TLS, depth 32", 4096, 32),
    tls_entry("read-128k", "128 KiB random reads by TLS, depth 8", 128 * KIB, 8),
    Benchmark("nbd/extents", "nbd", "4 KiB random reads of a fragmented qcow2 image, depth 8", "cpu_op", "one request",
              over_images(data.fragmented, lambda extents: {"depth": 8, "stamped": False, "span": 2 * extents * data.CLUSTER}), SERVE, axis="extents",
              points=(1000, 10000, 100000, 1000000), quick_points=(1000, 10000), law=True, weight=2),
    Benchmark("nbd/chain", "nbd", "4 KiB random reads through a chain, depth 8", "cpu_op", "one request",
              over_images(data.chain, lambda _: {"depth": 8}), SERVE, axis="images", points=(1, 10, 100),
              quick_points=(1, 10), law=True, weight=2),
]
