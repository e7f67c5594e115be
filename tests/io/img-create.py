#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img create` makes wrong images, says something scripts cannot read, or overwrites an image in use.
# labels: quick
# timeout: 60
import os
import subprocess

from image import OUR_IO, check, content, equal, img, img_json, io, write_file


def formatting_line():
    result = img("create", "-f", "qcow2", "a.qcow2", "10M")
    equal(result.out, "Formatting 'a.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib "
          "size=10485760 lazy_refcounts=off refcount_bits=16\n", "the line about a new qcow2 image")
    equal(img("create", "a.raw", "1.5K").out, "Formatting 'a.raw', fmt=raw size=1536\n", "the line about a raw image")
    equal(os.path.getsize("a.raw"), 1536, "size of the raw image")
    equal(img("create", "-q", "-f", "qcow2", "quiet.qcow2", "1M").out, "", "output of -q")


def options_reach_the_image():
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,refcount_bits=1", "-o", "lazy_refcounts=on,compat=1.1",
        "opts.qcow2", "3M")
    info = img_json("info", "opts.qcow2")
    equal((info["cluster-size"], info["virtual-size"]), (4096, 3 << 20), "cluster size and size")
    data = info["format-specific"]["data"]
    equal((data["refcount-bits"], data["lazy-refcounts"]), (1, True), "options of two -o")
    img("create", "-q", "-f", "qcow2", "-o", "nocow=on,lazy_refcounts", "file.qcow2", "1M")  # of the file, not the format
    equal(img_json("info", "file.qcow2")["format-specific"]["data"]["lazy-refcounts"], True, "an option without a value is on")
    img("create", "-q", "-o", "preallocation=full,size=1M", "full.raw")
    check(os.stat("full.raw").st_blocks * 512 >= 1 << 20, "preallocation=full did not allocate")


def backing_files():
    img("create", "-q", "-f", "qcow2", "base.qcow2", "7M")
    os.mkdir("dir")
    img("create", "-q", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2", "dir/top.qcow2")
    info = img_json("info", "dir/top.qcow2")
    equal(info["virtual-size"], 7 << 20, "the size of the backing file is the default")
    equal((info["backing-filename"], info["full-backing-filename"]), ("../base.qcow2", "dir/../base.qcow2"), "names")
    for spelling in (["-F", "qcow2"], ["-B", "qcow2"], ["--backing-format", "qcow2"]):
        img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", *spelling, "t.qcow2")
    result = img("create", "-f", "qcow2", "-b", "base.qcow2", "t.qcow2", status=1)
    check("without backing format" in result.err, f"no format given: {result}")
    result = img("create", "-f", "qcow2", "-b", "missing", "-F", "raw", "t.qcow2", "1M", status=1)
    check("missing" in result.err and "No such file" in result.err, f"missing backing file: {result}")
    img("create", "-q", "-u", "-f", "qcow2", "-b", "missing", "-F", "raw", "t.qcow2", "1M")
    equal(img_json("info", "t.qcow2")["backing-filename"], "missing", "-u does not look at it")
    result = img("create", "-b", "base.qcow2", "-F", "qcow2", "t.raw", "1M", status=1)
    check("not supported for file format 'raw'" in result.err, f"raw has no backing file: {result}")


def preallocation_shows_the_backing_file():
    img("create", "-q", "data.raw", "1M")
    io("data.raw", "write -q -P 5 0 1M")
    for mode in ("metadata", "falloc", "full"):
        img("create", "-q", "-f", "qcow2", "-o", f"extended_l2=on,preallocation={mode}", "-b", "data.raw", "-F", "raw", "p.qcow2")
        img("compare", "-q", "-f", "raw", "data.raw", "p.qcow2")
        img("check", "-q", "p.qcow2")


def small_clusters():
    """The L1 table is longer than what one refcount block counts."""
    for options in ("cluster_size=512,refcount_bits=64", "cluster_size=512", "cluster_size=1k,refcount_bits=32"):
        img("create", "-q", "-f", "qcow2", "-o", options, "small.qcow2", "2G")
        io("small.qcow2", "write -q -P 1 2040M 1M", "read -q -P 1 2040M 1M", form="qcow2")
        img("check", "-q", "small.qcow2")


def errors():
    for words, text in [
        (["x"], "size"),
        (["x", "1X"], "1X"),
        (["-f", "nonsense", "x", "1M"], "Unknown file format 'nonsense'"),
        (["-f", "qcow2", "-o", "size=1M", "x", "2M"], "only once"),
        (["-o", "preallocation=metadata", "x", "1M"], "Unsupported preallocation mode"),
        (["-f", "qcow2", "-o", "bananas=3", "x", "1M"], "bananas"),
        (["-f", "qcow2", "-o", "nocow=3", "x", "1M"], "nocow"),
        (["-f", "qcow2", "-o", "cluster_size=3000", "x", "1M"], "3000"),
        (["-f", "qcow2", "x", "9E"], "x: "),
        (["nowhere/x", "1M"], "No such file"),
        ([], "image file name"),
        (["a", "b", "c"], "too many"),
    ]:
        result = img("create", *words, status=1)
        check(text in result.err and result.err.startswith("spindle-img: "), f"wanted '{text}': {result}")


def image_in_use():
    """Somebody has the image open: it must not be emptied."""
    write_file("used", b"data" * 1024)
    user = subprocess.Popen([OUR_IO, "-f", "raw", "used"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    user.stdin.write("length\n")
    user.stdin.flush()
    user.stdout.readline()
    result = img("create", "used", "1M", status=1)
    check("lock" in result.err, f"creating over an image in use: {result}")
    equal(content("used"), b"data" * 1024, "the image in use")
    user.communicate("quit\n")
    img("create", "-q", "used", "1M")


def option_help():
    for form, words in (("raw", ["size", "preallocation"]), ("qcow2", ["cluster_size", "extended_l2", "data_file"])):
        result = img("create", "-f", form, "-o", "help")
        check(result.out.startswith(f"Supported {form} options:\n"), f"heading: {result}")
        check(all(f"  {word}=" in result.out for word in words), f"options: {result}")


formatting_line()
options_reach_the_image()
backing_files()
preallocation_shows_the_backing_file()
small_clusters()
errors()
image_in_use()
option_help()
