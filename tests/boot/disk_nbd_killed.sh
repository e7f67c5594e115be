#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a guest loses data or stops when the NBD server of its disk is killed and started again.
# labels: boot
# requires: e2fsck
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

make_raw_disk
command=("$SPINDLE_DAEMON" --blockdev driver=file,node-name=f,filename=disk.raw,discard=unmap
    --blockdev driver=raw,node-name=r,file=f,discard=unmap
    --nbd-server addr.type=unix,addr.path=nbd.sock --export type=nbd,id=e,node-name=r,name=disk,writable=on)
disk=(-blockdev driver=nbd,node-name=d,server.type=unix,server.path=nbd.sock,export=disk -device virtio-blk-device,drive=d)
serve nbd.sock "${command[@]}"
boot 1 "${disk[@]}"
end_and_serve_while_running 1 KILL nbd.sock "${command[@]}"
wait_passed 1
boot 2 "${disk[@]}"
wait_passed 2
end_server TERM
check_file_system disk.raw
