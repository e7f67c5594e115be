#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img info` misreports an image, cannot be parsed, or follows a backing chain for ever.
# labels: quick
# timeout: 60
import json
import os
import re

from image import check, equal, img, img_json, io


def human_layout():
    img("create", "-q", "-f", "qcow2", "a.qcow2", "10M")
    out = img("info", "a.qcow2").out
    for line in ("image: a.qcow2", "file format: qcow2", "virtual size: 10 MiB (10485760 bytes)", "cluster_size: 65536",
                 "Format specific information:", "    compat: 1.1", "    compression type: zlib",
                 "    lazy refcounts: false", "    refcount bits: 16", "    corrupt: false", "    extended l2: false",
                 "Child node '/file':", "    protocol type: file"):
        check(line in out.split("\n"), f"no line '{line}' in\n{out}")
    check(re.search(r"^disk size: [0-9.]+ KiB$", out, re.M), out)


def json_layout():
    info = img_json("info", "a.qcow2")
    equal(list(info), ["children", "virtual-size", "filename", "cluster-size", "format", "actual-size",
                       "format-specific", "dirty-flag"], "members")
    equal(info["format-specific"], {"type": "qcow2", "data": {
        "compat": "1.1", "compression-type": "zlib", "lazy-refcounts": False, "refcount-bits": 16, "corrupt": False,
        "extended-l2": False}}, "what is special to qcow2")
    equal([child["name"] for child in info["children"]], ["file"], "children")
    child = info["children"][0]["info"]
    equal((child["format"], child["filename"], child["virtual-size"]), ("file", "a.qcow2", os.path.getsize("a.qcow2")),
          "the file below")
    equal(info["actual-size"], os.stat("a.qcow2").st_blocks * 512, "space on the host")


def names():
    equal(img_json("info", "json:{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': 'a.qcow2'}}")["format"],
          "qcow2", "json:")
    equal(img_json("info", "json:{'file.filename': 'a.qcow2'}")["format"], "qcow2", "json: probed")
    equal(img_json("info", "--image-opts", "driver=qcow2,file.filename=a.qcow2")["format"], "qcow2", "--image-opts")
    equal(img_json("info", "file:a.qcow2")["format"], "qcow2", "file:")
    equal(img_json("info", "-f", "raw", "a.qcow2")["format"], "raw", "-f")
    img("create", "-q", "./od:d,name", "1k")
    equal(img_json("info", "./od:d,name")["virtual-size"], 1024, "a name with a colon and a comma")
    result = img("info", "nowhere:x", status=1)
    check("Unknown protocol 'nowhere'" in result.err, f"{result}")


def chains():
    img("create", "-q", "-f", "raw", "base.raw", "1M")
    img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2")
    img("create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2")
    chain = img_json("info", "--backing-chain", "top.qcow2")
    equal([(info["filename"], info["format"]) for info in chain],
          [("top.qcow2", "qcow2"), ("mid.qcow2", "qcow2"), ("base.raw", "raw")], "the chain, top first")
    equal(chain[0]["backing-filename-format"], "qcow2", "format of the backing file")
    equal(img("info", "--backing-chain", "top.qcow2").out.count("\n\nimage: "), 2, "blocks of the human form")
    os.unlink("base.raw")
    equal(img_json("info", "mid.qcow2")["backing-filename"], "base.raw", "an overlay whose backing file is gone")
    result = img("info", "--backing-chain", "top.qcow2", status=1)
    check("base.raw" in result.err, f"a missing end of a chain: {result}")


def loops():
    img("create", "-q", "-f", "qcow2", "one.qcow2", "1M")
    img("create", "-q", "-f", "qcow2", "-b", "one.qcow2", "-F", "qcow2", "two.qcow2")
    img("create", "-q", "-u", "-f", "qcow2", "-b", "two.qcow2", "-F", "qcow2", "one.qcow2", "1M")
    result = img("info", "--backing-chain", "two.qcow2", status=1)
    check("infinite loop" in result.err, f"a chain that leads back: {result}")
    img("create", "-q", "-u", "-f", "qcow2", "-b", "self.qcow2", "-F", "qcow2", "self.qcow2", "1M")
    check("infinite loop" in img("info", "--backing-chain", "./self.qcow2", status=1).err, "an image on itself")
    equal(img_json("info", "self.qcow2")["virtual-size"], 1 << 20, "alone it can be looked at")
    result = io("two.qcow2", "read 0 1", form="qcow2", status=1)
    check(result.err != "", f"opening a loop must be refused: {result}")


def data_file():
    img("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw,data_file_raw=on", "d.qcow2", "1M")
    data = img_json("info", "d.qcow2")["format-specific"]["data"]
    equal((data["data-file"], data["data-file-raw"]), ("d.raw", True), "the data file")
    os.unlink("d.raw")
    equal(img_json("info", "d.qcow2")["format-specific"]["data"], data, "a file that a stranger's image names is not opened")
    img("check", "-q", "d.qcow2")
    img("map", "d.qcow2", status=1)


def errors():
    for words, text in [(["missing"], "No such file"), ([], "FILE"), (["a", "b"], "too many"),
                        (["--output", "xml", "a.qcow2"], "human or json"), (["--foo"], "unrecognized option '--foo'"),
                        (["-f"], "missing argument for option '-f'")]:
        result = img("info", *words, status=1)
        check(text in result.err and result.out == "", f"wanted '{text}': {result}")


human_layout()
json_layout()
names()
chains()
loops()
data_file()
errors()
