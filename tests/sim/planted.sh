#!/bin/sh
# labels: full slow
# timeout: 300
# If this fails, the simulated cuts have become blind: a barrier of qcow2's write order is left out (formats/qcow2/edges.h,
# one program for each), and nobody notices within so many cuts; or the same cuts fail without a bug.
#
# Not with ThreadSanitizer: a simulated world is one thread, cuts.sh shows it one, and these thousands of cuts would take it an hour.
set -eu
if [ -n "${TSAN_OPTIONS:-}" ]; then
    echo "skipped: ThreadSanitizer sees simulated worlds in sim/cuts"
    exit 77
fi
failed=0

# plant EDGE SEED ARGUMENTS...: with the bug it must be found, in worlds from SEED on; without it the worlds up to the one
# that showed it pass.
plant() {
    edge=$1 first=$2
    shift 2
    set -- "$@" --seed "$first" --no-faults --no-kills
    if "$SPINDLE_BUILD/sim/sim-edge-$edge" "$@" --cuts 8000 >out 2>&1 || ! grep -q '^FAILED after' out; then
        echo "planted bug '$edge' was not found in 8000 cuts by: $*"
        tail -n 3 out
        failed=1
        return
    fi
    grep -h '^FAILED after' out | sed "s/^FAILED/$edge: found/"
    seed=$(sed -n 's/^FAILED after .*, seed \([0-9]*\), life .*/\1/p' out)
    set -- "$@" --worlds $((seed - first + 1))
    if ! "$SPINDLE_BUILD/sim/sim" "$@" >out 2>&1; then
        echo "without a planted bug, '$*' fails:"
        tail -n 3 out
        failed=1
    fi
}

plant counted-before-named 1 --image v3-4k
plant unnamed-before-freed 1 --image v3-4k
plant block-before-table 1 --image v3-512
# The table grows once in a world, early: short worlds, each cut many times.
plant table-before-header 101 --image many-refcounts --operations 40 --lives 1 --lots 4
plant header-before-old 101 --image many-refcounts --operations 40 --lives 1 --lots 4
plant zeroes-before-size 201 --image v3-4k --operation resize
plant map-before-answer 101 --image v3-512
plant unread-before-hole 1 --image extended-luks

# Every edge has its line here.
for program in "$SPINDLE_BUILD"/sim/sim-edge-*; do
    edge=${program##*/sim-edge-}
    grep -q "^plant $edge " "$0" || { echo "no line for the edge '$edge'"; failed=1; }
done
exit $failed
