#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, spindle-nbd -c does not make a disk of this machine out of an image, or -d, a kill or a signal leaves a device that hangs.
# labels: full interop
# requires: qemu-system-x86_64 mke2fs e2fsck strip
# timeout: 300
import os
import random
import shutil

import vm
from image import BIN, check, img, run, write_file
from patience import patience

vm.require()
write_file("data.raw", random.Random(6).randbytes(3 << 20) + bytes(1 << 20))
os.truncate("data.raw", 64 << 20)
img("convert", "-f", "raw", "-O", "qcow2", "data.raw", "disk.qcow2")
img("create", "-q", "-f", "raw", "odd.raw", "1000001")

SCRIPT = r"""
failed=0
expect() { # what, found, wanted
    [ "$2" = "$3" ] || { echo "FAILED: $1: found '$2', wanted '$3'"; failed=1; }
}
refused() { # text, command...
    text=$1; shift
    if "$@" >out 2>&1; then echo "FAILED: accepted: $*"; failed=1; fi
    grep -q -e "$text" out || { echo "FAILED: $*: wanted '$text':"; cat out; failed=1; }
}
gone() { # nobody serves any more
    n=0
    while pidof spindle-nbd >/dev/null && [ $n -lt 300 ]; do usleep 100000; n=$((n + 1)); done
    expect "servers after $1" "$(pidof spindle-nbd)" ""
    expect "device after $1" "$(ls /sys/block/nbd0/pid /sys/block/nbd1/pid 2>/dev/null)" ""
}
must() { "$@" || { echo "FAILED: $*"; failed=1; }; }

refused 'modprobe nbd' spindle-nbd -c /dev/nbd0 -f qcow2 disk.qcow2
load nbd nbds_max=2
load crc32c_generic
load ext4
mkdir /mnt

echo "== connect, read, file system, disconnect"
must spindle-nbd -c /dev/nbd0 -f qcow2 --pid-file=/tmp/pid disk.qcow2
expect "size" "$(cat /sys/block/nbd0/size)" 131072
expect "flags: flush" "$(cat /sys/block/nbd0/queue/write_cache)" "write back"
must kill -0 "$(cat /tmp/pid)"
expect "CAP_SYS_ADMIN of who reads the image" "$(( 0x$(awk '/CapEff/ {print $2}' /proc/$(cat /tmp/pid)/status) >> 21 & 1 ))" 0
must cmp -n 4194304 data.raw /dev/nbd0
refused 'connected already' spindle-nbd -c /dev/nbd0 -f raw odd.raw
must /bin/mke2fs -q -t ext4 -L here /dev/nbd0 60000
must mount -t ext4 /dev/nbd0 /mnt
must dd if=/dev/urandom of=/mnt/file bs=1M count=8 2>/dev/null
must cp /bin/busybox /mnt/busybox
sync
md5sum /mnt/file /mnt/busybox >sums
umount /mnt
expect "-d" "$(spindle-nbd -d /dev/nbd0)" "/dev/nbd0 disconnected"
gone -d
expect "pid file" "$(ls /tmp/pid 2>/dev/null)" ""
must spindle-img check -q disk.qcow2

echo "== read-only"
must spindle-nbd -r -c /dev/nbd0 -f qcow2 disk.qcow2
expect "ro" "$(cat /sys/block/nbd0/ro)" 1
must mount -t ext4 -o ro,noload /dev/nbd0 /mnt
must md5sum -c -s sums
umount /mnt
refused . dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 conv=fsync
must spindle-nbd -d /dev/nbd0 >/dev/null
gone "-r"

echo "== discards reach the image"
cp disk.qcow2 thin.qcow2
before=$(du -k thin.qcow2 | cut -f1)
must spindle-nbd -c /dev/nbd0 -f qcow2 thin.qcow2
must blkdiscard -o 0 -l 33554432 /dev/nbd0
must dd if=/dev/nbd0 of=start bs=1M count=4 2>/dev/null
expect "what is left" "$(tr -d '\0' <start | wc -c)" 0
must spindle-nbd -d /dev/nbd0 >/dev/null
gone "discards"
must spindle-img check -q thin.qcow2
expect "data in the image" "$(spindle-img map --output=json -f qcow2 thin.qcow2 | grep -c '"start": 0, .*"data": true')" 0

echo "== killed under a mounted file system: errors, no hang; what was synced is there"
must spindle-nbd -c /dev/nbd0 -f qcow2 disk.qcow2
must mount -t ext4 /dev/nbd0 /mnt
dd if=/dev/urandom of=/mnt/synced bs=64k count=16 conv=fsync 2>/dev/null
md5sum /mnt/synced >>sums
dd if=/dev/urandom of=/mnt/lost bs=64k count=64 2>/dev/null
kill -9 $(pidof spindle-nbd)
(sync; umount /mnt || umount -l /mnt) & # what the kernel keeps for another try waits for the device to go
leaving=$!
for i in 1 2 3 4 5; do kill -0 $leaving 2>/dev/null && sleep 1; done
spindle-nbd -d /dev/nbd0 >/dev/null
wait $leaving
gone "kill -9 of all"
spindle-img check -q -r all disk.qcow2; expect "check" "$(( $? == 0 || $? == 3 ))" 1
must spindle-nbd -c /dev/nbd0 -f qcow2 disk.qcow2
/bin/e2fsck -fy /dev/nbd0 >out 2>&1; expect "e2fsck" "$(( $? <= 1 ))" 1
must mount -t ext4 /dev/nbd0 /mnt
must md5sum -c -s sums
umount /mnt

echo "== the server alone is killed: its attendant disconnects the device"
kill -9 $(pidof spindle-nbd | tr ' ' '\n' | sort -n | head -1) # the older one: its attendant is its child
gone "kill -9 of the server"
must spindle-nbd -c /dev/nbd0 -f qcow2 --pid-file=/tmp/pid disk.qcow2
must cmp -n 512 /dev/nbd0 /dev/nbd0
kill -TERM $(cat /tmp/pid)
gone SIGTERM

echo "== the old way, where netlink cannot be seen"
must unshare -n spindle-nbd -c /dev/nbd1 -f qcow2 --pid-file=/tmp/pid disk.qcow2
expect "size" "$(cat /sys/block/nbd1/size)" 131072
must mount -t ext4 /dev/nbd1 /mnt
must md5sum -c -s sums
must dd if=/dev/urandom of=/mnt/more bs=64k count=8 conv=fsync 2>/dev/null
umount /mnt
must unshare -n spindle-nbd -d /dev/nbd1 >/dev/null
gone "the old way"
must unshare -n spindle-nbd -c /dev/nbd1 -r -f qcow2 --pid-file=/tmp/pid disk.qcow2
expect "ro" "$(cat /sys/block/nbd1/ro)" 1
kill -TERM $(cat /tmp/pid)
gone "SIGTERM in the old way"
must unshare -n spindle-nbd -c /dev/nbd1 -f qcow2 disk.qcow2
must spindle-nbd -d /dev/nbd1 >/dev/null
gone "the old way, ended by netlink"

echo "== -v stays; others may come by a socket; odd sizes"
spindle-nbd -v -t -e 2 -k /tmp/sock -c /dev/nbd0 -f raw odd.raw 2>said &
n=0; while [ ! -e /sys/block/nbd0/pid ] && [ $n -lt 100 ]; do usleep 100000; n=$((n + 1)); done
expect "size" "$(cat /sys/block/nbd0/size)" 1954
must spindle-io -f raw -c 'write -P 7 0 4k' 'nbd+unix:///?socket=/tmp/sock' >/dev/null
must spindle-nbd -d /dev/nbd0 >/dev/null
wait
grep -q 'NBD device /dev/nbd0 is now connected to odd.raw' said || { echo "FAILED: -v:"; cat said; failed=1; }
gone -v

echo "== mistakes"
refused 'not a device of the kernel' spindle-nbd -c /dev/null -f raw odd.raw
refused 'not a device of the kernel' spindle-nbd -c odd.raw -f raw odd.raw
refused 'nothing.raw' spindle-nbd -c /dev/nbd0 -f raw nothing.raw
refused 'does not speak TLS' spindle-nbd -c /dev/nbd0 --tls-creds x -f raw odd.raw
refused 'not a device of the kernel' spindle-nbd -d /dev/tty
refused 'Expecting the device' spindle-nbd -d
must spindle-nbd -d /dev/nbd0 >/dev/null
gone mistakes
dmesg | grep -E "BUG:|Oops:|hung_task|blocked for more" && failed=1
exit $failed
"""
programs = [os.path.join(BIN, name) for name in ("spindle-nbd", "spindle-img", "spindle-io")] + [shutil.which("mke2fs"), shutil.which("e2fsck")]
status, output = vm.run(SCRIPT, programs=programs, files={name: name for name in ("data.raw", "disk.qcow2", "odd.raw")}, timeout=patience(240))
print(output)
check(status == 0 and "Sanitizer" not in output, "see above")
