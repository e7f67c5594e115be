#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, the emulator's process has learned to read images, and a bug in a format could reach the guest's host process.
# labels: quick
# requires: nm
# timeout: 60
set -eu
emulator=$SPINDLE_BIN/spindle-system-riscv64
# Every driver is a symbol of these names, and every image passes through these functions. The daemon has them all: proof that the
# names below are still the right ones.
symbols='(qcow2_driver|raw_driver|file_driver|node_open|block_read|graph_new|formats_table)$'
found=$(nm "$SPINDLE_BIN/spindle-storage-daemon" | grep -cE " $symbols" || true)
if [ "$found" -ne 7 ]; then
    echo "the list of symbols in this test is out of date: the daemon has $found of 7"
    exit 1
fi
if nm "$emulator" | grep -E " $symbols"; then
    echo "spindle-system-riscv64 links code that opens images"
    exit 1
fi
echo "no image driver in the emulator"
