#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, zones of a disk are reported wrongly or orders to them do something else than they say; or an image on a real block
# device is not read, written, discarded and measured as one in a file.
# labels: full interop
# requires: qemu-system-x86_64 strip
# timeout: 300
"""In a virtual machine with the kernel's null_blk. SPINDLE_PEER_ROOT names the root folder of a system with a newer QEMU (8 or later, which
knows zones): then its qemu-io does the same with a second disk, and what both print is compared."""
import os
import random
import re
import subprocess

import vm
from image import BIN, check, equal, img, write_file
from patience import patience

vm.require()
PEER = os.environ.get("SPINDLE_PEER_ROOT")
MIB = 1 << 20

# Zones of 16 MiB: two conventional, then sequential ones; no more than three open.
REPORT = "zone_report 0 8"
STEPS = [
    REPORT, "zone_report 32M 2", "zone_report 40M 1",
    "zone_open 32M 16M", "zone_report 32M 1", "zone_close 32M 16M", "zone_report 32M 1",
    "write -P 7 48M 64k", "zone_report 48M 1", "zone_open 48M 16M", "zone_close 48M 16M", "zone_report 48M 1",
    "zone_finish 48M 16M", "zone_report 48M 1", "read -P 7 48M 64k", "write 48M 4k", "zone_reset 48M 16M", "zone_report 48M 1", "read -P 255 48M 64k",
    "zone_append -p 64M 64k", "zone_append -p 64M 4k 8k", "zone_append 64M 4k 4k", "zone_report 64M 1", "read -P 205 64M 84k", "read -P 255 65620k 4k",
    "write -P 9 80M 4k", "write -P 9 81924k 4k", "write -P 9 81936k 4k", "zone_report 80M 1", # the last one is not at the write pointer
    "write -P 5 0 64k", "write -P 6 32k 4k", "read -P 6 32k 4k", "zone_append 0 4k 4k", "zone_reset 0 16M", # conventional
    "zone_open 33M 16M", "zone_open 32M 1M", "zone_reset 33M 1M", "zone_finish 32M 1G", "zone_append 65M 4k 4k", "zone_append 96M 8M 8M",
    "zone_open 128M 16M", "zone_open 144M 16M", "zone_open 160M 16M", "zone_open 176M 16M", "zone_report 128M 4", # one too many
    "zone_close 128M 64M", "zone_finish 128M 64M", "zone_report 128M 4", "zone_reset 32M 224M", REPORT,
]


def words(steps):
    return " ".join(f"-c '{step}'" for step in steps)


SCRIPT = r"""
load null_blk nr_devices=0
mount -t configfs none /sys/kernel/config
disk() { # name, then attributes
    name=$1; shift
    mkdir /sys/kernel/config/nullb/$name
    for attribute; do echo "${attribute#*=}" >/sys/kernel/config/nullb/$name/${attribute%%=*} || echo "FAILED: $attribute"; done
    echo 1 >/sys/kernel/config/nullb/$name/power
}
zoned="size=256 memory_backed=1 zoned=1 zone_size=16 zone_nr_conv=2 zone_max_open=3 blocksize=4096"
disk ours $zoned
disk theirs $zoned
disk plain size=64 memory_backed=1 discard=1 blocksize=512
disk blocks size=64 memory_backed=1 discard=1 blocksize=4096
ls /dev >/tmp/devices
device() { # the disks are /dev/nullb0, 1, ... or have their own names, as kernels differ
    [ -b /dev/$1 ] && echo /dev/$1 || echo /dev/nullb$(cat /sys/kernel/config/nullb/$1/index)
}
echo "@@ ours"
spindle-io -n --image-opts @STEPS@ driver=host_device,filename=$(device ours) 2>&1
if [ -e /peer ]; then
    echo "@@ theirs"
    /peer/loader --library-path /peer /peer/qemu-io -n --image-opts @STEPS@ driver=host_device,filename=$(device theirs) 2>&1
fi
echo "@@ file"
truncate -s 64M file
spindle-io -f raw -c 'zone_report 0 1' -c 'zone_open 0 1M' -c 'zone_append 0 4k' file
echo "@@ device"
for name in plain blocks; do
    d=$(device $name)
    spindle-img info -f raw $d | grep -E 'virtual size|file format' || echo FAILED
    spindle-img convert -q -n -f qcow2 -O raw disk.qcow2 $d || echo "FAILED: convert to $name"
    cmp -n 33554432 $d data.raw || echo "FAILED: content of $name"
    spindle-img convert -q -f raw -O qcow2 $d again.qcow2 && spindle-img compare -q -f qcow2 -F raw again.qcow2 $d
    spindle-io -f raw -c 'write -P 3 1000 5000' -c 'read -P 3 1000 5000' -c 'write -P 4 4k 4k' -c flush $d >out || { echo "FAILED: io on $name"; cat out; }
    spindle-io -n -f raw -c 'read -P 3 1000 3000' -c 'read -P 4 4k 4k' -c 'write -P 5 512 512' -c 'read -P 5 512 512' -c 'read -P 3 1024 3000' $d >out || { echo "FAILED: direct io on $name"; cat out; }
    spindle-io -d unmap -f raw -c 'discard 8M 8M' -c 'read -P 0 8M 8M' -c 'write -z 16M 1M' -c 'read -P 0 16M 1M' -c 'write -z -u 17M 1M' -c 'read -P 0 17M 1M' $d >out || { echo "FAILED: zeroes on $name"; cat out; }
    spindle-img resize -f raw $d 128M && echo "FAILED: $name grew"
    spindle-img create -q -f qcow2 $d 1G && spindle-io -f qcow2 -c 'write -P 8 900M 1M' $d >out && spindle-io -f qcow2 -c 'read -P 8 900M 1M' $d >out || { echo "FAILED: qcow2 on $name"; cat out; }
    spindle-img check -f qcow2 $d | grep 'No errors'
done
echo "@@ full"
load loop
losetup /dev/loop0 /bin/busybox 2>/dev/null; losetup -d /dev/loop0 2>/dev/null
for d in $(device plain) $(device blocks); do spindle-io -f qcow2 -c 'write 0 80M' $d; done
# A volume that is made larger when an image on it meets its end, as virtualization managers do it; the image stays in use.
truncate -s 16M volume
losetup /dev/loop0 volume
spindle-img create -q -f qcow2 /dev/loop0 1G
(echo 'write -P 1 0 8M'; echo 'write -P 2 8M 16M'
 n=0; while ! grep -q 'No space' grown && [ $n -lt 600 ]; do usleep 100000; n=$((n + 1)); done
 truncate -s 64M volume; losetup -c /dev/loop0
 echo 'write -P 2 8M 16M'; echo flush; echo 'read -P 2 8M 16M'; echo 'read -P 1 0 8M'; echo quit) | spindle-io -f qcow2 /dev/loop0 >grown 2>&1
cat grown
spindle-img check -f qcow2 /dev/loop0
echo "@@ end"
"""


def peer_files():
    """qemu-io of another system, with its loader and its libraries."""
    loader = subprocess.run(["find", f"{PEER}/usr/lib64", f"{PEER}/usr/lib", "-name", "ld-linux-x86-64.so.2"], capture_output=True, text=True).stdout.split()[0]
    program = f"{PEER}/usr/bin/qemu-io"
    listed = subprocess.run([loader, "--library-path", f"{PEER}/usr/lib/x86_64-linux-gnu", "--list", program], capture_output=True, text=True).stdout
    libraries = {os.path.basename(path): os.path.realpath(path) for path in re.findall(r"=> (\S+)", listed)}
    return {"loader": loader, "qemu-io": program, **libraries}


def section(output, name):
    found = re.search(rf"^@@ {name}\n(.*?)^@@ ", output, re.M | re.S)
    return found.group(1) if found else None


def shape(text):
    """Without what differs with every run: times and rates; and whose words it is that something failed."""
    lines = []
    for line in text.splitlines():
        if line.startswith("qemu-io: "):
            continue  # it explains itself
        line = re.sub(r"^.* ops; .*$", "RATE", line)
        line = re.sub(r"^(\w[\w ]*) failed: .*", r"\1 failed", line)
        lines.append(line)
    return lines


write_file("data.raw", random.Random(5).randbytes(20 * MIB) + bytes(12 * MIB))
img("convert", "-f", "raw", "-O", "qcow2", "data.raw", "disk.qcow2")
programs = [os.path.join(BIN, name) for name in ("spindle-io", "spindle-img")]
extra = {f"/peer/{name}": path for name, path in peer_files().items()} if PEER else {}
status, output = vm.run(SCRIPT.replace("@STEPS@", words(STEPS)), programs=programs, files={"data.raw": "data.raw", "disk.qcow2": "disk.qcow2"}, extra=extra,
                        timeout=patience(240))
print(output)
check("FAILED" not in output and "Sanitizer" not in output and status == 0, "see above")
ours, theirs = section(output, "ours"), section(output, "theirs")
reports = re.findall(r"start: 0x(\w+), len 0x(\w+), cap 0x(\w+), wptr 0x(\w+), zcond:(\d+), \[type: (\d)\]", ours)
equal(reports[0], ("0", "8000", "8000", "8000", "0", "1"), "a conventional zone")
equal(reports[2], ("10000", "8000", "8000", "10000", "1", "2"), "an empty zone")
conditions = [int(report[4]) for report in reports if report[5] == "2"]
check(all(condition in conditions for condition in (1, 2, 3, 4, 14)), f"empty, open, opened, closed, full: {conditions}")
equal(ours.count("After zap done"), 2, "-p")
check("After zap done, the append sector is 0x20080" in ours, "where the second append went")
check("Pattern verification failed" not in ours, "content: null_blk has 0xff behind the write pointer")
if theirs is not None:
    equal(shape(ours), shape(theirs), "what both print")
    print("the same as the peer prints")
check(section(output, "file").count("failed") == 3, "a file has zones")
device = section(output, "device")
equal(device.count("virtual size: 64 MiB"), 2, "sizes of devices")
equal(device.count("No errors"), 2, "images on devices")
full = section(output, "full")
equal(len(re.findall("write failed: No space", full)), 3, "devices that are full")
check("wrote 16777216/16777216" in full and "Pattern" not in full and full.count("No errors") == 1, "a volume that grows under an image")
