#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, pressing the tab key behind spindle-img or spindle-riscv64 offers nothing, or what the program does not know.
# labels: quick
# timeout: 60
set -euo pipefail
PATH=$SPINDLE_BIN:$PATH
. "$SPINDLE_SRC/docs/completion/spindle-img.bash"

offers() { # LINE WORD...: the words must be among what is offered behind LINE (whose last word may be empty)
    local line=$1 word
    shift
    IFS=' ' read -r -a COMP_WORDS <<<"$line"
    [ "${line: -1}" != ' ' ] || COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "_${COMP_WORDS[0]//-/_}"
    for word in "$@"; do
        printf '%s\n' "${COMPREPLY[@]}" | grep -xe "$word" >/dev/null || { # not -q, which may end before printf has written all
            echo "FAILED: '$line' offers '${COMPREPLY[*]}', not '$word'"
            exit 1
        }
    done
}

touch disk.img
offers 'spindle-img ' check compare convert create info map resize
offers 'spindle-img con' convert
offers 'spindle-img convert -' -O --target-is-zero --salvage -W
offers 'spindle-img convert -O ' qcow2 raw
offers 'spindle-img convert -t ' none unsafe
offers 'spindle-img check -r ' leaks all
offers 'spindle-img info --output ' human json
offers 'spindle-img info di' disk.img

. "$SPINDLE_SRC/docs/completion/spindle-riscv64.bash"
offers 'spindle-riscv64 -' -L -strace --install-binfmt
offers 'spindle-riscv64 -cpu ' rv64 max
offers 'spindle-riscv64 -strace ./di' ./disk.img
offers 'spindle-riscv64 -L / disk.img di' disk.img
