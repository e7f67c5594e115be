#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a forged or damaged encrypted qcow2 image crashes a tool, is opened although nobody can say where its keys are, or has its
# LUKS header overwritten by data or its tables overwritten by changes of key slots.
# labels: quick
# timeout: 200
"""A good image of ours is changed byte by byte; every tool must say what is wrong, and leave the file as it is."""
import os
import struct
import subprocess

BIN = os.environ["SPINDLE_BIN"]
IMG, IO = f"{BIN}/spindle-img", f"{BIN}/spindle-io"
SECRETS = ["--object", "secret,id=one,data=the passphrase", "--object", "secret,id=two,data=another passphrase"]
OPTS = "driver=qcow2,encrypt.key-secret=one,file.filename=i.qcow2"
CLUSTER = 4096


def run(*command):
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode >= 0 and "Sanitizer" not in result.stderr and "runtime error" not in result.stderr, (command, result)
    return result


def make(options):
    result = run(IMG, "create", "-q", *SECRETS, "-f", "qcow2", "-o", f"cluster_size={CLUSTER},{options}", "good.qcow2", "1M")
    assert result.returncode == 0, result
    result = run(IO, *SECRETS, "--image-opts", OPTS.replace("i.qcow2", "good.qcow2"), "-c", "write -P 1 0 256k")
    assert result.returncode == 0, result
    with open("good.qcow2", "rb") as file:
        return file.read()


def get64(data, at):
    return struct.unpack_from(">Q", data, at)[0]


def patched(data, *changes):
    image = bytearray(data)
    for at, content in changes:
        image[at:at + len(content)] = content
    return bytes(image)


def be64(value):
    return struct.pack(">Q", value)


def be32(value):
    return struct.pack(">I", value)


def write(image):
    with open("i.qcow2", "wb") as file:
        file.write(image)


def is_unchanged(image):
    with open("i.qcow2", "rb") as file:
        return file.read() == image


def refused(image, *texts, keyless=True):
    """Nobody opens it; `keyless`: nor without the key. The file stays as it is."""
    write(image)
    commands = [(IO, *SECRETS, "--image-opts", OPTS, "-c", "write 0 64k"), (IMG, "convert", *SECRETS, "--image-opts", OPTS, "-O", "raw", "o.raw"),
                (IMG, "amend", *SECRETS, "--image-opts", OPTS, "-o", "encrypt.state=active,encrypt.new-secret=two,encrypt.iter-time=10")]
    if keyless:
        commands += [(IMG, "info", "-f", "qcow2", "i.qcow2"), (IMG, "check", "-r", "all", "-f", "qcow2", "i.qcow2")]
    for command in commands:
        result = run(*command)
        assert result.returncode, (command, texts, result)
        for text in texts:
            assert text in result.stdout + result.stderr, (command, text, result)
    assert is_unchanged(image), texts


aes = make("encrypt.format=aes,encrypt.key-secret=one")
good = make("encrypt.format=luks,encrypt.key-secret=one,encrypt.iter-time=10,encrypt.cipher-alg=aes-128")
extension = good.index(be32(0x0537be77) + be32(16))
area, length = get64(good, extension + 8), get64(good, extension + 16)
l1, reftable = get64(good, 40), get64(good, 48)
refblock = get64(good, reftable)
l2 = get64(good, l1) & 0xfffffffffffe00
end = len(good)

print("== where the LUKS header is said to be")
refused(patched(good, (32, be32(3))), "crypt_method is 3")
refused(patched(good, (32, be32(0))), "crypt_method is 0")
refused(patched(good, (32, be32(1))), "crypt_method is 1")
refused(patched(aes, (32, be32(2))), "crypt_method is 2", "not given")
refused(patched(good, (extension, be32(0x12345678))), "not given")
refused(patched(good, (extension + 4, be32(8))), "encryption extension has 8 bytes")
for offset in (0, 1, 512, area + 512, (1 << 64) - CLUSTER, 1 << 56):
    refused(patched(good, (extension + 8, be64(offset))), "the LUKS header" if offset else "first cluster")
for offset in (end, end - CLUSTER, 1 << 40, (1 << 56) - CLUSTER):
    refused(patched(good, (extension + 8, be64(offset // CLUSTER * CLUSTER))), "does not lie inside the file")
for size in (0, end, 1 << 40, (1 << 64) - 1, (1 << 64) - area):
    refused(patched(good, (extension + 16, be64(size))), "LUKS header")
for size in (1, 591):
    refused(patched(good, (extension + 16, be64(size))), "a LUKS header has 592 bytes")
for name, place in (("the active L1 table", l1), ("the refcount table", reftable), ("a refcount block", refblock), ("an active L2 table", l2)):
    refused(patched(good, (extension + 8, be64(place)), (extension + 16, be64(4096))), f"lies over {name}")

print("== what the LUKS header says")
refused(patched(good, (area, b"LUCKS!")), "not in LUKS format")
refused(patched(good, (area + 6, b"\0\2")), "LUKS version 2")
refused(patched(good, (area + 8, b"rot13" + bytes(27))), "cipher 'rot13'")
refused(patched(good, (area + 104, be32(0xffffffff))), "the data would begin")
refused(patched(good, (area + 208, be32(7))), "key slot 0 is neither")
for slot in range(8):
    refused(patched(good, (area + 208 + 48 * slot + 40, be32(0xffffffff))), f"key slot {slot} at")
    refused(patched(good, (area + 208 + 48 * slot + 40, be32(0))), f"key slot {slot} at")
refused(patched(good, (area + 208 + 40, good[area + 208 + 48 + 40:area + 208 + 48 + 44])), "key slots 0 and 1 overlap")
refused(patched(good, (area + 208, be32(0xdead))), "Invalid password", keyless=False)
refused(patched(good, (area + 4096, bytes(4096))), "Invalid password", keyless=False)
refused(patched(good, (area + 112, bytes(20))), "Invalid password", keyless=False)
refused(good[:area + length - 1], "does not lie inside the file")

print("== data that is said to lie in the LUKS header, tables in its clusters")
copied = 1 << 63
first = area // CLUSTER
for image in (patched(good, (l2, be64(area | copied))), patched(good, (l2 + 8 * 100, be64(area + CLUSTER | copied)))):
    write(image)
    assert run(IMG, "check", "-f", "qcow2", "i.qcow2").returncode == 2
    result = run(IO, *SECRETS, "--image-opts", OPTS, "-c", "write 0 4k", "-c", "write 400k 4k")
    assert "would overwrite the LUKS header" in result.stdout + result.stderr, result
    with open("i.qcow2", "rb") as file:
        assert file.read()[area:area + length] == good[area:area + length], "the LUKS header was overwritten"
# Its clusters are counted as free: nothing new goes there.
image = bytearray(good)
for cluster in range(first, (area + length + CLUSTER - 1) // CLUSTER):
    struct.pack_into(">H", image, get64(good, reftable + cluster // 2048 * 8) + cluster % 2048 * 2, 0)
write(image)
result = run(IO, *SECRETS, "--image-opts", OPTS, "-c", "write 512k 256k")
assert "would overwrite the LUKS header" in result.stdout + result.stderr, result
with open("i.qcow2", "rb") as file:
    assert file.read()[area:area + length] == good[area:area + length], "the LUKS header was overwritten"
assert run(IMG, "check", "-q", "-r", "all", "-f", "qcow2", "i.qcow2").returncode == 0
assert run(IMG, "check", "-f", "qcow2", "i.qcow2").returncode == 0
result = run(IO, *SECRETS, "--image-opts", OPTS, "-c", "write -P 3 512k 256k", "-c", "read -P 3 512k 256k", "-c", "read -P 1 0 256k")
assert result.returncode == 0 and "erification" not in result.stdout, result
# A refcount block that the table names comes to lie in the LUKS header: changing slots would overwrite it.
refused(patched(good, (reftable + 8, be64(area + 8 * CLUSTER))), "lies over a refcount block")
