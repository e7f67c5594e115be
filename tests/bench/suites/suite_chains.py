# SPDX-License-Identifier: Apache-2.0
"""Chains of overlays. The data of 256 MiB lie spread over all images of the chain: what is read is the same, only the number of images differs."""
import os
import subprocess

import data
from measure import CommandSession, Failure
from table import Benchmark

LENGTHS = (1, 10, 100)


def session(tool, arguments, out=None):
    def open_session(context, contender):
        program = contender.command(tool)
        if not program:
            return None
        target = context.scratch("chain.out")

        def clear(_):
            if os.path.exists(target):
                os.unlink(target)

        def prove(length):
            done = subprocess.run([context.tool, "compare", "-f", "qcow2", "-F", "raw", data.chain(context, length), target], stdout=subprocess.DEVNULL, check=False)
            if done.returncode:
                raise Failure("what was read from the chain is not its data")
        return CommandSession(context, lambda length: program + arguments + [data.chain(context, length)] + ([target] if out else []),
                              clear if out else None, prove if out else None)
    return open_session


def law(name, title, open_session, needs, weight=1.0):
    return Benchmark(f"chains/{name}", "chains", title, "wall", "the whole command", open_session, needs, axis="images", points=LENGTHS, quick_points=(1, 10), law=True,
                     weight=weight)


BENCHMARKS = [
    law("open", "open a chain and read 4 KiB", session("io", ["-r", "-f", "qcow2", "-c", "read -q 0 4k"]), ("program:io",)),
    law("map", "map of a chain", session("img", ["map", "--output=json", "-f", "qcow2"]), ("img:map",)),
    law("info", "info --backing-chain", session("img", ["info", "--backing-chain", "--output=json", "-f", "qcow2"]), ("img:info",)),
    law("read", "read a chain (convert to raw)", session("img", ["convert", "-f", "qcow2", "-O", "raw"], out=True), ("img:convert",), weight=1.5),
]
