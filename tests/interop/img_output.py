#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, a program that reads the output or exit status of qemu-img or qemu-io cannot use ours in its place.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 120
"""The same command lines are run with both sides' tools, each in a folder of its own, and what they print on standard
output and return must be the same. Of errors, which are worded differently, only the status counts. What is newer in
our output than in that of old peers (children of nodes, compressed extents) is taken out first."""
import json
import os
import re

from image import OUR_IMG, OUR_IO, equal, run

SAME_OUTPUT = """
img create -f qcow2 a.qcow2 10M
img create -f qcow2 -o cluster_size=4k,refcount_bits=8,compat=1.1,lazy_refcounts=on b.qcow2 33M
img create -f qcow2 -o compat=0.10 old.qcow2 5M
img create -f qcow2 -b a.qcow2 -F qcow2 top.qcow2
img create -f qcow2 -o compression_type=zstd,extended_l2=on z.qcow2 4M
img create -f qcow2 -o data_file=d.raw d.qcow2 2M
img create -f raw -o preallocation=full,nocow=on r.raw 1M
img create -q -f raw s.raw 6M
io -f qcow2 -c length -c alloc_0_10M -c map a.qcow2
io -f qcow2 -c write_-q_-P_7_1M_1M -c write_-q_-z_3M_128k -c alloc_1M_64k -c map -c read_-v_1M_32 top.qcow2
io -f qcow2 -c write_-q_-c_-P_9_64k_64k -c write_-q_-P_5_0_64k -c read_-q_-P_9_64k_64k a.qcow2
io -f raw -c write_-q_-P_1_1M_1M s.raw
io -f raw -c truncate_7M -c length s.raw
io -f raw -c read_-q_-P_3_1M_4k s.raw
io -f raw -c read_-q_99M_4k -c length s.raw
io -f raw -c foo -c read -c read_0_3G -c sleep_1 -c discard_-q_0_4k s.raw
img info a.qcow2
img info b.qcow2
img info old.qcow2
img info top.qcow2
img info --backing-chain top.qcow2
img info z.qcow2
img info d.qcow2
img info -f raw s.raw
img map top.qcow2
img map -f raw s.raw
img map d.qcow2
img map --output=json top.qcow2
img map --output=json --start-offset=1M --max-length=3M top.qcow2
img map --output=json -f raw s.raw
img map --output=json z.qcow2
img map a.qcow2
img check a.qcow2
img check top.qcow2
img check old.qcow2
img check --output=json a.qcow2
img check -q a.qcow2
img check -f raw s.raw
img info --output=json a.qcow2
img info --output=json --backing-chain top.qcow2
img info --output=json d.qcow2
img info --output=json -f raw s.raw
img compare a.qcow2 a.qcow2
img compare a.qcow2 top.qcow2
img compare -f raw -F raw r.raw s.raw
img compare -s -f raw -F raw r.raw s.raw
img compare -q a.qcow2 top.qcow2
img resize a.qcow2 +2M
img resize -f raw s.raw -1M
img resize -f raw --shrink s.raw -1M
img resize -q a.qcow2 13M
img convert -O qcow2 top.qcow2 flat.qcow2
img convert -c -O qcow2 top.qcow2 packed.qcow2
img compare flat.qcow2 packed.qcow2
img map --output=json flat.qcow2
img check flat.qcow2
"""

SAME_STATUS = """
img
img nonsense
img create
img create x
img create -f nonsense x 1M
img create -f qcow2 -b a.qcow2 x
img create -f qcow2 -b missing -F raw x 1M
img create -f raw -o preallocation=metadata x 1M
img create -f qcow2 -o cluster_size=3 x 1M
img info missing
img info --output=xml a.qcow2
img info a.qcow2 b.qcow2
img check missing
img check -r nonsense a.qcow2
img compare a.qcow2 missing
img map missing
img convert missing x
img convert -n a.qcow2 missing
img convert -n -o size=1 a.qcow2 x
img convert -c -O raw a.qcow2 x
img convert -m 99 a.qcow2 x
img convert -S 3 a.qcow2 x
img convert --target-is-zero a.qcow2 x
img convert -O qcow2 -B a.qcow2 top.qcow2 x
img convert -t nonsense a.qcow2 x
img resize a.qcow2
img resize a.qcow2 -99M
io missing
io -r -f qcow2 -c write_0_1k a.qcow2
io -f qcow2 -t nonsense a.qcow2
io -f qcow2 -c open_a.qcow2 a.qcow2
"""


def without_children(value):
    if isinstance(value, dict):
        return {key: without_children(member) for key, member in value.items() if key not in ("children", "compressed")}
    return [without_children(member) for member in value] if isinstance(value, list) else value


def comparable(command, out):
    if "json" in command and out:
        value = json.loads(out)
        text = json.dumps(without_children(value), sort_keys=True)
        return re.sub(r'"actual-size": \d+', '"actual-size": N', text)
    out = re.sub(r"^Child node '.*':\n(    .*\n)*", "", out, flags=re.M)
    out = re.sub(r"^Formatting.*$", lambda line: " ".join(sorted(line[0].split())), out, flags=re.M)
    out = re.sub(r"ops; .* ops/sec\)$", "ops; RATE", out, flags=re.M)
    out = re.sub(r"^disk size: .*$", "disk size: N", out, flags=re.M)
    # The same members, whatever their order.
    return re.sub(r"((?:^    .*: .*\n)+)", lambda block: "".join(sorted(block[1].splitlines(True))), out, flags=re.M)


def run_line(tools, folder, line):
    words = [word.replace("_", " ") if before == "-c" and line.startswith("io") else word
             for before, word in zip([None] + line.split(), line.split())]
    return run(tools[words[0]], *words[1:], status=None, cwd=folder)


def main():
    ours, theirs = {"img": OUR_IMG, "io": OUR_IO}, {"img": "qemu-img", "io": "qemu-io"}
    os.mkdir("ours")
    os.mkdir("theirs")
    for line in SAME_OUTPUT.strip().split("\n") + SAME_STATUS.strip().split("\n"):
        our = run_line(ours, "ours", line)
        their = run_line(theirs, "theirs", line)
        equal(our.status, their.status, f"exit status of: {line}\n{our}\n{their}")
        if line in SAME_OUTPUT.split("\n"):
            equal(comparable(line, our.out), comparable(line, their.out), f"output of: {line}")
        for result in (our, their):
            equal(bool(result.err) or result.status != 1, True, f"a failure without a message: {result}") if "-q" not in line \
                and "compare" not in line and "-c " not in line else None


main()
