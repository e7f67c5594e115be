#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a storage daemon cannot be replaced under a running guest: requests get lost or the guest never hears of them again.
# labels: boot
# requires: qemu-img
# timeout: 400
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"

"$SPINDLE_IMG" create -q -f qcow2 -b "$SPINDLE_GUEST/root.raw" -F raw disk.qcow2
daemon=
start_daemon() {
    "$SPINDLE_DAEMON" --blockdev driver=file,node-name=f,filename=disk.qcow2 --blockdev driver=qcow2,node-name=d,file=f \
        --export type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path=d.sock,writable=on,num-queues=2 2>>daemon.log &
    daemon=$!
    for _ in $(seq "$(patience 100)"); do
        [ -S d.sock ] && return
        sleep 0.05
    done
    die "the daemon did not come up" "$(cat daemon.log)"
}
trap 'kill "$daemon" 2>/dev/null || true' EXIT

start_daemon
timeout "$(patience 300)" "$SPINDLE_SYSTEM" -M virt -smp 2 -m 256M -nographic -bios "$SPINDLE_GUEST/fw_dynamic.bin" \
    -kernel "$SPINDLE_GUEST/Image" -initrd "$SPINDLE_GUEST/initrd" -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 selftest=1" \
    -chardev socket,id=c,path=d.sock -device vhost-user-blk,chardev=c,num-queues=2 </dev/null >console.log 2>&1 &
guest=$!
# Before it is there, nobody can be away from it.
until [ -s console.log ] || ! kill -0 "$guest" 2>/dev/null; do
    sleep 0.1
done
restarts=0
while kill -0 "$guest" 2>/dev/null && [ $restarts -lt 6 ]; do
    sleep 2
    kill "$daemon" && wait "$daemon"
    rm -f d.sock
    start_daemon
    restarts=$((restarts + 1))
done
wait "$guest" || die "the emulator failed" "$(tail -40 console.log)"
tr -d '\r' <console.log | grep -qx 'SELFTEST 1 PASS' || die "the self test failed after $restarts restarts" "$(tail -40 console.log)"
[ $restarts -ge 2 ] || die "only $restarts restarts: the guest was too quick for this test"
[ "$(grep -c 'is back' console.log)" -ge $restarts ] || die "not every restart was noticed" "$(grep vhost console.log)"
say "the self test passed over $restarts restarts of the daemon"
