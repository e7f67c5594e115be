#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `convert --resume` skips what a power cut has taken away: its state gets to the disk before the data does.
# labels: full
# requires: strace qemu-img
# timeout: 240
"""A conversion is recorded, system call by system call, with the bytes it writes. Then the power fails at moments of that record: what was
written and not synced is on the disk, or not, or in part; the state file is the last one whose directory was synced, or a later one. From each
of these disks the conversion goes on, and must make the right image."""
import os
import random
import re
import subprocess
import sys

from image import OUR_IMG, check, content, img, their_img, write_file
from patience import patience

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
print(f"SEED={SEED}")
rng = random.Random(SEED)
K, M = 1024, 1024 * 1024
CUTS = 12
CALLS = "openat,close,write,pwrite64,pwritev,pwritev2,fdatasync,fsync,ftruncate,fallocate,rename"


def record(words, target):
    """Lines of strace, with what was said in two lines put together: (begin, end, name, arguments, result)."""
    env = dict(os.environ, SPINDLE_LOOP="epoll", ASAN_OPTIONS="detect_leaks=0")
    subprocess.run(["strace", "-f", "-xx", "-v", "-s", str(2 * M), "-o", "record", "-e", "trace=" + CALLS, OUR_IMG, *words, target],
                   check=True, env=env, timeout=patience(100), stdout=subprocess.DEVNULL)
    calls, open_calls = [], {}
    with open("record", encoding="ascii") as file:
        for number, line in enumerate(file):
            thread, text = line.rstrip("\n").split(None, 1)
            if text.startswith("<... "):
                begin, before = open_calls.pop(thread)
                text = before + text.split(" resumed>", 1)[1]
            elif text.endswith(" <unfinished ...>"):
                open_calls[thread] = (number, text[:-len(" <unfinished ...>")])
                continue
            else:
                begin = number
            whole = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", text)
            if whole:
                calls.append((begin, number, whole[1], whole[2], int(whole[3])))
    return calls


def unhex(text):
    return bytes(int(byte, 16) for byte in re.findall(r"\\x(..)", text))


class Disk:
    """What happened to the target and to the state file: lists of (begin, end, operation)."""

    def __init__(self, calls, target):
        self.writes, self.syncs, self.states = [], [], []  # states: (time it may be there, time it is there, content)
        names, new_state, renamed = {}, b"", None
        for begin, end, name, arguments, result in sorted(calls, key=lambda call: call[1]):
            if result < 0:
                continue
            fd = int(arguments.split(",")[0]) if re.match(r"\d+(,|$)", arguments) else None
            if name == "openat":
                names[result] = os.path.basename(unhex(arguments.split('"')[1]).decode())
                if names[result] == target and "O_TRUNC" in arguments:
                    self.writes.append((begin, end, ("truncate", 0)))
                new_state = b"" if names[result].endswith(".new") else new_state
            elif name == "close":
                names.pop(fd, None)
            elif name == "rename":
                renamed = (begin, new_state)
            elif names.get(fd) == target:
                self.on_target(begin, end, name, arguments)
            elif name == "write" and names.get(fd, "").endswith(".new"):
                new_state += unhex(arguments)
            elif name == "fsync" and renamed and not names[fd].endswith(".new"):
                self.states.append((renamed[0], end, renamed[1]))
                renamed = None

    def on_target(self, begin, end, name, arguments):
        if name.startswith("pwrite"):
            offset = int(re.findall(r"-?\d+", arguments.rsplit("}]" if "}]" in arguments else '"', 1)[1])[1])
            data = b"".join(unhex(piece) for piece in re.findall(r'"([^"]*)"', arguments))
            self.writes.append((begin, end, ("write", offset, data)))
        elif name == "ftruncate":
            self.writes.append((begin, end, ("truncate", int(arguments.split(",")[1]))))
        elif name == "fallocate":
            numbers = [int(number) for number in arguments.rsplit(",", 2)[1:]]
            self.writes.append((begin, end, ("allocate" if "PUNCH" not in arguments and "ZERO" not in arguments else "zero", *numbers)))
        elif name in ("fdatasync", "fsync"):
            self.syncs.append((begin, end))
        else:
            sys.exit(f"FAILED: {name} of the target is not understood")

    def after_cut(self, moment):
        """One of the disks that a cut at that moment can leave: (target, state or None)."""
        safe = max((begin for begin, end in self.syncs if end < moment), default=-1)
        image = bytearray()
        for begin, end, operation in self.writes:
            if begin >= moment:
                continue
            self.apply(image, operation, certain=end < safe)
        states = [content for begin, end, content in self.states if end < moment]
        later = [content for begin, end, content in self.states if begin < moment <= end]
        return bytes(image), rng.choice(later + states[-1:]) if later or states else None

    @staticmethod
    def apply(image, operation, certain):
        kind, offset, *rest = operation
        if kind == "truncate":  # sizes of files do not lag behind
            image[offset:] = bytes(max(0, offset - len(image)))
            return
        length = len(rest[0]) if kind == "write" else rest[0]
        image.extend(bytes(max(0, offset + length - len(image))))
        new = rest[0] if kind == "write" else bytes(length)
        step = length if certain else rng.choice([length, 4096, 512])  # what is written as a whole
        for at in range(0, 0 if kind == "allocate" else length, max(step, 1)):
            part = new[at:at + step]
            if certain or rng.random() < 0.5:
                image[offset + at:offset + at + len(part)] = part


data = bytearray(3 * M + 512)
for _ in range(25):
    at = rng.randrange(3 * M - 100 * K)
    data[at:at + rng.randrange(100 * K)] = rng.randbytes(100 * K)[:rng.randrange(100 * K)]
data = bytes(data[:3 * M + 512].ljust(3 * M + 512, b"\0"))
write_file("s.raw", data)
skipped = 0
for form, words in (("raw", ["-O", "raw"]), ("qcow2", ["-O", "qcow2", "-o", "cluster_size=4k"]), ("qcow2", ["-c", "-O", "qcow2"])):
    words = ["convert", "--resume", *words, "-f", "raw", "s.raw"]
    slow = words[:2] + ["-r", str(3 * M)] + words[2:]
    calls = record(slow, "t")
    disk = Disk(calls, "t")
    check(len(disk.states) >= 3 and len(disk.writes) >= 3, f"{form}: {len(disk.states)} states, {len(disk.writes)} writes")
    moments = [end + 1 for _, end, _ in disk.states[1:]] + rng.sample(range(disk.states[0][1] + 1, calls[-1][1]), CUTS)
    for moment in rng.sample(moments, min(CUTS, len(moments))):
        image, state = disk.after_cut(moment)
        write_file("t", image)  # the same inode as in the state
        state = re.sub(rb'"target-inode": \d+', b'"target-inode": %d' % os.stat("t").st_ino, state)
        write_file("t.resume", state)
        skipped += int(re.search(rb'"done": (\d+)', state)[1])
        img(*words, "t")
        if form == "qcow2":
            their_img("check", "-q", "t")
        their_img("convert", "-f", form, "-O", "raw", "t", "back.raw")
        check(content("back.raw") == data + bytes(len(content("back.raw")) - len(data)), f"{words}: power cut at line {moment} of the record")
    os.unlink("t")
check(skipped > 3 * M, f"only {skipped} bytes were not copied again: the test does not show anything")
