# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the disk_* tests: a Debian guest that runs a part of its self test on a disk that the test attaches in its own way, and
# servers that are started, killed and started again meanwhile.
. "$SPINDLE_SRC/tests/boot/lib.sh"

emulator=
server=

# Neither may outlive the test, however it ends.
finish() {
    local status=$?
    for pid in $emulator $server; do
        kill -9 "$pid" 2>/dev/null || true
    done
    exit $status
}
trap finish EXIT

# boot PART OPTIONS...: starts part 1 (writes and compares) or 2 (compares again) of the guest's self test in the background, its
# console in console-PART.
boot() {
    local part=$1
    shift
    need_program "$SPINDLE_SYSTEM"
    : >"console-$part"
    "$SPINDLE_SYSTEM" -M virt,memory-backend=ram -m 256M -object memory-backend-memfd,id=ram,size=256M,share=on \
        -bios "$SPINDLE_GUEST/fw_dynamic.bin" -kernel "$SPINDLE_GUEST/Image" -initrd "$SPINDLE_GUEST/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 selftest=$part" -nographic -no-reboot "$@" \
        </dev/null >"console-$part" 2>&1 &
    emulator=$!
}

console_says() {
    tr -d '\r' <"console-$1" | grep -q "$2"
}

# wait_console PART TEXT: until the guest says so.
wait_console() {
    local tries=0
    until console_says "$1" "$2"; do
        if ! kill -0 "$emulator" 2>/dev/null || [ $((tries += 1)) -gt "$(patience 1200)" ]; then
            tail -40 "console-$1" >&2
            die "no '$2' on the console of part $1"
        fi
        sleep 0.1
    done
}

# wait_passed PART: until the emulator has ended, and the guest was content.
wait_passed() {
    local status=0 tries=0
    while kill -0 "$emulator" 2>/dev/null; do
        if [ $((tries += 1)) -gt "$(patience 2400)" ]; then
            tail -40 "console-$1" >&2
            die "part $1 takes longer than $(patience 240) s"
        fi
        sleep 0.1
    done
    wait "$emulator" || status=$?
    emulator=
    if [ $status -ne 0 ] || ! console_says "$1" "^SELFTEST $1 PASS\$"; then
        tail -40 "console-$1" >&2
        die "part $1 failed (code $status), the end of the console is above"
    fi
}

run_both_parts() {
    boot 1 "$@"
    wait_passed 1
    boot 2 "$@"
    wait_passed 2
}

# serve SOCKET COMMAND...: starts a server and waits until it listens. One that ends at once is started again, as a supervisor would:
# the kernel finishes the I/O of a killed predecessor in its own time, and the image is locked until then.
serve() {
    local socket=$1 tries=0
    shift
    need_program "$1"
    rm -f "$socket"
    until [ -S "$socket" ]; do
        if [ $((tries += 1)) -gt 100 ]; then
            cat server.log >&2
            die "$1 does not come up"
        fi
        if [ -z "$server" ] || ! kill -0 "$server" 2>/dev/null; then
            "$@" </dev/null >>server.log 2>&1 &
            server=$!
        fi
        sleep 0.1
    done
}

# end_server SIGNAL
end_server() {
    kill "-$1" "$server"
    wait "$server" 2>/dev/null || true
    server=
}

# end_and_serve_while_running PART SIGNAL SOCKET COMMAND...: while the guest works, its server is ended and started again, several
# times. The guest goes on in between: the console of part 1 tells how far it is.
end_and_serve_while_running() {
    local part=$1 signal=$2 times=0
    shift 2
    wait_console "$part" "selftest: .* writing"
    while sleep 0.$((RANDOM % 3 + 1)) && ! console_says "$part" "comparing" && kill -0 "$emulator" 2>/dev/null; do
        end_server "$signal"
        sleep 0.$((RANDOM % 3))
        serve "$@"
        times=$((times + 1))
    done
    [ $times -ge 1 ] || die "the guest had finished before its server was ended: nothing was proven"
    say "the server was ended and started again $times times"
}

# The raw copy of the guest's file system: no format whose tables could be lost with a server.
make_raw_disk() {
    cp --sparse=always "$SPINDLE_GUEST/root.raw" disk.raw
}

check_file_system() {
    e2fsck -fn "$1" >fsck.log 2>&1 || {
        cat fsck.log >&2
        die "the file system is damaged"
    }
}

check_qcow2() {
    "$SPINDLE_IMG" check -f qcow2 disk/disk.qcow2
    qemu-img check -f qcow2 disk/disk.qcow2
    qemu-img convert -f qcow2 -O raw disk/disk.qcow2 copy.raw
    check_file_system copy.raw
}
