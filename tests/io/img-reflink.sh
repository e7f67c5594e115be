#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, `convert -C` copies bytes where the file system could share them, or shares them and gets them wrong.
# labels: full
# requires: mkfs.btrfs strace qemu-img filefrag
# timeout: 120
# Needs a file system that shares blocks: one in a file is mounted, which only root can do, and only where the kernel has btrfs.
set -eu
img=$SPINDLE_BIN/spindle-img
fail() { echo "FAILED: $*"; exit 1; }
skip() { echo "skipped: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "mounting needs root"
truncate -s 400M disk
mkfs.btrfs -q disk > /dev/null
mkdir -p mnt
mount -o loop disk mnt 2> why || skip "btrfs cannot be mounted here: $(cat why)"
trap 'cd "$TMPDIR" && umount mnt' EXIT
cd mnt
head -c 24M /dev/urandom > a.raw
truncate -s 40M a.raw # and a hole
head -c 8M /dev/urandom > b.raw
qemu-img convert -f raw -O qcow2 a.raw a.q

used() { sync -f .; df -k --output=used . | tail -1; }
# calls COMMAND...: how often the kernel is asked to copy, while it runs; what would be slow under a sanitizer is not counted.
copies() { ASAN_OPTIONS=detect_leaks=0 strace -f -qq -o calls -e trace=copy_file_range "$@"; grep -c '= [1-9]' calls || true; }

before=$(used)
n=$(copies "$img" convert -C -f raw a.raw whole)
after=$(used)
cmp a.raw whole || fail "the copy differs"
[ "$n" -ge 1 ] && [ "$n" -le 4 ] || fail "$n calls of copy_file_range for 24 MiB of data"
[ $((after - before)) -lt 2048 ] || fail "$((after - before)) KiB more are used: nothing is shared"
filefrag -v whole | grep -q shared || fail "no extent is shared"

# Several sources, one behind the other, each shared; a piece that two of them share goes through us.
before=$(used)
n=$(copies "$img" convert -C -f raw a.raw b.raw a.raw joined)
after=$(used)
cat a.raw b.raw a.raw | cmp - joined || fail "three sources: the copy differs"
[ "$n" -ge 3 ] || fail "$n calls of copy_file_range for three sources"
[ $((after - before)) -lt 4096 ] || fail "three sources: $((after - before)) KiB more are used"

# Without -C nobody asks the kernel. To and from qcow2 the bytes come out right, whoever copies them.
[ "$(copies "$img" convert -f raw a.raw plain)" = 0 ] || fail "copy_file_range without -C"
"$img" convert -C -f raw -O qcow2 a.raw t.q
qemu-img check -q t.q && qemu-img compare -q -f raw -F qcow2 a.raw t.q || fail "raw to qcow2"
"$img" convert -C -O raw a.q t.raw
cmp a.raw t.raw || fail "qcow2 to raw"

# A target in another file system: the kernel says no, and the bytes go through us.
"$img" convert -C -f raw a.raw ../elsewhere
cmp a.raw ../elsewhere || fail "another file system"
