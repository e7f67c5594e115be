#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a guest cannot work on a disk of nbdkit, or -drive does not take an NBD URI.
# labels: boot interop
# requires: e2fsck nbdkit
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/disk_lib.sh"

make_raw_disk
serve nbd.sock nbdkit -f -U nbd.sock file disk.raw
run_both_parts -drive "file=nbd+unix:///?socket=$PWD/nbd.sock,format=raw"
end_server TERM
check_file_system disk.raw
