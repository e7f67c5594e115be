#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, the self test passes whatever is in the image, and the other boot tests prove nothing.
# labels: boot
# requires: e2fsck debugfs qemu-img qemu-io
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"

# Where the first bytes of the guest's file are on its disk: the file system has blocks of 4 KiB, debugfs knows which.
offset_of() {
    local block
    "$SPINDLE_IMG" convert -f qcow2 -O raw disk/disk.qcow2 copy.raw
    block=$(debugfs -R "bmap $1 0" copy.raw 2>/dev/null)
    echo $((block * 4096))
}

"$guest_tools/selftest" -s 1 -k disk
qemu-io -f qcow2 -c "write -P 0x5a $(offset_of /var/lib/selftest/big) 512" disk/disk.qcow2
"$guest_tools/run" -a "quiet selftest=2" disk/disk.qcow2 </dev/null >console 2>&1
grep -q "SELFTEST 2 FAIL" console || die "512 foreign bytes in a file, and the guest did not notice"
! grep -q "SELFTEST 2 PASS" console
