#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, FUSE exports stay mounted when they should not, survive where they must not, or make the daemon wait for itself.
# labels: quick interop
# timeout: 120
import os
import subprocess
import threading
import time
from fuse import DAEMON, GONE, Server, fails, is_mounted, need_fuse

SIZE = 4 << 20
CAP_SYS_ADMIN = 21


def make_image(path="d.raw"):
    with open(path, "wb") as image:
        image.truncate(SIZE)
        image.write(b"image")
    return ["--blockdev", f"driver=file,node-name=d,filename={path}"]


def wait_until(condition, what):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def exports(server):
    return [export["id"] for export in server.qmp.command("query-block-exports")]


def behind_walls():
    """The daemon that mounts has no right to."""
    with Server(*make_image()) as server:
        server.export("d", "disk", writable=True)
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{server.process.pid}/status") if ":\t" in line)
        assert not int(status["CapEff"], 16) >> CAP_SYS_ADMIN & 1 and int(status["Seccomp"]) == 2
        line = next(line.split() for line in open("/proc/self/mounts") if line.split()[1] == os.path.abspath("disk"))
        assert {"rw", "nosuid", "nodev", "noexec", "default_permissions"} <= set(line[3].split(",")), line


def after_kill():
    """A crash leaves a mount that answers nothing; the next export to that place takes it away. What was synced is there."""
    with Server(*make_image()) as server:
        server.export("d", "disk", writable=True)
        fd = os.open("disk", os.O_RDWR)
        os.pwrite(fd, b"before the crash", 8192)
        os.fsync(fd)
        server.kill()
        fails(GONE, os.stat, "disk")
        fails(GONE, os.pread, fd, 10, 0)
        with Server("--blockdev", "driver=file,node-name=d,filename=d.raw", name="q2.sock") as again:
            again.export("d", "disk", writable=True)
            assert open("disk", "rb").read()[8192:8208] == b"before the crash"
            mounts = sum(line.split()[1] == os.path.abspath("disk") for line in open("/proc/self/mounts"))
            assert mounts == 1, f"{mounts} mounts on top of each other"
        server.process.returncode = 0  # as expected
        fails(GONE, os.close, fd)


def ended_by_others():
    """Somebody unmounts the file: the export goes, and can come back."""
    with Server(*make_image()) as server:
        for _ in range(3):
            server.export("d", "disk", writable=True)
            subprocess.run(["fusermount3", "-u", "disk"], check=True)
            wait_until(lambda: not exports(server), "the export of an unmounted file stays")
        server.qmp.event("BLOCK_EXPORT_DELETED")


def hard_removal():
    """Users with the file open: refused; by force they get an error, and the daemon goes on. What they had mapped is not lost."""
    import mmap
    with Server(*make_image()) as server:
        server.export("d", "disk", writable=True)
        fd = os.open("disk", os.O_RDWR)
        shared = mmap.mmap(fd, SIZE)
        shared[4096:4100] = b"dirt"
        try:
            server.remove()
            raise AssertionError("an export in use was removed")
        except Exception as error:
            assert "in use" in str(error), error
        server.remove(mode="hard")
        assert not is_mounted("disk")
        fails(GONE, os.pread, fd, 10, 0)
        shared.close()
        fails(GONE, os.close, fd)
        assert open("d.raw", "rb").read()[4096:4100] == b"dirt"
        server.export("d", "disk")
        assert open("disk", "rb").read(5) == b"image"


def end_under_load():
    """SIGTERM while clients read and write: the daemon ends well, nothing stays mounted, what it had said yes to is in the image."""
    written = {}

    def client(number):
        fd = os.open("disk", os.O_RDWR)
        try:
            for i in range(1 << 20):
                block = number * 100 + i % 100
                os.pwrite(fd, bytes([i % 251 + 1]) * 4096, block * 4096)
                written[block] = i % 251 + 1
        except OSError as error:
            assert error.errno in GONE, error
        finally:
            try:
                os.close(fd)
            except OSError:
                pass

    with Server(*make_image()) as server:
        server.export("d", "disk", writable=True)
        threads = [threading.Thread(target=client, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.stop()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), "a client hangs"
    data = open("d.raw", "rb").read()
    for block, value in written.items():
        found = data[block * 4096]
        assert data[block * 4096:(block + 1) * 4096] == bytes([found]) * 4096 and found in (value, value % 251 + 1), f"block {block} has {found}, not {value}"


def over_itself():
    """The export covers its own image; the daemon does not walk into it, by no way."""
    with Server(*make_image()) as server:
        server.export("d", "d.raw", writable=True)
        fd = os.open("d.raw", os.O_RDWR)
        assert os.pread(fd, 5, 0) == b"image" and os.fstat(fd).st_ino == 1
        os.pwrite(fd, b"IMAGE", 0)
        os.fsync(fd)
        os.close(fd)
        server.qmp.command("query-named-block-nodes")
        try:
            server.qmp.command("blockdev-add", {"driver": "file", "node-name": "again", "filename": "d.raw"})
            raise AssertionError("a node was opened through the daemon's own export")
        except Exception as error:
            assert "export of this very program" in str(error), error
        server.export("d", "d.raw", id="top")  # another one on top of it
        assert open("d.raw", "rb").read(5) == b"IMAGE"
        server.remove("top")
        assert is_mounted("d.raw")
        server.remove()
        server.qmp.command("blockdev-add", {"driver": "file", "node-name": "again", "filename": "d.raw", "read-only": True, "locking": "off"})
        assert open("d.raw", "rb").read(5) == b"IMAGE"


def by_command_line():
    """From the command line, growable, and with a program that ends at once."""
    open("disk", "a").close()
    daemon = subprocess.Popen([DAEMON, *make_image(), "--export", "fuse,id=e,node-name=d,mountpoint=disk,writable=on,growable=on,allow-other=off"])
    wait_until(lambda: is_mounted("disk"), "not mounted")
    with open("disk", "ab") as disk:
        disk.write(b"more")
    daemon.terminate()
    assert daemon.wait() == 0 and not is_mounted("disk")
    assert os.stat("d.raw").st_size == SIZE + 4


need_fuse()
for test in (behind_walls, after_kill, ended_by_others, hard_removal, end_under_load, over_itself, by_command_line):
    print(test.__name__, flush=True)
    test()
    for name in ("disk", "d.raw"):
        if os.path.exists(name):
            os.unlink(name)
