#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, an image that goes through a pipe is not the image any more, or a pipeline hangs or ends without telling that it failed.
# labels: full
# requires: qemu-img zstd
# timeout: 240
import os
import random
import subprocess
import sys

from image import OUR_IMG, check, content, equal, img, run, their_img, write_file
from patience import patience

rng = random.Random(5)
K, M = 1024, 1024 * 1024


def make_source():
    data = bytearray(20 * M + 1536)
    for _ in range(40):
        at, length = rng.randrange(18 * M), rng.randrange(1, 90 * K)
        data[at:at + length] = rng.randbytes(length)
    data[3 * M:9 * M] = bytes(6 * M)
    data[10 * M:10 * M + 300 * K] = b"zz" * (150 * K)
    data[-1536:] = b"end" * 512
    write_file("s.raw", data)
    their_img("convert", "-f", "raw", "-O", "qcow2", "s.raw", "s.q")
    return bytes(data)


def shell(line, status=0, out=None):
    """A pipeline as people write it; any part that fails, fails it."""
    result = run("bash", "-c", "set -o pipefail; img=$1; " + line, "sh", OUR_IMG, status=status)
    if out is not None:
        equal(result.out, out, line)
    return result


def is_image(path, form, wanted, what):
    if form == "qcow2":
        their_img("check", "-q", path)
    their_img("convert", "-f", form, "-O", "raw", path, "back.raw")
    found = content("back.raw")
    check(found[:len(wanted)] == wanted and not any(found[len(wanted):]) and len(found) - len(wanted) < 512, f"{what}: other content")


data = make_source()

# Out: raw and qcow2, with clusters of all sizes, what a map says and what it does not.
for source in ("s.raw", "s.q"):
    form = "raw" if source == "s.raw" else "qcow2"
    for words, target in (("", "raw"), ("-O raw -S 0 -m 1", "raw"), ("-O qcow2", "qcow2"), ("-O qcow2 -o cluster_size=512,refcount_bits=1", "qcow2"),
                          ("-O qcow2 -o cluster_size=2M,refcount_bits=64", "qcow2"), ("-O qcow2 -o lazy_refcounts=on -S 1M -W", "qcow2"),
                          ("-O qcow2 -o compression_type=zstd", "qcow2")):
        shell(f"$img convert -f {form} {words} {source} - | cat > o")
        is_image("o", target, data, f"{source} {words}")
shell("$img convert s.q s.q - | zstd -q | zstd -dcq | cmp - <(cat s.raw s.raw)")
shell("$img convert -O qcow2 s.q s.q - | cat > o")
is_image("o", "qcow2", data + data, "two sources")
run("qemu-img", "create", "-q", "-f", "qcow2", "empty.q", "3T")
shell("$img convert -O qcow2 empty.q - | cat > o")
equal(img("compare", "empty.q", "o").out, "Images are identical.\n", "an empty disk of 3 TiB")
run("qemu-img", "create", "-q", "-f", "qcow2", "none.q", "0")
shell("$img convert none.q - | wc -c", out="0\n")
shell("$img convert -O qcow2 none.q - | cat > o")
is_image("o", "qcow2", b"", "no disk at all")

# Over a backing file: what the top has, and its zeroes; not what is below.
their_img("create", "-q", "-f", "qcow2", "-b", "s.q", "-F", "qcow2", "top.q")
run("qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 70k", "-c", "write -q -z 10M 192k", "-c", "write -q -P 8 15M 1M", "top.q")
shell("$img convert -O qcow2 -B s.q -F qcow2 top.q - | cat > o")
check(os.path.getsize("o") < 3 * M, "what is below was stored")
their_img("check", "-q", "o")
their_img("compare", "top.q", "o")

# Into a file: zeroes are holes, unless there is something already or everything is asked for.
shell("$img convert s.q - > o")
equal(content("o"), data, "to a file")
check(os.stat("o").st_blocks * 512 < 9 * M, f"{os.stat('o').st_blocks} blocks")
shell("$img convert -S 0 s.q - > o")
check(os.stat("o").st_blocks * 512 > 20 * M, "everything stored")
shell("printf head > o; $img convert s.q - >> o")
equal(content("o"), b"head" + data, "behind something")
shell("head -c 30M /dev/zero | tr '\\0' x > o; $img convert s.q - 1<> o")
equal(content("o")[:len(data)], data, "over something")
equal(content("o")[len(data):], b"x" * (30 * M - len(data)), "what is behind stays")
shell("truncate -s 5M z; $img convert z - > o; stat -c %s o", out=f"{5 * M}\n")

# In: from a pipe (nothing is known of its size) and from a file, in pieces of any size.
for words, form in (("", "raw"), ("-O raw -t none", "raw"), ("-O qcow2", "qcow2"), ("-c -O qcow2", "qcow2"), ("-O qcow2 -o cluster_size=4k -m 1", "qcow2"),
                    ("-O qcow2 -o extended_l2=on", "qcow2")):
    for line in (f"cat s.raw | $img convert {words} - o", f"$img convert {words} - o < s.raw",
                 f"zstd -qc s.raw | zstd -dcq | dd bs=7777 status=none | $img convert {words} - o"):
        shell(line)
        is_image("o", form, data, line)
shell("cat s.raw | $img convert - o")
check(os.stat("o").st_blocks * 512 < 9 * M, "zeroes from a pipe are stored")
for size in (0, 1, 511, 512, 4097):
    write_file("small", data[-1 - size:-1])
    for form in ("raw", "qcow2"):
        shell(f"cat small | $img convert -O {form} - o")
        is_image("o", form, content("small"), f"{size} bytes into {form}")
equal(os.path.getsize("o"), os.path.getsize("o"), "size")
write_file("old", b"o" * (21 * M))
shell("cat s.raw | $img convert -n - old")
equal(content("old"), data + b"o" * (21 * M - len(data)), "a target that exists")
check("standard input has more than the 1048576 bytes of 'little'" in shell("truncate -s 1M little; (cat s.raw || true) | $img convert -n - little", status=1).err, "too much")

# Both, in a chain; and as sources of other programs.
shell("$img convert s.q - | $img convert - - | $img convert -O qcow2 - o")
is_image("o", "qcow2", data, "a chain of three")
shell("$img convert -O qcow2 s.q - | cat > o && $img convert o - | cmp - s.raw")

# dd.
shell("$img dd if=s.q of=- bs=1M 2>/dev/null | cmp - s.raw")
for count, skip in ((3, 0), (5, 2), (400, 7), (None, 3), (2, 5)):
    words = f"bs=64k {'' if count is None else f'count={count}'} skip={skip}"
    img("dd", "-f", "raw", *words.split(), "if=s.raw", "of=plain")
    for line in (f"$img dd {words} if=s.q of=- > o", f"(cat s.raw || true) | $img dd {words} if=- of=o", f"(cat s.raw || true) | $img dd {words} if=- of=- > o"):
        shell(line)
        equal(content("o"), content("plain"), line)
    shell(f"(cat s.raw || true) | $img dd {words} -O qcow2 if=- of=o")
    is_image("o", "qcow2", content("plain"), f"dd to qcow2 {words}")
check("cannot skip" in shell("printf abc | $img dd bs=1M skip=1 if=- of=o").err, "beyond the end")
equal(content("o"), b"", "nothing left")
shell("(cat s.raw || true) | $img dd -n if=- of=little", status=1)

# Progress does not get into the image; without an end in sight, the amount is told.
check("(100.00/100%)" in shell("$img convert -p s.q - | cmp - s.raw").err, "progress on standard error")
check('"total": null' in shell("cat s.raw | $img convert --output json - o").out, "no total")
check('"done": 20973056, "total": 20973056' in shell("$img convert --output json - o < s.raw").out, "a file's total")

# A reader that goes away is an error that is told, at once, and not a signal; so is a source that breaks.
for line in ("$img convert s.q - | head -c 1000 > /dev/null", "$img convert -O qcow2 s.q - | true", "$img dd if=s.q of=- | head -c 9 > /dev/null"):
    result = shell(line, status=1)
    check("Broken pipe" in result.err, f"{result}")
check("No space left" in shell("$img convert s.q - > /dev/full", status=1).err, "a full device")
broken = "driver=qcow2,file.driver=blkdebug,file.inject-error.0.event=read_aio,file.inject-error.0.sector=4000,file.image.driver=file,file.image.filename=s.q"
check("Input/output error" in shell(f"$img convert --image-opts {broken} - > o", status=1).err, "a source that breaks")
equal(content("o"), data[:len(content("o"))], "what came before")

# What cannot be is said, before anything is written or read.
write_file("o", b"untouched")
for words, text in (("-c -O qcow2 s.q -", "-c"), ("--resume s.q -", "--resume"), ("--checksum s.q -", "--checksum"), ("-n s.q -", "-n"),
                    ("-o preallocation=full s.q -", "-o"), ("-O qcow2 -o preallocation=metadata s.q -", "preallocation"),
                    ("-O qcow2 -o extended_l2=on s.q -", "extended_l2"), ("-O qcow2 -o compat=0.10 s.q -", "compat"), ("-O luks s.q -", "luks"),
                    ("-O qcow2 - -", "Standard input"), ("-f qcow2 - o", "qcow2"), ("-l x - o", "-l"), ("--resume - o", "--resume"),
                    ("--checksum - o", "--checksum"), ("- s.q o", "other sources"), ("s.q - o", "other sources"), ("-C - o", "-C"),
                    ("--confined - o", "--confined")):
    result = img("convert", *words.split(), status=1, stdin=subprocess.DEVNULL)
    check(text in result.err and not result.out, f"{result}")
for words in (["if=s.q", "of=-", "-O", "qcow2"], ["if=-", "of=o", "-f", "qcow2"], ["if=-", "of=o", "-l", "x"], ["if=s.q", "of=-", "-n"]):
    img("dd", *words, status=1, stdin=subprocess.DEVNULL)
equal(content("o"), b"untouched", "after refusals")
result = subprocess.run(["script", "-qec", f"{OUR_IMG} convert s.q -", "/dev/null"], capture_output=True, timeout=patience(60), stdin=subprocess.DEVNULL) \
    if os.path.exists("/usr/bin/script") else None
if result:
    check(b"standard output is a terminal" in result.stdout and result.returncode == 1, f"{result}"[:500])
else:
    print("not shown: a terminal is refused (no script(1))", file=sys.stderr)
