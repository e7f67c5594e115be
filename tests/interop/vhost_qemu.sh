#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a guest of another vendor's emulator does not work on our vhost-user-blk export, or does not survive the daemon's death.
# labels: boot interop
# requires: qemu-system-riscv64 e2fsck
# timeout: 400
#
# The guest's self test writes files and compares them; with 4 queues the daemon is killed and started again in its middle, several times.
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"
daemon=
emulator=
trap 'kill -9 $daemon $emulator 2>/dev/null || true' EXIT

start_daemon() {
    rm -f v.sock
    "$SPINDLE_BIN/spindle-storage-daemon" --blockdev file,node-name=disk,filename=disk.raw,discard=unmap \
        --export vhost-user-blk,id=e,node-name=disk,writable=on,num-queues="$1",addr.type=unix,addr.path=v.sock &
    daemon=$!
}

boot() {
    local queues=$1 kills=$2 log=console-$1.log
    cp --sparse=always "$SPINDLE_GUEST/root.raw" disk.raw
    start_daemon "$queues"
    for _ in $(seq 100); do [ -S v.sock ] && break; sleep 0.05; done
    timeout --kill-after=5 170 qemu-system-riscv64 -M virt,memory-backend=ram -smp "$queues" -m 256M -object memory-backend-memfd,id=ram,size=256M,share=on \
        -global virtio-mmio.force-legacy=false -bios "$SPINDLE_GUEST/fw_dynamic.bin" -kernel "$SPINDLE_GUEST/Image" -initrd "$SPINDLE_GUEST/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 selftest=1" -chardev socket,id=c,path=v.sock,reconnect=1 \
        -device vhost-user-blk,chardev=c,queue-size=1024,num-queues="$queues" -nographic -no-reboot </dev/null >"$log" 2>&1 &
    emulator=$!
    while [ "$kills" -gt 0 ]; do
        for _ in $(seq 600); do grep -q selftest "$log" && break; sleep 0.1; done
        sleep 2
        kill -0 $emulator 2>/dev/null || break
        kill -9 "$daemon"
        wait "$daemon" 2>/dev/null || true
        start_daemon "$queues"
        kills=$((kills - 1))
    done
    local status=0
    wait $emulator || status=$?
    if [ $status -ne 0 ] || ! tr -d '\r' <"$log" | grep -qx "SELFTEST 1 PASS"; then
        tail -40 "$log"
        die "the guest failed with $queues queue(s) (code $status)"
    fi
    if tr -d '\r' <"$log" | grep -E "I/O error|blk_update_request"; then
        die "the guest saw errors of its disk"
    fi
    kill "$daemon"
    wait "$daemon" || die "the daemon ended with $?"
    e2fsck -fn disk.raw >fsck.log 2>&1 || { cat fsck.log; die "the file system is damaged"; }
    echo "$queues queue(s), killed $2 time(s): passed"
}

boot 1 0
boot 4 3
