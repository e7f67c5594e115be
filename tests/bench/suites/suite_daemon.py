# SPDX-License-Identifier: Apache-2.0
"""What a server costs before it does anything: from its start to the first byte that a client has from it, and memory by the number of disks."""
import socket
import subprocess
import time

import data
from measure import Failure, more_files, tree
from servers import blockdevs, first_read, new_socket
from table import Benchmark

DISKS = (1, 10, 100, 1000)


def server_command(contender, image, form, path):
    if contender.family == "nbdkit":
        return (contender.command("nbdkit") + ["-f", "-U", path, "file", image], "") if form == "raw" else None
    daemon = contender.command("daemon")
    argv = daemon and daemon + blockdevs(image, form) + ["--nbd-server", f"addr.type=unix,addr.path={path}", "--export",
                                                         "type=nbd,id=e,node-name=disk,name=disk,writable=on"]
    return argv and (argv, "disk")


class StartSession:
    """Starts, connects as soon as that works, reads, ends it."""

    def __init__(self, context, contender, image, form):
        self.context, self.contender, self.image, self.form = context, contender, image, form

    def sample(self, _):
        path = new_socket(self.context)
        argv, export = server_command(self.contender, self.image, self.form, path)
        start = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                sock = socket.socket(socket.AF_UNIX)
                try:
                    sock.connect(path)
                    content = first_read(sock, export)
                    break
                except OSError as error:
                    if process.poll() is not None or time.monotonic() - start > 20:
                        raise Failure(f"no first byte from {argv[0]}: {error}") from error
                    time.sleep(0.0002)
                finally:
                    sock.close()
            wall = time.monotonic() - start
            if not content or content[:8] != bytes(8):
                raise Failure("the first block is not the image's")
            return {"wall": wall, "peak": resident([process.pid])}
        finally:
            process.terminate()
            process.wait()

    def calls(self, _):
        return None

    def close(self):
        pass


def resident(pids, field="VmRSS"):
    """MiB of a process and its children."""
    return sum(int(line.split()[1]) for pid in pids for one in tree(pid) for line in open(f"/proc/{one}/status") if line.startswith(field + ":")) / 1024


def open_start(form):
    def open_session(context, contender):
        image = context.file("stamped.raw", data.write_stamped, context.size(256, 16) << 20)
        if form == "qcow2":
            size = context.size(256, 16) << 20
            image = context.file("start.qcow2", data.write_qcow2, size, range(size // data.CLUSTER), None, data.stamped_cluster)
        return StartSession(context, contender, image, form) if server_command(contender, image, form, "x") else None
    return open_session


class DisksSession:
    """One daemon with so many qcow2 disks, each an NBD export: memory when all are there, and how long it took."""

    def __init__(self, context, contender):
        self.context, self.contender = context, contender

    def command(self, count, path):
        argv = self.contender.command("daemon") + ["--nbd-server", f"addr.type=unix,addr.path={path}"]
        for number in range(count):
            image = self.context.file(f"disk-{number}.qcow2", data.write_qcow2, 1 << 30, range(16))
            argv += ["--blockdev", f"driver=file,node-name=f{number},filename={image}", "--blockdev", f"driver=qcow2,node-name=d{number},file=f{number}", "--export",
                     f"type=nbd,id=e{number},node-name=d{number},name=d{number},writable=on"]
        return argv

    def sample(self, count):
        path = new_socket(self.context)
        argv = self.command(count, path)
        start = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=more_files)
        try:
            self.wait_for_last(process, path, f"d{count - 1}", start)
            wall = time.monotonic() - start
            return {"wall": wall, "peak": resident([process.pid]), "disk": resident([process.pid]) / count}
        finally:
            process.terminate()
            process.wait()
            process.stderr.close()

    @staticmethod
    def wait_for_last(process, path, export, start):
        """The last disk is the last to be exported: when its first block can be read, all are there."""
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                first_read(sock, export)
                return
            except OSError as error:
                if process.poll() is not None or time.monotonic() - start > 60:
                    process.terminate()
                    raise Failure(f"no disk from it: {error}: {process.stderr.read().decode(errors='replace')[-200:]}") from error
                time.sleep(0.001)
            finally:
                sock.close()

    def calls(self, _):
        return None

    def close(self):
        pass


def open_disks(context, contender):
    return DisksSession(context, contender) if contender.command("daemon") else None


NEEDS = ("program:daemon", "export:nbd")
BENCHMARKS = [
    Benchmark("daemon/start-raw", "daemon", "start to first byte served, raw", "wall", "one start", open_start("raw"), NEEDS, ("spindle", "qemu", "nbdkit"),
              weight=0.3),
    Benchmark("daemon/start-qcow2", "daemon", "start to first byte served, qcow2", "wall", "one start", open_start("qcow2"), NEEDS + ("driver:qcow2",), weight=0.3),
    Benchmark("daemon/memory", "daemon", "resident memory of a daemon by disks (qcow2, exported by NBD)", "peak", "", open_disks, NEEDS + ("driver:qcow2",), axis="disks",
              points=DISKS, quick_points=DISKS[:2], law=True, weight=1.5),
    Benchmark("daemon/start-disks", "daemon", "start to first byte of the last disk", "wall", "", open_disks, NEEDS + ("driver:qcow2",), axis="disks",
              points=DISKS, quick_points=DISKS[:2], law=True, weight=1.5),
]
