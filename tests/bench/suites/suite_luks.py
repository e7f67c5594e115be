# SPDX-License-Identifier: Apache-2.0
"""Encrypted images: LUKS 1, aes-256 in xts mode, a key derivation that is as short as the format allows, so that it does not hide the rest."""
import os
import subprocess

import data
from measure import CommandSession, Failure, ServerSession
from servers import daemon_nbd, nbd_load
from table import Benchmark

SECRET = ["--object", "secret,id=key,data=benchmark"]
CREATE = ["-o", "key-secret=key,iter-time=10"]


def plain(context):
    return context.file("stamped.raw", data.write_stamped, context.size(256, 16) << 20)


def encrypted(context, contender):
    def make(path):
        argv = [context.tool, "convert", *SECRET, "-f", "raw", "-O", "luks", *CREATE, plain(context), path]
        for _ in range(4):  # on a busy machine the peer may find the processor's time too uneven for its key derivation
            done = subprocess.run(argv, stderr=subprocess.PIPE, check=False)
            if done.returncode == 0:
                return
        raise Failure(done.stderr.decode(errors="replace").strip())
    return context.file(f"stamped-{contender.name}.luks", make)


def open_encrypt(context, contender):
    """Into an image that exists, because making one means measuring the host's speed for the key derivation."""
    img = contender.command("img")
    target = f"driver=luks,key-secret=key,file.driver=file,file.filename={encrypted(context, contender)}"
    return CommandSession(context, lambda _: img + ["convert", *SECRET, "-n", "-f", "raw", "--target-image-opts", plain(context), target]) if img else None


def open_decrypt(context, contender):
    img, out = contender.command("img"), context.scratch("out.raw")
    image = encrypted(context, contender)
    source = f"driver=luks,key-secret=key,file.driver=file,file.filename={image}"

    def clear(_):
        if os.path.exists(out):
            os.unlink(out)
    return CommandSession(context, lambda _: img + ["convert", *SECRET, "--image-opts", source, "-O", "raw", out], clear) if img else None


def open_nbd(context, contender):
    served = daemon_nbd(context, contender, encrypted(context, contender), "luks", SECRET, ("key-secret=key",))
    if not served:
        return None
    server, path = served
    return ServerSession(context, server, lambda depth, operations: nbd_load(context, path, "disk", operations, depth=depth))


NEEDS = ("driver:luks", "object:secret")
BENCHMARKS = [
    Benchmark("luks/encrypt", "luks", "convert raw to luks", "wall", "one conversion", open_encrypt, NEEDS + ("img:convert",)),
    Benchmark("luks/decrypt", "luks", "convert luks to raw", "wall", "one conversion", open_decrypt, NEEDS + ("img:convert",)),
    Benchmark("luks/nbd-read-4k", "luks", "4 KiB random reads of a luks image by NBD", "rate", "one request", open_nbd, NEEDS + ("export:nbd",), axis="depth",
              points=(1, 32), weight=2),
]
