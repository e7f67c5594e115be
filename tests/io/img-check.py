#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, `img check` misses damage, reports it in a way that scripts cannot read, or repairs wrongly.
# labels: quick
# timeout: 60
import shutil
import struct

from image import check, content, equal, img, img_json, io, write_file

CLUSTER = 65536


def refcount_block(image):
    table = struct.unpack_from(">Q", image, 48)[0]
    return struct.unpack_from(">Q", image, table)[0]


def make_image():
    img("create", "-q", "-f", "qcow2", "good", "4M")
    io("good", "write -P 5 0 1M", form="qcow2")
    damaged = bytearray(content("good"))
    block = refcount_block(damaged)
    clusters = len(damaged) // CLUSTER
    struct.pack_into(">H", damaged, block + 2 * (clusters - 1), 0)
    write_file("corrupt", damaged)
    leaking = bytearray(content("good")) + bytes(CLUSTER)
    struct.pack_into(">H", leaking, block + 2 * clusters, 1)
    write_file("leaking", leaking)


def good_image():
    result = img("check", "good")
    equal(result.out.split("\n")[0], "No errors were found on the image.", "first line")
    check("16/64 = 25.00% allocated, 0.00% fragmented, 0.00% compressed clusters\n" in result.out, f"{result}")
    equal(img_json("check", "good"), {
        "image-end-offset": len(content("good")), "total-clusters": 64, "check-errors": 0, "allocated-clusters": 16,
        "filename": "good", "format": "qcow2"}, "the JSON form: counters that are zero are left out")
    equal(img("check", "-q", "good").out, "", "-q")


def damage():
    result = img("check", "leaking", status=3)
    check("\n1 leaked clusters were found on the image.\n" in result.out, f"{result}")
    equal(img_json("check", "leaking", status=3)["leaks"], 1, "leaks")
    result = img("check", "corrupt", status=2)
    check("errors were found on the image.\nData may be corrupted" in result.out, f"{result}")
    check(img_json("check", "corrupt", status=2)["corruptions"] >= 1, "corruptions")


def repair():
    shutil.copy("leaking", "repaired")
    result = img("check", "-r", "leaks", "repaired")
    check("    1 leaked clusters\n    0 corruptions\n" in result.out, f"what was repaired: {result}")
    check("No errors were found on the image." in result.out, f"checked once more: {result}")
    img("check", "-q", "repaired")
    shutil.copy("corrupt", "repaired")
    img("check", "-r", "leaks", "repaired", status=2)
    report = img_json("check", "-r", "all", "repaired")
    check(report["corruptions-fixed"] >= 1 and report["check-errors"] == 0, f"{report}")
    img("check", "-q", "repaired")
    img("compare", "-q", "good", "repaired")


def others():
    img("create", "-q", "raw", "1M")
    result = img("check", "-f", "raw", "raw", status=63)
    check("does not support checks" in result.err, f"{result}")
    img("check", "missing", status=1)
    check("foo" in img("check", "-r", "foo", "good", status=1).err, "unknown value of -r")
    img("create", "-q", "-u", "-f", "qcow2", "-b", "gone", "-F", "raw", "overlay", "1M")
    img("check", "-q", "overlay")  # a backing file is not needed


make_image()
good_image()
damage()
repair()
others()
