#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, the ecosystem's NBD clients (libnbd's tools, qemu-img, qemu-io, qemu-nbd, fio) do not get from the daemon's exports what is there.
# labels: full interop
# requires: nbdinfo nbdcopy qemu-img qemu-io qemu-nbd fio
# timeout: 300
set -euo pipefail
say() { echo "== $*"; }
die() { echo "FAILED: $*"; exit 1; }
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true' EXIT

# A raw disk with data, holes and zeroes in known places, a qcow2 image of the same, and an empty qcow2 image.
truncate -s 64M raw.img
dd if=/dev/urandom of=raw.img bs=1M count=3 conv=notrunc status=none
dd if=/dev/urandom of=raw.img bs=64K count=5 seek=500 conv=notrunc status=none
qemu-img convert -f raw -O qcow2 raw.img disk.qcow2
qemu-img create -q -f qcow2 empty.qcow2 64M
truncate -s 64M target.img
cp --sparse=always raw.img scratch.img

"$SPINDLE_BIN/spindle-storage-daemon" \
    --blockdev file,node-name=raw,filename=raw.img \
    --blockdev file,node-name=qfile,filename=disk.qcow2 --blockdev qcow2,node-name=qcow2,file=qfile \
    --blockdev file,node-name=efile,filename=empty.qcow2 --blockdev qcow2,node-name=empty,file=efile,discard=unmap \
    --blockdev file,node-name=target,filename=target.img,discard=unmap \
    --blockdev file,node-name=scratch,filename=scratch.img,discard=unmap \
    --nbd-server addr.type=unix,addr.path=nbd.sock \
    --export nbd,id=e1,node-name=raw,name=raw,description="a raw disk" \
    --export nbd,id=e2,node-name=qcow2,name=qcow2 \
    --export nbd,id=e3,node-name=empty,name=empty,writable=on \
    --export nbd,id=e4,node-name=target,name=target,writable=on \
    --export nbd,id=e5,node-name=scratch,name=scratch,writable=on &
daemon=$!
for _ in $(seq 100); do [ -S nbd.sock ] && break; sleep 0.05; done
uri() { echo "nbd+unix:///$1?socket=$PWD/nbd.sock"; }

say "nbdinfo"
[ "$(nbdinfo --size "$(uri raw)")" = 67108864 ] || die "size"
nbdinfo --list --json "nbd+unix://?socket=$PWD/nbd.sock" > list.json
python3 - <<'END'
import json
exports = {e["export-name"]: e for e in json.load(open("list.json"))["exports"]}
assert set(exports) == {"raw", "qcow2", "empty", "target", "scratch"}, exports.keys()
assert exports["raw"]["description"] == "a raw disk" and exports["raw"]["is_read_only"]
for name in ("target", "empty"):
    e = exports[name]
    assert not e["is_read_only"], e
    for can in ("can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_df", "can_cache", "can_multi_conn"):
        assert e[can], (name, can)
    assert e["block_size_maximum"] == 32 << 20 and e["block_size_minimum"] == 1
END
nbdinfo --can df "$(uri qcow2)" || die "df"
nbdinfo "$(uri nothing)" 2>err.txt && die "an export that does not exist"
grep -q "nothing" err.txt || die "the message does not name the export: $(cat err.txt)"

say "nbdinfo --map: the same as the ecosystem sees"
for image in raw qcow2; do
    nbdinfo --map --json "$(uri $image)" > ours.json
    qemu-nbd -r -t -f raw -k "$PWD/peer.sock" -x raw raw.img &
    peer=$!
    for _ in $(seq 100); do [ -S peer.sock ] && break; sleep 0.05; done
    nbdinfo --map --json "nbd+unix:///raw?socket=$PWD/peer.sock" > peer.json
    kill $peer; wait $peer || true
    python3 - <<'END'
import json
def zeroes(path):
    ranges, end = [], 0
    for e in json.load(open(path)):
        assert e["offset"] == end and e["length"] > 0, e
        end += e["length"]
        zero = bool(e["type"] & 2)
        if ranges and ranges[-1][1] == zero:
            ranges[-1][0] = end
        else:
            ranges.append([end, zero])
    assert end == 64 << 20, end
    return ranges
ours, peer = zeroes("ours.json"), zeroes("peer.json")
assert ours == peer, (ours, peer)
assert any(zero for _, zero in ours)
END
done

say "nbdcopy, both ways, several connections"
nbdcopy --connections=4 --requests=32 "$(uri qcow2)" copy.img
cmp copy.img raw.img
nbdcopy "$(uri raw)" - | cmp - raw.img
nbdcopy --flush --connections=4 raw.img "$(uri empty)"
nbdcopy "$(uri empty)" - | cmp - raw.img
nbdcopy --destination-is-zero --allocated "$(uri qcow2)" "$(uri target)"
nbdcopy "$(uri target)" - | cmp - raw.img

say "qemu-img, qemu-io, qemu-nbd"
qemu-img convert -f raw -O raw "$(uri qcow2)" converted.img
cmp converted.img raw.img
qemu-img compare -f raw -F raw "$(uri raw)" "$(uri qcow2)" | grep -q identical
qemu-img map --output=json -f raw "$(uri qcow2)" > map.json
python3 -c 'import json; m = json.load(open("map.json")); assert any(e["zero"] for e in m) and any(e["data"] for e in m), m'
qemu-nbd --list -k "$PWD/nbd.sock" > nbd-list.txt
grep -q "exports available: 5" nbd-list.txt || die "qemu-nbd --list: $(cat nbd-list.txt)"
grep -q "base:allocation" nbd-list.txt || die "contexts"
qemu-img convert -n -p -f raw -O raw -W -m 16 copy.img "$(uri empty)" > /dev/null
qemu-io -f raw -c "write -P 0x5a 1M 64k" -c "write -f -P 0x5b 2M 512" -c "write -z 3M 128k" -c "write -z -u 4M 128k" -c "discard 5M 1M" -c flush \
    -c "read -P 0x5a 1M 64k" -c "read -P 0x5b 2M 512" -c "read -P 0 3M 128k" -c "read -P 0 4M 128k" "$(uri empty)" > io.txt
grep -qiE "fail|error" io.txt && die "qemu-io: $(cat io.txt)"
qemu-io -f raw -r -c "read 0 512" "$(uri raw)" > /dev/null
qemu-io -f raw -c "write 0 512" "$(uri raw)" > ro.txt 2>&1 && die "a read-only export was written"

say "fio with verification"
fio --name=verify --ioengine=nbd --uri="$(uri empty)" --rw=randwrite --bsrange=512-64k --bs_unaligned --iodepth=32 --size=48m \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --output=fio.txt > /dev/null || { cat fio.txt; die "fio on qcow2"; }
fio --name=mixed --ioengine=nbd --uri="$(uri scratch)" --rw=randrw --bs=4k --iodepth=64 --size=32m --fsync=64 \
    --verify=md5 --verify_fatal=1 --output=fio.txt > /dev/null || { cat fio.txt; die "fio on raw"; }

say "the images are whole after the daemon has gone"
kill "$daemon"; wait "$daemon"; daemon=
qemu-img check -q empty.qcow2 || die "check of the written qcow2 image"
cmp raw.img copy.img
