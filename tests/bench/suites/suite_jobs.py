# SPDX-License-Identifier: Apache-2.0
"""Jobs while the disk is in use: a client writes 4 KiB blocks at random by NBD, depth 4, while the whole disk is copied. Two things count: how soon the copy is
there, and what the guest's side loses meanwhile."""
import json
import os
import subprocess
import time

import data
from measure import Failure, Server
from qmp import Qmp, QmpError
from servers import blockdevs, new_socket, socket_ready
from table import Benchmark


class JobSession:
    """A fresh target in every round; the source stays, the daemon too."""

    def __init__(self, context, contender, job, source_format):
        self.context, self.job = context, job
        size = self.size = context.size(512, 32) << 20
        if source_format == "raw":
            image = context.file(f"job-{contender.name}.raw", data.write_stamped, size)
        else:
            image = context.file(f"job-{contender.name}.qcow2", data.write_qcow2, size, range(size // data.CLUSTER), None, data.stamped_cluster)
        self.nbd, monitor = new_socket(context), new_socket(context)
        self.target = context.scratch(f"target-{contender.name}")
        self.server = Server(contender.command("daemon") + blockdevs(image, source_format) + [
            "--chardev", f"socket,id=m,path={monitor},server=on,wait=off", "--monitor", "m", "--nbd-server", f"addr.type=unix,addr.path={self.nbd}",
            "--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on"], socket_ready(monitor), context.work)
        self.qmp = Qmp.connect(monitor, timeout=60)

    def load(self):
        return subprocess.Popen([self.context.program("nbd_load"), self.nbd, "disk", "--write", "--depth", "4", "--seconds", "600"], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL)

    def wait_for(self, status):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            job = next((j for j in self.qmp.command("query-jobs") if j["id"] == "job"), None)
            if not job or job["status"] in status:
                return job
            if job["status"] == "concluded":
                raise Failure(f"the job ended: {job.get('error')}")
            time.sleep(0.003)
        raise Failure("the job takes more than two minutes")

    def sample(self, _):
        with open(self.target, "wb") as out:
            out.truncate(self.size)
        client = self.load()
        try:
            time.sleep(0.1)
            cpu = self.server.cpu()
            self.qmp.command("blockdev-add", {"driver": "file", "node-name": "target", "filename": self.target})
            start = time.monotonic()
            arguments = {"job-id": "job", "device": "disk", "target": "target", "sync": "full", "auto-dismiss": False}
            self.qmp.command(self.job, arguments)
            if self.job == "blockdev-mirror":
                # Not before what it copies at the end is copied: under a constant load, ready means caught up.
                self.wait_for(("ready",))
                wall = time.monotonic() - start
                self.qmp.command("job-cancel", {"id": "job"})
            job = self.wait_for(("concluded",))
            if self.job != "blockdev-mirror":
                wall = time.monotonic() - start
            if job and job.get("error") and self.job != "blockdev-mirror":  # that one was ended by us
                raise Failure(job["error"])
            self.qmp.command("job-dismiss", {"id": "job"})
            self.qmp.command("blockdev-del", {"node-name": "target"})
            return {"wall": wall, "cpu": self.server.cpu() - cpu, "peak": self.server.memory()}
        except QmpError as error:
            raise Failure(str(error)) from error
        finally:
            client.kill()
            client.wait()
            client.stdout.close()
            os.unlink(self.target)

    def calls(self, _):
        return None

    def close(self):
        self.server.stop()


class GuestSession(JobSession):
    """The same seen from the guest: its writes while the copy goes on, for a given time; the job is made slow enough to last."""

    def sample(self, _):
        with open(self.target, "wb") as out:
            out.truncate(self.size)
        try:
            self.qmp.command("blockdev-add", {"driver": "file", "node-name": "target", "filename": self.target})
            self.qmp.command(self.job, {"job-id": "job", "device": "disk", "target": "target", "sync": "full", "auto-dismiss": False, "speed": self.size // 16})
            done = subprocess.run([self.context.program("nbd_load"), self.nbd, "disk", "--write", "--depth", "4", "--seconds", str(self.context.seconds)],
                                  stdout=subprocess.PIPE, check=True)
            job = next(j for j in self.qmp.command("query-jobs") if j["id"] == "job")
            if job["status"] != "running":
                raise Failure(f"the job was {job['status']} before the load ended")
            self.qmp.command("job-cancel", {"id": "job"})
            self.wait_for(("concluded",))
            self.qmp.command("job-dismiss", {"id": "job"})
            self.qmp.command("blockdev-del", {"node-name": "target"})
        except QmpError as error:
            raise Failure(str(error)) from error
        result = json.loads(done.stdout)
        return {"rate": result["operations"] / result["seconds"], "p50": result["p50_us"], "p99": result["p99_us"], "peak": self.server.memory()}


def entry(name, title, job, source_format, kind=JobSession, primary="wall"):
    def open_session(context, contender):
        return kind(context, contender, job, source_format) if contender.command("daemon") else None
    return Benchmark(f"jobs/{name}", "jobs", title, primary, "one job", open_session, (f"qmp:{job}", "qmp:query-jobs", "qmp:job-dismiss", "export:nbd"), weight=1.5)


BENCHMARKS = [
    entry("backup-raw", "backup of a raw disk under writes", "blockdev-backup", "raw"),
    entry("backup-qcow2", "backup of a qcow2 disk under writes", "blockdev-backup", "qcow2"),
    entry("mirror-raw", "mirror of a raw disk under writes, until ready", "blockdev-mirror", "raw"),
    entry("guest-backup", "4 KiB random writes, depth 4, while a backup goes on", "blockdev-backup", "raw", GuestSession, "rate"),
    entry("guest-mirror", "4 KiB random writes, depth 4, while a mirror goes on", "blockdev-mirror", "raw", GuestSession, "rate"),
]
