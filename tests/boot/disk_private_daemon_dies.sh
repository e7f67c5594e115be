#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a machine whose private storage daemon is killed hangs or goes on without disks, instead of ending with a reason.
# labels: boot
# requires: qemu-img
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

"$guest_tools/disk" disk
for device in virtio-blk-device,drive=d virtio-blk-device,drive=d,serial=x; do # by shared memory, and by NBD
    boot 1 -drive file=disk/disk.qcow2,if=none,id=d,format=qcow2 -device "$device"
    wait_console 1 "selftest: .* writing"
    # shellcheck disable=SC2046 # one word and a space
    kill -9 $(cat "/proc/$emulator/task/$emulator/children")
    status=0
    timeout "$(patience 20)" tail --pid="$emulator" -f /dev/null || die "$device: the emulator hangs"
    wait "$emulator" || status=$?
    emulator=
    [ $status -eq 1 ] || die "$device: code $status instead of 1"
    console_says 1 "private storage daemon was killed by signal 9" || die "$device: no word about why"
done
