#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, spindle-io's zone_* commands do not do to a zoned device what they say.
# labels: full
# timeout: 60
# Needs root and a zoned block device whose content may be lost, named by SPINDLE_ZONED_DEVICE, or one of null_blk:
#     modprobe null_blk nr_devices=1 gb=1 memory_backed=1 zoned=1 zone_size=64 zone_nr_conv=1
# A host without one skips this; a virtual machine whose kernel has null_blk runs it. What other devices answer is in img-options.py.
set -u
fail() { echo "FAILED: $*"; exit 1; }
skip() { echo "skipped: $*"; exit 77; }

find_device() {
    for queue in /sys/block/nullb*/queue; do
        [ "$(cat "$queue/zoned" 2> /dev/null)" = host-managed ] && echo "/dev/$(basename "$(dirname "$queue")")" && return
    done
}
device=${SPINDLE_ZONED_DEVICE:-$(find_device)}
[ -n "$device" ] || skip "there is no zoned device"
[ -w "$device" ] || skip "$device cannot be written by this user"
name=$(basename "$(readlink -f "$device")")
sectors=$(cat "/sys/block/$name/queue/chunk_sectors")
zone=$((sectors * 512))
zones=$(($(cat "/sys/block/$name/size") / sectors))
[ "$zones" -ge 3 ] || skip "$device has $zones zones, 3 are needed"

io() { "$SPINDLE_BIN/spindle-io" -n -f raw -c "$1" "${2:-$device}" 2>&1; }
good() { io "$1" || fail "$1"; }
bad() { # COMMAND TEXT: it must fail, and say this
    if out=$(io "$1"); then fail "$1 succeeds: $out"; fi
    case $out in *"$2"*) ;; *) fail "$1 says '$out', not '$2'" ;; esac
}
at=$(((zones - 1) * zone)) # the last zone: a sequential one
state() { good "zone_report $at 1" | sed -n 's/.*wptr 0x\([0-9a-f]*\), zcond:\([0-9]*\), .type: \([0-9]*\).*/\1 \2 \3/p'; }
is() { # WRITE-POINTER-SECTOR CONDITION: of the last zone
    found=$(state)
    [ "$found" = "$(printf '%x %d 2' "$1" "$2")" ] || fail "the zone is '$found', expected '$(printf '%x %d 2' "$1" "$2")'"
}
first=$((at / 512))

[ "$(good "zone_report 0 $((zones + 5))" | grep -c '^start: ')" = "$zones" ] || fail "a report of all has not $zones zones"
[ "$(good "zrp 0 2" | grep -c '^start: ')" = 2 ] || fail "a report of two zones"
good "zone_report $((at + zone / 2)) 1" | grep -q "^start: 0x$(printf %x $first), len 0x$(printf %x "$sectors")" || fail "a report begins with the zone around an offset"
good "zone_reset $at $zone"
is $first 1
good "zone_open $at $zone"
is $first 3
good "zone_append $at 8k" | grep -q "append sector is 0x$(printf %x $first)\$" || fail "the first append goes to the beginning"
good "zap $at 4k 4k" | grep -q "append sector is 0x$(printf %x $((first + 16)))\$" || fail "the second append goes behind the first"
good "zone_close $at $zone"
is $((first + 32)) 4
good "read -P 0xcd $at 16k" | grep -q "^read 16384/16384" || fail "what was appended reads back"
good "zone_finish $at $zone"
[ "$(state | cut -d' ' -f2)" = 14 ] || fail "a finished zone is not full: $(state)"
bad "zone_append $at 4k" "No space left on device"
good "zrs $at $zone"
is $first 1
good "read -P 0 $at 16k" > /dev/null
good "zone_reset $((at - zone)) $((2 * zone))"

bad "zone_open $((at + 4096)) $zone" "Invalid argument"
bad "zone_open $at $((2 * zone))" "Invalid argument"
bad "zone_append $((at + 4096)) 4k" "Invalid argument"
bad "zone_report $((zones * zone)) 1" "Invalid argument"
if "$SPINDLE_BIN/spindle-io" -n -r -f raw -c "zone_reset $at $zone" "$device" > /dev/null 2>&1; then fail "a read-only image was changed"; fi
truncate -s 1M file
out=$(io "zone_report 0 1" file) && fail "a file has zones"
[ "$out" = "zone report failed: Operation not supported" ] || fail "a file: $out"
exit 0
