#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a log of writes does not tell what was written, or in an order in which the disk was never written.
# labels: full interop
# requires: qemu-io qemu-img qemu-storage-daemon
# timeout: 120
"""Logs are read by a reader of our own here, which knows nothing but the format of dm-log-writes: applied to an empty disk, the entries
give the disk that was written. The same for the logs of the peer, and each goes on with the other's log."""
import os
import random
import struct
import subprocess
import threading

from jobs import Daemon
from nbd import Nbd, ZEROES

IO = os.path.join(os.environ["SPINDLE_BIN"], "spindle-io")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MIB = 1 << 20


def read_log(name):
    """[(flags, offset, data or length)], sector size, and the file's bytes up to the end of the last entry."""
    with open(name, "rb") as file:
        log = file.read()
    magic, version, count, sector = struct.unpack_from("<QQQI", log)
    assert (magic, version) == (0x6A736677736872, 1), f"{name}: {magic:#x} version {version}"
    entries, at = [], sector
    for number in range(count):
        assert at + sector <= len(log), f"{name} ends before entry {number} of {count}"
        first, sectors, flags, inline = struct.unpack_from("<QQQQ", log, at)
        assert not inline and not any(log[at + 32:at + sector]), f"entry {number} of {name}"
        at += sector
        size = 0 if flags & DISCARD else sectors * sector
        assert at + size <= len(log), f"{name} ends in entry {number}"
        entries.append((flags, first * sector, sectors * sector if flags & DISCARD else log[at:at + size]))
        at += size
    return entries, sector, at


def replay(entries, size):
    disk = bytearray(size)
    for flags, offset, data in entries:
        if flags & DISCARD:
            data = bytes(data)
        disk[offset:offset + len(data)] = data
        assert len(disk) >= size
    return bytes(disk[:size])


def content(name):
    with open(name, "rb") as file:
        return file.read()


def fresh(size="1M"):
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", "disk", size], check=True)
    open("log", "wb").close()


def write(program, commands, status=0, **more):
    options = "driver=blklogwrites,discard=unmap,file.driver=file,file.filename=disk,file.discard=unmap,log.driver=file,log.filename=log"
    options += "".join(f",{key.replace('_', '-')}={value}" for key, value in more.items())
    result = subprocess.run([program, *(word for command in commands for word in ("-c", command)), "-d", "unmap", "--image-opts", options],
                            capture_output=True, text=True, timeout=30)
    assert (result.returncode != 0) == (status != 0), f"{program} {options}: {result}"
    return result


COMMANDS = ["write -P 1 0 4k", "write -f -P 2 4k 512", "flush", "write -z 8k 4k", "write -P 4 10k 1k", "write -zu 16k 4k",
            "write -P 6 32k 16k", "discard 32k 8k", "write -P 3 100 50", "flush"]


def changes(entries):
    """Without flushes, of which one more or less changes nothing, and durability."""
    return [(flags & DISCARD, offset, data) for flags, offset, data in entries if not flags & FLUSH]


for sector in (512, 4096):
    logs = []
    for program in (IO, "qemu-io"):
        fresh()
        write(program, COMMANDS, log_sector_size=sector)
        entries, told_sector, end = read_log("log")
        assert told_sector == sector and end == os.path.getsize("log")
        assert replay(entries, MIB) == content("disk"), f"{program}: the log gives another disk"
        logs.append(changes(entries))
        if program == IO:
            assert any(flags & FUA for flags, _, _ in entries) and sum(flags & FLUSH for flags, _, _ in entries) >= 2
            assert entries[-1][0] & FLUSH, "what was answered is in the log, and then a flush"
    assert logs[0] == logs[1] and len(logs[0]) >= 8, f"{logs[0]}\ninstead of\n{logs[1]}"

# Going on with a log: each program with the other's.
fresh()
for number, program in enumerate((IO, "qemu-io", "qemu-io", IO, IO)):
    write(program, [f"write -P {number + 1} {number * 300} 2k", "flush"], **({"log_append": "on"} if number else {"log_sector_size": 1024}))
entries, told_sector, end = read_log("log")
assert told_sector == 1024 and len(changes(entries)) == 5 and replay(entries, MIB) == content("disk")

# Anew: nothing of the old one counts, not even when no flush has come yet.
write(IO, ["write -P 9 0 512"])
assert len(changes(read_log("log")[0])) == 1

# The first sector lags behind by so many entries at most, also when the program is killed.
for interval, least in ((1, 8), (3, 6), (1000, 0)):
    fresh()
    write(IO, [f"write -P {n + 1} {n * 512} 512" for n in range(8)] + ["abort"], status=1, log_super_update_interval=interval)
    entries = read_log("log")[0]
    assert len(entries) >= least and replay(entries, MIB)[:len(entries) * 512] == content("disk")[:len(entries) * 512]
    assert interval > 8 and len(entries) <= 1 or interval <= 8, f"interval {interval}: {len(entries)}"


# What is no log, and contradictions; both programs say no.
def superblock(magic=0x6A736677736872, version=1, count=0, sector=512):
    return struct.pack("<QQQI", magic, version, count, sector) + bytes(1000)


for bad in (b"x" * 512, superblock(magic=1), superblock(version=2), superblock(sector=500)):
    for program in (IO, "qemu-io"):
        fresh()
        with open("log", "wb") as file:
            file.write(bad)
        write(program, ["write 0 512"], status=1, log_append="on")
        assert content("log") == bad, f"{program} has changed what is no log"
for options in ({"log_append": "on", "log_sector_size": 512}, {"log_sector_size": 100}, {"log_sector_size": 0}, {"log_sector_size": 1 << 24},
                {"log_super_update_interval": 0}):
    for program in (IO, "qemu-io"):
        fresh()
        write(program, ["length"], status=1, **options)
# A log that claims more than it has: ours alone says so.
fresh()
for lie in (superblock(count=1 << 60), superblock(count=1)[:512] + struct.pack("<QQQQ", 0, 1 << 62, 0, 0) + bytes(480),
            superblock(count=2)[:512] + struct.pack("<QQQQ", 0, 1, 0, 0) + bytes(480)):
    with open("log", "wb") as file:
        file.write(lie)
    answer = write(IO, ["write 0 512"], status=1, log_append="on").stderr
    assert "log" in answer and ("ends after" in answer or "sectors" in answer), answer

# A disk that ends in the middle of a sector keeps its size.
fresh("1000")
write(IO, ["write -P 5 512 488"])
assert len(content("disk")) in (1000, 1024) and content("disk")[512:1000] == b"\5" * 488 and replay(read_log("log")[0], 1000) == content("disk")[:1000]

# Guests that overwrite each other, in a daemon: the order of the log is the order of the disk.
fresh("256k")
with Daemon() as daemon:
    daemon.do("blockdev-add", driver="blklogwrites", node_name="l", discard="unmap", log_super_update_interval=7,
              file={"driver": "file", "filename": "disk"}, log={"driver": "file", "filename": "log"})
    daemon.export("l")
    problems = []

    def work(number):
        rng = random.Random(number)
        with Nbd("nbd.sock", "l") as nbd:
            for turn in range(120):
                place, length = rng.randrange(0, 64) * 512, rng.randrange(1, 40) * 512
                kind = rng.randrange(10)
                problems.append(nbd.simple(3) if kind == 0 else nbd.simple(ZEROES, place, length) if kind == 1
                                else nbd.write(place, bytes([number * 60 + turn % 60]) * length))

    guests = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.join()
    assert not any(problems), problems
entries = read_log("log")[0]
assert len(changes(entries)) > 400 and replay(entries, 256 << 10) == content("disk"), "the log gives another disk than the one written"

# Below an image that grows: every state of the log at a flush is an image without mistakes.
subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "disk", "4M"], check=True)
before = content("disk")
open("log", "wb").close()
commands = [word for n in range(12) for word in ("-c", f"write -P {n + 1} {n * 200}k 100k", "-c", "flush")]
subprocess.run([IO, *commands, "--image-opts", "driver=qcow2,file.driver=blklogwrites,file.file.driver=file,file.file.filename=disk,"
                "file.log.driver=file,file.log.filename=log"], check=True, stdout=subprocess.DEVNULL)
disk, checked = bytearray(before), 0
for flags, offset, data in read_log("log")[0]:
    if flags & FLUSH:
        with open("moment", "wb") as file:
            file.write(disk)
        result = subprocess.run(["qemu-img", "check", "-f", "qcow2", "moment"], capture_output=True, text=True)
        assert result.returncode in (0, 3), f"after a flush: {result.stdout}{result.stderr}"
        checked += 1
    elif not flags & DISCARD:
        if len(disk) < offset:
            disk += bytes(offset - len(disk))
        disk[offset:offset + len(data)] = data
assert checked >= 12
with open("moment", "wb") as file:
    file.write(disk)
subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", "moment", "disk"], check=True, stdout=subprocess.DEVNULL)
print("ok")
