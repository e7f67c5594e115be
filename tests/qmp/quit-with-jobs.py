#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a daemon that is told to end while a job runs hangs, crashes, or leaves a broken image.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 120
"""SIGTERM while each kind of job is at work and a guest writes: the daemon ends by itself, with 0, and the images are right."""
from jobs import Daemon, Guest, check, make, run
from patience import patience

COMMANDS = {
    "blockdev-backup": {"target": "copy", "sync": "full"},
    "blockdev-mirror": {"target": "copy", "sync": "full"},
    "block-stream": {},
    "block-commit": {},
}

for command, options in COMMANDS.items():
    make("base.q")
    make("copy.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 16M", "base.q")
    make("disk.q", backing="base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 8M", "disk.q")
    with Daemon() as daemon:
        daemon.add("base", "base.q", read_only=True)
        daemon.add("disk", "disk.q", backing="base")
        daemon.add("copy", "copy.q")
        daemon.export("disk")
        guest = Guest("disk")
        guest.thread.start()
        guest.progress(20)
        daemon.do(command, job_id="job", device="disk", speed=1, **options)
        guest.progress(20)
        daemon.process.terminate()
        code = daemon.process.wait(patience(60))
        assert code == 0, f"{command}: ended with {code}"
        guest.stopping = True
        guest.thread.join()
        guest.nbd.close()
    for name in ("disk.q", "base.q", "copy.q"):
        check(name)
