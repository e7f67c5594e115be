#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, images on block devices are written wrongly: old content of the device shows, or the size is not checked.
# labels: full
# requires: losetup
# timeout: 60
set -euo pipefail
PATH=$SPINDLE_BIN:$PATH
truncate -s 16M disk
device=$(losetup -f --show disk 2>/dev/null) || {
    echo "loop devices are not available here"
    exit 77
}
trap 'losetup -d "$device"' EXIT
head -c 16M /dev/urandom >"$device"
head -c 3M /dev/urandom >source
truncate -s 10M source
fail() {
    echo "FAILED: $*"
    exit 1
}

for cache in unsafe none; do
    spindle-img convert -t $cache -f raw -O raw source "$device"
    cmp -n $((10 << 20)) source "$device" || fail "raw, cache $cache"
    head -c 16M /dev/urandom >"$device"
    spindle-img convert -t $cache -f raw -O qcow2 source "$device"
    spindle-img check -q -f qcow2 "$device" || fail "qcow2 check, cache $cache"
    spindle-img compare -q -f raw -F qcow2 source "$device" || fail "qcow2, cache $cache"
    head -c 16M /dev/urandom >"$device"
    spindle-img convert -t $cache -f raw -O qcow2 -o preallocation=metadata,cluster_size=4k source "$device"
    spindle-img compare -q -f raw -F qcow2 source "$device" || fail "preallocated qcow2, cache $cache"
done
spindle-img info -f raw "$device" | grep -q 'protocol type: host_device' || fail "info of a device"
! spindle-img create -f raw "$device" 1G 2>errors || fail "an image larger than its device"
grep -q 'too small' errors || fail "the message about a device that is too small: $(cat errors)"
spindle-io -f raw -n -c 'write -q -z 0 1M' -c 'discard -q 1M 1M' -c 'read -q -P 0 0 1M' -c 'write -q -P 7 10 1' -c 'read -q -P 7 10 1' "$device"
