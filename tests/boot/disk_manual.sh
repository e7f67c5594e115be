#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, the manual page of the emulator does not tell an option or device that it has, or the tab key offers nothing useful.
# labels: quick
# requires: groff
# timeout: 60
set -euo pipefail
PATH=$SPINDLE_BIN:$PATH
. "$SPINDLE_SRC/docs/completion/spindle-system-riscv64.bash"
program=spindle-system-riscv64

groff -ww -mdoc -Tascii -P-cbou "$SPINDLE_SRC/docs/man/$program.1" >page 2>warnings
[ ! -s warnings ] || {
    cat warnings
    exit 1
}
for word in $($program -help | sed -n 's/^  \(-[A-Za-z-]*\).*/\1/p') $($program -device help | sed 's/^name "\([^"]*\)".*/\1/'); do
    grep -qe "$word" page || {
        echo "FAILED: the manual does not know $word"
        exit 1
    }
done

offers() { # LINE WORD...: the words must be among what is offered behind LINE, from its last "=" or space on
    local COMP_LINE=$1 COMP_POINT=${#1} word
    shift
    COMPREPLY=()
    _spindle_system_riscv64
    for word in "$@"; do
        printf '%s\n' "${COMPREPLY[@]}" | grep -qxFe "$word" || {
            echo "FAILED: '$COMP_LINE' offers '${COMPREPLY[*]}', not '$word'"
            exit 1
        }
    done
}

touch disk.img
offers "$program -" -machine -drive -blockdev -nographic
offers "$program -machine " virt
offers "$program -cpu " riscv64
offers "$program -device virtio-b" virtio-blk-device
offers "$program -device virtio-blk-device,dr" virtio-blk-device,drive=
offers "$program -drive fi" file=
offers "$program -drive file=di" disk.img
offers "$program -drive file=disk.img,fo" disk.img,format=
offers "$program -kernel di" disk.img
offers "$program -serial s" stdio
