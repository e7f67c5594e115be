#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, our storage daemon does not serve another vendor's emulator: neither its handshake nor its data.
# labels: boot interop
# requires: e2fsck debugfs qemu-img qemu-system-riscv64
# timeout: 560
set -euo pipefail
. "$SPINDLE_SRC/tests/boot/lib.sh"
export SPINDLE_SYSTEM=qemu-system-riscv64 SPINDLE_SYSTEM_ARGS="-global virtio-mmio.force-legacy=false"
"$guest_tools/selftest" -s 2
