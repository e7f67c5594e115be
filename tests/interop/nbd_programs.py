#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, programs that people use with NBD cannot use our exports: nbdfuse mounts them wrongly, nbdsh's scripts fail, nbdinfo
# --map does not tell what changed, nbdcopy copies wrongly or without holes.
# labels: full interop
# requires: nbdfuse nbdsh nbdinfo nbdcopy fusermount3 cmp
# timeout: 240
import json
import os
import random
import subprocess
import time

from image import BIN, check, equal, img, io, run, write_file
from patience import patience
from qmp import Program, Qmp

MIB = 1 << 20
HERE = os.getcwd()
SYSTEM = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}  # whose Python has libnbd's module
write_file("raw.img", random.Random(7).randbytes(3 * MIB) + bytes(5 * MIB))
img("convert", "-f", "raw", "-O", "qcow2", "raw.img", "base.qcow2")
img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
img("bitmap", "--add", "-g", "64k", "disk.qcow2", "since")
img("create", "-q", "-f", "qcow2", "empty.qcow2", "8M")


def uri(name):
    return f"nbd+unix:///{name}?socket={HERE}/sock"


def wait_for(condition, what):
    end = time.monotonic() + patience(20)
    while not condition():
        check(time.monotonic() < end, f"waited for {what}")
        time.sleep(0.05)


def extents(name, context):
    """Ranges by what the context says of them."""
    found = json.loads(run("nbdinfo", "--json", f"--map={context}", uri(name)).out)
    merged = []
    for extent in found:
        if merged and merged[-1][1] == extent["type"]:
            merged[-1][0] += extent["length"]
        else:
            merged.append([extent["length"], extent["type"]])
    return [(length // 1024, kind) for length, kind in merged]


with Program([os.path.join(BIN, "spindle-storage-daemon"), "--chardev", "socket,id=m,path=qmp,server=on,wait=off", "--monitor", "m",
              "--blockdev", "file,node-name=f,filename=disk.qcow2,discard=unmap", "--blockdev", "qcow2,node-name=disk,file=f,discard=unmap",
              "--blockdev", "file,node-name=g,filename=empty.qcow2,discard=unmap", "--blockdev", "qcow2,node-name=empty,file=g,discard=unmap",
              "--nbd-server", "addr.type=unix,addr.path=sock,max-connections=0",
              "--export", "nbd,id=e1,node-name=disk,name=disk,writable=on,bitmaps.0=since,allocation-depth=on",
              "--export", "nbd,id=e2,node-name=empty,name=empty,writable=on"]):
    qmp = Qmp.connect("qmp")
    wait_for(lambda: os.path.exists("sock"), "the server")

    print("== nbdinfo --map: what is there, how deep it lies, what has changed")
    equal(extents("disk", "base:allocation"), [(3072, 0), (5120, 3)], "base:allocation")
    equal(extents("disk", "qemu:allocation-depth"), [(3072, 2), (5120, 0)], "qemu:allocation-depth")
    equal(extents("disk", "qemu:dirty-bitmap:since"), [(8192, 0)], "nothing has changed")

    print("== nbdsh: everything a client can ask")
    script = """
assert h.get_size() == 8 << 20 and not h.is_read_only() and h.can_multi_conn() and h.can_df() and h.can_cache() and h.can_fast_zero()
data = open("raw.img", "rb").read()
assert h.pread(3 << 20, 0) == data[:3 << 20]
h.pwrite(b"new" * 1000, 1 << 20)
h.pwrite(b"\\x11" * 65536, 6 << 20, nbd.CMD_FLAG_FUA)
assert h.pread(3000, 1 << 20) == b"new" * 1000
h.zero(65536, 2 << 20, nbd.CMD_FLAG_NO_HOLE)
h.trim(65536, (2 << 20) + 65536)
h.cache(1 << 20, 0)
h.flush()
chunks = []
h.pread_structured(2 << 20, 5 << 20, lambda buf, offset, kind, error: chunks.append((offset, len(buf), kind)))
assert {kind for _, _, kind in chunks} == {nbd.READ_DATA, nbd.READ_HOLE}, chunks
pieces = []
h.pread_structured(2 << 20, 5 << 20, lambda buf, offset, kind, error: pieces.append(kind), nbd.CMD_FLAG_DF)
assert len(pieces) == 1, pieces
seen = {}
def extent(context, offset, entries, error):
    seen[context] = entries
h.block_status(8 << 20, 0, extent)
assert set(seen) == {"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:since"}, seen
for wrong in (lambda: h.pread(512, 8 << 20), lambda: h.pwrite(b"x" * 512, 8 << 20), lambda: h.zero(1 << 20, (8 << 20) - 512)):
    try:
        wrong()
        raise SystemExit("accepted what is not there")
    except nbd.Error as error:
        assert error.errnum in (nbd.errno.EINVAL if hasattr(nbd, "errno") else 22, 28), error
buffers = []
for i in range(100):
    buf = nbd.Buffer(4096)
    buffers.append((buf, h.aio_pread(buf, i * 4096)))
while h.aio_in_flight():
    h.poll(-1)
for i, (buf, cookie) in enumerate(buffers):
    assert h.aio_command_completed(cookie)
    assert buf.to_bytearray() == data[i * 4096:(i + 1) * 4096], i
print("all asked")
"""
    write_file("script.py", script.encode())
    contexts = ["-c", "h.add_meta_context('base:allocation')", "-c", "h.add_meta_context('qemu:allocation-depth')", "-c", "h.add_meta_context('qemu:dirty-bitmap:since')",
                "-c", "h.set_strict_mode(0)", "-c", f"h.connect_uri('{uri('disk')}')"]
    result = run("nbdsh", *contexts, "-c", "exec(open('script.py').read())", "-c", "h.shutdown()", env=SYSTEM)
    check("all asked" in result.out, f"{result}")
    equal([length for length, kind in extents("disk", "qemu:dirty-bitmap:since") if kind], [64, 128, 64], "what has changed")
    equal(extents("disk", "qemu:allocation-depth")[1], (64, 1), "what the overlay has")

    print("== nbdcopy: an incremental copy of a chain, holes stay holes")
    run("nbdcopy", "--connections=4", "--request-size=262144", "--allocated", uri("disk"), uri("empty"))
    run("nbdcopy", uri("disk"), "whole.raw")
    run("nbdcopy", "--synchronous", uri("empty"), "again.raw")
    run("cmp", "whole.raw", "again.raw")
    check(os.stat("whole.raw").st_blocks * 512 < 5 * MIB, "holes were copied")
    run("nbdcopy", "--no-extents", "--destination-is-zero", uri("disk"), "null:")

    print("== nbdfuse: the export as a file, read and written")
    os.mkdir("mnt")
    fuse = subprocess.Popen(["nbdfuse", "-C", "4", "mnt/file", uri("disk")])
    try:
        wait_for(lambda: os.path.exists("mnt/file"), "nbdfuse")
        equal(os.stat("mnt/file").st_size, 8 * MIB, "size of the file")
        run("cmp", "mnt/file", "whole.raw")
        with open("mnt/file", "r+b") as file:
            file.seek(4 * MIB)
            file.write(b"by fuse" * 1000)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fallocate(file.fileno(), 0, 512)
        img("compare", "-f", "raw", "-F", "raw", "-U", "mnt/file", uri("disk"))
    finally:
        run("fusermount3", "-u", "mnt")
        equal(fuse.wait(timeout=patience(20)), 0, "nbdfuse")
    equal(run("nbdsh", "-u", uri("disk"), "-c", "print(h.pread(7, 4 << 20))", env=SYSTEM).out.strip(), repr(bytearray(b"by fuse")), "what was written through the file")
    qmp.command("quit")
img("check", "-q", "disk.qcow2")
print("good")
