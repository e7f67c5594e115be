#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a reader of a snapshot sees what was written after it, or what he may not see, or guests suffer from it.
# labels: full interop
# requires: qemu-img
# timeout: 120
"""copy-before-write and snapshot-access as users build them: fleecing a disk under writes, by a bitmap, and with errors."""
import os
import resource
import signal

from jobs import MIB, Daemon, Guest, Nbd, check, content, make, run


def fleece(daemon, **options):
    """What a backup program does: the disk's users are above the filter, which was put in before they came."""
    daemon.add("disk", "disk.q")
    daemon.add("copy", "copy.q")
    daemon.do("blockdev-add", driver="copy-before-write", node_name="filter", file="disk", target="copy", discard="unmap", **options)
    daemon.do("blockdev-add", driver="snapshot-access", node_name="snapshot", file="filter")
    daemon.export("filter", "disk")
    daemon.export("snapshot", writable=False)


def images():
    make("disk.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 8M", "disk.q")
    make("copy.q")


def snapshot_stays():
    images()
    with Daemon() as daemon:
        fleece(daemon)
        with Guest("disk", first=2) as guest:
            reader = Nbd("nbd.sock", "snapshot")
            wanted = b"\1" * (8 * MIB) + bytes(8 * MIB)
            for _ in range(3):
                guest.progress(200)
                found = b"".join(reader.read(at, MIB)[1] for at in range(0, 16 * MIB, MIB))
                assert found == wanted
            assert reader.write(0, b"x" * 512)  # it is not for writing
            reader.close()
            guest.stop()
            latest = guest.expected()
        daemon.do("quit")
    assert content("disk.q") == latest
    check("copy.q")


def by_bitmap():
    """Only what the bitmap marks can be read, and only that is copied."""
    images()
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.add("copy", "copy.q")
        daemon.do("block-dirty-bitmap-add", node="disk", name="changed")
        daemon.export("disk", "before")
        nbd = Nbd("nbd.sock", "before")
        assert not nbd.write(2 * MIB, b"\2" * MIB)
        nbd.close()
        daemon.do("block-export-del", id="before", mode="hard")
        daemon.qmp.event("BLOCK_EXPORT_DELETED")
        daemon.do("blockdev-add", driver="copy-before-write", node_name="filter", file="disk", target="copy",
                  bitmap={"node": "disk", "name": "changed"})
        daemon.do("blockdev-add", driver="snapshot-access", node_name="snapshot", file="filter")
        daemon.export("filter", "disk")
        daemon.export("snapshot", writable=False)
        guest, reader = Nbd("nbd.sock", "disk"), Nbd("nbd.sock", "snapshot")
        assert not guest.write(0, b"\7" * (4 * MIB))
        assert reader.read(2 * MIB, MIB) == (0, b"\2" * MIB)
        assert reader.read(0, 65536)[0] and reader.read(3 * MIB, 65536)[0]
        guest.close()
        reader.close()
        daemon.do("quit")
    copied = content("copy.q")
    assert copied == bytes(2 * MIB) + b"\2" * MIB + bytes(13 * MIB)


def when_copying_fails():
    """The copy's file cannot grow: either the guest's write fails, or the snapshot is lost and the guest goes on."""
    for policy in ("break-guest-write", "break-snapshot"):
        images()
        run("qemu-io", "-f", "qcow2", "-c", "write -P 3 8M 8M", "copy.q")  # so that the limit below is no limit for disk.q
        with Daemon(preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN)) as daemon:
            fleece(daemon, on_cbw_error=policy)
            guest, reader = Nbd("nbd.sock", "disk"), Nbd("nbd.sock", "snapshot")
            assert not guest.write(0, b"\7" * 65536)
            assert reader.read(0, 65536) == (0, b"\1" * 65536)
            limit = os.stat("copy.q").st_size
            assert limit > os.stat("disk.q").st_size
            resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            error = guest.write(4 * MIB, b"\7" * MIB)
            resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if policy == "break-guest-write":
                assert error
                assert reader.read(4 * MIB, 4096) == (0, b"\1" * 4096)
                assert not guest.write(4 * MIB, b"\7" * MIB)
                assert reader.read(4 * MIB, 4096) == (0, b"\1" * 4096)
            else:
                assert not error
                assert reader.read(4 * MIB, 4096)[0]
            assert guest.read(4 * MIB, 4096) == (0, b"\7" * 4096)
            guest.close()
            reader.close()
            daemon.do("quit")


def mistakes():
    images()
    make("small.q", "1M")
    with Daemon() as daemon:
        daemon.add("disk", "disk.q")
        daemon.add("small", "small.q")
        assert "less than" in daemon.refuses("blockdev-add", driver="copy-before-write", node_name="f", file="disk", target="small")
        assert "copy-before-write" in daemon.refuses("blockdev-add", driver="snapshot-access", node_name="s", file="disk")
        daemon.add("copy", "copy.q")
        assert "power of 2" in daemon.refuses("blockdev-add", **{"driver": "copy-before-write", "node-name": "f", "file": "disk",
                                                                 "target": "copy", "min-cluster-size": 70000})
        daemon.do("quit")


def copy_on_read():
    """What is read stays, and is right; the backing image is not needed for it any more."""
    make("base.q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 16M", "base.q")
    make("top.q", backing="base.q")
    with Daemon() as daemon:
        daemon.add("disk", "top.q", backing={"driver": "qcow2", "file": {"driver": "file", "filename": "base.q"}})
        daemon.do("blockdev-add", driver="copy-on-read", node_name="cor", file="disk")
        daemon.export("cor", "disk")
        nbd = Nbd("nbd.sock", "disk")
        assert nbd.read(MIB + 1000, 100000) == (0, b"\5" * 100000)
        assert not nbd.write(3 * MIB, b"\6" * 4096)
        assert nbd.read(3 * MIB, 8192) == (0, b"\6" * 4096 + b"\5" * 4096)
        nbd.close()
        daemon.do("quit")
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", "top.q")
    data = content("top.q")
    assert data[MIB + 1000:MIB + 101000] == b"\5" * 100000 and data[3 * MIB:3 * MIB + 4096] == b"\6" * 4096
    assert data[8 * MIB:] == bytes(8 * MIB)
    check("top.q")


snapshot_stays()
by_bitmap()
when_copying_fails()
mistakes()
copy_on_read()
