#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, our tools and the ecosystem's do not agree on the content or the metadata of some image.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 240
"""
Rounds of random images, in both directions. A round chooses a format (raw or qcow2), features, a chain of backing files and a list of
steps (requests, growing, shrinking), and carries them out three times: by our tools alone, by theirs alone, and by both in turn. Then the
three images must have the same content for both compare commands, and be what a model of the content says; they must be consistent for
both check commands; and both tools must say the same of each of them, field by field, in info, map and check. Last, each is converted by
either tool. What differs on purpose stands in DIFFERENCES.

    tests/interop/differential.py [--seconds N] [--seed FIRST] [--rounds N]

SPINDLE_SEED and SPINDLE_SECONDS do the same.
"""
import argparse
import json
import os
import random
import shutil
import time

from image import OUR_IMG, OUR_IO, content, equal, fail
from image import run as run_plain

# What differs on purpose, and how it is compared: command, field, reason.
DIFFERENCES = (
    ("map", "holes of the file inside allocated clusters", "we always look for them, they only sometimes: compared by `present` and `zero` of what "
                                                           "the format says"),
    ("map", "offset of extents without data", "an offset where nothing is stored means nothing"),
    ("info", "actual-size", "allocation is decided by the file system and by how the bytes were written: compared for one image, not across"),
    ("content", "discarded clusters above a backing file", "they always store zeroes, we only where there was data: discards are left out there"),
    ("content", "discarded parts of clusters with subclusters", "ours give them up, theirs keep them: such images are compared with the model only, "
                                                                "which takes the old bytes or zeroes there"),
    ("write -c", "over allocated clusters", "theirs refuses, ours replaces: left out"),
    ("resize", "shrinking into the middle of a cluster, and growing again", "theirs shows the old bytes of that cluster again, ours zeroes: images "
                                                                            "are cut at clusters"),
    ("write -c", "in encrypted images", "theirs stores the bytes in clear, ours refuses: left out"),
    ("create", "preallocated and encrypted", "theirs reads as noise, ours as zeroes: left out"),
    ("resize", "of overlays", "left out: which bytes of a longer backing file show again is each program's choice"),
)
OURS, THEIRS = (OUR_IMG, OUR_IO), ("qemu-img", "qemu-io")
SECRET = ["--object", "secret,id=key,data=the passphrase"]
ENCRYPTED = set()  # names of images of this round, which are opened by options and not by their names alone


def run(*words, **options):
    """A command, which may use encrypted images; those have their format and their key in their options."""
    words = list(words)
    at = 2 if words[0] in (OUR_IMG, "qemu-img") else 1
    command = words[1] if at == 2 else "io"
    formats = [i for i, word in enumerate(words) if word in ("-f", "-F")]
    names = [i for i in range(at, len(words)) if words[i] in ENCRYPTED and words[i - 1] != "-O"]
    if command == "convert" and names and names[-1] == len(words) - 1:
        names.pop()  # the target, which is about to be made
    if command != "create":
        first = len(words) - (2 if command == "compare" else 1)
        for i in names:
            if formats:
                which = formats[i - first] if command == "compare" else formats[0]
                words[which] = words[which + 1] = None
            words[i] = "json:" + json.dumps({"driver": "qcow2", "encrypt.key-secret": "key", "file.driver": "file",
                                             "file.filename": words[i]})
    uses_key = any(str(word).startswith(("json:", "encrypt.")) or ",encrypt." in str(word) for word in words)
    words[at:at] = SECRET if uses_key else []
    words = [word for word in words if word is not None]
    for _ in range(20):
        result = run_plain(*words, **{**options, "status": None})
        if "accurate CPU usage" not in result.err:  # the peer cannot time its key derivation on a busy machine
            break
    if result.status != options.get("status", 0):
        fail(f"expected status {options.get('status', 0)}\n{result}")
    return result


def img_json(command, *words, tool=OUR_IMG):
    return json.loads(run(tool, command, "--output=json", *words).out)


def choose_features(rng):
    """-o options of a new qcow2 image, as a dictionary; none for a raw one."""
    if rng.random() < 0.12:
        return {}
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
    if rng.random() < 0.2:
        features["encrypt.format"] = rng.choice(["aes", "luks"])
        features["encrypt.key-secret"] = "key"
        if features["encrypt.format"] == "luks":
            features["encrypt.iter-time"] = 10
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
    cluster = features.get("cluster_size", 65536)
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
    if kind == "compressed" and features and "data_file" not in features and "encrypt.format" not in features:
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
    """(path, format) of the upper one of up to three backing files with some content, or None."""
    if not features or features.get("data_file") or rng.random() < 0.4:
        return None
    above = None
    for name in ("base", "middle", "upper")[:rng.choice([1, 1, 2, 3])]:
        form = "qcow2" if above else rng.choice(["raw", "qcow2"])
        size = choose_size(rng, features["cluster_size"])
        link = ["-b", above[0], "-F", above[1]] if above else []
        run(rng.choice(["qemu-img", OUR_IMG]), "create", "-q", "-f", form, *link, name, size)
        commands = []
        for _ in range(4):
            start, length = choose_span(rng, size, 65536)
            commands += ["-c", f"write -q -P {rng.randrange(1, 256)} {start} {length}"]
        run(rng.choice(["qemu-io", OUR_IO]), "-f", form, *commands, name)
        above = name, form
    return above


def make_image(tool, name, features, size, backing):
    words = ["create", "-q", "-f", format_of(features)]
    if features:
        words += ["-o", option_text(features, name)]
    if backing:
        words += ["-b", backing[0], "-F", backing[1]]
    run(tool, *words, name, size)


def format_of(features):
    return "qcow2" if features else "raw"


class Model:
    """The content as it has to be. What was discarded, and not written since, may be as before or zero: `loose` are such spans."""

    def __init__(self, size, backing):
        self.data = bytearray(size)
        self.loose = []
        if backing:
            run("qemu-img", "convert", "-f", backing[1], "-O", "raw", backing[0], "flat")
            below = content("flat")[:size]
            self.data[:len(below)] = below
            os.unlink("flat")

    def do(self, step):
        words = step.split()
        numbers = [int(word) for word in words if word.isdigit()]
        if words[0] == "resize":
            grown = numbers[0] - len(self.data)
            self.data = self.data + bytes(grown) if grown > 0 else self.data[:numbers[0]]
            self.settle(numbers[0], numbers[0] + (1 << 40))
        elif words[0] == "discard":
            self.settle(numbers[0], numbers[0] + numbers[1])
            self.loose.append((numbers[0], numbers[0] + numbers[1]))
        elif words[0] != "flush":
            fill = 0 if "-z" in words else numbers.pop(0)
            length = sum(numbers[1:])
            self.data[numbers[0]:numbers[0] + length] = bytes([fill]) * length
            self.settle(numbers[0], numbers[0] + length)

    def settle(self, start, end):
        """No span is loose between these any longer."""
        parts = [part for a, b in self.loose for part in ((a, min(b, start)), (max(a, end), b))]
        self.loose = [(a, b) for a, b in parts if a < b]

    def check(self, name, features):
        run("qemu-img", "convert", "-f", format_of(features), "-O", "raw", name, "flat")
        found = bytearray(content("flat"))
        os.unlink("flat")
        for start, end in self.loose:
            if all(byte in (0, old) for byte, old in zip(found[start:end], self.data[start:end])):
                found[start:end] = self.data[start:end]
        if found != self.data:
            at = next((i for i in range(min(len(found), len(self.data))) if found[i] != self.data[i]), -1)
            fail(f"{name}: size {len(found)}, not {len(self.data)}, or another content at {at}")


def choose_steps(rng, size, features, backing, touched):
    """Requests, with changes of size between them."""
    steps = []
    for _ in range(rng.randrange(1, 40)):
        if not backing and "preallocation" not in features and rng.random() < 0.05:
            unit = features.get("cluster_size", 512)
            smaller = max(unit, (size - rng.randrange(0, size, 512)) // unit * unit)
            size = rng.choice([size + rng.randrange(512, 1 << 20, 512), min(size, smaller)])
            steps.append(f"resize {size}")
        else:
            steps.append(choose_request(rng, size, features, backing, touched))
    return steps, size


def run_steps(tools, name, features, steps):
    """`steps` is a change of size, or some requests."""
    form = format_of(features)
    if steps[0].startswith("resize"):
        run(tools[0], "resize", "-q", "--shrink", "-f", form, name, steps[0].split()[1])
        return
    words = [word for request in steps for word in ("-c", request)]
    run(tools[1], "-f", form, "-d", "unmap", *words, name)


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


def batches(rng, steps):
    while steps:
        count = rng.randrange(1, 12)
        sizes = [i for i, step in enumerate(steps[:count]) if step.startswith("resize")]
        if sizes:
            count = max(1, sizes[0])
        part, steps = steps[:count], steps[count:]  # the end of a process waits for what is in flight
        yield part if part[0].startswith("resize") else overlap_in_time(rng, part)


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


def same_answers(name, form):
    """Both tools describe one image."""
    ours = img_json("info", "-f", form, name)
    theirs = img_json("info", "-f", form, name, tool="qemu-img")
    if name in ENCRYPTED:
        theirs["filename"] = name  # theirs repeats the options
        ours["format-specific"]["data"].get("encrypt", {}).pop("detached-header", None)  # newer than the peer of Debian 12
    for key, value in theirs.items():
        equal(ours.get(key), value, f"{name}: info: {key}")
    ours = canonical_map(img_json("map", "-f", form, name))
    theirs = canonical_map(img_json("map", "-f", form, name, tool="qemu-img"))
    for our_entry, their_entry in zip(ours, theirs):
        equal(our_entry, their_entry, f"{name}: map")
    equal(len(ours), len(theirs), f"{name}: number of extents")
    if form == "raw":
        return
    ours = img_json("check", "-f", form, name)
    theirs = img_json("check", "-f", form, name, tool="qemu-img")
    equal(ours, theirs, f"{name}: check")


def same_content(a, a_format, b, b_format):
    for tool in (OUR_IMG, "qemu-img"):
        run(tool, "compare", "-f", a_format, "-F", b_format, a, b)


def convert(rng, tool, name, source_form, target):
    features = choose_features(rng)
    features.pop("data_file", None)
    form = format_of(features)
    words = ["-O", form]
    if features:
        words += ["-o", option_text(features, target)]
        if rng.random() < 0.4 and "encrypt.format" not in features:
            words.append("-c")
    ENCRYPTED.discard(target)
    if "encrypt.format" in features:
        ENCRYPTED.add(target)
    if rng.random() < 0.3:
        words.append("-W")
    if rng.random() < 0.3:
        words += ["-S", rng.choice(["0", "64k", "512"])] if "-c" not in words else []
    run(tool, "convert", "-f", source_form, *words, name, target)
    same_content(name, source_form, target, form)
    if features:
        run("qemu-img", "check", "-q", "-f", "qcow2", target)
        run(OUR_IMG, "check", "-q", "-f", "qcow2", target)
    os.unlink(target)


def one_round(seed):
    rng = random.Random(seed)
    features = choose_features(rng)
    backing = make_backing(rng, features)
    cluster = features.get("cluster_size", 65536)
    size = choose_size(rng, cluster)
    touched = set()
    ENCRYPTED.clear()
    if "encrypt.format" in features:
        ENCRYPTED.update(("ours", "theirs", "mixed"))
    if features and not backing and "extended_l2" not in features and not ENCRYPTED and rng.random() < 0.25:
        features["preallocation"] = rng.choice(["metadata", "falloc", "full"])
        touched.update(range(size // cluster + 1))
    steps, last_size = choose_steps(rng, size, features, backing, touched)
    form = format_of(features)
    print(f"round {seed}: {form} {size} {option_text(features, 'x')} backing {backing} steps {len(steps)}", flush=True)
    model = Model(size, backing)
    for step in steps:
        model.do(step)
    images = {"ours": (OURS,), "theirs": (THEIRS,), "mixed": (OURS, THEIRS)}
    parts = list(batches(rng, steps))
    for name, tools in images.items():
        make_image(tools[seed % len(tools)][0], name, features, size, backing)
        for number, part in enumerate(parts):
            run_steps(tools[number % len(tools)], name, features, part)
    for name in images:
        same_answers(name, form)
        model.check(name, features)
    is_the_same = "extended_l2" not in features or not any(step.startswith("discard") for step in steps)
    if is_the_same:
        same_content("ours", form, "theirs", form)
        same_content("mixed", form, "theirs", form)
    for name in images:
        convert(rng, rng.choice([OUR_IMG, "qemu-img"]), name, form, "target")
    grown = last_size + rng.randrange(512, 1 << 20, 512)
    if not backing:
        model.do(f"resize {grown}")
    for name, tools in images.items():
        if not backing:
            run(tools[0][0], "resize", "-q", "-f", form, name, grown)
            same_answers(name, form)
            model.check(name, features)
    if is_the_same:
        same_content("ours", form, "theirs", form)


def main():
    parser = argparse.ArgumentParser(description="random operations by our tools and the ecosystem's")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SPINDLE_SECONDS", "25")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SPINDLE_SEED", "1")), help="of the first round")
    parser.add_argument("--rounds", type=int, help="end after so many")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    seed = options.seed
    while time.monotonic() < end and (options.rounds is None or seed < options.seed + options.rounds):
        shutil.rmtree("round", ignore_errors=True)
        os.mkdir("round")
        os.chdir("round")
        one_round(seed)
        os.chdir("..")
        seed += 1
    shutil.rmtree("round", ignore_errors=True)
    print(f"{seed - options.seed} rounds, {len(DIFFERENCES)} differences known")


main()
