#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Broken if this fails: a program of QEMU and one of ours write to the same image at the same time, or keep each other
# from what is harmless.
# labels: quick interop
# requires: qemu-io qemu-img
# timeout: 60
set -u
failures=0

complain() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# hold PROGRAM ARGS...: keeps the image open in the background, returns when its locks are there.
hold() {
    inode=$(stat -c %i "$image")
    "$@" -c 'sleep 30000' "$image" > held 2>&1 &
    holder=$!
    for _ in $(seq 100); do
        grep -q ":$inode " /proc/locks && return
        sleep 0.05
    done
    complain "$* did not open $image: $(cat held)"
}

release() {
    kill "$holder" 2> /dev/null
    wait "$holder" 2> /dev/null
}

# refuses LOCK COMMAND...: the command fails because of this lock, and says which file it is about.
refuses() {
    lock=$1
    shift
    if "$@" > out 2>&1; then
        complain "$* was allowed"
    elif ! grep -q "Failed to get $lock lock" out || ! grep -q "Is another process using the image \[$image\]?" out; then
        complain "$* failed, but not like this: $(cat out)"
    fi
}

allows() {
    "$@" > out 2>&1 || complain "$* was refused: $(cat out)"
}

io="$SPINDLE_BIN/spindle-io"
img="$SPINDLE_BIN/spindle-img"
qemu-img create -q -f qcow2 disk.qcow2 16M
qemu-img create -q -f raw disk.raw 16M

image=disk.qcow2
hold qemu-io -f qcow2 # theirs writes
refuses '"write"' "$io" -f qcow2 -c 'read 0 512' $image
refuses 'shared "write"' "$io" -r -f qcow2 -c 'read 0 512' $image
refuses 'shared "write"' "$img" info $image
allows "$img" info -U $image
refuses '"write"' "$img" create -f qcow2 $image 1M
release

hold "$io" -f qcow2 # ours writes
refuses '"write"' qemu-io -f qcow2 -c 'read 0 512' $image
refuses 'shared "write"' qemu-io -r -f qcow2 -c 'read 0 512' $image
refuses 'shared "write"' qemu-img info $image
allows qemu-img info -U $image
refuses '"write"' qemu-img create -q -f qcow2 $image 1M
refuses '"write"' "$io" -f qcow2 -c 'read 0 512' $image
release

hold qemu-io -r -f qcow2 # theirs reads
allows "$io" -r -f qcow2 -c 'read 0 512' $image
refuses '"write"' "$io" -f qcow2 -c 'read 0 512' $image
release

hold "$io" -r -f qcow2 # ours reads
allows qemu-io -r -f qcow2 -c 'read 0 512' $image
refuses '"write"' qemu-io -f qcow2 -c 'read 0 512' $image
release

# An image file is safe below a raw writer, too, and free when everybody has gone.
image=disk.raw
hold "$io" -f raw
refuses '"write"' "$img" create -f raw $image 1M
release
allows qemu-io -f raw -c 'write 0 512' $image
allows "$io" -f raw -c 'write 0 512' $image
[ "$(stat -c %s disk.raw)" = 16777216 ] || complain "disk.raw was emptied"

[ $failures = 0 ]
