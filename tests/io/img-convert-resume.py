#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an interrupted `convert --resume` makes a wrong image, begins anew each time, or goes on where source or target are not what they were.
# labels: full
# requires: qemu-img
# timeout: 240
import json
import os
import random
import shutil
import signal
import subprocess
import time

from image import OUR_IMG, check, content, equal, fail, img, run, their_img, write_file
from patience import patience

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
print(f"SEED={SEED}")
rng = random.Random(SEED)
K, M = 1024, 1024 * 1024
SIZE = 24 * M + 512


def make_source():
    data = bytearray(SIZE)
    for _ in range(60):
        at, length = rng.randrange(SIZE - 200 * K), rng.randrange(1, 200 * K)
        data[at:at + length] = rng.randbytes(length)
    data[12 * M:16 * M] = bytes(4 * M)
    data[-512:] = b"e" * 512
    write_file("s.raw", data)
    their_img("convert", "-f", "raw", "-O", "qcow2", "s.raw", "s.q")


def state_of(target):
    try:
        return json.loads(content(target + ".resume"))["done"]
    except FileNotFoundError:
        return None


def kill_after(words, seconds, signum):
    process = subprocess.Popen([OUR_IMG, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(patience(seconds))
    process.send_signal(signum)
    err = process.communicate(timeout=patience(60))[1].decode()
    check("Sanitizer" not in err and "runtime error" not in err, err)
    return process.returncode, err


def interrupted(words, target, wanted, form, kills=4):
    """Returns how many runs went on where another was."""
    went_on, before = 0, None
    for _ in range(kills):
        signum = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        status, err = kill_after(["convert", "--resume", "-r", str(24 * M), *words, target], rng.uniform(0.05, 0.7), signum)
        now = state_of(target)
        if status == 0:
            equal(now, None, "the state of a conversion that succeeded")
            break
        check(status in (-signum, 1), f"status {status}: {err}")
        check(before is None or now >= before, f"{words}: the conversion went back from {before} to {now}")
        went_on += bool(before)
        before = now
    went_on += bool(state_of(target))
    img("convert", "--resume", "--checksum", *words, target)
    equal(state_of(target), None, "state file after success")
    check(not os.path.exists(target + ".resume.new"), "a new state is left")
    if form == "qcow2":
        their_img("check", "-q", target)  # no leak either
    their_img("convert", "-f", form, "-O", "raw", target, "back.raw")
    check(content("back.raw")[:len(wanted)] == wanted, f"{words}: the content is wrong")
    os.unlink(target)
    return went_on


make_source()
data = content("s.raw")
went_on = 0
for form, words in [("raw", ["-O", "raw", "s.q"]), ("qcow2", ["-O", "qcow2", "s.q"]), ("qcow2", ["-c", "-O", "qcow2", "s.q"]),
                    ("qcow2", ["-c", "-O", "qcow2", "-o", "compression_type=zstd", "s.q"]),
                    ("qcow2", ["-W", "-O", "qcow2", "-o", "cluster_size=4k", "s.q"]), ("raw", ["-C", "-f", "raw", "-O", "raw", "s.raw"]),
                    ("qcow2", ["-O", "qcow2", "-o", "lazy_refcounts=on", "-f", "raw", "s.raw"]),
                    ("qcow2", ["-O", "qcow2", "-o", "preallocation=metadata", "-f", "raw", "s.raw"]),
                    ("raw", ["-t", "none", "-f", "raw", "s.raw"]), ("raw", ["-S", "0", "s.q"])]:
    went_on += interrupted(words, "t", data, form)
went_on += interrupted(["-f", "raw", "s.raw", "s.raw"], "t", data + data, "raw")
check(went_on >= 6, f"only {went_on} runs went on where another one was")

# Over a backing file, with bitmaps, and into a target that exists and is not zero.
their_img("create", "-q", "-f", "qcow2", "-b", "s.q", "-F", "qcow2", "top.q")
run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 1M 9M", "-c", "write -q -z 17M 2M", "top.q")
their_img("convert", "-O", "raw", "top.q", "top.raw")
interrupted(["-O", "qcow2", "-B", "s.q", "-F", "qcow2", "top.q"], "t", content("top.raw")[:SIZE], "qcow2")
their_img("bitmap", "--add", "top.q", "b0")
their_img("convert", "-f", "raw", "-O", "qcow2", "s.raw", "b.q")
their_img("bitmap", "--add", "b.q", "b0")
run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 1M 1M", "b.q")
their_img("convert", "-O", "raw", "b.q", "b.raw")
words = ["convert", "--resume", "-r", str(24 * M), "--bitmaps", "-O", "qcow2", "b.q", "t"]
kill_after(words, 0.4, signal.SIGINT)
img(*words)
shutil.copy("t", "t.first")
kill_after(words, 0.4, signal.SIGKILL)
img("convert", "--resume", "--bitmaps", "-O", "qcow2", "b.q", "t")
equal([b["name"] for b in json.loads(their_img("info", "--output=json", "t").out)["format-specific"]["data"]["bitmaps"]], ["b0"], "bitmaps")
their_img("compare", "b.q", "t")
write_file("t", rng.randbytes(SIZE))
for _ in range(2):
    kill_after(["convert", "-n", "--resume", "-r", str(24 * M), "-O", "raw", "s.q", "t"], 0.3, signal.SIGKILL)
img("convert", "-n", "--resume", "-O", "raw", "s.q", "t")
check(content("t") == data, "a target that had other content")

# What is not as it was is refused, and the way out is named.
begin = ["convert", "--resume", "-r", str(24 * M), "-f", "raw", "-O", "qcow2", "s.raw", "t"]
again = ["convert", "--resume", "-f", "raw", "-O", "qcow2", "s.raw", "t"]


def left(signum=signal.SIGINT):
    for leftover in ("t", "t.resume"):
        if os.path.exists(leftover):
            os.unlink(leftover)
    for _ in range(20):
        status, err = kill_after(begin, 0.5, signum)
        if state_of("t"):
            return err
    return fail("nothing was done in 20 times half a second")


err = left()
check("interrupted at byte" in err, err)


def refused(words, *texts):
    before = content("t") if os.path.exists("t") else None
    result = img(*words, status=1)
    for text in ("The conversion cannot go on", "Remove 't.resume' to begin anew", *texts):
        check(text in result.err, f"no '{text}' in {result}")
    equal(content("t") if os.path.exists("t") else None, before, "the target of a refusal")


refused(["convert", "--resume", "-c", "-f", "raw", "-O", "qcow2", "s.raw", "t"], "'compress' was false, and is true")
refused(["convert", "--resume", "-f", "raw", "-O", "qcow2", "s.raw", "s.raw", "t"], "1 sources, not 2")
times = os.stat("s.raw")
os.utime("s.raw")
refused(again, "'s.raw' has changed since")
os.utime("s.raw", ns=(times.st_atime_ns, times.st_mtime_ns))
with open("s.raw", "r+b") as file:  # the last byte, and the time of change set back: the digest of samples tells
    file.seek(SIZE - 1)
    file.write(b"X")
os.utime("s.raw", ns=(times.st_atime_ns, times.st_mtime_ns))
refused(again, "'s.raw' has changed since")
write_file("s.raw", data)
os.utime("s.raw", ns=(times.st_atime_ns, times.st_mtime_ns))
shutil.copy("t", "copy")
os.rename("t", "t.kept")
os.rename("copy", "t")
refused(again, "'t' is not the file that was left")
os.rename("t.kept", "t")
first = next(at for at in range(0, SIZE, 4096) if any(data[at:at + 4096]))
if first < state_of("t"):  # a sample of what is done: its first block is always one
    with open("t.kept", "wb") as file:
        file.write(content("t"))
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 0x77 0 64k", "t")
    refused(again, "it has other content at byte 0")
    with open("t", "r+b") as file:
        file.write(content("t.kept"))
kept = content("t.resume")
for damage in (b"", kept[:len(kept) // 2], b"[]", b'{"spindle-convert": 2}', kept.replace(b'"done": ', b'"done": -'),
               kept.replace(b'"done": ', b'"done": 9999'), kept.replace(b'"target-size"', b'"x"'), bytes(2 * M)):
    write_file("t.resume", damage)
    refused(again)
write_file("t.resume", kept)
result = img(*again)
their_img("compare", "-f", "raw", "-F", "qcow2", "s.raw", "t")

# A target that is made anew has no use for a state that an earlier conversion left; options that make no sense are refused.
left(signal.SIGKILL)
img("convert", "-f", "raw", "-O", "qcow2", "s.raw", "t")
equal(state_of("t"), None, "the state beside a new target")
for words in (["--resume", "-t", "unsafe"], ["--resume-state", "x"]):
    img("convert", *words, "s.q", "t", status=1)
check("--resume-state" in img("convert", "--resume", "-n", "--target-image-opts", "s.q", "driver=raw,file.filename=t", status=1).err, "no path")
img("convert", "--resume", "--resume-state", "elsewhere", "-O", "qcow2", "s.q", "t2")
their_img("compare", "s.q", "t2")
