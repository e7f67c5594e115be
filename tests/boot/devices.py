#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, Linux does not work with our board: its disks in every way they can be attached, console, clock, random numbers,
# reboot and power off.
# labels: boot
# requires: qemu-img
# timeout: 400
"""One guest, driven over its serial port: devices as Linux sees them, then a reboot, then power off."""
import hashlib
import os
import re
import subprocess
import sys
import time

from patience import patience

BIN = os.environ["SPINDLE_BIN"]
GUEST = os.environ.get("SPINDLE_GUEST", os.path.join(os.environ["SPINDLE_SRC"], "build/guest"))
if not os.path.exists(os.path.join(GUEST, "Image")):
    print(f"missing requirement: the guest in {GUEST}, made by tools/guest/build")
    sys.exit(1 if os.environ.get("CI") else 77)
MIB = 1 << 20


class Guest:
    def __init__(self, *options):
        self.process = subprocess.Popen(
            [f"{BIN}/spindle-system-riscv64", "-M", "virt", "-smp", "2", "-m", "256", "-display", "none", "-serial", "stdio",
             "-bios", f"{GUEST}/fw_dynamic.bin", "-kernel", f"{GUEST}/Image", "-initrd", f"{GUEST}/initrd",
             "-append", "root=/dev/vda rw console=ttyS0 quiet", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = ""

    def expect(self, pattern, seconds=patience(120)):
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.text)):
            data = self.process.stdout.read()
            if data:
                self.text += data.decode(errors="replace").replace("\r", "")
            elif time.monotonic() > end or data == b"":
                self.process.kill()
                raise AssertionError(f"{pattern!r} did not come: {self.text[-3000:]}")
            else:
                time.sleep(0.01)
        self.text = self.text[match.end():]
        return match

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, command):
        """the output of a command in the guest's shell"""
        self.type(f"{command}; echo 'status':$?:")
        output, status = self.expect(r"((?s:.*?))status:(\d+):\n").groups()
        assert status == "0", f"{command}: status {status}: {output}"
        return output.strip()


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def main():
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", f"{GUEST}/root.raw", "root.qcow2"], check=True)
    pattern = os.urandom(4096)
    for name in ("second.raw", "third.raw"):
        with open(name, "wb") as file:
            file.truncate(64 * MIB)
            file.seek(5 * MIB)
            file.write(pattern)
    guest = Guest("-drive", "file=root.qcow2,format=qcow2,if=none,id=root", "-device", "virtio-blk-device,drive=root,num-queues=2",
                  "-drive", "file=second.raw,format=raw,if=none,id=second", "-device", "virtio-blk-device,drive=second,serial=SECOND",
                  "-drive", "file=third.raw,format=raw,if=none,id=third,readonly=on", "-device",
                  "virtio-blk-device,drive=third,packed=on",
                  "-device", "virtio-rng-device", "-device", "virtio-serial-device", "-chardev", "file,id=hvc,path=hvc.log",
                  "-device", "virtconsole,chardev=hvc")
    guest.expect(r"/ # ")
    guest.type("stty -echo 2>/dev/null; PS1=")
    guest.run("true")

    # disks, in the order of the command line
    check(guest.run("cat /sys/block/vdb/serial") == "SECOND", "serial")
    check(guest.run("cat /sys/block/vda/mq/*/cpu_list | wc -l") == "2", "two queues")
    for disk in ("vdb", "vdc"):
        check(guest.run(f"cat /sys/block/{disk}/size") == str(64 * MIB // 512), f"size of {disk}")
        ours = hashlib.sha256(pattern).hexdigest()
        theirs = guest.run(f"dd if=/dev/{disk} bs=4096 skip={5 * MIB // 4096} count=1 2>/dev/null | sha256sum").split()[0]
        check(ours == theirs, f"contents of {disk}")
    check(guest.run("cat /sys/block/vdc/ro") == "1" and guest.run("cat /sys/block/vdb/ro") == "0", "read-only")
    guest.run("dd if=/dev/urandom of=/sample bs=64k count=64 2>/dev/null; dd if=/sample of=/dev/vdb bs=64k conv=fsync 2>/dev/null")
    size = int(guest.run("wc -c < /sample"))
    theirs = guest.run("sha256sum < /sample").split()[0]
    with open("second.raw", "rb") as file:
        ours = hashlib.sha256(file.read(size)).hexdigest()
    check(ours == theirs, "what the guest wrote and synced is not in the file")

    # the other devices
    guest.run("echo over there > /dev/hvc0")
    check(abs(int(guest.run("date +%s")) - time.time()) < 30, "time of day")
    check(guest.run("nproc") == "2", "processors")
    with open("hvc.log") as file:
        check("over there" in file.read(), "console on hvc0")

    guest.type("sync; reboot -f")
    guest.expect("OpenSBI")
    guest.expect(r"/ # ")
    guest.type("poweroff -f")
    check(guest.process.wait(patience(60)) == 0, "power off")
    print("all devices work")


main()
