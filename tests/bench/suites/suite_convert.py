# SPDX-License-Identifier: Apache-2.0
"""Copying images: every direction and compression; a used disk, a full one, an empty one."""
import os
import subprocess

import data
from measure import CommandSession, Failure
from table import Benchmark

MIB = 1 << 20
SOURCES = {  # name: (writer, MiB, MiB when quick)
    "mixed": (data.write_mixed, 512, 32),
    "random": (data.write_random, 256, 16),
    "sparse": (data.write_sparse, 65536, 1024),
}


def source(context, kind):
    writer, usual, quick = SOURCES[kind]
    return context.file(f"{kind}.raw", writer, context.size(usual, quick) * MIB)


def in_format(context, kind, form, options=()):
    """The source in another format, made by the system's qemu-img (ours where there is none) for all contenders."""
    raw = source(context, kind)
    if form == "raw":
        return raw

    def make(path):
        subprocess.run([context.tool, "convert", *options, "-f", "raw", "-O", form, raw, path], check=True)
    return context.file(f"{kind}{''.join(options)}.{form}", make)


def entry(name, title, kind, of, to, options=(), of_options=(), needs=(), weight=1.0):
    def open_session(context, contender):
        img = contender.command("img")
        if not img:
            return None
        given = in_format(context, kind, of, of_options)
        raw = source(context, kind)
        out = context.scratch("converted")

        def clear(_):
            if os.path.exists(out):
                os.unlink(out)

        def prove(_):
            same = subprocess.run([context.tool, "compare", "-f", "raw", "-F", to, raw, out], stdout=subprocess.DEVNULL, check=False)
            if same.returncode:
                raise Failure("the image that was made differs from its source")

        return CommandSession(context, lambda _: img + ["convert", *options, "-f", of, "-O", to, given, out], clear, prove,
                              counting="-c" not in options)  # it would take longer than all rounds
    return Benchmark(f"convert/{name}", "convert", title, "wall", "one conversion", open_session, ("img:convert",) + needs, weight=weight)


ZSTD = ("-o", "compression_type=zstd")
BENCHMARKS = [
    entry("raw-qcow2", "raw to qcow2", "mixed", "raw", "qcow2"),
    entry("qcow2-raw", "qcow2 to raw", "mixed", "qcow2", "raw"),
    entry("qcow2-qcow2", "qcow2 to qcow2", "mixed", "qcow2", "qcow2"),
    entry("raw-raw", "raw to raw", "mixed", "raw", "raw"),
    entry("zlib", "raw to qcow2, -c, zlib", "mixed", "raw", "qcow2", ("-c",), weight=4),
    entry("zstd", "raw to qcow2, -c, zstd", "mixed", "raw", "qcow2", ("-c",) + ZSTD, weight=2),
    entry("compressed-raw", "compressed (zlib) to raw", "mixed", "qcow2", "raw", (), ("-c",)),
    entry("zstd-raw", "compressed (zstd) to raw", "mixed", "qcow2", "raw", (), ("-c",) + ZSTD),
    entry("full-raw-qcow2", "random data, raw to qcow2", "random", "raw", "qcow2"),
    entry("full-qcow2-raw", "random data, qcow2 to raw", "random", "qcow2", "raw"),
    entry("full-zlib", "random data, raw to qcow2, -c, zlib", "random", "raw", "qcow2", ("-c",), weight=4),
    entry("sparse-raw-qcow2", "64 GiB with 4 MiB of data, raw to qcow2", "sparse", "raw", "qcow2", weight=0.5),
    entry("sparse-qcow2-raw", "64 GiB with 4 MiB of data, qcow2 to raw", "sparse", "qcow2", "raw", weight=0.5),
]
