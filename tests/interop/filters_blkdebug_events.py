#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an event of blkdebug is not told of at the moment that it is named after, and tests that wait there wait forever.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 240
"""Each event gets a breakpoint, and commands that must come by it, in both programs."""
import os
import pty
import select
import subprocess
import time

from image import OUR_IMG, OUR_IO, their_img, their_io

MIB = 1 << 20
# Nobody comes by these: no program of ours saves machine states, refcount blocks are written as a whole, and an L1 table keeps its size.
NEVER = {"vmstate_load", "vmstate_save", "refblock_update_part", "l1_shrink_write_table", "none"}


def empty(*options, size="1M"):
    def make():
        their_img("create", "-q", "-f", "qcow2", *(word for option in options for word in ("-o", option)), "disk", size)
    return make


def filled(*options, size="1M", command="write -P 1 0 256k"):
    def make():
        empty(*options, size=size)()
        their_io("disk", command, form="qcow2")
    return make


def overlay():
    filled()()
    os.rename("disk", "base")
    their_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "disk")


def snapshot():
    filled()()
    their_img("snapshot", "-c", "s", "disk")


def raw():
    their_img("create", "-q", "-f", "raw", "disk", "1M")


SMALL = ("cluster_size=512", "refcount_bits=64")
WRITE = ["write -P 3 64k 64k", "flush"]
PACKED = ["write -c -P 3 0 64k", "flush"]
LARGER = ["write -P 3 0 4M", "flush"]
# event: image, commands, does the peer come by as well?
CASES = {
    "l1_update": (empty(), WRITE, True),
    "l1_grow_alloc_table": (empty("cluster_size=512"), ["truncate 16M"], True),
    "l1_grow_write_table": (empty("cluster_size=512"), ["truncate 16M"], True),
    "l1_grow_activate_table": (empty("cluster_size=512"), ["truncate 16M"], True),
    "l2_load": (filled(), ["read 0 4k"], True),
    "l2_update": (empty(), WRITE, True),
    "l2_update_compressed": (empty(), PACKED, True),
    "l2_alloc_cow_read": (snapshot, ["write 0 64k"], True),
    "l2_alloc_write": (empty(), WRITE, True),
    "read_aio": (filled(), ["read 0 4k"], True),
    "read_backing_aio": (overlay, ["read 0 4k"], True),
    "read_compressed": (filled(command="write -c -P 7 0 64k"), ["read 0 4k"], True),
    "write_aio": (empty(), WRITE, True),
    "write_compressed": (empty(), PACKED, True),
    "cow_read": (overlay, ["write 512 512"], True),
    "cow_write": (overlay, ["write 512 512"], True),
    "reftable_grow": (empty(*SMALL, size="8M"), LARGER, True),
    "reftable_update": (empty(*SMALL, size="8M"), LARGER, False),
    "refblock_load": (filled(*SMALL, command="write -P 1 0 1M"), ["discard 512k 128k", "flush"], True),
    "refblock_update": (empty(), WRITE, False),
    "refblock_alloc": (empty(*SMALL, size="8M"), LARGER, True),
    "refblock_alloc_hookup": (empty(*SMALL, size="8M"), LARGER, True),
    "refblock_alloc_write": (empty(*SMALL, size="8M"), LARGER, True),
    "refblock_alloc_write_blocks": (empty(*SMALL, size="8M"), LARGER, True),
    "refblock_alloc_write_table": (empty(*SMALL, size="8M"), LARGER, True),
    "refblock_alloc_switch_table": (empty(*SMALL, size="8M"), LARGER, True),
    "cluster_alloc": (empty(), WRITE, True),
    "cluster_alloc_bytes": (empty(), PACKED, True),
    "cluster_free": (filled(), ["discard 0 128k", "flush"], True),
    "flush_to_os": (filled(), WRITE, True),
    "flush_to_disk": (filled(), WRITE, True),
    "pwritev_rmw_head": (raw, ["write 512 8k"], True),
    "pwritev_rmw_after_head": (raw, ["write 512 8k"], True),
    "pwritev_rmw_tail": (raw, ["write 0 6k"], True),
    "pwritev_rmw_after_tail": (raw, ["write 0 6k"], True),
    "pwritev": (raw, ["write 0 4k"], True),
    "pwritev_zero": (raw, ["write -z 0 4k"], True),
    "pwritev_done": (raw, ["write 0 4k"], True),
    "l1_shrink_free_l2_clusters": (filled(size="4M", command="write -P 1 2M 1M"), ["truncate 1M"], False),
    "cor_write": (overlay, ["read 0 64k"], False),
    "cluster_alloc_space": (empty(), ["write 512 512"], False),
}


def comes_by(program, event, commands, form):
    """Does the program stop at the event? Its words come line by line only on a terminal."""
    options = f"driver={form},discard=unmap,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk"
    if form == "raw":
        options = "driver=blkdebug,align=4096,image.driver=file,image.filename=disk"
    if event == "cor_write":
        options = ",".join("file." + word for word in options.split(","))
        options = "driver=copy-on-read," + options
    words = [word for command in [f"break {event} A", *commands] for word in ("-c", command)]
    master, slave = pty.openpty()
    process = subprocess.Popen([program, *words, "-d", "unmap", "--image-opts", options], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
    os.close(slave)
    said, end = b"", time.monotonic() + 10
    while b"Suspended request 'A'" not in said and time.monotonic() < end:
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            said += os.read(master, 4096)
        except OSError:  # it has ended
            break
    process.kill()
    process.wait()
    os.close(master)
    assert b"Sanitizer" not in said and b"Could not set" not in said, f"{program} {event}: {said.decode()}"
    return b"Suspended request 'A'" in said, said.decode()


seen = set()
for event, (make, commands, both) in CASES.items():
    for program in (OUR_IO, "qemu-io") if both else (OUR_IO,):
        make()
        came, said = comes_by(program, event, commands, "raw" if make is raw else "qcow2")
        assert came, f"{program} does not come by {event}:\n{said}"
    seen.add(event)

# When an image is opened or emptied there is no time for breakpoints: a rule lets what follows fail.
RULE = "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk,file.inject-error.0.event="
for event, make, words in (("reftable_load", filled(), ["-c", "read 0 512"]), ("empty_image_prepare", overlay, None)):
    for program in (OUR_IO, "qemu-io"):
        make()
        if words:
            command = [program, *words, "--image-opts", RULE + event]
        else:
            their_io("disk", "write -P 9 0 64k", form="qcow2")
            command = [OUR_IMG if program == OUR_IO else "qemu-img", "commit", "--image-opts", RULE + event]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert result.returncode == 1 and "nput/output error" in result.stdout + result.stderr, f"{command}: {result}"
        if event == "empty_image_prepare":
            assert their_io("base", "read -P 9 0 64k", form="qcow2").status == 0, "it was committed before"
    seen.add(event)

# Every event there is has been tried.
names = subprocess.run([OUR_IO, "-c", "break nonsense A", "--image-opts", RULE + "none"], capture_output=True, text=True)
with open(os.path.join(os.environ["SPINDLE_SRC"], "qmp/schema/block-core.json"), encoding="utf-8") as schema:
    listed = schema.read().split("'enum': 'BlkdebugEvent',")[1].split("]")[0]
listed = {word.strip(" '\n") for word in listed.split("[")[1].split(",")}
assert listed == seen | NEVER, f"never tried: {listed - seen - NEVER}; unknown: {(seen | NEVER) - listed}"
print(f"{len(seen)} events")
