#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, the file of a FUSE export does not behave as files do: sizes, holes, shared maps, truncation, read-only exports, rights.
# labels: quick interop
# requires: truncate fallocate dd cp
# timeout: 120
import errno
import mmap
import os
import subprocess
from fuse import Server, fails, is_mounted, need_fuse

MiB = 1 << 20
SIZE = 8 * MiB
PUNCH, ZERO, KEEP = 2, 16, 1


def fallocate(fd, mode, offset, length):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def run(*argv, status=0):
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode == 0) == (status == 0), f"{argv}: status {done.returncode}: {done.stderr}"
    return done.stdout + done.stderr


def add_disk(server, form, name="d", size=SIZE):
    image = f"{name}.{form}"
    run(os.path.join(os.environ["SPINDLE_BIN"], "spindle-img"), "create", "-q", "-f", form, image, str(size))
    server.qmp.command("blockdev-add", {"driver": form, "node-name": name, "discard": "unmap", "file": {"driver": "file", "filename": image, "discard": "unmap"}})
    return image


def reads_and_writes(form):
    with Server() as server:
        add_disk(server, form)
        server.export("d", "disk", writable=True)
        fd = os.open("disk", os.O_RDWR)
        assert os.fstat(fd).st_size == SIZE
        assert os.read(fd, 100) == bytes(100)
        data = os.urandom(3 * MiB + 777)
        assert os.pwrite(fd, data, 12345) == len(data)
        assert os.pread(fd, len(data), 12345) == data
        os.fsync(fd)
        allocated = os.fstat(fd).st_blocks * 512
        assert 3 * MiB <= allocated < SIZE + MiB, f"{allocated} bytes allocated"
        assert os.pread(fd, 4096, SIZE - 10) == bytes(10) and os.pread(fd, 10, SIZE) == b"" == os.pread(fd, 10, SIZE + MiB)
        # The end of a disk.
        fails(errno.ENOSPC, os.pwrite, fd, b"x" * 512, SIZE)
        assert os.pwrite(fd, b"y" * 512, SIZE - 100) == 100
        assert os.pread(fd, 200, SIZE - 100) == b"y" * 100
        fails(errno.EPERM, os.ftruncate, fd, SIZE + 512)
        fails(errno.EPERM, os.ftruncate, fd, 512)
        os.ftruncate(fd, SIZE)
        fails(errno.ENOSPC, fallocate, fd, 0, SIZE - 512, 1024)
        # cp and dd open what they write to with O_TRUNC, which takes nothing from a disk.
        os.close(os.open("disk", os.O_WRONLY | os.O_TRUNC))
        assert os.fstat(fd).st_size == SIZE and os.pread(fd, len(data), 12345) == data
        fails(errno.EBUSY, lambda _: server_remove_is_refused(server), None)
        os.close(fd)
        server.remove()
        assert not is_mounted("disk") and os.stat("disk").st_size == 0
    out = subprocess.run(["qemu-io", "-f", form, "-r", "-c", f"read -v {SIZE - 16} 16", f"d.{form}"], capture_output=True, text=True) if have("qemu-io") else None
    assert out is None or "yyyyyyyyyyyyyyyy" in out.stdout, out.stdout + out.stderr
    for name in ("disk", f"d.{form}"):
        os.unlink(name)


def server_remove_is_refused(server):
    try:
        server.remove()
    except Exception as error:
        assert "still in use" in str(error), error
        raise OSError(errno.EBUSY, str(error))


def have(program):
    import shutil
    return shutil.which(program)


def bytes_written(server):
    """By the daemon, as the kernel counts: pages that became dirty."""
    with open(f"/proc/{server.process.pid}/io", encoding="ascii") as numbers:
        return next(int(line.split()[1]) for line in numbers if line.startswith("write_bytes"))


def holes(form):
    with Server() as server:
        add_disk(server, form)
        server.export("d", "disk", writable=True)
        fd = os.open("disk", os.O_RDWR)
        fails(errno.ENXIO, os.lseek, fd, 0, os.SEEK_DATA)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        os.pwrite(fd, b"a" * MiB, 2 * MiB)
        os.pwrite(fd, b"b" * MiB, 5 * MiB)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 2 * MiB and os.lseek(fd, 2 * MiB, os.SEEK_HOLE) == 3 * MiB
        assert os.lseek(fd, 3 * MiB, os.SEEK_DATA) == 5 * MiB and os.lseek(fd, 5 * MiB, os.SEEK_HOLE) == 6 * MiB
        fails(errno.ENXIO, os.lseek, fd, 6 * MiB, os.SEEK_DATA)
        fails(errno.ENXIO, os.lseek, fd, SIZE, os.SEEK_HOLE)
        before = os.fstat(fd).st_blocks
        fallocate(fd, PUNCH | KEEP, 2 * MiB, MiB // 2)
        assert os.pread(fd, MiB, 2 * MiB) == bytes(MiB // 2) + b"a" * (MiB // 2)
        os.fsync(fd)  # qcow2 lets go of clusters only when nothing on the disk refers to them any more
        assert os.fstat(fd).st_blocks <= before - 900, "the space was not given back"
        assert os.lseek(fd, 2 * MiB, os.SEEK_DATA) == 2 * MiB + MiB // 2
        fallocate(fd, ZERO, 5 * MiB + 100, 1000)
        assert os.pread(fd, 1200, 5 * MiB) == b"b" * 100 + bytes(1000) + b"b" * 100
        fallocate(fd, ZERO | KEEP, SIZE - 512, 4096)
        assert os.fstat(fd).st_size == SIZE
        # Space for everything; what was there stays. Formats note it down instead of writing zeroes.
        written = bytes_written(server)
        fallocate(fd, 0, 0, SIZE)
        assert bytes_written(server) - written < MiB, f"fallocate() has written {bytes_written(server) - written} bytes"
        assert os.fstat(fd).st_blocks * 512 >= SIZE, "fallocate() has not allocated"
        fallocate(fd, KEEP, 0, SIZE + MiB)
        assert os.pread(fd, MiB // 2, 2 * MiB + MiB // 2) == b"a" * (MiB // 2) and os.fstat(fd).st_size == SIZE
        assert os.pread(fd, MiB, 0) == bytes(MiB)
        fails(errno.EOPNOTSUPP, fallocate, fd, 0x08, 0, MiB)  # collapsing
        os.close(fd)
    for name in ("disk", f"d.{form}"):
        os.unlink(name)


def grows(form):
    with Server() as server:
        add_disk(server, form, size=MiB)
        server.export("d", "disk", writable=True, growable=True)
        fd = os.open("disk", os.O_RDWR)
        assert os.pwrite(fd, b"tail" * 1024, MiB - 2048) == 4096
        assert os.fstat(fd).st_size == MiB + 2048 and os.pread(fd, 8, MiB + 2040) == b"tailtail"
        os.ftruncate(fd, 4 * MiB)
        assert os.fstat(fd).st_size == 4 * MiB and os.pread(fd, 4096, 4 * MiB - 4096) == bytes(4096)
        run("truncate", "-s", str(2 * MiB), "disk")
        assert os.fstat(fd).st_size == 2 * MiB
        run("fallocate", "-l", str(3 * MiB), "disk")
        assert os.fstat(fd).st_size == 3 * MiB
        fallocate(fd, ZERO, 3 * MiB - 4096, 8192)
        assert os.fstat(fd).st_size == 3 * MiB + 4096
        append = os.open("disk", os.O_WRONLY | os.O_APPEND)
        os.write(append, b"!" * 512)
        os.close(append)
        assert os.pread(fd, 600, 3 * MiB + 4096) == b"!" * 512
        server.qmp.command("block_resize", {"node-name": "d", "size": 5 * MiB})  # by command, while it is open
        assert os.fstat(fd).st_size == 5 * MiB
        os.close(os.open("disk", os.O_RDWR | os.O_TRUNC))
        assert os.fstat(fd).st_size == 0
        os.pwrite(fd, b"again", 0)
        assert os.pread(fd, 5, 0) == b"again"
        os.close(fd)
    for name in ("disk", f"d.{form}"):
        os.unlink(name)


def maps(form):
    """Shared maps, reads and writes through the file, and writes through another export see each other."""
    with Server() as server:
        add_disk(server, form)
        server.export("d", "disk", writable=True)
        server.export("d", "twin", writable=True, id="t")
        fd, twin = os.open("disk", os.O_RDWR), os.open("twin", os.O_RDWR)
        with mmap.mmap(fd, SIZE) as shared:
            assert shared[:10] == bytes(10)
            os.pwrite(fd, b"by write", MiB)
            assert shared[MiB:MiB + 8] == b"by write"
            os.pwrite(fd, b"By", MiB)  # to a page that the map has
            assert shared[MiB:MiB + 8] == b"By write"
            shared[2 * MiB:2 * MiB + 6] = b"by map"
            assert os.pread(fd, 6, 2 * MiB) == b"by map"
            shared[3 * MiB:4 * MiB] = b"m" * MiB
            shared.flush()
            assert os.pread(twin, MiB, 3 * MiB) == b"m" * MiB and os.pread(twin, 6, 2 * MiB) == b"by map"
            shared[4 * MiB:4 * MiB + 4] = b"late"  # nobody flushes this one; closing has to
        os.pwrite(twin, b"elsewhere", 6 * MiB)
        assert os.pread(fd, 9, 6 * MiB) == b"elsewhere", "a read comes from a stale cache"
        os.close(fd)
        os.close(twin)
        server.remove()
        server.remove("t")
        server.export("d", "disk")
        assert open("disk", "rb").read()[4 * MiB:4 * MiB + 4] == b"late"
        with open("disk", "rb") as source, mmap.mmap(source.fileno(), SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ) as private:
            assert private[2 * MiB:2 * MiB + 6] == b"by map"
    for name in ("disk", "twin", f"d.{form}"):
        os.unlink(name)


def read_only():
    with Server() as server:
        image = add_disk(server, "raw")
        server.export("d", "disk")
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC):
            fails(errno.EROFS, os.open, "disk", flags)
        fd = os.open("disk", os.O_RDONLY)
        assert os.fstat(fd).st_mode & 0o777 == 0o400
        fails(errno.EROFS, os.truncate, "disk", 0)
        fails(errno.EROFS, os.chmod, "disk", 0o600)
        os.close(fd)
        assert os.statvfs("disk").f_blocks * 512 == SIZE
        for options, words in (({"growable": True}, "growable=on needs writable=on"), ({"mountpoint": "."}, "must be a regular file"),
                               ({"mountpoint": "nothing"}, "must be an existing regular file")):
            try:
                server.qmp.command("block-export-add", {"type": "fuse", "id": "x", "node-name": "d", "mountpoint": image, **options})
                raise AssertionError(f"{options} was accepted")
            except Exception as error:
                assert words in str(error), error
    os.unlink("disk")
    os.unlink(image)


def rights():
    with Server() as server:
        add_disk(server, "raw")
        server.export("d", "disk", writable=True)
        os.chmod("disk", 0o640)
        assert os.stat("disk").st_mode & 0o7777 == 0o640
        fails(errno.EPERM, os.chmod, "disk", 0o755)
        os.utime("disk", (1000, 2000))
        assert os.stat("disk").st_mtime == 2000
        if os.getuid() == 0:
            os.chown("disk", 1234, 1234)
            assert os.stat("disk").st_uid == 1234
    os.unlink("disk")
    os.unlink("d.raw")


def with_tools():
    """dd, cp --sparse, truncate, fallocate: what people use."""
    with open("source", "wb") as source:
        source.truncate(SIZE)
        source.seek(MiB)
        source.write(os.urandom(MiB))
        source.seek(6 * MiB)
        source.write(os.urandom(MiB // 4))
    with Server() as server:
        add_disk(server, "qcow2")
        server.export("d", "disk", writable=True)
        run("dd", "if=source", "of=disk", "bs=64k", "conv=sparse,notrunc,fsync")
        run("cmp", "source", "disk")
        run("cp", "--sparse=always", "disk", "copy")
        run("cmp", "source", "copy")
        assert os.stat("copy").st_blocks * 512 < 2 * MiB, "the copy is not sparse"
        run("cp", "disk", "copy2")
        run("cmp", "source", "copy2")
        run("cp", "source", "disk")  # O_TRUNC
        run("cmp", "source", "disk")
        run("fallocate", "-p", "-o", str(MiB), "-l", str(MiB), "disk")
        assert open("disk", "rb").read()[MiB:2 * MiB] == bytes(MiB)
        assert "not permitted" in run("truncate", "-s", "1M", "disk", status=1)
        if have("qemu-img"):
            assert '"virtual-size": 8388608' in run("qemu-img", "info", "--output=json", "-f", "raw", "disk")
            run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "source", "disk")
            assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", "source", "disk")
    for name in ("disk", "d.qcow2", "source", "copy", "copy2"):
        os.unlink(name)


need_fuse()
for form in ("raw", "qcow2"):
    for test in (reads_and_writes, holes, grows, maps):
        print(test.__name__, form, flush=True)
        test(form)
for test in (read_only, rights, with_tools):
    print(test.__name__, flush=True)
    test()
