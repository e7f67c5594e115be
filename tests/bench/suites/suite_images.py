# SPDX-License-Identifier: Apache-2.0
"""Making, checking and mapping images, and how these grow: with the virtual size of an image, and with the number of its extents, up to a million that
lie in no order in the file."""
import os

import data
from measure import CommandSession
from table import Benchmark

EXTENTS = (1000, 10000, 100000, 1000000)
SIZES_GIB = (1, 16, 256, 4096)


def empty(context, gib):
    return context.file(f"empty-{gib}.qcow2", data.write_qcow2, gib << 30, ())


def on_image(arguments, image):
    def open_session(context, contender):
        img = contender.command("img")
        return CommandSession(context, lambda point: img + arguments + [image(context, point)], counting=False) if img else None
    return open_session


def creating(options, sized):
    def open_session(context, contender):
        img = contender.command("img")
        path = context.scratch("created")

        def clear(_):
            if os.path.exists(path):
                os.unlink(path)
        return CommandSession(context, lambda point: img + ["create", "-q", "-f", "qcow2", *options, path, sized(point)], clear, counting=False) if img else None
    return open_session


def law_of_extents(name, title, arguments, needs, weight=1.5):
    return Benchmark(f"images/{name}-extents", "images", title, "wall", "the whole command", on_image(arguments, data.fragmented), needs, axis="extents", points=EXTENTS,
                     quick_points=EXTENTS[:2], law=True, weight=weight)


def law_of_sizes(name, title, arguments, needs):
    return Benchmark(f"images/{name}-size", "images", title, "wall", "the whole command", on_image(arguments, empty), needs, axis="GiB", points=SIZES_GIB,
                     quick_points=SIZES_GIB[:2], law=True, weight=0.5)


BENCHMARKS = [
    Benchmark("images/create-empty", "images", "create a qcow2 image of 1 TiB", "wall", "the whole command", creating((), lambda _: "1T"), ("img:create",), weight=0.3),
    Benchmark("images/create-metadata", "images", "create with preallocation=metadata", "wall", "the whole command",
              creating(("-o", "preallocation=metadata"), lambda gib: f"{gib}G"), ("img:create", "create:preallocation"), axis="GiB", points=(1, 16, 256),
              quick_points=(1, 4), law=True, weight=0.5),
    law_of_sizes("info", "info of an empty image", ["info", "-f", "qcow2"], ("img:info",)),
    law_of_sizes("check", "check of an empty image", ["check", "-q", "-f", "qcow2"], ("img:check",)),
    law_of_sizes("map", "map of an empty image", ["map", "--output=json", "-f", "qcow2"], ("img:map",)),
    law_of_extents("info", "info of a fragmented image of 1 TiB", ["info", "-f", "qcow2"], ("img:info",), weight=0.5),
    law_of_extents("check", "check of a fragmented image of 1 TiB", ["check", "-q", "-f", "qcow2"], ("img:check",)),
    law_of_extents("map", "map of a fragmented image of 1 TiB", ["map", "--output=json", "-f", "qcow2"], ("img:map",), weight=3),
    law_of_extents("measure", "measure of a fragmented image of 1 TiB", ["measure", "-O", "qcow2", "-f", "qcow2"], ("img:measure",), weight=3),
]
