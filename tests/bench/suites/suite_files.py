# SPDX-License-Identifier: Apache-2.0
"""FUSE exports: an image seen as a file. The load is fio on that file, past the page cache of the client's side (O_DIRECT), so that every request gets there."""
import os

import data
from measure import Server, ServerSession
from servers import blockdevs, fio_load
from table import Benchmark


def open_export(context, contender):
    daemon = contender.command("daemon")
    if not daemon:
        return None
    size = context.size(256, 16) << 20
    image = context.file("fuse.raw", data.write_stamped, size)  # its own: fio writes to it
    mount = context.scratch(f"mount-{contender.name}")
    open(mount, "wb").close()
    server = Server(daemon + blockdevs(image, "raw") + ["--export", f"type=fuse,id=e,node-name=disk,mountpoint={mount},writable=on"],
                    lambda: os.path.getsize(mount) == size, context.work)
    return server, mount, size


def entry(name, title, write=False, block=4096):
    def open_session(context, contender):
        served = open_export(context, contender)
        if not served:
            return None
        server, mount, size = served
        direction = {(False, 4096): "randread", (True, 4096): "randwrite", (False, 1 << 20): "read"}[write, block]

        def load(depth, operations):
            return fio_load(context, operations, f"--filename={os.path.basename(mount)}", "--ioengine=libaio", "--direct=1", f"--rw={direction}", f"--bs={block}",
                            f"--iodepth={depth}", f"--size={size}")
        return ServerSession(context, server, load)
    return Benchmark(f"fuse/{name}", "fuse", title, "rate", "one request", open_session, ("program:daemon", "export:fuse"), axis="depth",
                     points=(1, 16) if block == 4096 else (4,), weight=3 if block == 4096 else 1.5)


BENCHMARKS = [
    entry("read-4k", "4 KiB random reads of a FUSE export"),
    entry("write-4k", "4 KiB random writes to a FUSE export", write=True),
    entry("read-1m", "1 MiB sequential reads of a FUSE export", block=1 << 20),
]
