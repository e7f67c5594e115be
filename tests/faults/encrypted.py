#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, some failure of memory or of a file makes the tools crash on an encrypted image, take its passphrases away, or spoil its data.
# labels: full
# timeout: 400
"""Encrypted images (LUKS, LUKS inside of qcow2, and qcow2 with AES), with one operation of the tool failing (lib/tool_faults.py). Whatever becomes of a change of the key slots: the passphrase
that the image had before it still opens it, and the data are what they were."""
import os

import tool_faults
from faults import quietly
from image import OUR_IMG, OUR_IO, content, img, run, write_file
from tool_faults import Scenario, mixture_problem

KIB, MIB = 1 << 10, 1 << 20
SECRETS = ["--object", "secret,id=one,file=one", "--object", "secret,id=two,file=two"]


def passphrases():
    for name in ("one", "two"):
        write_file(name, f"passphrase {name}".encode())


class Kind:
    """How images of this kind are made and opened. `prefix` stands in front of the names of options about encryption."""

    def __init__(self, name, form, prefix, options):
        self.name, self.form, self.prefix = name, form, prefix
        self.options = ",".join(f"{prefix}{option}" for option in options)

    def place(self, name, secret="one"):
        return f"driver={self.form},{self.prefix}key-secret={secret},file.filename={name}"

    def slots(self, **options):
        return ",".join(f"{self.prefix}{name.replace('_', '-')}={value}" for name, value in options.items())

    def opens(self, name, secret):
        """None: it does. (A read; `info` could do without the passphrase.)"""
        done = quietly(OUR_IO, *SECRETS, "-r", "--image-opts", "-c", "read -q 0 512", self.place(name, secret))
        return None if done.returncode == 0 else f"passphrase '{secret}' does not open {name}: {done.stderr.decode()}"

    def plain(self, name):
        done = quietly(OUR_IMG, "convert", *SECRETS, "--image-opts", "-O", "raw", self.place(name), "flat")
        assert done.returncode == 0, f"{name} cannot be read: {done.stderr.decode()}"
        data = content("flat")
        os.unlink("flat")
        return data

    # Images to begin with.

    def image(self):
        passphrases()
        img("create", "-q", *SECRETS, "-f", self.form, "-o", self.options, "a", "1M")
        run(OUR_IO, *SECRETS, "--image-opts", "-c", "write -q -P 17 0 1M", "-c", "write -q -P 18 100k 200k", self.place("a"))
        write_file("old", self.plain("a"))

    def two_keys(self):
        self.image()
        img("amend", "-q", *SECRETS, "--image-opts", "-o", self.slots(state="active", new_secret="two", iter_time=1), self.place("a"))

    def source(self):
        self.image()
        write_file("raw", bytes(range(256)) * 4096)

    # What becomes of them.

    def scenario(self, name, *rest):
        Scenario(f"{self.name}: {name}", *rest)

    def kept(self, name, prepare, words, then=lambda: None):
        """Neither success nor failure changes the data, or takes the first passphrase away. `then` must be so after success."""
        def judge(out=None):
            problem = self.opens("a", "one")
            if problem or out is None:
                return problem or (None if self.plain("a") == content("old") else "the data have changed")
            return then() or (None if self.plain("a") == content("old") else "the data have changed")
        self.scenario(name, prepare, [OUR_IMG, *words], {"a"}, judge, judge)

    def wrote(self, name, commands, versions):
        """Each sector is old or new; after success, new."""
        def made():
            old = content("old")
            return [old] + [old[:start] + bytes([fill]) * length + old[start + length:] for fill, start, length in versions]

        def good(out):
            data = self.plain("a")
            return next((f"{fill} is not at {start}" for fill, start, length in versions if data[start:start + length] != bytes([fill]) * length), None)
        self.scenario(name, self.image, [OUR_IO, *SECRETS, "--image-opts", *(word for command in commands for word in ("-c", command)), self.place("a")],
                      {"a"}, good, lambda: mixture_problem(self.plain("a"), made()))

    def has_size(self, name, *sizes):
        return lambda out=None: self.opens(name, "one") or (None if len(self.plain(name)) in sizes else "wrong size")

    def make_scenarios(self):
        create = [OUR_IMG, "create", *SECRETS, "-f", self.form, "-o"]
        self.scenario("create", passphrases, [*create, self.options, "new", "1M"], {"new"}, self.has_size("new", MIB))
        self.scenario("create falloc", passphrases, [*create, f"{self.options},preallocation=falloc", "new", "1M"], {"new"}, self.has_size("new", MIB))
        self.scenario("info", self.image, [OUR_IMG, "info", "--output", "json", "a"])
        self.scenario("measure", passphrases, [OUR_IMG, "measure", *SECRETS, "-O", self.form, "-o", self.options, "--size", "1G"])
        self.scenario("convert to it", self.source, [OUR_IMG, "convert", *SECRETS, "-n", "-f", "raw", "raw", "--target-image-opts", self.place("a")], {"a"},
                      lambda out: None if self.plain("a") == content("raw") else "the data are others",
                      lambda: mixture_problem(self.plain("a"), [content("old"), content("raw")]))
        self.scenario("convert from it", self.image, [OUR_IMG, "convert", *SECRETS, "--image-opts", "-O", "raw", self.place("a"), "copy"], {"copy"},
                      lambda out: None if content("copy") == content("old") else "the data are others")
        self.scenario("resize", self.image, [OUR_IMG, "resize", "-q", *SECRETS, "--image-opts", self.place("a"), "2M"], {"a"},
                      self.has_size("a", 2 * MIB), self.has_size("a", MIB, 2 * MIB))
        self.wrote("write", [f"write -q -P 5 {64 * KIB} {96 * KIB}", "flush", f"write -q -P 6 {700 * KIB} 512", "flush"],
                   [(5, 64 * KIB, 96 * KIB), (6, 700 * KIB, 512)])
        self.wrote("write inside of sectors", [f"write -q -P 5 {64 * KIB} 512", "flush", f"aio_write -q -P 6 {MIB // 2} {64 * KIB}", "aio_flush"],
                   [(5, 64 * KIB, 512), (6, MIB // 2, 64 * KIB)])
        self.scenario("read", self.image, [OUR_IO, *SECRETS, "-r", "--image-opts", "-c", "read -q -P 18 100k 200k", "-c", "length", self.place("a")])
        if self.options.startswith("encrypt.format=aes"):
            return
        amend = ["amend", *SECRETS, "--image-opts", "-o"]
        self.kept("amend: another key", self.image, [*amend, self.slots(state="active", new_secret="two", iter_time=1), self.place("a")],
                  lambda: self.opens("a", "two"))
        self.kept("amend: one key less", self.two_keys, [*amend, self.slots(state="inactive", old_secret="two"), self.place("a")],
                  lambda: None if self.opens("a", "two") else "the old passphrase still opens it")


Kind("LUKS", "luks", "", ["key-secret=one", "iter-time=1"]).make_scenarios()
Kind("qcow2", "qcow2", "encrypt.", ["format=luks", "key-secret=one", "iter-time=1", "cipher-alg=aes-128"]).make_scenarios()
Kind("AES", "qcow2", "encrypt.", ["format=aes", "key-secret=one"]).make_scenarios()
Scenario("LUKS: create detached", passphrases,
         [OUR_IMG, "create", *SECRETS, "-f", "luks", "-o", "key-secret=one,iter-time=1,detached-header=on", "new", "0"], {"new"})

tool_faults.main()
