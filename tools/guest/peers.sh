# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced before a guest script, this puts QEMU's programs in the places of ours:
#   (. tools/guest/peers.sh && tools/guest/selftest -s 4)
# What fails here too is not Spindle's fault, and the times are comparable.
#
# config-wce=off: QEMU's daemon (7.2) reports its write cache as off in the configuration space, so a guest that may ask sends no
# flushes, and a crash of that daemon loses what the guest believes to be safe. A guest that cannot ask does flush.
export SPINDLE_IMG=qemu-img SPINDLE_DAEMON=qemu-storage-daemon SPINDLE_SYSTEM=qemu-system-riscv64
export SPINDLE_SYSTEM_ARGS="-global virtio-mmio.force-legacy=false -global vhost-user-blk.config-wce=off"
