#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, some failure of memory or of a file makes the tools crash on a LUKS image, take its passphrases away, or spoil its data.
# labels: full
# timeout: 400
"""LUKS images, with one operation of the tool failing (lib/tool_faults.py). Whatever becomes of a change of the key slots: the passphrase
that the image had before it still opens it, and the data are what they were."""
import os

import tool_faults
from faults import quietly
from image import OUR_IMG, OUR_IO, content, img, run, write_file
from tool_faults import Scenario, mixture_problem

KIB, MIB = 1 << 10, 1 << 20
SECRETS = ["--object", "secret,id=one,file=one", "--object", "secret,id=two,file=two"]


def place(name, secret="one"):
    return f"driver=luks,key-secret={secret},file.filename={name}"


def opens(name, secret):
    """None: it does. (A read; `info` could do without the passphrase.)"""
    done = quietly(OUR_IO, *SECRETS, "-r", "--image-opts", "-c", "read -q 0 512", place(name, secret))
    return None if done.returncode == 0 else f"passphrase '{secret}' does not open {name}: {done.stderr.decode()}"


def plain(name):
    done = quietly(OUR_IMG, "convert", *SECRETS, "--image-opts", "-O", "raw", place(name), "flat")
    assert done.returncode == 0, f"{name} cannot be read: {done.stderr.decode()}"
    data = content("flat")
    os.unlink("flat")
    return data


def passphrases():
    for name in ("one", "two"):
        write_file(name, f"passphrase {name}".encode())


def luks():
    passphrases()
    img("create", "-q", *SECRETS, "-f", "luks", "-o", "key-secret=one,iter-time=1", "a", "1M")
    run(OUR_IO, *SECRETS, "--image-opts", "-c", "write -q -P 17 0 1M", "-c", "write -q -P 18 100k 200k", place("a"))
    write_file("old", plain("a"))


def two_keys():
    luks()
    img("amend", "-q", *SECRETS, "--image-opts", "-o", "state=active,new-secret=two,iter-time=1", place("a"))


def source():
    luks()
    write_file("raw", bytes(range(256)) * 4096)


def kept(name, prepare, words, then=lambda: None):
    """Neither success nor failure changes the data, or takes the first passphrase away. `then` must be so after success."""
    def judge(out=None):
        problem = opens("a", "one")
        if problem or out is None:
            return problem or (None if plain("a") == content("old") else "the data have changed")
        return then() or (None if plain("a") == content("old") else "the data have changed")
    Scenario(name, prepare, [OUR_IMG, *words], {"a"}, judge, judge)


def wrote(name, commands, versions):
    """Each sector is old or new; after success, new."""
    def made():
        old = content("old")
        return [old] + [old[:start] + bytes([fill]) * length + old[start + length:] for fill, start, length in versions]

    def good(out):
        data = plain("a")
        return next((f"{fill} is not at {start}" for fill, start, length in versions if data[start:start + length] != bytes([fill]) * length), None)
    Scenario(name, luks, [OUR_IO, *SECRETS, "--image-opts", *(word for command in commands for word in ("-c", command)), place("a")], {"a"},
             good, lambda: mixture_problem(plain("a"), made()))


def has_size(name, *sizes):
    return lambda out=None: opens(name, "one") or (None if len(plain(name)) in sizes else "wrong size")


CREATE = ["create", *SECRETS, "-f", "luks"]
Scenario("create", passphrases, [OUR_IMG, *CREATE, "-o", "key-secret=one,iter-time=1", "new", "1M"], {"new"}, has_size("new", MIB))
Scenario("create falloc", passphrases, [OUR_IMG, *CREATE, "-o", "key-secret=one,iter-time=1,preallocation=falloc", "new", "1M"], {"new"}, has_size("new", MIB))
Scenario("create detached", passphrases, [OUR_IMG, *CREATE, "-o", "key-secret=one,iter-time=1,detached-header=on", "new", "0"], {"new"})
Scenario("info", luks, [OUR_IMG, "info", "--output", "json", "a"])
Scenario("measure", passphrases, [OUR_IMG, "measure", *SECRETS, "-O", "luks", "-o", "key-secret=one", "--size", "1G"])
Scenario("convert to LUKS", source, [OUR_IMG, "convert", *SECRETS, "-n", "-f", "raw", "raw", "--target-image-opts", place("a")], {"a"},
         lambda out: None if plain("a") == content("raw") else "the data are others", lambda: mixture_problem(plain("a"), [content("old"), content("raw")]))
Scenario("convert from LUKS", luks, [OUR_IMG, "convert", *SECRETS, "--image-opts", "-O", "raw", place("a"), "copy"], {"copy"},
         lambda out: None if content("copy") == content("old") else "the data are others")
kept("amend: another key", luks, ["amend", *SECRETS, "--image-opts", "-o", "state=active,new-secret=two,iter-time=1", place("a")],
     lambda: opens("a", "two"))
kept("amend: one key less", two_keys, ["amend", *SECRETS, "--image-opts", "-o", "state=inactive,old-secret=two", place("a")],
     lambda: None if opens("a", "two") else "the old passphrase still opens it")
Scenario("resize", luks, [OUR_IMG, "resize", "-q", *SECRETS, "--image-opts", place("a"), "2M"], {"a"}, has_size("a", 2 * MIB), has_size("a", MIB, 2 * MIB))
wrote("write", [f"write -q -P 5 {64 * KIB} {96 * KIB}", "flush", f"write -q -P 6 {700 * KIB} 512", "flush"],
      [(5, 64 * KIB, 96 * KIB), (6, 700 * KIB, 512)])
wrote("write inside of sectors", [f"write -q -P 5 {64 * KIB} 512", "flush", f"aio_write -q -P 6 {MIB // 2} {64 * KIB}", "aio_flush"],
      [(5, 64 * KIB, 512), (6, MIB // 2, 64 * KIB)])
Scenario("read", luks, [OUR_IO, *SECRETS, "-r", "--image-opts", "-c", "read -q -P 18 100k 200k", "-c", "length", place("a")])

tool_faults.main()
