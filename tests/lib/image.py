# SPDX-License-Identifier: Apache-2.0
"""Running the image tools, and the ecosystem's, from tests. Every check names what was run when it fails."""
import json
import os
import subprocess
import sys

from patience import patience

BIN = os.environ["SPINDLE_BIN"]
OUR_IMG = os.path.join(BIN, "spindle-img")
OUR_IO = os.path.join(BIN, "spindle-io")


class Result:
    def __init__(self, command, process):
        self.command = " ".join(command)
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def __str__(self):
        return f"$ {self.command}\nstatus {self.status}\n{self.out}{self.err}"


def run(*command, status=0, **options):
    """Runs a command; `status` is what it must return, None for anything but a crash."""
    command = [str(word) for word in command]
    process = subprocess.run(command, capture_output=True, timeout=patience(100), **options)
    process.stdout = process.stdout.decode(errors="surrogateescape")  # not by text=True, which would change "\r"
    process.stderr = process.stderr.decode(errors="surrogateescape")
    result = Result(command, process)
    broken = process.returncode < 0 or "Sanitizer" in process.stderr or "runtime error" in process.stderr
    if broken or (status is not None and process.returncode != status):
        fail(f"expected status {status}\n{result}")
    return result


def fail(message):
    sys.exit(f"FAILED: {message}")


def check(condition, message):
    if not condition:
        fail(message)


def equal(found, wanted, what):
    if found != wanted:
        fail(f"{what}\n  found:  {found!r}\n  wanted: {wanted!r}")


def img(*words, **options):
    return run(OUR_IMG, *words, **options)


def io(image, *commands, form="raw", status=0, options=()):
    words = [word for command in commands for word in ("-c", command)]
    return run(OUR_IO, "-f", form, *options, *words, image, status=status)


def their_img(*words, **options):
    return run("qemu-img", *words, **options)


def their_io(image, *commands, form="raw", status=0, options=()):
    words = [word for command in commands for word in ("-c", command)]
    return run("qemu-io", "-f", form, *options, *words, image, status=status)


def img_json(*words, status=0, tool=OUR_IMG):
    return json.loads(run(tool, *words, "--output", "json", status=status).out)


def content(path):
    with open(path, "rb") as file:
        return file.read()


def write_file(path, data):
    with open(path, "wb") as file:
        file.write(data)
