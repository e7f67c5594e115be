#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Broken if this fails: an image can make us follow its backing files in circles or without end, or lead us from a
# guessed format to any file of the host.
# labels: quick
# timeout: 60
import os
import re
import struct
import subprocess
import sys

from patience import patience

IMG = os.path.join(os.environ["SPINDLE_BIN"], "spindle-img")
IO = os.path.join(os.environ["SPINDLE_BIN"], "spindle-io")
failures = []


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=patience(50))


def qcow2(name, backing=None, backing_format=None):
    """A minimal empty image of 1 MiB, written by hand so that it may name what does not exist yet."""
    cluster = 65536
    extensions = b""
    if backing_format:
        text = backing_format.encode()
        extensions += struct.pack(">II", 0xE2792ACA, len(text)) + text.ljust((len(text) + 7) // 8 * 8, b"\0")
    extensions += struct.pack(">II", 0, 0)
    path = (backing or "").encode()
    at = 104 + len(extensions)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, at if path else 0, len(path), 16, 1 << 20, 0, 1,
                         3 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4, 104)
    refcount_table = struct.pack(">Q", 2 * cluster)
    refcounts = struct.pack(">4H", 1, 1, 1, 1)
    with open(name, "wb") as image:
        image.write((header + extensions + path).ljust(cluster, b"\0"))
        image.write(refcount_table.ljust(cluster, b"\0"))
        image.write(refcounts.ljust(cluster, b"\0"))
        image.write(bytes(cluster))


def refuses(pattern, *command):
    result = run(*command)
    if result.returncode == 0 or not re.search(pattern, result.stderr):
        failures.append(f"{' '.join(command)}: exit code {result.returncode}, {result.stderr.strip()[:300]!r}, "
                        f"expected an error with {pattern!r}")
    if "\n" in result.stderr.strip() or len(result.stderr) > 20000:
        failures.append(f"{' '.join(command)}: the error is {len(result.stderr)} characters long")


def allows(*command):
    result = run(*command)
    if result.returncode:
        failures.append(f"{' '.join(command)}: exit code {result.returncode}, {result.stderr.strip()[:300]!r}")


def read(name):
    return (IO, "-r", "-f", "qcow2", "-c", "read -P 0 0 1M", name)


# Circles: itself, by another way of writing its name, through a second image, through a symbolic link.
qcow2("itself", "itself", "qcow2")
qcow2("dots", "./../" + os.path.basename(os.getcwd()) + "/dots", "qcow2")
qcow2("a", "b", "qcow2")
qcow2("b", "a", "qcow2")
qcow2("linked", "link", "qcow2")
os.symlink("linked", "link")
for name in "itself", "dots", "a", "linked":
    refuses("loop", *read(name))
    refuses("loop", IO, "-f", "qcow2", "-c", "write 0 512", name)

# Depth: long chains work, endless ones end.
os.mkdir("chain")
for i in range(2000):
    qcow2(f"chain/{i}", str(i - 1) if i else None, "qcow2" if i else None)
allows(*read("chain/150"))
refuses("levels deep", *read("chain/1999"))

# A guessed format leads nowhere: `disk` may have been written by a guest.
with open("secret", "wb") as secret:
    secret.write(b"secret" * 100000)
qcow2("disk", "secret", "raw")
qcow2("told", "disk", "qcow2")
qcow2("guessed", "disk")
allows(IO, "-r", "-f", "qcow2", "-c", "read 0 1M", "told")
refuses("first bytes", *read("guessed"))
qcow2("disk", None)
allows(*read("guessed"))

# Names that are no files.
for name in "nbd:unix:/nowhere:x", "json:{\"driver\": \"file\"", "json:[]", "json:{}", "\x01", "/dev/zero/x", "":
    qcow2("odd", name or "missing", "raw")
    refuses(".", *read("odd"))

for failure in failures:
    print("FAILED:", failure)
sys.exit(bool(failures))
