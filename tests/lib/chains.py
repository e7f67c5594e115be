# SPDX-License-Identifier: Apache-2.0
"""Random chains of qcow2 images, made by the peer's tools: "a", "b" above it, and "c", which the guest has.

What differs from layer to layer is what code that walks chains may get wrong: size, clusters, subclusters, and where there are data,
zeroes, or nothing.
"""
from image import fail, img_json, run, their_img, their_io

LAYERS = ("a", "b", "c")
LAYOUTS = (("-o", "extended_l2=on,cluster_size=64k"), ("-o", "cluster_size=4k"), (), ("-o", "cluster_size=128k"))


def random_size(chance):
    return chance.randrange(1, 60) << 16


def size_of(name):
    return img_json("info", name, tool="qemu-img")["virtual-size"]


def write_random(chance, name):
    size = size_of(name)
    commands = []
    for _ in range(chance.randrange(0, 12)):
        offset = chance.randrange(0, size // 512) * 512
        length = min(chance.randrange(1, 200) * 512, size - offset)
        kind = chance.choice(["-z", f"-P {chance.randrange(1, 4)}", f"-P {chance.randrange(1, 4)}"])
        commands.append(f"write {kind} {offset} {length}")
    if commands:
        their_io(name, *commands, form="qcow2")


def make_chain(chance):
    below = []
    for name in LAYERS:
        their_img("create", "-q", "-f", "qcow2", *chance.choice(LAYOUTS), *below, name, random_size(chance))
        below = ["-b", name, "-F", "qcow2"]
        write_random(chance, name)


def make_raw(name, to):
    """What a guest reads, as the peer has it."""
    their_img("convert", "-O", "raw", name, to)


def same(one, other, what):
    if run("cmp", one, other, status=None).status:
        fail(f"{what}: contents differ")
