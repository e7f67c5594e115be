#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img convert` copies wrong bytes, stores what it should not, or breaks the options scripts use.
# labels: full
# timeout: 120
import os
import random
import re
import signal
import struct
import subprocess
import time

from image import OUR_IMG, check, content, equal, fail, img, img_json, io, write_file

rng = random.Random(11)
K, M = 1024, 1024 * 1024


def make_source():
    """Data, holes, zero blocks among data, an odd end."""
    data = bytearray(9 * M + 512)
    for start, length in [(0, 3), (64 * K, 64 * K), (M - 5, 10), (2 * M, M), (4 * M + 4096, 4096), (5 * M, 300000), (9 * M + 500, 12)]:
        data[start:start + length] = rng.randbytes(length)
    for _ in range(100):
        at = rng.randrange(2 * M, 3 * M) // 4096 * 4096
        data[at:at + 4096] = bytes(4096)
    write_file("s.raw", data)
    return bytes(data)


def same(target, form, wanted, what):
    """Read back by a plain copy, not by the code under test alone: raw targets are read as files."""
    if form != "raw":
        img("check", "-q", target)
        img("convert", "-f", form, "-S", "0", target, "back.raw")
        target = "back.raw"
    if content(target) != wanted:
        fail(f"{what}: the content differs")


def round_trips(data):
    for form, words in [("raw", []), ("qcow2", []), ("qcow2", ["-c"]), ("qcow2", ["-c", "-o", "compression_type=zstd"]),
                        ("qcow2", ["-o", "cluster_size=512"]), ("qcow2", ["-o", "cluster_size=2M"]),
                        ("qcow2", ["-o", "extended_l2=on"]), ("qcow2", ["-o", "preallocation=metadata"]),
                        ("raw", ["-o", "preallocation=falloc"]), ("raw", ["-S", "0"]), ("raw", ["-S", "1M"]),
                        ("qcow2", ["-S", "512"]), ("qcow2", ["-W", "-m", "16"]), ("raw", ["-m", "1"]),
                        ("raw", ["-t", "none", "-T", "none"]), ("qcow2", ["-t", "none"]), ("qcow2", ["-t", "writethrough"]),
                        ("raw", ["-C"]), ("qcow2", ["-C"]), ("raw", ["-t", "directsync", "-T", "directsync"])]:
        img("convert", "-f", "raw", "-O", form, *words, "s.raw", "t")
        same("t", form, data, f"{form} {words}")
        os.unlink("t")


def sparse(data):
    img("convert", "-f", "raw", "s.raw", "t.raw")
    stored = os.stat("t.raw").st_blocks * 512
    blocks = sum(any(data[at:at + 4096]) for at in range(0, len(data), 4096))
    check(stored <= blocks * 4096 + 64 * K, f"{stored} bytes on disk for {blocks} blocks with data")
    img("convert", "-f", "raw", "-S", "0", "s.raw", "t.raw")
    check(os.stat("t.raw").st_blocks * 512 >= len(data) - 4096, "-S 0 must allocate everything")
    img("convert", "-f", "raw", "-O", "qcow2", "s.raw", "t.qcow2")
    clusters = sum(any(data[at:at + 64 * K]) for at in range(0, len(data), 64 * K))
    equal(img_json("check", "t.qcow2")["allocated-clusters"], clusters, "clusters without data are not stored")
    img("convert", "-f", "raw", "-O", "qcow2", "-c", "s.raw", "t.qcow2")
    report = img_json("check", "t.qcow2")
    equal(report["allocated-clusters"], clusters, "clusters without data are not stored by -c either")
    check(report["compressed-clusters"] >= clusters - 7, f"-c compresses what can be compressed: {report}")


    for form in ("raw", "qcow2"):
        for mode in ("falloc", "full"):
            img("convert", "-f", "raw", "-O", form, "-o", f"preallocation={mode}", "s.raw", "t")
            check(os.stat("t").st_blocks * 512 >= len(data) - 4096, f"{form}: zeroes punch holes into preallocation={mode}")
            img("compare", "-q", "-f", "raw", "-F", form, "s.raw", "t")
            os.unlink("t")


def several_sources(data):
    write_file("odd.raw", data[:M + 512])
    img("convert", "-f", "raw", "-O", "qcow2", "odd.raw", "s.raw", "odd.raw", "t.qcow2")
    same("t.qcow2", "qcow2", data[:M + 512] + data + data[:M + 512], "three sources")
    img("convert", "-f", "raw", "-O", "qcow2", "-c", "odd.raw", "odd.raw", "t.qcow2")
    same("t.qcow2", "qcow2", data[:M + 512] * 2, "two sources, compressed over the seam")


def existing_target(data):
    write_file("t.raw", rng.randbytes(len(data)))
    img("convert", "-n", "-f", "raw", "s.raw", "t.raw")
    same("t.raw", "raw", data, "-n over old content")
    old = rng.randbytes(10 * M)
    write_file("t.raw", old)
    img("convert", "-n", "-f", "raw", "s.raw", "t.raw")
    equal(content("t.raw")[len(data):] == old[len(data):], True, "-n leaves what is behind the end alone")
    write_file("t.raw", old)
    img("convert", "-n", "--target-is-zero", "-f", "raw", "s.raw", "t.raw")
    equal(content("t.raw")[3 * M + 4096:4 * M] == old[3 * M + 4096:4 * M], True, "--target-is-zero: zeroes are not written")
    img("create", "-q", "-f", "qcow2", "t.qcow2", "10M")
    img("convert", "-n", "-f", "raw", "--target-image-opts", "s.raw", "driver=qcow2,file.filename=t.qcow2")
    img("compare", "-q", "-f", "raw", "-F", "qcow2", "s.raw", "t.qcow2")
    img("create", "-q", "-f", "raw", "t.raw", "1M")
    result = img("convert", "-n", "-f", "raw", "s.raw", "t.raw", status=1)
    check("output file is smaller than input file" in result.err, f"{result}")
    img("convert", "-n", "-f", "raw", "s.raw", "nowhere.raw", status=1)


def backing():
    write_file("base.raw", rng.randbytes(M))
    img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2", "2M")
    io("top.qcow2", "write -P 1 0 64k", "write -z 64k 64k", "write -P 0 128k 64k", "write -P 2 1500k 64k", form="qcow2")
    for words in (["-B", "base.raw", "-F", "raw"], ["-o", "backing_file=base.raw,backing_fmt=raw"]):
        img("convert", "-O", "qcow2", *words, "top.qcow2", "t.qcow2")
        img("compare", "-q", "top.qcow2", "t.qcow2")
        equal(img_json("info", "t.qcow2")["backing-filename"], "base.raw", "the backing file")
        depths = {extent["start"]: extent["depth"] for extent in img_json("map", "t.qcow2")}
        check(depths[0] == 0 and 1 in depths.values(), f"only the top layer is copied: {depths}")
    img("convert", "-O", "qcow2", "top.qcow2", "t.qcow2")
    check("backing-filename" not in img_json("info", "t.qcow2"), "without -B the target stands alone")
    img("compare", "-q", "top.qcow2", "t.qcow2")
    check("explicit backing format" in img("convert", "-O", "qcow2", "-B", "base.raw", "top.qcow2", "t.qcow2", status=1).err,
          "-B without -F")


def broken_source():
    img("create", "-q", "-f", "qcow2", "broken.qcow2", "1M")
    io("broken.qcow2", "write -c -P 1 128k 64k", "write -P 2 256k 64k", form="qcow2")
    image = bytearray(content("broken.qcow2"))
    l1 = struct.unpack_from(">Q", image, 40)[0]
    l2 = struct.unpack_from(">Q", image, l1)[0] & 0x00fffffffffffe00
    compressed = struct.unpack_from(">Q", image, l2 + 2 * 8)[0] & ((1 << 54) - 1)
    image[compressed:compressed + 64] = b"\xff" * 64
    write_file("broken.qcow2", image)
    result = img("convert", "-O", "raw", "broken.qcow2", "t.raw", status=1)
    check("error while reading" in result.err and "131072" in result.err, f"{result}")
    result = img("convert", "--salvage", "-O", "raw", "broken.qcow2", "t.raw")
    check("warning" in result.err, f"{result}")
    equal(content("t.raw"), bytes(256 * K) + b"\2" * 64 * K + bytes(M - 320 * K), "--salvage")


def progress():
    result = img("convert", "-p", "-f", "raw", "s.raw", "t.raw")
    check(re.fullmatch(r"(    \((\d{1,3}\.\d\d)/100%\)\r)+\n", result.out), f"layout of progress: {result.out!r}")
    check(result.out.startswith("    (0.00/100%)\r") and result.out.endswith("    (100.00/100%)\r\n"), "from 0 to 100")
    equal(img("convert", "-f", "raw", "s.raw", "t.raw").out, "", "without -p nothing is printed")
    equal(img("convert", "-p", "-q", "-f", "raw", "s.raw", "t.raw").out, "", "-q")


def rate_and_signal(data):
    write_file("r.raw", rng.randbytes(2 * M))
    start = time.monotonic()
    process = subprocess.Popen([OUR_IMG, "convert", "-r", "1M", "-f", "raw", "r.raw", "t.raw"], stderr=subprocess.PIPE, text=True)
    time.sleep(0.6)
    process.send_signal(signal.SIGUSR1)
    err = process.communicate()[1]
    took = time.monotonic() - start
    check(process.returncode == 0 and took > 0.9, f"-r 1M took {took:.1f} s for 2 MiB")
    check(re.fullmatch(r"    \(\d{1,3}\.\d\d/100%\)\n", err), f"SIGUSR1: {err!r}")


def refusals():
    for words, text in [
        (["-n", "-o", "size=1M", "s.raw", "t"], "-o has no effect when skipping image creation"),
        (["--target-is-zero", "s.raw", "t"], "requires use of -n"),
        (["-c", "-O", "raw", "s.raw", "t"], "Compression not supported for this file format"),
        (["-m", "17", "s.raw", "t"], "between 1 and 16"),
        (["-S", "100", "s.raw", "t"], "multiples of 512"),
        (["-C", "-c", "-O", "qcow2", "s.raw", "t"], "copy offloading"),
        (["-C", "-S", "4k", "s.raw", "t"], "copy offloading"),
        (["-c", "-O", "qcow2", "-o", "preallocation=metadata", "s.raw", "t"], "at the same time"),
        (["-t", "foo", "s.raw", "t"], "Invalid cache option"),
        (["-T", "foo", "s.raw", "t"], "Invalid source cache option"),
        (["-O", "foo", "s.raw", "t"], "foo"),
        (["-l", "snap", "s.raw", "t"], "have no internal snapshots"),
        (["--bitmaps", "s.raw", "t"], "does not support bitmaps"),
        (["--skip-broken-bitmaps", "s.raw", "t"], "requires --bitmaps"),
        (["s.raw"], "Must specify image file name"),
        (["-O", "qcow2", "-B", "b", "-F", "raw", "s.raw", "s.raw", "t"], "makes no sense"),
        (["missing", "t"], "missing"),
        (["-f", "raw", "s.raw", "nowhere/t"], "nowhere/t"),
    ]:
        result = img("convert", *words, status=1)
        check(text in result.err, f"wanted '{text}': {result}")
        check(not os.path.exists("t"), f"a refused command made a file: {words}")
    img("convert", "-f", "raw", "s.raw", "s.raw", status=1)  # onto itself
    equal(len(content("s.raw")), 9 * M + 512, "the source is untouched")


data = make_source()
round_trips(data)
sparse(data)
several_sources(data)
existing_target(data)
backing()
broken_source()
progress()
rate_and_signal(data)
refusals()
