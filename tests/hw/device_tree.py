#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, operating systems see another machine than the ecosystem's `virt` board: wrong addresses, interrupts or boot data.
# labels: quick
# requires: qemu-system-riscv64
# timeout: 60
"""The device tree of our board against that of QEMU, for the nodes that both have; and what the tree says about this machine."""
import os
import struct
import subprocess
import sys

OURS = os.path.join(os.environ["SPINDLE_BIN"], "spindle-system-riscv64")

# Properties that may differ, and why.
DIFFERENT = {
    ("/", "model"): "our own name",
    ("/chosen", "rng-seed"): "random",
    ("/soc/plic@c000000", "riscv,ndev"): "QEMU 7.2 counts source 0, later ones do not",
}
PER_CPU = {"riscv,isa", "mmu-type", "riscv,isa-base", "riscv,isa-extensions"}  # of another CPU
ABSENT = ("/fw-cfg@", "/flash@", "/platform-bus@", "/soc/pci@", "/pmu")        # devices that we do not have


def parse(blob):
    """-> {path: {property: bytes}}; devicetree specification 0.4, chapter 5"""
    magic, _, structs, strings = struct.unpack(">4I", blob[:16])
    assert magic == 0xD00DFEED
    nodes, path, at = {}, [], structs
    while True:
        token, = struct.unpack(">I", blob[at:at + 4])
        at += 4
        if token == 1:
            end = blob.index(b"\0", at)
            path.append(blob[at:end].decode())
            at = (end + 4) & ~3
            nodes["/".join(path) or "/"] = {}
        elif token == 2:
            path.pop()
        elif token == 3:
            size, name = struct.unpack(">2I", blob[at:at + 8])
            key = blob[strings + name:blob.index(b"\0", strings + name)].decode()
            nodes["/".join(path) or "/"][key] = blob[at + 8:at + 8 + size]
            at = (at + 8 + size + 3) & ~3
        elif token == 9:
            return nodes


def tree(program, *options):
    subprocess.run([program, "-M", "virt,dumpdtb=tree.dtb", "-display", "none", "-bios", "none", *options], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return parse(open("tree.dtb", "rb").read())


def phandles(nodes):
    """phandle numbers are free to choose: name them by their node"""
    return {properties["phandle"]: path for path, properties in nodes.items() if "phandle" in properties}


REFERENCES = {"interrupt-parent": 1, "regmap": 1, "cpu": 1, "interrupts-extended": 2}


def resolve(nodes, key, value):
    if key == "phandle":
        return "a phandle"
    if key in REFERENCES:
        cells = [value[i:i + 4] for i in range(0, len(value), 4)]
        names = phandles(nodes)
        return [names.get(cell, cell) if i % REFERENCES[key] == 0 else cell for i, cell in enumerate(cells)]
    return value


def compare(count):
    ours, theirs = (tree(program, "-smp", str(count), "-m", "512") for program in (OURS, "qemu-system-riscv64"))
    problems = []
    for path, properties in theirs.items():
        if path.startswith(ABSENT):
            continue
        if path not in ours:
            problems.append(f"node {path} is missing")
            continue
        for key, value in properties.items():
            if (path, key) in DIFFERENT or key in PER_CPU:
                continue
            mine = ours[path].get(key)
            if mine is None or resolve(ours, key, mine) != resolve(theirs, key, value):
                problems.append(f"{path} {key}: {mine} instead of {value}")
    problems += [f"node {path} is not known to QEMU" for path in ours if path not in theirs]
    return problems


def main():
    problems = compare(1) + compare(4)
    nodes = tree(OURS, "-smp", "3", "-m", "1G")
    cpus = [path for path in nodes if path.startswith("/cpus/cpu@") and path.count("/") == 2]
    if len(cpus) != 3 or nodes["/memory@80000000"]["reg"] != struct.pack(">2Q", 1 << 31, 1 << 30):
        problems.append("-smp and -m do not show")
    isa = nodes[cpus[0]]["riscv,isa"].decode().rstrip("\0")
    if not isa.startswith("rv64imafdc"):
        problems.append(f"riscv,isa is {isa}")
    if tree(OURS)["/chosen"]["rng-seed"] == nodes["/chosen"]["rng-seed"]:
        problems.append("the random seed is always the same")
    open("kernel", "wb").write(b"\x13\0\0\0" * 16)
    open("initrd", "wb").write(b"i" * 5000)
    chosen = tree(OURS, "-kernel", "kernel", "-initrd", "initrd", "-append", "a=b c")["/chosen"]
    start, end = (struct.unpack(">Q", chosen[f"linux,initrd-{which}"])[0] for which in ("start", "end"))
    if chosen["bootargs"] != b"a=b c\0" or end - start != 5000 or start < 0x80000000:
        problems.append(f"/chosen: {chosen}")
    print("\n".join(problems) or "the same machine")
    sys.exit(1 if problems else 0)


main()
