#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a guest cannot work on a disk of qemu-nbd: our NBD client speaks a dialect.
# labels: boot interop
# requires: e2fsck qemu-img qemu-nbd
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

"$guest_tools/disk" disk
serve nbd.sock qemu-nbd -t -e 8 -k "$PWD/nbd.sock" -x disk -f qcow2 --discard=unmap disk/disk.qcow2
run_both_parts -blockdev driver=nbd,node-name=d,server.type=unix,server.path=nbd.sock,export=disk -device virtio-blk-device,drive=d
end_server TERM
check_qcow2
