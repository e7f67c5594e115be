#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `io` does something else than its commands say, or prints it in another form than test suites filter.
# labels: quick
# timeout: 60
import re
import time

from image import OUR_IO, check, content, equal, img, io, run, write_file

RATE = r"{}, 1 ops; \d\d\.\d\d sec \([0-9.]+ (bytes|[KMGT]iB)/sec and [0-9.]+ ops/sec\)\n"


def reports(out, verb, offset, length, size):
    pattern = rf"{verb} {length}/{length} bytes at offset {offset}\n" + RATE.format(size)
    check(re.fullmatch(pattern, out), f"layout of a report: {out!r}")


def reading_and_writing():
    img("create", "-q", "a", "4M")
    reports(io("a", "write -P 0x41 64k 1536").out, "wrote", 65536, 1536, "1.500 KiB")
    equal(content("a")[65536:65536 + 1537], b"A" * 1536 + b"\0", "what was written")
    reports(io("a", "read -P 65 64k 1536").out, "read", 65536, 1536, "1.500 KiB")
    reports(io("a", "write 3 1").out, "wrote", 3, 1, "1 bytes")
    equal(content("a")[2:5], b"\0\xcd\0", "the default pattern")
    reports(io("a", "writev -P 7 1M 512 1k").out, "wrote", 1 << 20, 1536, "1.500 KiB")
    reports(io("a", "readv -P 7 1M 1k 512").out, "read", 1 << 20, 1536, "1.500 KiB")
    write_file("pattern", b"0123456789")
    io("a", "write -q -s pattern 2M 25")
    equal(content("a")[2 << 20:(2 << 20) + 26], b"0123456789012345678901234\0", "-s")
    reports(io("a", "write -z 2M 1M").out, "wrote", 2 << 20, 1 << 20, "1 MiB")
    io("a", "read -P 0 2M 1M", "write -z -u 64k 4k", "read -P 0 64k 4k", "write -f 0 1", "flush")
    equal(io("a", "write -q 0 512", "read -q 0 512").out, "", "-q")
    check(re.fullmatch(r"512,1,0:00:00\.\d\d,[0-9.]+,[0-9.]+\n", io("a", "read -C 0 512").out), "-C")
    out = io("a", "write -q -P 0x2e 0 40", "read -v 0 20").out
    check(out.startswith("00000000:  " + "2e " * 16 + " ................\n00000010:  2e 2e 2e 2e  ....\n"), f"-v: {out}")


def verification():
    result = io("a", "write -q -P 1 0 1k", "write -q -P 2 1k 1k", "read -P 1 0 2k", status=1)
    check("Pattern verification failed at offset 0, 2048 bytes\n" in result.out, f"{result}")
    io("a", "read -P 1 -l 1k 0 2k", "read -P 2 -s 1k 0 2k", "read -P 2 -s 1k -l 512 0 2k")
    io("a", "read -P 2 -s 1k -l 2k 0 2k", status=1)


def whole_image():
    equal(io("a", "length", "truncate 8M", "length").out, "4 MiB\n8 MiB\n", "length and truncate")
    reports(io("a", "discard 0 64k").out, "discard", 0, 65536, "64 KiB")
    img("create", "-q", "-f", "qcow2", "q", "1M")
    io("q", "write 0 64k", "write -z 128k 64k", "write 256k 1", form="qcow2")
    out = io("q", "alloc 0", "alloc 0 1M", "alloc 64k 64k", "map", form="qcow2").out
    equal(out, "512/512 bytes allocated at offset 0 bytes\n131072/1048576 bytes allocated at offset 0 bytes\n"
          "0/65536 bytes allocated at offset 64 KiB\n"
          "64 KiB (0x10000) bytes     allocated at offset 0 bytes (0x0)\n"
          "192 KiB (0x30000) bytes not allocated at offset 64 KiB (0x10000)\n"
          "64 KiB (0x10000) bytes     allocated at offset 256 KiB (0x40000)\n"
          "704 KiB (0xb0000) bytes not allocated at offset 320 KiB (0x50000)\n", "alloc and map")
    check("format name: qcow2\ncluster size: 64 KiB\n" in io("q", "info", form="qcow2").out, "info")
    io("q", "write -c -P 5 512k 64k", "read -P 5 512k 64k", form="qcow2")


def asynchronous():
    commands = [f"aio_write -q -P {i + 1} {i * 4096} 4k" for i in range(32)]
    out = io("a", *commands, "aio_flush", *[f"read -q -P {i + 1} {i * 4096} 4k" for i in range(32)]).out
    equal(out, "", "32 writes in flight")
    reports(io("a", "aio_read -P 1 0 4k").out, "read", 0, 4096, "4 KiB")
    result = io("a", "aio_read -P 9 0 4k", status=1)
    check("Pattern verification failed" in result.out, f"{result}")
    start = time.monotonic()
    io("a", "sleep 300")
    check(time.monotonic() - start >= 0.3, "sleep")


def failures():
    for command, text in [
        ("read 8M 1", "read failed: Input/output error"), ("write 8M 1", "write failed: Input/output error"),
        ("read", "bad argument count 0 to read"), ("foo", 'command "foo" not found'), ("read a b", "Parsing error"),
        ("read 0 3G", "length cannot exceed 2147483136, given 3G"), ("read -P 300 0 1", "300 is not a valid pattern byte"),
        ("write -n 0 1k", "-n requires -z"), ("write -u 0 1k", "-u requires -z"), ("write -z -P 1 0 1k", "Only one of"),
        ("write -s missing 0 1k", "missing: No such file"), ("write -c 1 512", "sector-aligned"),
        ("write -b 0 1k", "write failed: Operation not supported"), ("read -x 0 1", "unrecognized option '-x'"),
        ("truncate -m foo 1M", "foo"), ("sleep x", "x is not a valid number"), ("flush 1", "bad argument count"),
        ("open a", "file open already"), ("help foo", "command foo not found"), ("read 1 99999999999999999999", "Parsing"),
    ]:
        result = io("a", command, "length", status=1)
        check(text in result.out + result.err, f"wanted '{text}': {result}")
        check(result.out.endswith("8 MiB\n"), f"the commands after a failed one are run: {result}")
    check("Block node is read-only" in io("a", "write 0 1", status=1, options=["-r"]).err, "-r")
    check("no file open" in io("a", "close", "length", status=1).err, "close")
    run(OUR_IO, "missing", status=1)
    for words in (["-t", "foo", "a"], ["-d", "foo", "a"], ["-i", "foo", "a"], ["-i", "native", "a"], ["-C", "-r", "a"], ["a", "b"]):
        run(OUR_IO, *words, status=1)


def opening():
    equal(run(OUR_IO, "-c", "open -o driver=raw a", "-c", "length").out, "8 MiB\n", "open -o")
    equal(run(OUR_IO, "-c", "open -r -o driver=qcow2 q", "-c", "length", "-c", "close").out, "1 MiB\n", "open and close")
    equal(run(OUR_IO, "--image-opts", "-c", "length", "driver=raw,file.filename=a").out, "8 MiB\n", "--image-opts")
    before = content("q")
    io("q", "write -P 9 0 4k", "read -P 9 0 4k", "read -P 0xcd 4k 4k", form="qcow2", options=["-s"])
    equal(content("q"), before, "-s leaves the image alone")
    for options in (["-n"], ["-t", "none", "-m"], ["-n", "-k"], ["-i", "io_uring"], ["-t", "unsafe"], ["-t", "directsync"]):
        io("a", "write -P 3 1000 3000", "read -P 3 1000 3000", options=options)


def prompt():
    result = run(OUR_IO, "-f", "raw", "a", input=b"length\nread -q 0 1\nq\nlength\n")
    equal(result.out, "spindle-io> 8 MiB\nspindle-io> spindle-io> ", "commands from standard input")
    run(OUR_IO, "-f", "raw", "a", input=b"nonsense\n", status=1)
    help_text = run(OUR_IO, "-c", "help").out
    for command in "aio_flush aio_read aio_write alloc close discard flush help info length map open quit read readv sleep " \
                   "truncate write writev".split():
        check(f"\n{command} " in "\n" + help_text, f"{command} is not in\n{help_text}")
        check(run(OUR_IO, "-c", f"help {command}").out.startswith(command), f"help {command}")


reading_and_writing()
verification()
whole_image()
asynchronous()
failures()
opening()
prompt()
