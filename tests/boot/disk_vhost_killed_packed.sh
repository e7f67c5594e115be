#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, requests of packed rings or of several queues are lost or doubled when their daemon is killed under the guest.
# labels: boot
# requires: e2fsck
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

make_raw_disk
command=("$SPINDLE_DAEMON" --blockdev driver=file,node-name=f,filename=disk.raw,discard=unmap
    --blockdev driver=raw,node-name=r,file=f,discard=unmap
    --export type=vhost-user-blk,id=e,node-name=r,writable=on,num-queues=2,addr.type=unix,addr.path=vhost.sock)
disk=(-smp 2 -chardev socket,id=c,path=vhost.sock -device vhost-user-blk,chardev=c,packed=on,num-queues=2)
serve vhost.sock "${command[@]}"
boot 1 "${disk[@]}"
end_and_serve_while_running 1 KILL vhost.sock "${command[@]}"
wait_passed 1
boot 2 "${disk[@]}"
wait_passed 2
end_server TERM
check_file_system disk.raw
