#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, our qcow2 and the ecosystem's do not agree on the content or the metadata of some image.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 240
"""
Rounds of random images, in both directions. A round chooses a cluster size, features, a backing file and a list of
requests, and carries them out three times: by our tools alone, by theirs alone, and by both in turn. Then the three
images must have the same content for both compare commands, be consistent for both check commands, and both tools must
say the same of each of them, field by field, in info, map and check. Last, each is converted by either tool.

SPINDLE_SEED chooses the first round (default 1), SPINDLE_SECONDS the time to spend.
"""
import os
import random
import shutil
import time

from image import OUR_IMG, OUR_IO, equal, img_json, run

SEED = int(os.environ.get("SPINDLE_SEED", "1"))
SECONDS = float(os.environ.get("SPINDLE_SECONDS", "50"))
OURS, THEIRS = (OUR_IMG, OUR_IO), ("qemu-img", "qemu-io")


def choose_features(rng):
    """-o options of a new image, as a dictionary."""
    cluster = 512 << rng.choice([0, 1, 2, 3, 5, 5, 7, 7, 7, 7, 8, 10, 12])
    features = {"cluster_size": cluster}
    if rng.random() < 0.2:
        return dict(features, compat="0.10")
    features["compat"] = "1.1"
    features["refcount_bits"] = rng.choice([1, 2, 4, 8, 16, 16, 16, 32, 64])
    if cluster >= 16384 and rng.random() < 0.35:
        features["extended_l2"] = "on"
    if rng.random() < 0.3:
        features["lazy_refcounts"] = "on"
    if rng.random() < 0.3:
        features["compression_type"] = "zstd"
    elif rng.random() < 0.25:
        features["data_file"] = "DATA"
    return features


def choose_size(rng, cluster):
    largest = min(32 << 20, max(cluster * 600, 4096))
    size = rng.randrange(512, largest + 512, 512)
    return size - size % cluster if rng.random() < 0.3 and size > cluster else size


def choose_span(rng, size, unit):
    """Often at the borders of clusters."""
    start = rng.randrange(0, size)
    length = min(rng.choice([512, 4096, unit, unit * 3, unit * 10, rng.randrange(1, 300000)]), 1 << 20)
    if rng.random() < 0.5:
        start -= start % unit
    if rng.random() < 0.3:
        start, length = start - start % 512, length + (-length) % 512
    return start, max(1, min(length, size - start))


def choose_request(rng, size, features, backing, touched):
    """`touched`: numbers of clusters that may be allocated; theirs cannot compress over those. What a discard
    leaves where a backing file has data is anybody's choice: theirs always stores zeroes, ours only where it had data."""
    cluster = features["cluster_size"]
    kind = rng.choice(["write"] * 6 + ["zero", "unmap", "discard", "compressed", "vector", "flush"])
    start, length = choose_span(rng, size, cluster)
    pattern = rng.randrange(1, 256)
    if kind not in ("compressed", "flush"):
        touched.update(range(start // cluster, (start + length - 1) // cluster + 1))
    if kind == "zero":
        return f"write -z {start} {length}"
    if kind == "unmap":
        return f"write -z -u {start} {length}"
    if kind == "discard" and not backing:
        return f"discard {start} {length}"
    if kind == "compressed" and "data_file" not in features:
        start -= start % cluster
        if start // cluster not in touched:
            touched.add(start // cluster)
            return f"write -c -P {pattern} {start} {min(cluster, size - start)}"
        kind = "flush"
    if kind == "vector":
        first = length // 2
        return f"writev -P {pattern} {start} {first} {length - first}"
    if kind == "flush":
        return "flush"
    return f"write -P {pattern} {start} {length}"


def option_text(features, name):
    return ",".join(f"{key}={name + '.data' if value == 'DATA' else value}" for key, value in features.items())


def make_backing(rng, features):
    """(path, format) of a backing file with some content, or None."""
    if features.get("data_file") or rng.random() < 0.4:
        return None
    form = rng.choice(["raw", "qcow2"])
    size = choose_size(rng, features["cluster_size"])
    run("qemu-img", "create", "-q", "-f", form, "base", size)
    commands = []
    for _ in range(6):
        start, length = choose_span(rng, size, 65536)
        commands += ["-c", f"write -q -P {rng.randrange(1, 256)} {start} {length}"]
    run("qemu-io", "-f", form, *commands, "base")
    return "base", form


def make_image(tool, name, features, size, backing):
    words = ["create", "-q", "-f", "qcow2", "-o", option_text(features, name)]
    if backing:
        words += ["-b", backing[0], "-F", backing[1]]
    run(tool, *words, name, size)


def run_requests(tool, name, requests):
    words = [word for request in requests for word in ("-c", request)]
    run(tool, "-f", "qcow2", "-d", "unmap", *words, name)


def overlap_in_time(rng, requests):
    """Turns some writes into asynchronous ones: all of a group are in flight at once, and none touches another's bytes
    (but often its cluster)."""
    made, flying = [], []
    for request in requests:
        words = request.split()
        is_plain = words[:2] == ["write", "-P"] or words[:2] == ["write", "-z"]
        start, length = (int(word) for word in words[-2:]) if is_plain else (0, 0)
        apart = all(start + length <= other or other + other_length <= start for other, other_length in flying)
        if is_plain and apart and rng.random() < 0.6:
            made.append("aio_" + request)
            flying.append((start, length))
            continue
        if flying:
            made.append("aio_flush")
            flying = []
        made.append(request)
    return made


def batches(rng, requests):
    while requests:
        count = rng.randrange(1, 12)
        yield overlap_in_time(rng, requests[:count])
        requests = requests[count:]  # the end of a process waits for what is in flight


def canonical_map(entries):
    """What both tools must agree on, with neighbours joined that continue each other. Holes of the file inside allocated
    clusters are left out: we always look for them, they only sometimes. What is read there is compared elsewhere."""
    joined = []
    for entry in entries:
        entry = {key: entry.get(key) for key in ("start", "length", "depth", "present", "zero", "data", "offset")}
        entry["zero" if entry["data"] else "offset"] = None # an offset where nothing is stored means nothing
        if joined:
            last = joined[-1]
            same = all(last[key] == entry[key] for key in ("depth", "present", "zero", "data"))
            follows = entry["offset"] is None if last["offset"] is None else entry["offset"] == last["offset"] + last["length"]
            if same and follows:
                last["length"] += entry["length"]
                continue
        joined.append(entry)
    return joined


def same_answers(name):
    """Both tools describe one image."""
    ours = img_json("info", "-f", "qcow2", name)
    theirs = img_json("info", "-f", "qcow2", name, tool="qemu-img")
    for key, value in theirs.items():
        equal(ours.get(key), value, f"{name}: info: {key}")
    ours = canonical_map(img_json("map", "-f", "qcow2", name))
    theirs = canonical_map(img_json("map", "-f", "qcow2", name, tool="qemu-img"))
    for our_entry, their_entry in zip(ours, theirs):
        equal(our_entry, their_entry, f"{name}: map")
    equal(len(ours), len(theirs), f"{name}: number of extents")
    ours = img_json("check", "-f", "qcow2", name)
    theirs = img_json("check", "-f", "qcow2", name, tool="qemu-img")
    equal(ours, theirs, f"{name}: check")


def same_content(a, a_format, b, b_format):
    for tool in (OUR_IMG, "qemu-img"):
        run(tool, "compare", "-f", a_format, "-F", b_format, a, b)


def convert(rng, tool, name, target):
    form = rng.choice(["raw", "qcow2"])
    words = ["-O", form]
    if form == "qcow2":
        features = choose_features(rng)
        features.pop("data_file", None)
        words += ["-o", option_text(features, target)]
        if rng.random() < 0.4:
            words.append("-c")
    if rng.random() < 0.3:
        words.append("-W")
    if rng.random() < 0.3:
        words += ["-S", rng.choice(["0", "64k", "512"])] if "-c" not in words else []
    run(tool, "convert", "-f", "qcow2", *words, name, target)
    same_content(name, "qcow2", target, form)
    if form == "qcow2":
        run("qemu-img", "check", "-q", "-f", "qcow2", target)
        run(OUR_IMG, "check", "-q", "-f", "qcow2", target)
    os.unlink(target)


def one_round(seed):
    rng = random.Random(seed)
    features = choose_features(rng)
    backing = make_backing(rng, features)
    size = choose_size(rng, features["cluster_size"])
    touched = set()
    if not backing and "extended_l2" not in features and rng.random() < 0.25:
        features["preallocation"] = rng.choice(["metadata", "falloc", "full"])
        touched.update(range(size // features["cluster_size"] + 1))
    requests = [choose_request(rng, size, features, backing, touched) for _ in range(rng.randrange(1, 40))]
    print(f"round {seed}: {size} {option_text(features, 'x')} backing {backing} requests {len(requests)}", flush=True)
    images = {"ours": (OURS,), "theirs": (THEIRS,), "mixed": (OURS, THEIRS)}
    parts = list(batches(rng, requests))
    for name, tools in images.items():
        make_image(tools[seed % len(tools)][0], name, features, size, backing)
        for number, part in enumerate(parts):
            run_requests(tools[number % len(tools)][1], name, part)
    for name in images:
        same_answers(name)
    same_content("ours", "qcow2", "theirs", "qcow2")
    same_content("mixed", "qcow2", "theirs", "qcow2")
    for name in images:
        convert(rng, rng.choice([OUR_IMG, "qemu-img"]), name, "target")
    grown = size + rng.randrange(512, 1 << 20, 512)
    for name, tools in images.items():
        if not backing:
            run(tools[0][0], "resize", "-q", "-f", "qcow2", name, grown)
            same_answers(name)
    same_content("ours", "qcow2", "theirs", "qcow2")


def main():
    end = time.monotonic() + SECONDS
    seed = SEED
    while time.monotonic() < end:
        os.mkdir("round")
        os.chdir("round")
        one_round(seed)
        os.chdir("..")
        shutil.rmtree("round")
        seed += 1
    print(f"{seed - SEED} rounds")


main()
