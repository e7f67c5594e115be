#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `io` cannot change, crash or signal a session in the way that tests of images count on.
# labels: quick
# requires: qemu-img qemu-io
# timeout: 60
import json
import signal
import subprocess

from image import OUR_IO, check, equal, io, run, their_img, their_io

their_img("create", "-q", "-f", "qcow2", "a.q", "1M")

# reopen: what may be done follows, both ways, and a refusal leaves all as it was.
result = io("a.q", "write -q -P 1 0 64k", "reopen -r", "write 0 512", "read -q -P 1 0 64k", "reopen -w", "write -q -P 2 0 512", form="qcow2", status=1)
equal(result.err.count("Block node is read-only"), 1, f"{result}")
their_io("a.q", "read -q -P 2 0 512", "read -q -P 1 512 65024", form="qcow2")
for form, name in (("qcow2", "a.q"), ("raw", "a.q")):
    io(name, "reopen -c none", "read -q 0 512", "reopen -c writeback", form=form)
io("a.q", "reopen -o lazy-refcounts=on", "write -q 128k 64k", form="qcow2")
for words, text in (("-r -w", "Only one -r/-w option may be given"), ("-c nonsense", "Invalid cache option: 'nonsense'"), ("-o nonsense=1", "nonsense")):
    result = io("a.q", "reopen " + words, "write -q -P 3 0 512", form="qcow2", status=1)
    check(text in result.err, f"{result}")
    their_io("a.q", "read -q -P 3 0 512", form="qcow2")

# A read-only image lets others write: its locks are gone.
holder = subprocess.Popen([OUR_IO, "-f", "qcow2", "a.q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
holder.stdin.write(b"write -q 0 512\n")
holder.stdin.flush()
holder.stdout.read(1)
run("qemu-io", "-f", "qcow2", "-r", "-c", "length", "a.q", status=1)
holder.stdin.write(b"reopen -r\nlength\n")
holder.stdin.flush()
while not holder.stdout.readline().endswith(b"1 MiB\n"):
    pass
run("qemu-io", "-f", "qcow2", "-r", "-c", "length", "a.q")
holder.communicate(b"quit\n")
equal(holder.returncode, 0, "the holder's status")

# aio_discard, and its failure.
io("a.q", "write -q -P 5 256k 128k", "aio_discard -q 256k 64k", "aio_flush", form="qcow2")
extents = json.loads(their_img("map", "--output=json", "a.q").out)
check(any(e["start"] <= 256 << 10 < e["start"] + e["length"] and not e["data"] for e in extents), f"discarded: {extents}")
io("a.q", "aio_discard 1M 64k", "aio_flush", form="qcow2", status=1)

# abort and sigraise end it at once; what was flushed is there, and the image is good.
for command, wanted in (("abort", signal.SIGABRT), (f"sigraise {int(signal.SIGKILL)}", signal.SIGKILL), (f"sigraise {int(signal.SIGTERM)}", signal.SIGTERM)):
    process = subprocess.run([OUR_IO, "-f", "qcow2", "-c", "write -q -P 9 512k 64k", "-c", "flush", "-c", command, "-c", "write -q -P 8 512k 64k", "a.q"], capture_output=True)
    check(process.returncode in (-wanted, 1), f"{command}: {process}")
    their_io("a.q", "read -q -P 9 512k 64k", form="qcow2")
io("a.q", "sigraise nonsense", form="qcow2", status=1)

# Copy on read: what is read becomes the image's own; what is not, does not.
their_img("create", "-q", "-f", "qcow2", "-b", "a.q", "-F", "qcow2", "b.q")
io("b.q", "read -q -P 9 512k 64k", form="qcow2", options=["-C"])
own = [(e["start"], e["length"]) for e in json.loads(their_img("map", "--output=json", "b.q").out) if e["depth"] == 0]
equal(own, [(512 << 10, 64 << 10)], "read with -C")
result = io("b.q", "read -q 0 512", form="qcow2", options=["-C", "-r"], status=1)
check("exclude each other" in result.err, f"{result}")
run(OUR_IO, "-c", "open -C b.q", "-c", "read -q -P 9 512k 64k", "-c", "close")

# Registered buffers are a wish, which changes nothing here.
io("b.q", "read -r -q 0 512", "write -r -q -P 4 0 512", "readv -r -q 0 512 512", "aio_read -r -q 0 512", "aio_flush", form="qcow2")
