#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, an emulator whose disk server is away cannot be ended, or a guest that is reset meanwhile does not boot again.
# labels: boot
# requires: e2fsck
# timeout: 300
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

monitor() { # one command
    python3 - "$1" <<'PYTHON'
import sys, os
sys.path.insert(0, os.environ["SPINDLE_SRC"] + "/tests/lib")
from qmp import Qmp
Qmp.connect("monitor").command(sys.argv[1])
PYTHON
}

make_raw_disk
nodes=(--blockdev driver=file,node-name=f,filename=disk.raw --blockdev driver=raw,node-name=r,file=f)

# NBD: the guest waits, and a signal ends the emulator all the same.
serve nbd.sock "$SPINDLE_DAEMON" "${nodes[@]}" --nbd-server addr.type=unix,addr.path=nbd.sock \
    --export type=nbd,id=e,node-name=r,name=disk,writable=on
boot 1 -blockdev driver=nbd,node-name=d,server.type=unix,server.path=nbd.sock,export=disk -device virtio-blk-device,drive=d
wait_console 1 "selftest: .* writing"
end_server KILL
sleep 2
kill -TERM "$emulator"
timeout "$(patience 10)" tail --pid="$emulator" -f /dev/null || die "the emulator waits for a server that is away"
wait "$emulator"
emulator=

# vhost-user: a reset while nobody is there voids what was in flight; then the guest boots from the new daemon.
make_raw_disk
daemon=("$SPINDLE_DAEMON" "${nodes[@]}" --export type=vhost-user-blk,id=e,node-name=r,writable=on,addr.type=unix,addr.path=vhost.sock)
serve vhost.sock "${daemon[@]}"
boot 1 -chardev socket,id=c,path=vhost.sock -device vhost-user-blk,chardev=c -qmp unix:monitor,server=on,wait=off
wait_console 1 "selftest: .* writing"
end_server KILL
monitor system_reset
sleep 1
serve vhost.sock "${daemon[@]}"
tries=0
until [ "$(tr -d '\r' <console-1 | grep -c 'selftest: .* writing')" -ge 2 ]; do
    [ $((tries += 1)) -lt "$(patience 600)" ] || die "the guest does not come up again" "$(tail -20 console-1)"
    sleep 0.1
done
monitor quit
timeout "$(patience 20)" tail --pid="$emulator" -f /dev/null || die "the emulator does not end"
wait "$emulator"
emulator=
