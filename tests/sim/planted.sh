#!/bin/sh
# labels: full slow
# timeout: 900
# If this fails, the simulated cuts have become blind: a barrier of qcow2's write order is left out (formats/qcow2/edges.h,
# one program for each), and nobody notices within so many cuts; or the same cuts fail without a bug.
set -eu
failed=0

# plant EDGE ARGUMENTS...: with the bug it must be found, without it the same worlds pass.
plant() {
    edge=$1
    shift
    set -- "$@" --no-faults --no-kills
    if "$SPINDLE_BUILD/sim/sim-edge-$edge" "$@" >out 2>&1 || ! grep -q '^FAILED after' out; then
        echo "planted bug '$edge' was not found by: $*"
        tail -n 3 out
        failed=1
    else
        grep -h '^FAILED after' out | sed "s/^FAILED/$edge: found/"
    fi
    if ! "$SPINDLE_BUILD/sim/sim" "$@" >out 2>&1; then
        echo "without a planted bug, '$*' fails:"
        tail -n 3 out
        failed=1
    fi
}

plant counted-before-named --image v3-4k --cuts 4000
plant unnamed-before-freed --image v3-4k --cuts 4000
plant block-before-table --image v3-512 --cuts 6000
plant table-before-header --image many-refcounts --cuts 10000
plant header-before-old --image many-refcounts --cuts 10000
plant zeroes-before-size --image v3-4k --operation resize --cuts 6000
plant map-before-answer --image v3-512 --cuts 6000

# Every edge has its line here.
for program in "$SPINDLE_BUILD"/sim/sim-edge-*; do
    edge=${program##*/sim-edge-}
    grep -q "^plant $edge " "$0" || { echo "no line for the edge '$edge'"; failed=1; }
done
exit $failed
