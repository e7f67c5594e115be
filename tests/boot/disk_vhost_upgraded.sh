#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a storage daemon cannot be exchanged for a newer one under a running guest with a qcow2 disk.
# labels: boot
# requires: e2fsck qemu-img
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

"$guest_tools/disk" disk
command=("$SPINDLE_DAEMON" --blockdev driver=file,node-name=f,filename=disk/disk.qcow2,discard=unmap
    --blockdev driver=qcow2,node-name=q,file=f,discard=unmap
    --export type=vhost-user-blk,id=e,node-name=q,writable=on,addr.type=unix,addr.path=vhost.sock)
disk=(-chardev socket,id=c,path=vhost.sock -device vhost-user-blk,chardev=c)
serve vhost.sock "${command[@]}"
boot 1 "${disk[@]}"
end_and_serve_while_running 1 TERM vhost.sock "${command[@]}"
wait_passed 1
boot 2 "${disk[@]}"
wait_passed 2
end_server TERM
check_qcow2
