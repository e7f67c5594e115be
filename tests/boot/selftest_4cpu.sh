#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a Debian guest with four CPUs, several queues busy at once, loses data, hangs or does not boot.
# labels: boot
# requires: e2fsck debugfs qemu-img
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"
"$guest_tools/selftest" -s 4
