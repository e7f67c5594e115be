#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a guest cannot work on a disk that our storage daemon serves over NBD.
# labels: boot
# requires: e2fsck qemu-img
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

"$guest_tools/disk" disk
serve nbd.sock "$SPINDLE_DAEMON" --blockdev driver=file,node-name=f,filename=disk/disk.qcow2,discard=unmap \
    --blockdev driver=qcow2,node-name=q,file=f,discard=unmap \
    --nbd-server addr.type=unix,addr.path=nbd.sock --export type=nbd,id=e,node-name=q,name=disk,writable=on
run_both_parts -blockdev driver=nbd,node-name=d,server.type=unix,server.path=nbd.sock,export=disk -device virtio-blk-device,drive=d
end_server TERM
check_qcow2
