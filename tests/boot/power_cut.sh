#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a crash of emulator and daemon loses files that the guest was told are on the disk, or leaves a damaged image.
# labels: boot
# requires: e2fsck debugfs qemu-img setsid
# timeout: 300
#
# The guest names each file after its fsync has returned. Some dozen files later everything is killed at once, without a chance
# to write anything back. The image may then have leaked clusters, which check calls 3, but nothing worse; the file system
# may have a journal to replay; and every file that was named must be there.
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"
export PATH=$PATH:/usr/sbin:/sbin
wanted=60

durable() {
    tr -d '\r' <console | sed -n 's/^DURABLE \([0-9]*\) \([0-9a-f]*\)\.$/\1 \2/p'
}

"$guest_tools/disk" disk
: >console
setsid "$guest_tools/run" -s 2 -a "quiet selftest=3" disk/disk.qcow2 </dev/null >console 2>&1 &
session=$!
trap 'kill -9 -- -$session 2>/dev/null || true' EXIT
until [ "$(durable | wc -l)" -ge $wanted ]; do
    [ $SECONDS -lt "$(patience 240)" ] || die "after $SECONDS s the guest has written only $(durable | wc -l) files" "$(tail -5 console)"
    kill -0 $session 2>/dev/null || die "the session ended by itself" "$(tail -20 console)"
    sleep 0.2
done
kill -9 -- -$session
wait $session 2>/dev/null || true

status=0
"$SPINDLE_IMG" check -f qcow2 disk/disk.qcow2 || status=$?
[ $status -eq 0 ] || [ $status -eq 3 ] || die "the image is damaged: check ended with $status"
"$SPINDLE_IMG" convert -f qcow2 -O raw disk/disk.qcow2 copy.raw
status=0
e2fsck -fp copy.raw || status=$?
[ $status -le 1 ] || die "the file system is damaged: e2fsck ended with $status"
durable >named
[ "$(wc -l <named)" -ge $wanted ]
while read -r number sum; do
    debugfs -R "dump /var/lib/selftest/$number file" copy.raw 2>/dev/null
    found=$(sha256sum <file | cut -c1-64)
    [ "$sum" = "$found" ] || die "file $number was durable with sum $sum, the image holds $found"
    rm -f file
done <named
say "$(wc -l <named) files survived"
