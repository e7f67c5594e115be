# SPDX-License-Identifier: Apache-2.0
"""The images that are measured on, made once a run and given to every contender alike. All are reproducible."""
import array
import os
import random
import struct
import sys


def write_mixed(path, size):
    """Half holes, a third of the data easy to compress, in pieces of 64 KiB to 4 MiB: like a used disk."""
    rng = random.Random(7)
    with open(path, "wb") as out:
        out.truncate(size)
        offset = 0
        while offset < size:
            piece = min(rng.choice([64 << 10, 256 << 10, 1 << 20, 4 << 20]), size - offset)
            kind = rng.randrange(6)
            out.seek(offset)
            if kind < 2:
                out.write(rng.randbytes(piece))
            elif kind == 2:
                words = b" ".join(str(rng.randrange(9999)).encode() for _ in range(2000))
                out.write((words * (piece // len(words) + 1))[:piece])
            offset += piece


def write_stamped(path, size):
    """Every 4 KiB start with their own offset (8 bytes, little endian); the rest does not compress."""
    filler = random.Random(8).randbytes(4088)
    with open(path, "wb") as out:
        for start in range(0, size, 1 << 20):
            out.write(b"".join(struct.pack("<Q", offset) + filler for offset in range(start, min(start + (1 << 20), size), 4096)))


def write_random(path, size):
    rng = random.Random(9)
    with open(path, "wb") as out:
        for start in range(0, size, 4 << 20):
            out.write(rng.randbytes(min(4 << 20, size - start)))


def write_sparse(path, size):
    """A megabyte of data at four places of an else empty file."""
    data = random.Random(10).randbytes(1 << 20)
    with open(path, "wb") as out:
        out.truncate(size)
        for part in range(4):
            out.seek(part * (size // 4))
            out.write(data)


# --- qcow2, written by ourselves: what a million writes would leave behind, in a second ---

CLUSTER = 65536
COPIED = 1 << 63


def big_endian(values):
    table = array.array("Q", values)
    if sys.byteorder == "little":
        table.byteswap()
    return table.tobytes()


def padded(data):
    return data + bytes(-len(data) % CLUSTER)


def write_qcow2(path, size, clusters, backing=None, fill=None, seed=11):
    """A version 3 image with 64 KiB clusters whose guest clusters `clusters` (ascending numbers) are allocated, in random order in the file, so that no two
    neighbours in the guest are neighbours there. `fill(number)` gives a cluster's data; without it they are holes of the file, read as zeroes.
    `backing` is (name, format). Layout: header, refcount table, refcount blocks, L1, L2 tables, data."""
    clusters = array.array("Q", clusters)
    per_l2 = CLUSTER // 8
    l1_entries = max(1, -(-size // (CLUSTER * per_l2)))
    l1_clusters = -(-l1_entries * 8 // CLUSTER)
    l2_numbers = sorted({number // per_l2 for number in clusters})
    fixed = 1 + l1_clusters + len(l2_numbers) + len(clusters)
    blocks = table = 1
    while True:  # the refcounts count themselves
        need_blocks = -(-(fixed + blocks + table) // (CLUSTER // 2))
        need_table = -(-need_blocks * 8 // CLUSTER)
        if (need_blocks, need_table) == (blocks, table):
            break
        blocks, table = need_blocks, need_table
    blocks_at = 1 + table
    l1_at = blocks_at + blocks
    l2_at = l1_at + l1_clusters
    data_at = l2_at + len(l2_numbers)
    total = data_at + len(clusters)

    places = list(range(data_at, total))
    random.Random(seed).shuffle(places)
    l1 = [0] * l1_entries
    tables = {}
    for index, number in enumerate(l2_numbers):
        l1[number] = (l2_at + index) * CLUSTER | COPIED
        tables[number] = array.array("Q", bytes(CLUSTER))
    for number, place in zip(clusters, places):
        tables[number // per_l2][number % per_l2] = place * CLUSTER | COPIED

    name, form = backing or ("", "")
    extension = struct.pack(">II", 0xE2792ACA, len(form)) + form.encode() + bytes(-len(form) % 8) if form else b""
    head_end = 104 + len(extension) + 8
    header = struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649FB, 3, head_end if name else 0, len(name), 16, size, 0, l1_entries, l1_at * CLUSTER, CLUSTER, table, 0, 0,
                         0, 0, 0, 4, 104)
    with open(path, "wb") as out:
        out.write(padded(header + extension + bytes(8) + name.encode()))
        out.write(padded(big_endian((blocks_at + i) * CLUSTER for i in range(blocks))))
        out.write(b"\0\1" * total + bytes(blocks * CLUSTER - 2 * total))
        out.write(padded(big_endian(l1)))
        for number in l2_numbers:
            out.write(big_endian(tables[number]))
        if fill:
            for number, place in zip(clusters, places):
                out.seek(place * CLUSTER)
                out.write(fill(number))
        out.truncate(total * CLUSTER)


def write_fragmented(path, extents, size):
    """`extents` clusters of data, each followed by a cluster that is not allocated."""
    write_qcow2(path, size, range(0, 2 * extents, 2))


def stamped_cluster(number):
    return b"".join(struct.pack("<Q", number * CLUSTER + at) + bytes(4088) for at in range(0, CLUSTER, 4096))


def write_chain(directory, length, size):
    """A base and `length` - 1 overlays with the data spread over all of them; returns the path of the top."""
    os.makedirs(directory, exist_ok=True)
    count = size // CLUSTER
    for layer in range(length):
        path = os.path.join(directory, f"{layer}.qcow2")
        write_qcow2(path, size, range(layer, count, length), (f"{layer - 1}.qcow2", "qcow2") if layer else None, stamped_cluster)
    return path


def chain(context, length, owner=""):
    """The top of a chain; `owner` for one of its own, where two programs may want to write."""
    directory = context.file(f"chain-{length}{owner}", write_chain, length, context.size(256, 16) << 20)
    return os.path.join(directory, f"{length - 1}.qcow2")


def fragmented(context, extents, owner=""):
    return context.file(f"fragmented-{extents}{owner}.qcow2", write_fragmented, extents, 1 << 40)
