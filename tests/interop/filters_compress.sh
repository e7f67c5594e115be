#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# If this fails, what is written through the compress filter is not compressed, or not what qemu-io reads.
# labels: full interop
# requires: qemu-io qemu-img
# timeout: 60
set -e
qemu-img create -q -f qcow2 disk 1000000
"$SPINDLE_BIN/spindle-io" -c "write -P 1 1000 200k" -c "write -P 2 990000 10000" -c "read -P 1 1000 200k" -c "read -P 2 990000 10000" \
    -c "read -P 0 0 1000" --image-opts driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename=disk
qemu-img check disk | tee check
grep -q "100.00% compressed" check
qemu-io -f qcow2 -c "read -P 1 1000 200k" -c "read -P 2 990000 10000" -c "read -P 0 0 1000" disk
truncate -s 1M raw
! "$SPINDLE_BIN/spindle-io" -c "read 0 512" --image-opts driver=compress,file.driver=raw,file.file.driver=file,file.file.filename=raw 2>error
grep -q "Compression is not supported for underlying format: raw" error
