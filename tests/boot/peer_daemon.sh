#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, our emulator does not work with another vendor's vhost-user-blk server: the wire has become a private dialect.
# labels: boot interop
# requires: e2fsck debugfs qemu-img qemu-storage-daemon
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"
SPINDLE_DAEMON=qemu-storage-daemon SPINDLE_IMG=qemu-img "$guest_tools/selftest" -s 2
