#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, the benchmark program does not run, or its results, tables or plots cannot be trusted (no time is judged here).
# labels: quick
# requires: qemu-img nbdkit strace gcc
# timeout: 120
"""Two small benchmarks by tests/bench/run --quick, the shape of what they leave, and the arithmetic and images that the others rest on."""
import json
import os
import subprocess
import sys
import xml.etree.ElementTree

SOURCE = os.environ["SPINDLE_SRC"]
RUN = os.path.join(SOURCE, "tests/bench/run")
sys.path[:0] = [os.path.join(SOURCE, "tests/bench/lib")]
import data  # noqa: E402
import table  # noqa: E402

failures = 0


def check(condition, what):
    global failures
    if not condition:
        print("FAILED:", what)
        failures += 1


def bench(*arguments):
    # The leak checker cannot run in a program that strace watches; it has its say in all other tests.
    environment = dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")
    done = subprocess.run([RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, check=False)
    check(done.returncode == 0, f"{arguments}: exit status {done.returncode}\n{done.stderr.decode()[-2000:]}")
    return done.stdout.decode()


def two_benchmarks():
    with open("page.md", "w") as out:
        out.write("# Page\n\nBefore.\n\n<!-- figures: convert -->\nold\n<!-- end of figures -->\n\nBetween.\n\n<!-- figures: luks -->\nkept\n<!-- end of figures -->\n")
    text = bench("--only", "convert/raw-qcow2,nbd/read-4k,chains/map", "--quick", "--rounds", "2", "--json", "r.json", "--svg", "figures", "--markdown", "page.md")
    report = json.load(open("r.json"))
    by_name = {result["name"]: result for result in report["results"]}
    check(set(by_name) == {"convert/raw-qcow2", "nbd/read-4k", "chains/map"}, f"results are {sorted(by_name)}")
    for name, result in by_name.items():
        rows = {(row["point"], row["contender"]): row for row in result["rows"]}
        for (point, contender), row in rows.items():
            check(row["rounds"] == 2, f"{name}: {row['rounds']} rounds of {contender}")
            check(row[result["primary"]] > 0 and row["peak"] > 0.5, f"{name}: {row}")
            check(contender == "spindle" or row["ratio"] > 0, f"{name}: no ratio of {contender}")
        check(any(contender == "qemu" for _, contender in rows), f"{name}: no peer took part")
        check(any(row.get("calls", 0) >= 1 for row in rows.values()), f"{name}: no system calls were counted")
    ratio = next(row for row in by_name["convert/raw-qcow2"]["rows"] if row["contender"] == "qemu")
    mine = next(row for row in by_name["convert/raw-qcow2"]["rows"] if row["contender"] == "spindle")
    check(abs(ratio["ratio"] - ratio["wall"] / mine["wall"]) < 1e-9, "a ratio is not the quotient of the medians")
    check("raw to qcow2" in text and "4 KiB random reads, depth 1" in text, f"the text names no case:\n{text}")
    page = open("page.md").read()
    check("| raw to qcow2 | spindle" in page and "old" not in page, f"the page has no table:\n{page}")
    check("Before." in page and "Between." in page and "kept" in page, "what was not measured was changed in the page")
    for name in ("convert.svg", "nbd.svg", "chains-map.svg"):
        root = xml.etree.ElementTree.parse(os.path.join("figures", name)).getroot()
        shapes = [element.tag.split("}")[1] for element in root.iter()]
        check(shapes.count("rect") + shapes.count("polyline") >= 1 and "text" in shapes, f"{name} shows nothing")
    kept = open("figures/nbd.svg").read()
    bench("--from-json", "r.json", "--svg", "again")
    check(open("again/nbd.svg").read() == kept, "the plot made of the stored results is another one")


def all_are_listed():
    listed = bench("--list").split()
    for name in ("convert/zlib", "images/map-extents", "chains/read", "nbd/connections", "vhost/read-4k", "fuse/read-4k", "luks/nbd-read-4k", "jobs/backup-raw",
                 "daemon/memory", "guest/system", "guest/user", "guest/vcpus"):
        check(name in listed, f"--list does not name {name}")


def arithmetic():
    check(abs(table.fitted_exponent([(x, 3 * x ** 2) for x in (1, 10, 100, 1000)]) - 2) < 1e-9, "the exponent of a square is not 2")
    check(abs(table.fitted_exponent([(x, 5.0) for x in (1, 10, 100)])) < 1e-9, "the exponent of a constant is not 0")
    rows = [{"point": None, "contender": "spindle", "rate": 100.0}, {"point": None, "contender": "qemu", "rate": 50.0}]
    table.add_ratios({"primary": "rate", "rows": rows})
    check(rows[1]["ratio"] == 2.0, "twice the operations of the peer are not a ratio of 2")


def images():
    """The peer judges the images that we write for it."""
    data.write_fragmented("fragmented.qcow2", 300, 1 << 40)
    checked = json.loads(subprocess.run(["qemu-img", "check", "--output=json", "fragmented.qcow2"], stdout=subprocess.PIPE, check=True).stdout)
    check(checked["allocated-clusters"] == 300 and not checked.get("corruptions") and not checked.get("leaks"), f"fragmented image: {checked}")
    top = data.write_chain("chain", 5, 4 << 20)
    data.write_stamped("stamped.raw", 4 << 20)
    subprocess.run(["qemu-img", "convert", "-O", "raw", top, "chain.raw"], check=True)
    chain, stamped = open("chain.raw", "rb").read(), open("stamped.raw", "rb").read()
    check(all(chain[at:at + 8] == stamped[at:at + 8] for at in range(0, 4 << 20, 4096)), "the chain does not hold its data")


two_benchmarks()
all_are_listed()
arithmetic()
images()
sys.exit(1 if failures else 0)
