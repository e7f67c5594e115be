# SPDX-License-Identifier: Apache-2.0
"""A virtual machine of the host's own architecture that runs one shell script as root and is gone: for tests that need a kernel of
their own. What it boots from is made by tools/vm/build; programs of the host come along with their libraries.

    status, output = vm.run('load nbd\\nspindle-nbd -c /dev/nbd0 disk', programs=[NBD], files={"disk": data})

In it: busybox, `load MODULE [parameters]` (modules of tools/vm/build), the programs in the path, the files in the current directory.
It has no network and no clock to rely on; the processor is emulated, so it is slow, everywhere by about the same factor.
"""
import os
import re
import stat
import subprocess
import sys

ROOT = os.environ["SPINDLE_SRC"]
VM = os.environ.get("SPINDLE_VM", os.path.join(ROOT, "build/vm"))


def require():
    """Ends the test, skipped, where there is no virtual machine (failed where CI is set)."""
    if all(os.path.exists(os.path.join(VM, name)) for name in ("vmlinuz", "base.cpio")):
        return
    print(f"there is no virtual machine in {VM}: tools/vm/build makes it")
    sys.exit(1 if os.environ.get("CI") else 77)


class Archive:
    """An archive as the kernel unpacks it (cpio, "newc")."""

    def __init__(self, path):
        self.out = open(path, "wb")
        self.made = set()

    def _entry(self, name, mode, data):
        head = [len(self.made) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        text = b"070701" + b"".join(b"%08x" % value for value in head) + name.encode() + b"\0"
        self.out.write(text + b"\0" * (-len(text) % 4) + data + b"\0" * (-len(data) % 4))

    def add(self, name, data, mode=0o644):
        name = name.strip("/")
        if name in self.made:
            return
        parent = os.path.dirname(name)
        if parent:
            self.add_folder(parent)
        self.made.add(name)
        self._entry(name, stat.S_IFREG | mode, data)

    def add_folder(self, name):
        if name in self.made:
            return
        if os.path.dirname(name):
            self.add_folder(os.path.dirname(name))
        self.made.add(name)
        self._entry(name, stat.S_IFDIR | 0o755, b"")

    def add_program(self, path):
        """Without what debuggers want, which is most of it."""
        self.add(f"bin/{os.path.basename(path)}", stripped(path), 0o755)
        libraries = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        for library in re.findall(r"(?:=> )?(/\S+) \(0x", libraries):
            self.add(library, content(os.path.realpath(library)), 0o755)

    def close(self):
        self._entry("TRAILER!!!", 0, b"")
        self.out.write(b"\0" * (-self.out.tell() % 512))
        self.out.close()


def content(path):
    with open(path, "rb") as file:
        return file.read()


def stripped(path):
    copy = f"{os.path.basename(path)}.stripped"
    if subprocess.run(["strip", "-g", "-o", copy, path], capture_output=True).returncode:
        return content(path)
    data = content(copy)
    os.unlink(copy)
    return data


def run(script, programs=(), files=None, extra=None, timeout=90, memory="1500M"):
    """(exit status, output) of the script. `extra`: files by their whole path in the machine. Fails, with what the kernel has said, when the machine does not come to its end."""
    archive = Archive("extra.cpio")
    archive.add("test/script", script.encode(), 0o755)
    for name, data in (files or {}).items():
        archive.add(f"test/files/{name}", data if isinstance(data, bytes) else content(data))
    for name, path in (extra or {}).items():
        archive.add(name, content(path), 0o755)
    for program in programs:
        archive.add_program(program)
    archive.close()
    with open("initrd", "wb") as initrd:
        for part in (os.path.join(VM, "base.cpio"), "extra.cpio"):
            initrd.write(content(part))
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", memory, "-nodefaults", "-display", "none", "-no-reboot",
               "-kernel", os.path.join(VM, "vmlinuz"), "-initrd", "initrd", "-serial", "file:console", "-serial", "file:output",
               "-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check random.trust_cpu=on"]
    try:
        process = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        problem = process.stderr if process.returncode else None
    except subprocess.TimeoutExpired:
        problem = f"not done after {timeout} seconds"
    output = content("output").decode(errors="replace") if os.path.exists("output") else ""
    end = re.search(r"^@@ status (\d+)$", output, re.M)
    if not end:
        console = content("console").decode(errors="replace") if os.path.exists("console") else ""
        sys.exit(f"FAILED: the virtual machine: {problem or 'it ended early'}\n-- output\n{output}\n-- console\n{console[-4000:]}")
    return int(end.group(1)), output[:end.start()]
