# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Building quietly, for ./quickstart and ./check. Sourced after tools/guest/lib.sh (say, die, SPINDLE_SRC).

# Runs a command that shows only its progress; all it said is printed when it fails.
run_logged() {
    local name=$1 log=$SPINDLE_SRC/build/$1.log
    shift
    mkdir -p "$SPINDLE_SRC/build"
    if ! "$@" >"$log" 2>&1; then
        tail -200 "$log" >&2
        die "$name failed, the end of build/$name.log is above"
    fi
}

configure() {
    local preset=$1
    (cd "$SPINDLE_SRC" && run_logged "configure-$preset" cmake --preset "$preset" -DSPINDLE_TESTS=ON)
}

# build PRESET [target...]: ninja's counter on a terminal, one line otherwise.
build() {
    local preset=$1 start=$SECONDS
    shift
    say "Building $preset (build/$preset)"
    if [ -t 1 ]; then
        NINJA_STATUS='  [%f/%t] ' ninja -C "$SPINDLE_SRC/build/$preset" "$@" || die "building $preset failed, the messages are above"
    else
        run_logged "build-$preset" ninja -C "$SPINDLE_SRC/build/$preset" "$@"
    fi
    say "  done in $((SECONDS - start)) s"
}

# The programs alone, without the tests.
build_programs() {
    local preset=$1 programs
    programs=$(ninja -C "$SPINDLE_SRC/build/$preset" -t targets all | sed -n 's,^\(bin/spindle-[^:]*\):.*,\1,p')
    [ -n "$programs" ] || die "the build knows no programs" "rm -rf build/$preset and try again"
    # shellcheck disable=SC2086 # one word a program
    build "$preset" $programs
}
