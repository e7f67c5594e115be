# SPDX-License-Identifier: Apache-2.0
"""vhost-user-blk exports of the storage daemons, loaded by a driver without a guest (vhost_load.c), so that nothing but the daemon is measured."""
import os

import data
from measure import Server, ServerSession, json_of
from servers import blockdevs, new_socket
from table import Benchmark

def entry(name, title, form, points, block=4096, write=False, queues=1, weight=1.5):
    def open_session(context, contender):
        daemon = contender.command("daemon")
        if not daemon:
            return None
        size = context.size(256, 16) << 20
        image = context.file("stamped.raw", data.write_stamped, size)
        if form == "qcow2":
            image = context.file(f"stamped-{contender.name}.qcow2", data.write_qcow2, size, range(size // data.CLUSTER), None, data.stamped_cluster)
        path = new_socket(context)
        argv = daemon + blockdevs(image, form) + ["--export", f"type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path={path},writable=on,num-queues={queues}"]
        server = Server(argv, lambda: os.path.exists(path), context.work)

        def load(depth, operations):
            command = [context.program("vhost_load"), path, "--block", str(block), "--depth", str(depth), "--queues", str(queues), "--stamped"] + ["--write"] * write
            return json_of(command + (["--seconds", str(context.seconds)] if operations is None else ["--operations", str(operations // queues)]))
        return ServerSession(context, server, load)
    return Benchmark(f"vhost/{name}", "vhost", title, "rate", "one request", open_session, ("program:daemon", "export:vhost-user-blk"), axis="depth",
                     points=points, weight=weight)


BENCHMARKS = [
    entry("read-4k", "4 KiB random reads", "raw", (1, 32), weight=2.5),
    entry("write-4k", "4 KiB random writes", "raw", (1, 32), write=True, weight=2.5),
    entry("read-64k", "64 KiB random reads", "raw", (16,), 65536),
    entry("qcow2-read-4k", "4 KiB random reads, qcow2", "qcow2", (1, 32), weight=2.5),
    entry("queues", "4 KiB random reads, 4 queues", "raw", (32,), queues=4),
]
