#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a forged or damaged qcow2 image crashes or hangs a tool, makes it use memory without bound, or gets its metadata overwritten.
# labels: quick
# timeout: 300
"""Every row is one image, made here byte by byte, and what each tool must say about it.

Whatever the image, a tool ends by itself (no signal, no sanitizer report), in time, within a bound of memory, and an
error message names what is wrong.
"""
import os
import resource
import struct
import subprocess
import sys
import time
import zlib

BIN = os.environ["SPINDLE_BIN"]
MEMORY_LIMIT_KIB = 700 * 1024  # of resident memory; a sanitizer's share included
TIME_LIMIT = 20

COPIED = 1 << 63
COMPRESSED = 1 << 62


class Image:
    """A version 3 image with clusters of 64 KiB: header, refcount table, refcount block, L1, L2, one data cluster."""

    def __init__(self, cluster_bits=16, size=1 << 20, version=3):
        self.bits = cluster_bits
        self.cs = 1 << cluster_bits
        self.version, self.size = version, size
        self.f = dict(backing_offset=0, backing_size=0, crypt=0, l1_size=1, l1_offset=3 * self.cs, reftable_offset=self.cs,
                      reftable_clusters=1, snapshots=0, snapshot_offset=0, incompatible=0, compatible=0, autoclear=0,
                      order=4, header_length=112, compression=0)
        self.bytes = bytearray(6 * self.cs)
        self.put64(self.cs, 2 * self.cs)
        for i in range(6):
            self.refcount(i, 1)
        self.put64(3 * self.cs, 4 * self.cs | COPIED)
        self.put64(4 * self.cs, 5 * self.cs | COPIED)
        self.bytes[5 * self.cs:6 * self.cs] = b"D" * self.cs
        self.extensions = b"\0" * 8
        self.raw_header = {}

    def put64(self, offset, value):
        self.need(offset + 8)
        struct.pack_into(">Q", self.bytes, offset, value & (1 << 64) - 1)

    def put(self, offset, data):
        self.need(offset + len(data))
        self.bytes[offset:offset + len(data)] = data

    def need(self, size):
        if len(self.bytes) < size:
            self.bytes.extend(bytes(size - len(self.bytes)))

    def refcount(self, cluster, value):
        struct.pack_into(">H", self.bytes, 2 * self.cs + cluster * 2, value)

    def l1(self, index, value):
        self.put64(3 * self.cs + 8 * index, value)

    def l2(self, index, value, bitmap=None):
        if bitmap is None:
            self.put64(4 * self.cs + 8 * index, value)
        else:
            self.put64(4 * self.cs + 16 * index, value)
            self.put64(4 * self.cs + 16 * index + 8, bitmap)

    def set(self, **fields):
        self.f.update(fields)
        return self

    def write(self, path):
        f = self.f
        head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", self.version, f["backing_offset"], f["backing_size"], self.bits, self.size,
                           f["crypt"], f["l1_size"], f["l1_offset"], f["reftable_offset"], f["reftable_clusters"], f["snapshots"],
                           f["snapshot_offset"])
        if self.version >= 3:
            head += struct.pack(">QQQIIB7x", f["incompatible"], f["compatible"], f["autoclear"], f["order"], f["header_length"],
                                f["compression"])
        head += self.extensions
        self.bytes[:len(head)] = head
        for offset, data in self.raw_header.items():
            self.put(offset, data)
        with open(path, "wb") as out:
            out.write(self.bytes)


def run(*command):
    """Exit status and all output; fails the test on crashes, hangs and hunger."""
    before = time.monotonic()
    with open("output", "w+b") as output:
        process = subprocess.Popen([os.path.join(BIN, command[0]), *command[1:]], stdout=output, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - before > TIME_LIMIT:
                process.kill()
                os.wait4(process.pid, 0)
                raise AssertionError(f"{' '.join(command)}: still running after {TIME_LIMIT} s")
            time.sleep(0.01)
        process.returncode = 0
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if os.WIFSIGNALED(status) or "Sanitizer" in text or "runtime error" in text:
        raise AssertionError(f"{' '.join(command)}: crashed\n{text[-3000:]}")
    if usage.ru_maxrss > MEMORY_LIMIT_KIB:
        raise AssertionError(f"{' '.join(command)}: used {usage.ru_maxrss} KiB of memory")
    return os.WEXITSTATUS(status), text


def expect(command, status, *texts):
    code, text = run(*command)
    if status is not None and (code == 0) != (status == 0) or (status not in (None, 0, 1) and code != status):
        raise AssertionError(f"{' '.join(command)}: exit status {code}, expected {status}\n{text}")
    for wanted in texts:
        if wanted not in text:
            raise AssertionError(f"{' '.join(command)}: does not say '{wanted}'\n{text}")
    return text


def refused(image, *texts):
    """Cannot be opened at all, by anybody, and the message says why."""
    image.write("i.qcow2")
    for command in (("spindle-img", "info", "-f", "qcow2", "i.qcow2"), ("spindle-img", "check", "-f", "qcow2", "i.qcow2"),
                    ("spindle-img", "convert", "-f", "qcow2", "-O", "raw", "i.qcow2", "o.raw"),
                    ("spindle-io", "-f", "qcow2", "-c", "write 0 64k", "i.qcow2")):
        expect(command, 1, *texts)


def is_marked_corrupt():
    with open("i.qcow2", "rb") as file:
        file.seek(72)
        return bool(struct.unpack(">Q", file.read(8))[0] & 2)


def unreadable(image, *texts, read="0 64k"):
    """Opens; a check finds it corrupt, and reading the bad place is an error."""
    image.write("i.qcow2")
    expect(("spindle-img", "info", "-f", "qcow2", "i.qcow2"), 0)
    expect(("spindle-img", "check", "-f", "qcow2", "i.qcow2"), 2, *texts)
    code, text = run("spindle-io", "-f", "qcow2", "-r", "-c", f"read {read}", "i.qcow2")
    if code == 0 and "rror" not in text:
        raise AssertionError(f"reading a bad place succeeded:\n{text}")
    expect(("spindle-img", "convert", "-f", "qcow2", "-O", "raw", "i.qcow2", "o.raw"), 1)


def guarded(image, where, *texts, write="0 64k"):
    """A write would hit metadata: it fails, the image is marked as corrupt and what was there is untouched."""
    image.write("i.qcow2")
    offset, length = where
    with open("i.qcow2", "rb") as file:
        file.seek(offset)
        before = file.read(length)
    expect(("spindle-img", "check", "-f", "qcow2", "i.qcow2"), 2)
    code, text = run("spindle-io", "-f", "qcow2", "-c", f"write -P 0x55 {write}", "i.qcow2")
    if code == 0 and "rror" not in text:
        raise AssertionError(f"a write over metadata succeeded:\n{text}")
    for wanted in texts:
        if wanted not in text:
            raise AssertionError(f"the failing write does not say '{wanted}':\n{text}")
    if image.version >= 3 and not is_marked_corrupt():
        raise AssertionError("the image was not marked as corrupt")
    with open("i.qcow2", "rb") as file:
        file.seek(offset)
        if file.read(length) != before:
            raise AssertionError("metadata was overwritten")
    code, text = run("spindle-io", "-f", "qcow2", "-c", "write -P 0x55 512k 64k", "i.qcow2")
    if code == 0 and "rror" not in text:
        raise AssertionError(f"a corrupt image was written to:\n{text}")


def survives(image, check_status=None):
    """Anything may come out, in time and without a crash."""
    image.write("i.qcow2")
    expect(("spindle-img", "info", "-f", "qcow2", "i.qcow2"), None)
    run("spindle-img", "map", "-f", "qcow2", "i.qcow2")
    run("spindle-img", "convert", "-f", "qcow2", "-O", "raw", "i.qcow2", "o.raw")
    run("spindle-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "write 512k 64k", "-c", "discard 0 64k", "-c", "flush", "i.qcow2")
    code, text = run("spindle-img", "check", "-f", "qcow2", "i.qcow2")
    if check_status is not None and code != check_status:
        raise AssertionError(f"check: exit status {code}, expected {check_status}\n{text}")
    image.write("i.qcow2")
    run("spindle-img", "check", "-r", "all", "-f", "qcow2", "i.qcow2")


def snapshot_entry(l1_offset, l1_size, extra=b"\0" * 16, extra_size=None):
    size = len(extra) if extra_size is None else extra_size
    return struct.pack(">QIHHIIQII", l1_offset, l1_size, 1, 1, 0, 0, 0, 0, size) + extra + b"1a" + b"\0" * 6


def with_snapshot(entry, count=1):
    image = Image().set(snapshots=count, snapshot_offset=6 * 65536)
    image.put(6 * 65536, entry)
    image.need(7 * 65536)
    image.refcount(6, 1)
    return image


def extended():
    image = Image().set(incompatible=1 << 4)
    image.l2(0, 5 << 16 | COPIED, 0xffffffff)
    return image


def compressed(data, incompatible=0, compression=0, offset=5 << 16, sectors=None):
    image = Image().set(incompatible=incompatible, compression=compression)
    if offset == 5 << 16:
        image.put(offset, data.ljust(65536, b"\0")[:65536])
    count = (len(data) + 511) // 512 - 1 if sectors is None else sectors
    image.l2(0, COMPRESSED | count << 54 | offset)
    return image


def deflate(data):
    codec = zlib.compressobj(9, zlib.DEFLATED, -15)
    return codec.compress(data) + codec.flush()


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
def a_good_image_is_good():
    image = Image()
    image.write("i.qcow2")
    expect(("spindle-img", "check", "-f", "qcow2", "i.qcow2"), 0)
    expect(("spindle-io", "-f", "qcow2", "-c", "read -P 0x44 0 64k", "-c", "write 0 128k", "i.qcow2"), 0)
    expect(("spindle-img", "check", "-f", "qcow2", "i.qcow2"), 0)


@case
def l1_size():
    refused(Image().set(l1_size=0xffffffff), "l1_size", "4294967295")
    refused(Image().set(l1_size=0x7fffffff), "l1_size")
    refused(Image().set(l1_size=0x400000), "L1 table")
    refused(Image().set(l1_size=0), "l1_size is 0")


@case
def refcount_table_clusters():
    refused(Image().set(reftable_clusters=0xffffffff), "refcount_table_clusters")
    refused(Image().set(reftable_clusters=0x20001), "refcount_table_clusters is 131073")
    refused(Image().set(reftable_clusters=0), "refcount_table_clusters is 0")


@case
def snapshot_count():
    refused(Image().set(snapshots=0xffffffff), "nb_snapshots")
    refused(Image().set(snapshots=65537), "nb_snapshots is 65537")
    refused(Image().set(snapshots=65536, snapshot_offset=5 << 16), "snapshot 0")


@case
def header_length():
    for length in (0xffffffff, 0x7fffffff, 103, 108, 65544):
        refused(Image().set(header_length=length), "header_length")


@case
def extension_lengths():
    for length in (0x7fffffff, 0xffffffff, 65536 - 112):
        image = Image()
        image.extensions = struct.pack(">II", 0x12345678, length)
        refused(image, "extension 0x12345678")
    image = Image()
    image.extensions = struct.pack(">II", 0xe2792aca, 2000) + b"x" * 2000
    refused(image, "backing file format")


@case
def unknown_features():
    image = Image().set(incompatible=1 << 40)
    image.extensions = struct.pack(">IIBB46s", 0x6803f857, 48, 0, 40, b"time travel") + b"\0" * 8
    refused(image, "bit 40", "time travel")


@case
def version_and_widths():
    refused(Image(version=1), "version 1")
    refused(Image(version=4), "version 4")
    refused(Image().set(order=7), "refcount_order")
    for bits in (0, 8, 22, 31, 63, 0xffffffff):
        image = Image()
        image.bits = bits
        refused(image, "cluster_bits")
    refused(Image().set(crypt=9), "crypt_method")
    refused(Image().set(compression=1), "compression_type")
    refused(Image().set(incompatible=1 << 3), "compression_type")
    refused(Image().set(incompatible=1 << 3, compression=7), "compression_type")
    refused(Image(cluster_bits=12).set(incompatible=1 << 4), "cluster_bits")


@case
def impossible_sizes():
    for size in (1 << 63, (1 << 64) - 512, 1 << 56):
        image = Image(size=size)
        refused(image, "size")


@case
def misplaced_tables():
    refused(Image().set(reftable_offset=0x1234567890abcdef), "refcount_table_offset")
    refused(Image().set(reftable_offset=0x1234567890ab0000), "refcount_table_offset")
    refused(Image().set(reftable_offset=0), "refcount_table_offset")
    refused(Image().set(reftable_offset=1 << 40), "refcount_table_offset")
    refused(Image().set(l1_offset=(3 << 16) + 512), "l1_table_offset")
    refused(Image().set(l1_offset=1 << 40), "l1_table_offset")
    refused(Image().set(snapshots=1, snapshot_offset=123), "snapshots_offset")


@case
def backing_name():
    refused(Image().set(backing_offset=1 << 40, backing_size=5), "backing_file_offset")
    refused(Image().set(backing_offset=50, backing_size=5), "backing_file_offset")
    refused(Image().set(backing_offset=1000, backing_size=1024), "backing_file_size")
    refused(Image().set(backing_offset=65000, backing_size=600), "backing_file_size")
    refused(Image().set(backing_offset=1000, backing_size=0xffffffff), "backing_file_size")


@case
def truncated_files():
    for size in (0, 4, 71, 72, 200, 65536, 3 * 65536):
        image = Image()
        image.write("i.qcow2")
        os.truncate("i.qcow2", size)
        for command in (("spindle-img", "info", "-f", "qcow2", "i.qcow2"), ("spindle-img", "check", "-f", "qcow2", "i.qcow2")):
            expect(command, 1)


@case
def unaligned_entries():
    image = Image()
    image.l1(0, (4 << 16) + 512 | COPIED)
    unreadable(image, "L1 entry 0")
    image = Image()
    image.l1(0, 1 << 50 | COPIED)
    unreadable(image, "L1 entry 0", "inside the file")
    image = Image()
    image.l2(0, (5 << 16) + 512 | COPIED)
    unreadable(image, "aligned")
    image = Image()
    image.put64(1 << 16, (2 << 16) + 512)
    survives(image, 2)
    image = Image()
    image.put64(1 << 16, 1 << 50)
    survives(image, 2)


@case
def version_2_has_no_zero_clusters():
    image = Image(version=2)
    image.l2(0, 5 << 16 | COPIED | 1)
    unreadable(image, "version 2")


@case
def extended_entries():
    image = extended()
    image.l2(0, 5 << 16 | COPIED, 1 << 32 | 1)
    unreadable(image, "both allocated and zero")
    image = extended()
    image.l2(0, COMPRESSED | 5 << 16, 1)
    unreadable(image, "compressed cluster with subclusters")
    image = extended()
    image.l2(0, 0, 1)
    unreadable(image, "without a place")


@case
def data_over_metadata():
    cs = 1 << 16
    for target, name in ((0, "header"), (1, "refcount table"), (2, "refcount block"), (3, "active L1"), (4, "active L2")):
        image = Image()
        image.l2(0, target * cs | COPIED)
        if target == 0:
            survives(image)  # offset 0 means: nothing there
            continue
        guarded(image, (target * cs, cs), name)


@case
def free_clusters_that_are_metadata():
    cs = 1 << 16
    for target in range(5):
        image = Image()
        image.refcount(target, 0)
        where = (target * cs + (256 if target == 0 else 0), 4096)
        guarded(image, where, "would overwrite", write="512k 64k")
    image = Image()
    image.put64(cs, 0)  # nothing is counted at all
    guarded(image, (3 * cs, cs), "would overwrite", write="512k 64k")


@case
def snapshots_under_guard():
    cs = 1 << 16
    image = with_snapshot(snapshot_entry(7 * cs, 1))
    image.put64(7 * cs, 8 * cs)
    image.need(9 * cs)
    image.refcount(7, 0)
    guarded(image, (7 * cs, cs), "would overwrite", write="512k 64k")
    image.refcount(7, 1)
    image.refcount(6, 0)
    guarded(image, (6 * cs, cs), "would overwrite", write="512k 64k")


@case
def snapshot_entries():
    refused(with_snapshot(snapshot_entry((5 << 16) + 8, 1)), "snapshot 0", "multiple")
    refused(with_snapshot(snapshot_entry(5 << 16, 0xffffffff)), "snapshot 0")
    refused(with_snapshot(snapshot_entry(5 << 16, 0x400000)), "snapshot 0")
    refused(with_snapshot(snapshot_entry(5 << 16, 1, extra_size=1 << 30)), "extra data")
    refused(with_snapshot(snapshot_entry(5 << 16, 1, extra=b"\0" * 8)), "extra data")
    survives(with_snapshot(snapshot_entry(3 << 16, 1)), 2)


@case
def shared_tables_end_in_time():
    # Every L1 entry names the same L2 table, every refcount table entry the same block.
    image = Image(size=1 << 40).set(l1_size=2048)
    for i in range(2048):
        image.l1(i, 4 << 16)
    survives(image, 2)
    image = Image()
    image.put(2 << 16, b"\xff" * 65536)
    for i in range(8192):
        image.put64((1 << 16) + 8 * i, 2 << 16)
    survives(image, 2)
    many = b"".join(snapshot_entry(3 << 16, 1) for _ in range(60000))
    image = Image().set(snapshots=60000, snapshot_offset=16 << 16)
    image.put(16 << 16, many)
    survives(image, 2)


@case
def compressed_clusters():
    good = deflate(b"A" * 65536)
    image = compressed(good)
    image.write("i.qcow2")
    expect(("spindle-io", "-f", "qcow2", "-c", "read -P 0x41 0 64k", "i.qcow2"), 0, "65536/65536")
    noise = deflate(os.urandom(65536))
    for bad in (compressed(noise, sectors=3), compressed(b"\xff" * 600), compressed(deflate(b"A" * 1000)),
                compressed(good, offset=1 << 40), compressed(good, incompatible=1 << 3, compression=1)):
        bad.write("i.qcow2")
        code, text = run("spindle-io", "-f", "qcow2", "-r", "-c", "read 0 64k", "i.qcow2")
        if code == 0 and "rror" not in text:
            raise AssertionError(f"a broken compressed cluster was read:\n{text}")
        survives(bad)
    # More than a cluster in the stream: what is there fills the cluster, the rest is nobody's.
    image = compressed(deflate(b"B" * 500000))
    image.write("i.qcow2")
    expect(("spindle-io", "-f", "qcow2", "-c", "read -P 0x42 0 64k", "i.qcow2"), 0, "65536/65536")
    # Reaching over the end of the file, with every size that the field can hold.
    survives(compressed(good, sectors=255))


@case
def zstd_bombs():
    # A frame that asks for a window of 2 GiB, and one of run-length blocks that would fill 128 KiB each.
    window = bytes.fromhex("28b52ffd") + bytes([0x00, (31 - 10) << 3]) + bytes([0x02 | 1, 0, 0x10]) + b"A"
    survives(compressed(window, incompatible=1 << 3, compression=1))
    rle = bytes.fromhex("28b52ffd") + bytes([0x00, 7 << 3]) + (bytes([0x02, 0, 0x10]) + b"A") * 4000
    survives(compressed(rle, incompatible=1 << 3, compression=1))


@case
def bitmaps_extension():
    def with_extension(data, autoclear=1):
        image = Image().set(autoclear=autoclear)
        image.extensions = struct.pack(">II", 0x23852875, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0") + b"\0" * 8
        return image

    refused(with_extension(struct.pack(">IIQQ", 0, 0, 24, 5 << 16)), "nb_bitmaps")
    refused(with_extension(struct.pack(">IIQQ", 65536, 0, 65536 * 24, 5 << 16)), "nb_bitmaps")
    refused(with_extension(struct.pack(">IIQQ", 1, 0, 1 << 60, 5 << 16)), "bitmap_directory_size")
    refused(with_extension(struct.pack(">IIQQ", 1, 0, 24, 5)), "bitmap_directory_offset")
    refused(with_extension(b"short"), "bitmaps extension")
    survives(with_extension(struct.pack(">IIQQ", 1000, 0, 64 << 20, 5 << 16)))
    survives(with_extension(struct.pack(">IIQQ", 0, 7, 1 << 60, 5), autoclear=0))


@case
def external_data_files():
    def naming(name, **fields):
        image = Image().set(incompatible=1 << 2, **fields)
        image.extensions = struct.pack(">II", 0x44415441, len(name)) + name.ljust((len(name) + 7) // 8 * 8, b"\0") + b"\0" * 8
        return image

    # What only describes an image opens nothing that the image names; what reads it takes a path and nothing else.
    for image in (naming(b'json:{"driver":"null-co"}'), naming(b"nbd:localhost:1"), naming(b"no-such-file"),
                  Image().set(incompatible=1 << 2)):
        image.write("i.qcow2")
        text = expect(("spindle-img", "info", "-f", "qcow2", "i.qcow2"), None)
        if "/data-file" in text:
            raise AssertionError(f"info opened the data file that an image names:\n{text}")
        expect(("spindle-img", "convert", "-f", "qcow2", "-O", "raw", "i.qcow2", "o.raw"), 1, "data file")
        expect(("spindle-io", "-f", "qcow2", "-c", "write 0 64k", "i.qcow2"), 1, "data file")
    refused(Image().set(autoclear=1 << 1), "raw external data")
    with open("data", "wb") as file:
        file.truncate(1 << 20)
    image = naming(b"data")
    image.l2(0, 5 << 16 | COPIED)
    unreadable(image, "guest's own offset")
    image = naming(b"data")
    image.l2(0, COMPRESSED | 5 << 16)
    unreadable(image, "compressed cluster")


@case
def backing_loops():
    def naming(name):
        image = Image().set(backing_offset=1000, backing_size=len(name))
        image.put(1000, name)
        image.extensions = struct.pack(">II5s3x", 0xe2792aca, 5, b"qcow2") + b"\0" * 8
        return image

    naming(b"b.qcow2").write("a.qcow2")
    naming(b"a.qcow2").write("b.qcow2")
    naming(b"self.qcow2").write("self.qcow2")
    for name in ("a.qcow2", "self.qcow2"):
        expect(("spindle-img", "convert", "-f", "qcow2", "-O", "raw", name, "o.raw"), 1, "backing")
        expect(("spindle-img", "info", "-f", "qcow2", "--backing-chain", name), 1)
        expect(("spindle-img", "info", "-f", "qcow2", name), 0)


@case
def marked_as_corrupt():
    image = Image().set(incompatible=2)
    image.write("i.qcow2")
    expect(("spindle-io", "-f", "qcow2", "-r", "-c", "read -P 0x44 0 64k", "i.qcow2"), 0, "65536/65536")
    code, text = run("spindle-io", "-f", "qcow2", "-c", "write 0 64k", "i.qcow2")
    if code == 0 and "rror" not in text:
        raise AssertionError(f"an image marked as corrupt was written to:\n{text}")
    expect(("spindle-img", "check", "-r", "all", "-f", "qcow2", "i.qcow2"), 0)
    if is_marked_corrupt():
        raise AssertionError("a repair that found nothing wrong left the corrupt mark")


def main():
    failed = 0
    wanted = sys.argv[1:]
    for name, function in CASES.items():
        if wanted and name not in wanted:
            continue
        try:
            function()
        except AssertionError as error:
            failed += 1
            print(f"FAIL {name}: {error}", flush=True)
        else:
            print(f"ok   {name}", flush=True)
    sys.exit(1 if failed else 0)


main()
