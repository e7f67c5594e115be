#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, some failure of memory or of a file makes spindle-img or spindle-io crash, hang, leak, lie, or spoil an image.
# labels: full
# timeout: 400
"""Every operation of the tools, with one of its allocations, reads, writes, syncs ... failing (lib/tool_faults.py). Images that it writes
stay consistent (but for leaked clusters), each byte old or new.
"""
import os
import shutil
import subprocess
import time

import tool_faults
from faults import check_problem, quietly
from image import OUR_IMG, OUR_IO, content, img, io, write_file
from tool_faults import Scenario, first, mixture_problem, read_image, same_content

KIB, MIB = 1 << 10, 1 << 20

# --- the images -------------------------------------------------------------------------------------------------------


def pattern_image(name="a", options=(), size="2M", form="qcow2"):
    img("create", "-q", "-f", form, *options, name, size)
    io(name, "write -q -P 17 0 70k", "write -q -P 18 300k 5k", "write -q -P 19 1M 200000", form=form)


def small():
    pattern_image(options=("-o", "cluster_size=4k"))


def raw_image():
    pattern_image(form="raw")


def overlay():
    pattern_image("base", options=("-o", "cluster_size=4k"))
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base", "-F", "qcow2", "a")
    io("a", "write -q -P 33 64k 64k", "write -q -z 1M 64k", form="qcow2")


def compressed():
    pattern_image("plain", options=("-o", "cluster_size=16k"))
    img("convert", "-q", "-c", "-f", "qcow2", "-O", "qcow2", "-o", "compression_type=zstd,cluster_size=16k", "plain", "a")
    os.unlink("plain")


def with_data_file():
    img("create", "-q", "-f", "qcow2", "-o", "data_file=a.data,cluster_size=16k", "a", "2M")
    io("a", "write -q -P 17 0 70k", "write -q -P 19 1M 200000", form="qcow2")


def damaged(leak=True, corrupt=True):
    def prepare():
        small()
        image = bytearray(content("a"))
        table = int.from_bytes(image[48:56], "big")
        block = int.from_bytes(image[table:table + 8], "big")
        last = len(image) // 4096 - 1
        if leak:
            image += bytes(8192)
            image[block + 2 * last + 4:block + 2 * last + 6] = b"\0\1"
        if corrupt:
            image[block + 2 * last:block + 2 * last + 2] = b"\0\0"
        write_file("a", image)
    return prepare


def dirty():
    """As a killed writer leaves an image with lazy reference counts."""
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,lazy_refcounts=on", "a", "2M")
    killed = subprocess.Popen([OUR_IO, "-f", "qcow2", "-c", "write -q -P 7 100k 100k", "-c", "flush", "-c", "sleep 60000", "a"])
    deadline = time.monotonic() + 20
    while not content("a")[79] & 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    killed.kill()
    killed.wait()


def with_target():
    small()
    img("create", "-q", "-f", "qcow2", "target", "2M")


def two_equal():
    small()
    img("convert", "-q", "-O", "raw", "a", "b")


def two_different():
    two_equal()
    io("b", "write -q -P 1 1500k 512")


# --- scenarios: spindle-img -------------------------------------------------------------------------------------------


def created(name, words, target="new", form="qcow2", prepare=lambda: None, size=2 * MIB):
    def good(out):
        problem = check_problem(target, leaks_allowed=False) if form == "qcow2" else None
        return problem or (None if len(read_image(target, form)) == size else "wrong size")
    Scenario(name, prepare, [OUR_IMG, "create", "-f", form, *words], {target, target + ".data"}, good)


created("create raw", ["new", "2M"], form="raw")
created("create raw falloc", ["-o", "preallocation=falloc", "new", "2M"], form="raw")
created("create raw full", ["-o", "preallocation=full", "new", "2M"], form="raw")
created("create qcow2", ["new", "2M"])
created("create qcow2 metadata", ["-o", "preallocation=metadata,cluster_size=4k", "new", "2M"])
created("create qcow2 falloc", ["-o", "preallocation=falloc", "new", "2M"])
created("create qcow2 full", ["-o", "preallocation=full", "new", "2M"])
created("create qcow2 extended", ["-o", "extended_l2=on,refcount_bits=1", "new", "2M"])
created("create qcow2 data file", ["-o", "data_file=new.data", "new", "2M"])
created("create qcow2 overlay", ["-b", "a", "-F", "qcow2", "new"], prepare=small)


def over_existing(out):
    return check_problem("a", leaks_allowed=False) or (None if not any(read_image("a")) else "old content is left")


Scenario("create over an image", small, [OUR_IMG, "create", "-f", "qcow2", "a", "1M"], {"a"}, over_existing)

for name, prepare in (("qcow2", small), ("overlay", overlay), ("compressed", compressed), ("data file", with_data_file)):
    Scenario(f"info {name}", prepare, [OUR_IMG, "info", "--backing-chain", "--output", "json", "a"])
    Scenario(f"map {name}", prepare, [OUR_IMG, "map", "--output", "json", "-f", "qcow2", "a"])
    Scenario(f"check {name}", prepare, [OUR_IMG, "check", "-f", "qcow2", "a"])
Scenario("info raw", raw_image, [OUR_IMG, "info", "-f", "raw", "a"])
Scenario("info probed", raw_image, [OUR_IMG, "info", "a"])
Scenario("map raw", raw_image, [OUR_IMG, "map", "--output", "json", "-f", "raw", "a"])
Scenario("check leaks", damaged(corrupt=False), [OUR_IMG, "check", "-f", "qcow2", "a"], status=3)
Scenario("check corrupt", damaged(), [OUR_IMG, "check", "-f", "qcow2", "a"], status=2)


def repairable(prepare):
    """Whatever the interrupted repair did: another one makes it good, and the content is what it was."""
    def judge(out=None):
        problem = None
        if out is None:
            result = quietly(OUR_IMG, "check", "-q", "-r", "all", "-f", "qcow2", "a")
            problem = None if result.returncode == 0 else f"cannot be repaired again: {result.stdout.decode()}{result.stderr.decode()}"
        return first(problem, check_problem("a", leaks_allowed=False), same_content("a", "qcow2", "wanted", "raw"))

    def make():
        prepare()
        shutil.copy("a", "copy")
        img("check", "-q", "-r", "all", "-f", "qcow2", "copy", status=None)
        img("convert", "-f", "qcow2", "-O", "raw", "copy", "wanted")
        os.unlink("copy")
    return make, judge


for name, prepare, mode in (("leaks", damaged(corrupt=False), "leaks"), ("all", damaged(), "all"), ("dirty", dirty, "all")):
    make, judge = repairable(prepare)
    Scenario(f"repair {name}", make, [OUR_IMG, "check", "-r", mode, "-f", "qcow2", "a"], {"a"}, judge, judge, failed=lambda status: status in (1, 2, 3))

Scenario("compare equal", two_equal, [OUR_IMG, "compare", "-f", "qcow2", "-F", "raw", "a", "b"], failed=lambda status: status > 1)
Scenario("compare different", two_different, [OUR_IMG, "compare", "-f", "qcow2", "-F", "raw", "a", "b"], status=1, failed=lambda status: status > 1)
Scenario("compare strict", two_equal, [OUR_IMG, "compare", "-s", "-f", "qcow2", "-F", "raw", "a", "b"], status=1, failed=lambda status: status > 1)


def converted(name, prepare, words, form, source="a", source_form="qcow2", target="target"):
    def good(out):
        problem = check_problem(target, leaks_allowed=False) if form == "qcow2" else None
        return problem or same_content(source, source_form, target, form)
    Scenario(name, prepare, [OUR_IMG, "convert", "-f", source_form, "-O", form, *words, source, target], {target}, good)


converted("convert to raw", small, [], "raw")
converted("convert to raw -W", small, ["-W", "-m", "4"], "raw")
converted("convert to raw direct", small, ["-t", "none", "-T", "none"], "raw")
converted("convert raw to raw", raw_image, [], "raw", source_form="raw")
converted("convert raw to qcow2", raw_image, ["-o", "cluster_size=4k"], "qcow2", source_form="raw")
converted("convert raw copy offload", raw_image, ["-C"], "raw", source_form="raw")
converted("convert overlay", overlay, [], "qcow2")
converted("convert to overlay", overlay, ["-B", "base", "-F", "qcow2", "-o", "cluster_size=4k"], "qcow2")
converted("convert compressed", small, ["-c"], "qcow2")
converted("convert compressed zstd", small, ["-c", "-o", "compression_type=zstd,cluster_size=16k"], "qcow2")
converted("convert from compressed", compressed, [], "raw")
converted("convert writethrough", small, ["-t", "writethrough"], "qcow2")
converted("convert preallocated", small, ["-o", "preallocation=metadata,cluster_size=4k"], "qcow2")
converted("convert to existing", with_target, ["-n"], "qcow2")
converted("convert data file", with_data_file, [], "qcow2")


def resized(name, prepare, words, size, form="qcow2"):
    """Old or new size; the content up to the smaller of both is what it was."""
    def judge(out=None):
        problem = check_problem("a") if form == "qcow2" else None
        if problem:
            return problem
        data, old = read_image("a", form), content("old")
        if out is not None and len(data) != size or len(data) not in (size, len(old)):
            return f"size {len(data)}"
        short = min(size, len(old))
        return None if data[:short] == old[:short] and not any(data[len(old):]) else "the content has changed"

    def make():
        prepare()
        img("convert", "-f", form, "-O", "raw", "a", "old")
    Scenario(name, make, [OUR_IMG, "resize", "-q", "-f", form, *words], {"a", "a.data"}, judge, judge)


def tiny():
    pattern_image(options=("-o", "cluster_size=512"), size="1500k")


resized("resize raw", raw_image, ["a", "3M"], 3 * MIB, "raw")
resized("resize raw full", raw_image, ["--preallocation=full", "a", "3M"], 3 * MIB, "raw")
resized("resize raw shrink", raw_image, ["--shrink", "a", "1M"], MIB, "raw")
resized("resize qcow2", small, ["a", "3M"], 3 * MIB)
resized("resize qcow2 new L1", tiny, ["a", "64M"], 64 * MIB)
resized("resize qcow2 metadata", small, ["--preallocation=metadata", "a", "3M"], 3 * MIB)
resized("resize qcow2 full", small, ["--preallocation=full", "a", "3M"], 3 * MIB)
resized("resize qcow2 shrink", small, ["--shrink", "a", "1M"], MIB)
resized("resize data file", with_data_file, ["a", "3M"], 3 * MIB)

def kept(name, prepare, command, extra=lambda: None, changes=("a",), before=None):
    """What a guest reads stays as it is, whether the command succeeds or not."""
    def make():
        prepare()
        img("convert", "-f", "qcow2", "-O", "raw", "a", "old")
        if before:
            before()

    def judge(out=None):
        return first(check_problem("a"), None if read_image("a") == content("old") else "the content has changed", out is not None and extra())
    Scenario(name, make, [OUR_IMG, *command], changes, judge, judge)


def with_snapshot():
    small()
    img("snapshot", "-c", "one", "a")
    io("a", "write -q -P 40 0 40k", "write -q -P 41 600k 30k", form="qcow2")


def with_bitmap():
    small()
    img("bitmap", "--add", "a", "b0")
    io("a", "write -q -P 40 0 40k", form="qcow2")


def other_base():
    overlay()
    pattern_image("newbase", options=("-o", "cluster_size=4k"))
    io("newbase", "write -q -P 66 0 200k", "write -q -P 67 1500k 100k", form="qcow2")


def has_snapshots(*names):
    def look():
        found = [line.split()[1] for line in quietly(OUR_IMG, "snapshot", "-l", "a").stdout.decode().splitlines()[2:]]
        return None if found == list(names) else f"snapshots: {found}"
    return look


kept("snapshot create", small, ["snapshot", "-q", "-c", "one", "a"], has_snapshots("one"))
kept("snapshot create second", with_snapshot, ["snapshot", "-q", "-c", "two", "a"], has_snapshots("one", "two"))
kept("snapshot delete", with_snapshot, ["snapshot", "-q", "-d", "one", "a"], has_snapshots())
kept("snapshot list", with_snapshot, ["snapshot", "-l", "a"], changes=())


def applied():
    def make():
        small()
        img("convert", "-f", "qcow2", "-O", "raw", "a", "then")
        img("snapshot", "-c", "one", "a")
        io("a", "write -q -P 40 0 40k", "write -q -P 41 600k 30k", form="qcow2")
        img("convert", "-f", "qcow2", "-O", "raw", "a", "now")

    def judge(out=None):
        data = read_image("a")
        return first(check_problem("a"), None if data == content("then") or out is None and data == content("now") else "neither the old nor the new content",
                     has_snapshots("one")())
    Scenario("snapshot apply", make, [OUR_IMG, "snapshot", "-q", "-a", "one", "a"], {"a"}, judge, judge)


applied()
kept("bitmap add", small, ["bitmap", "--add", "a", "b0"])
kept("bitmap add second", with_bitmap, ["bitmap", "--add", "-g", "4k", "a", "b1"])
kept("bitmap remove", with_bitmap, ["bitmap", "--remove", "a", "b0"])
kept("bitmap clear", with_bitmap, ["bitmap", "--clear", "a", "b0"])
kept("io with a bitmap", with_bitmap, ["info", "--output", "json", "a"], changes=())
kept("amend compat", small, ["amend", "-o", "lazy_refcounts=on", "a"])
kept("amend down", small, ["amend", "-o", "compat=0.10", "a"])
kept("rebase", other_base, ["rebase", "-q", "-f", "qcow2", "-b", "newbase", "-F", "qcow2", "a"])
kept("rebase to nothing", overlay, ["rebase", "-q", "-f", "qcow2", "-b", "", "a"])
kept("measure", small, ["measure", "-O", "qcow2", "--output", "json", "a"], changes=())
Scenario("dd", small, [OUR_IMG, "dd", "-f", "qcow2", "-O", "raw", "if=a", "of=target", "bs=64k"], {"target"},
         lambda out: same_content("a", "qcow2", "target", "raw"))

for name, words in (("info", ["info", "--confined", "--output", "json", "a"]), ("map", ["map", "--confined", "--output", "json", "a"])):
    Scenario(f"{name} confined", small, [OUR_IMG, *words])
converted("convert confined", small, ["--confined"], "raw")

# --- scenarios: spindle-io --------------------------------------------------------------------------------------------


def numbers(command):
    return [int(word) for word in command.split() if word.isdigit()]


def model(data, command):
    """What a command makes of the content."""
    words = command.split()
    if not words[0].removeprefix("aio_").startswith(("write", "discard")):
        return data
    values = numbers(command)
    fill = 0 if "-z" in words or words[0] == "discard" else values.pop(0)
    start, length = values[0], sum(values[1:])
    return data[:start] + bytes([fill]) * length + data[start + length:]


def wrote(name, prepare, commands, form="qcow2", words=()):
    def make():
        prepare()
        shutil.copy("a", "copy")  # reading a dirty image repairs it
        img("convert", "-f", form, "-O", "raw", "copy", "old")
        os.unlink("copy")

    def versions():
        made = [content("old")]
        for command in commands:
            made.append(model(made[-1], command))
        return made

    def good(out):
        problem = check_problem("a") if form == "qcow2" else None
        data = read_image("a", form)
        if any(command.startswith("discard") for command in commands):  # which is a wish
            return problem or mixture_problem(data, versions())
        return problem or (None if data == versions()[-1] else "the content is wrong")

    def bad():
        problem = check_problem("a") if form == "qcow2" else None
        # A command that failed may be followed by some that did not, so each byte is judged alone: what anybody wrote there.
        return problem or mixture_problem(read_image("a", form), versions())
    given = [word for command in commands for word in ("-c", command)]
    Scenario(name, make, [OUR_IO, "-f", form, *words, *given, "a"], {"a", "a.data", "base"} - {"base"}, good, bad)


K = 1024
wrote("io raw", raw_image, [f"write -q -P 5 0 {64 * K}", f"write -q -z {128 * K} {64 * K}", f"discard -q {MIB} {64 * K}", "flush"], "raw")
wrote("io raw unmap", raw_image, [f"write -q -z -u {MIB} {64 * K}", "flush"], "raw")
wrote("io raw direct", raw_image, [f"write -q -P 5 512 {64 * K}", "flush"], "raw", ("-n",))
wrote("io raw threads", raw_image, [f"write -q -P 5 512 {64 * K}", "flush"], "raw", ("-i", "threads"))
wrote("io raw native", raw_image, [f"write -q -P 5 512 {64 * K}", "flush"], "raw", ("-n", "-i", "native"))
wrote("io qcow2", small, [f"write -q -P 5 {500 * K} {64 * K}", "flush", f"write -q -P 6 {700 * K} 512", "flush"])
wrote("io qcow2 fua", small, [f"write -q -f -P 5 {500 * K} {64 * K}", f"write -q -f -P 6 {700 * K} 512"])
wrote("io qcow2 writethrough", small, [f"write -q -P 5 {500 * K} {64 * K}"], words=("-t", "writethrough"))
wrote("io qcow2 zero", small, [f"write -q -z 0 {20 * K}", f"write -q -z -u {1024 * K} {64 * K}", "flush"])
wrote("io qcow2 discard", small, [f"discard -q 0 {64 * K}", "flush", f"write -q -P 9 {1600 * K} {32 * K}", "flush"])
wrote("io qcow2 compressed", small, [f"write -q -c -P 8 {512 * K} {4 * K}", f"write -q -P 9 {512 * K} 512", "flush"])
wrote("io from compressed", compressed, [f"write -q -P 8 512 {1 * K}", f"write -q -z {MIB} {16 * K}", "flush"])
wrote("io overlay", overlay, [f"write -q -P 5 1024 {1 * K}", f"write -q -z {1024 * K + 100 * K} {30 * K}", "flush"])
wrote("io data file", with_data_file, [f"write -q -P 5 {512 * K} {64 * K}", f"write -q -z 0 {16 * K}", "flush"])
wrote("io new L2 tables", tiny, [f"write -q -P 5 {200 * K} {100 * K}", f"write -q -P 6 {600 * K} {40 * K}", "flush"])
wrote("io in flight", small, [f"aio_write -q -P 5 {400 * K} {16 * K}", f"aio_write -q -P 6 {440 * K} {16 * K}", f"aio_write -q -P 7 {480 * K} 512",
                              "aio_flush"])
wrote("io dirty", dirty, [f"write -q -P 5 {500 * K} {64 * K}", "flush"])
Scenario("io read", small, [OUR_IO, "-r", "-f", "qcow2", "-c", "read -q -P 17 0 65536", "-c", "readv -v 300k 512 1024", "-c", "alloc 0 1M", "-c", "map",
                            "-c", "info", "-c", "length", "a"])
Scenario("io read overlay", overlay, [OUR_IO, "-r", "-f", "qcow2", "-c", "read -v 65000 1000", "-c", "map", "a"])
Scenario("io read compressed", compressed, [OUR_IO, "-r", "-f", "qcow2", "-c", "read -v 65000 1000", "-c", "aio_read 0 64k", "-c", "aio_flush", "a"])
Scenario("io truncate", small, [OUR_IO, "-f", "qcow2", "-c", "truncate 3M", "-c", "length", "a"], {"a"},
         lambda out: check_problem("a"), lambda: check_problem("a"))


tool_faults.main()
