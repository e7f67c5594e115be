#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, requests of a FUSE export wait for each other, or data is lost or mixed up when many are in flight.
# labels: full interop
# timeout: 180
import hashlib
import os
import shutil
import subprocess
import threading
import time
from fuse import Server, need_fuse

MiB = 1 << 20
SIZE = 32 * MiB


def many_in_flight():
    """64 threads on a disk that takes 200 ms a request: together they take little longer than one."""
    with Server("--blockdev", f"driver=null-aio,node-name=slow,size={SIZE},latency-ns=200000000,read-zeroes=on") as server:
        server.export("slow", "disk", writable=True)
        fd = os.open("disk", os.O_RDWR)
        for work in (lambda i: os.pread(fd, 4096, i * 8192), lambda i: os.pwrite(fd, bytes(4096), i * 8192)):
            threads = [threading.Thread(target=work, args=(i,)) for i in range(64)]
            start = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.monotonic() - start
            assert took < 64 * 0.2 / 4, f"64 requests of 200 ms took {took:.1f} s: they wait for each other"
        os.close(fd)


def fio_verified(form):
    """fio writes and checks, direct and through maps, at depth and at once from several jobs."""
    with Server() as server:
        subprocess.run([os.path.join(os.environ["SPINDLE_BIN"], "spindle-img"), "create", "-q", "-f", form, "d.img", str(SIZE)], check=True)
        server.qmp.command("blockdev-add", {"driver": form, "node-name": "d", "file": {"driver": "file", "filename": "d.img"}})
        server.export("d", "disk", writable=True)
        common = ["fio", "--name=v", "--filename=disk", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--output=fio.log"]
        for options in (["--ioengine=libaio", "--direct=1", "--iodepth=32", "--rw=randwrite", "--bs=4k", f"--size={SIZE // 2}"],
                        ["--ioengine=libaio", "--direct=1", "--iodepth=8", "--rw=randrw", "--bsrange=512-256k", f"--size={SIZE // 2}"],
                        ["--ioengine=psync", "--rw=randwrite", "--bs=16k", "--numjobs=4", f"--size={SIZE // 4}", f"--offset_increment={SIZE // 4}"],
                        ["--ioengine=mmap", "--rw=randwrite", "--bs=4k", f"--size={SIZE // 4}"]):
            done = subprocess.run(common + options, capture_output=True, text=True)
            assert done.returncode == 0, f"{options}: {done.stdout}{done.stderr}{open('fio.log').read()[-2000:]}"
        digest = hashlib.md5(open("disk", "rb").read()).hexdigest()
        server.remove()
        server.qmp.command("blockdev-del", {"node-name": "d"})
    if shutil.which("qemu-img"):  # somebody else reads the same
        subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", "d.img", "out"], check=True)
        assert hashlib.md5(open("out", "rb").read()).hexdigest() == digest
        if form == "qcow2":
            subprocess.run(["qemu-img", "check", "-q", "-f", form, "d.img"], check=True)
    for name in ("disk", "d.img"):
        os.unlink(name)


def same_for_all():
    """The sum of the disk is the same for each of many readers while others write elsewhere and allocate around them."""
    with open("d.raw", "wb") as image:
        image.write(os.urandom(SIZE // 2))
        image.truncate(SIZE)
    expected = hashlib.md5(open("d.raw", "rb").read(SIZE // 2)).hexdigest()
    stop, problems = threading.Event(), []

    def read():
        with open("disk", "rb", buffering=0) as disk:
            digest = hashlib.md5()
            for _ in range(SIZE // 2 // 65536):
                digest.update(disk.read(65536))
            if digest.hexdigest() != expected:
                problems.append(digest.hexdigest())

    def write(number):
        """Writers and fallocate() in the same place: what was written stays."""
        fd = os.open("disk", os.O_RDWR)
        i = 0
        while not stop.is_set():
            place = SIZE // 2 + (i * 7 + number) % 512 * 8192 + number * 4 * MiB
            data = bytes([i % 255 + 1]) * 5000
            os.pwrite(fd, data, place)
            if os.pread(fd, 5000, place) != data:
                problems.append(f"write at {place} is gone")
            i += 1
        os.close(fd)

    def allocate():
        fd = os.open("disk", os.O_RDWR)
        while not stop.is_set():
            os.posix_fallocate(fd, SIZE // 2, SIZE // 2)
        os.close(fd)

    with Server("--blockdev", "driver=file,node-name=d,filename=d.raw") as server:
        server.export("d", "disk", writable=True)
        helpers = [threading.Thread(target=write, args=(i,)) for i in range(3)] + [threading.Thread(target=allocate)]
        readers = [threading.Thread(target=read) for _ in range(4)]
        for thread in helpers + readers:
            thread.start()
        for thread in readers:
            thread.join()
        stop.set()
        for thread in helpers:
            thread.join()
    assert not problems, problems[:5]


need_fuse()
many_in_flight()
if shutil.which("fio"):
    for form in ("raw", "qcow2"):
        fio_verified(form)
same_for_all()
