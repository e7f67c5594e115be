#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""First inputs of fuzz_loader and fuzz_user_elf, which a fuzzer would hardly find by itself: ELF programs, a kernel image, a device tree.

    tests/fuzz/seeds.py [FOLDER]        default: tests/fuzz/corpus
"""
import os
import struct
import sys


def elf(segments, machine=243, entry=0x80000000):
    """A program for RISC-V with (physical address, bytes, size in memory) to be loaded."""
    at = 64 + 56 * len(segments)
    headers, data = b"", b""
    for address, content, size in segments:
        headers += struct.pack("<IIQQQQQQ", 1, 7, at + len(data), address, address, len(content), size, 0x1000)
        data += content
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, len(segments), 64, 0, 0) + headers + data


def kernel(size=0x2000, offset=0x200000):
    """The header of a Linux `Image` for RISC-V (Documentation/riscv/boot-image-header)."""
    return struct.pack("<IIQQQIIQ8sII", 0x5a4d, 0x6f, offset, size, 0, 2, 0, 0, b"RISCV\0\0\0", 0x05435352, 0) + bytes(64)


def device_tree(nodes, reserved=((0x80000000, 0x1000),)):
    """A flattened device tree, version 17. `nodes`: (depth, name, {property: bytes})."""
    strings, offsets, body, depth = b"", {}, b"", 0
    for level, name, properties in nodes:
        while depth > level:
            body, depth = body + struct.pack(">I", 2), depth - 1
        body += struct.pack(">I", 1) + pad(name.encode() + b"\0")
        depth = level + 1
        for key, value in properties.items():
            if key not in offsets:
                offsets[key] = len(strings)
                strings += key.encode() + b"\0"
            body += struct.pack(">III", 3, len(value), offsets[key]) + pad(value)
    body += struct.pack(">I", 2) * depth + struct.pack(">I", 9)
    reserve = b"".join(struct.pack(">QQ", *entry) for entry in (*reserved, (0, 0)))
    struct_at = 40 + len(reserve)
    total = struct_at + len(body) + len(strings)
    return struct.pack(">10I", 0xd00dfeed, total, struct_at, struct_at + len(body), 40, 17, 16, 0, len(strings),
                       len(body)) + reserve + body + strings


def pad(content):
    return content + bytes(-len(content) % 4)


SEEDS = {
    "elf": elf([(0x80000000, b"\x13\0\0\0" * 8, 32)]),
    "elf-bss": elf([(0x80000000, b"\x13\0\0\0" * 8, 0x1000), (0x80004000, b"data", 4)]),
    "elf-outside": elf([(0x7ffff000, b"\x13\0\0\0", 0x2000)]),
    "elf-foreign": elf([(0x80000000, b"\x90", 1)], machine=62),
    "kernel": kernel(),
    "kernel-large": kernel(1 << 40, 1 << 63),
    "flat": b"\x13\0\0\0" * 16,
    "tree": device_tree([(0, "", {"#address-cells": b"\0\0\0\2"}), (1, "chosen", {"bootargs": b"quiet\0"}),
                         (1, "memory@80000000", {"device_type": b"memory\0", "reg": bytes(16)}), (1, "soc", {}),
                         (2, "uart@10000000", {"compatible": b"ns16550a\0"})]),
    "tree-empty": device_tree([(0, "", {})]),
}


def user_program(headers, kind=2, entry=0x10000):
    """An executable of Linux with (type, flags, offset, address, bytes in the file, bytes in memory), 8 KiB of file."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", kind, 243, 1, entry, 64, 0, 5, 64, 56, len(headers), 64, 0, 0)
    table = b"".join(struct.pack("<IIQQQQQQ", which, flags, offset, address, address, size, memory, 0x1000)
                     for which, flags, offset, address, size, memory in headers)
    return (ident + header + table + b"/lib/ld.so\0").ljust(0x2000, b"\x13")


LOAD, INTERPRETER, STACK = 1, 3, 0x6474e551
USER_SEEDS = {
    "static": user_program([(LOAD, 5, 0, 0x10000, 0x1000, 0x1000), (LOAD, 6, 0x1000, 0x11000, 0x800, 0x3000), (STACK, 7, 0, 0, 0, 0)]),
    "dynamic": user_program([(INTERPRETER, 4, 64 + 3 * 56, 232, 11, 11), (LOAD, 5, 0, 0, 0x1000, 0x1000), (LOAD, 6, 0x1080, 0x2080, 0x100, 0x101)], 3, 0x400),
    "only-zeros": user_program([(LOAD, 6, 0, 0x20000, 0, 0x5000)]),
    "read-only-zeros": user_program([(LOAD, 4, 0x10, 0x20010, 0x30, 0x2000)]),
    "overlapping": user_program([(LOAD, 5, 0, 0x10000, 0x1000, 0x4000), (LOAD, 0, 0, 0x10000, 0x1000, 0x1000), (LOAD, 4, 0x800, 0x11800, 0x10, 0x20)]),
}

if __name__ == "__main__":
    corpus = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
    for harness, seeds in (("fuzz_loader", SEEDS), ("fuzz_user_elf", USER_SEEDS)):
        os.makedirs(os.path.join(corpus, harness), exist_ok=True)
        for name, content in seeds.items():
            with open(os.path.join(corpus, harness, name), "wb") as file:
                file.write(content)
