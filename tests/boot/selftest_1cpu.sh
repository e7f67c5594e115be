#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a Debian guest with one CPU cannot keep its files over a restart on a qcow2 overlay served by the daemon.
# labels: boot
# requires: e2fsck debugfs qemu-img
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"
"$guest_tools/selftest" -s 1
