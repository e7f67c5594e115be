#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, the emulator's process holds an image open, or has it mapped, while a guest works with its disks; or its walls are missing.
# labels: boot
# requires: qemu-img
# timeout: 360
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

"$guest_tools/disk" disk
qemu-img create -q -f raw second.img 16M
mkdir runtime
export XDG_RUNTIME_DIR=$PWD/runtime
boot 1 -drive file=disk/disk.qcow2,if=none,id=d,format=qcow2,discard=unmap -device virtio-blk-device,drive=d \
    -drive file=second.img,format=raw,if=none,id=e -device virtio-blk-device,drive=e

# Looks several times: at the start, while the guest writes, and until the end.
looks=0
look() {
    local places
    places=$(readlink /proc/"$emulator"/fd/* 2>/dev/null; grep -o '/.*' "/proc/$emulator/maps" 2>/dev/null) || true
    if grep -E 'disk\.qcow2|second\.img' <<<"$places"; then
        die "the emulator has an image open or mapped"
    fi
    [ -z "$places" ] || looks=$((looks + 1))
}
look
wait_console 1 "selftest: .* writing"
grep -q '^Seccomp:[[:space:]]*2' "/proc/$emulator/status" || die "the emulator runs without its filter"
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$emulator/status" || die "the emulator has capabilities"
daemon=$(cat "/proc/$emulator/task/$emulator/children")
# The opposite, so that a search that never finds anything is noticed: the daemon has both open.
held=$(readlink /proc/"${daemon// /}"/fd/*)
grep -q 'disk\.qcow2' <<<"$held" && grep -q 'second\.img' <<<"$held" || die "the private daemon does not hold the images either: $held"
while kill -0 "$emulator" 2>/dev/null; do
    look
    sleep 0.2
done
wait_passed 1
[ "$looks" -ge 3 ] || die "the emulator was looked at only $looks times"
