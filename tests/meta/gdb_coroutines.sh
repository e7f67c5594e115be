#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Broken if this fails: gdb no longer shows the coroutines of a program, live or from a core file (tools/gdb/spindle.py).
# labels: full
# requires: gdb
# timeout: 120
set -eu
program=$SPINDLE_BUILD/unit/unit_base_test_co
if [ ! -x "$program" ]; then
    echo "missing requirement: the unit tests are not built"
    exit 77
fi

if ! gdb -batch -nx -ex 'ptype struct co' "$program" 2>/dev/null | grep -q stack_base; then
    echo "missing requirement: this build has no debugging information about types (-g)"
    exit 77
fi

expect() { # file pattern...
    local file=$1
    shift
    for pattern in "$@"; do
        if ! grep -Eq "$pattern" "$file"; then
            echo "no line matches '$pattern' in:"
            cut -c1-200 "$file"
            exit 1
        fi
    done
}

# A core file of a sanitized program has terabytes of shadow memory, so those are looked at alive only.
core=(-ex 'generate-core-file core')
if grep -qE '__(asan|tsan)_init' "$program"; then
    core=()
fi

# The third coroutine that digs has its first two siblings suspended a hundred frames deep. Address space randomization
# stays as it is: containers often forbid to change it.
for kind in assembly ucontext; do
    SPINDLE_COROUTINES=$kind gdb -batch -nx -ex 'set debuginfod enabled off' -ex 'set disable-randomization off' \
        -ex "source $SPINDLE_SRC/tools/gdb/spindle.py" \
        -ex 'break digger' -ex run -ex 'continue 2' \
        -ex 'spindle coroutines' -ex 'spindle backtrace' "${core[@]}" -ex kill \
        "$program" >live.txt 2>&1 || { cat live.txt; exit 1; }
    expect live.txt '^thread 1: loop 0x[0-9a-f]+ \(' ' (ready|suspended) .*digger' ' running .*digger' \
        '#[0-9]+ .*dig \(' '#[0-9]+ .*digger \(' '#[0-9]+ .*co_main \('
done

if [ ${#core[@]} = 0 ]; then
    exit 0
fi
gdb -batch -nx -ex 'set debuginfod enabled off' -ex "source $SPINDLE_SRC/tools/gdb/spindle.py" \
    -ex 'spindle backtrace' "$program" core >core.txt 2>&1 || { cat core.txt; exit 1; }
expect core.txt '#[0-9]+ .*dig \(' '#[0-9]+ .*co_main \('
