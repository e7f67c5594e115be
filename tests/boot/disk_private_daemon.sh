#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a machine with a plain -drive (its images in a private storage daemon) cannot keep its files, or leaves the daemon behind.
# labels: boot
# requires: e2fsck qemu-img
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

"$guest_tools/disk" disk
export XDG_RUNTIME_DIR=$PWD/runtime
mkdir runtime
boot 1 -drive file=disk/disk.qcow2,if=none,id=d,format=qcow2,discard=unmap -device virtio-blk-device,drive=d
wait_console 1 "selftest: .* writing"
daemon=$(cat "/proc/$emulator/task/$emulator/children")
[ "$(tr '\0' '\n' <"/proc/${daemon// /}/cmdline" | head -1)" = spindle-storage-daemon ]
wait_passed 1
! kill -0 "${daemon// /}" 2>/dev/null || die "the private daemon is still there"
[ -z "$(ls runtime)" ] || die "left behind: $(ls runtime)"
boot 2 -drive file=disk/disk.qcow2,format=qcow2 # becomes a virtio disk by itself
wait_passed 2
check_qcow2
