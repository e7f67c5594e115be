# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What every guest script shares: where things are, how to speak, which programs stand behind the names. Sourced by bash scripts.
#
# All programs can be replaced through the environment, so the same scripts also drive the peers (see tools/guest/peers.sh) for
# comparison: whatever fails with both is the guest's or the script's fault.

SPINDLE_SRC=${SPINDLE_SRC:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
SPINDLE_BIN=${SPINDLE_BIN:-$SPINDLE_SRC/build/release/bin}
SPINDLE_GUEST=${SPINDLE_GUEST:-$SPINDLE_SRC/build/guest} # kernel, initrd, firmware and root file system, made once
SPINDLE_IMG=${SPINDLE_IMG:-$SPINDLE_BIN/spindle-img}
SPINDLE_DAEMON=${SPINDLE_DAEMON:-$SPINDLE_BIN/spindle-storage-daemon}
SPINDLE_SYSTEM=${SPINDLE_SYSTEM:-$SPINDLE_BIN/spindle-system-riscv64}

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# Seconds to wait for what should not take so long: more where a sanitizer makes everything slow.
patience() {
    echo $(($1 * ${SPINDLE_TIMEOUT_FACTOR:-1}))
}

need_program() {
    command -v "$1" >/dev/null 2>&1 || die "cannot find $1" "./quickstart --build-only builds it"
}

# The first line of the input; false when there is none. Reads to the end, so that the writer never sees a closed pipe.
first_line() {
    awk 'NR == 1 { print } END { exit NR == 0 }'
}
