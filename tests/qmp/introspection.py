#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, query-qmp-schema is not what management programs expect, or a command differs from the ecosystem's.
# labels: full interop
# requires: qemu-storage-daemon
# timeout: 60
"""Compares our introspection with that of QEMU's storage daemon: what both have must have the same shape."""
import os

from qmp import Program, Qmp

OURS = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")
# Members and values that came after the version of the peer that distributions have.
# What the peer's daemon does not have, in any version: descriptors of clients, several NBD servers.
BEYOND = {(name, "is ours alone") for name in ("getfd", "closefd", "add-fd", "remove-fd", "query-fdsets", "qom-list-get", "query-iothreads")}
BEYOND |= {(f"nbd-server-{verb}", "member 'id' is ours alone") for verb in ("start", "stop")}
BEYOND |= {("block-export-add/nbd", "member 'server' is ours alone")}
NEWER = {"header", "detached-header", "reconnect-ms", "confined", "discard-no-unref", "active", "allow-inactive", "handshake-max-seconds", "file", "max-connections",
         "min-cluster-size", "on-cbw-error", "discard-source", "target-is-zero", "backing-mask-protocol",
         "limits"}
BEYOND |= {(name, "is ours alone") for name in ("block-job-change", "blockdev-set-active", "block-latency-histogram-set")}
BEYOND |= {("blockdev-check", "is ours alone"), ("BLOCK_JOB_COMPLETED.type", "value 'check' is ours alone"),
           ("query-jobs returns[]", "member 'check' is ours alone"),
           ("blockdev-create.options/qcow2.encrypt.format", "value 'aes' is ours alone")}  # where the peer says qcow only
# These became unions later, or take more with us.
RESHAPED = {"query-block-jobs returns[]", "query-block-jobs returns[].type", "x-blockdev-amend.options/qcow2"}
# Unions of the peer whose tag may be left out with us (the image says how it is encrypted): all variants' members stand side by side.
FLAT = {"blockdev-add/qcow2.encrypt", "blockdev-create.options/qcow2.encrypt"}


def introspect(program):
    path = f"{os.path.basename(program)}.sock"
    with Program([program, "--chardev", f"socket,id=c,path={path},server=on,wait=off", "--monitor", "c"]):
        qmp = Qmp.connect(path)
        entries = qmp.command("query-qmp-schema")
        qmp.command("quit")
    return {entry["name"]: entry for entry in entries}


class Comparison:
    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs
        self.seen, self.flat, self.problems, self.compared = set(), set(), [], 0

    def problem(self, path, text):
        if (path, text) not in BEYOND:
            self.problems.append(f"{path}: {text}")

    def compare(self, our_name, their_name, path):
        if (our_name, their_name) in self.seen or path in RESHAPED:
            return
        self.seen.add((our_name, their_name))
        self.compared += 1
        our, their = self.ours[our_name], self.theirs[their_name]
        if our["meta-type"] != their["meta-type"]:
            self.problem(path, f"{our['meta-type']} instead of {their['meta-type']}")
        else:
            getattr(self, "compare_" + our["meta-type"])(our, their, path)

    def compare_builtin(self, our, their, path):
        if our != their:
            self.problem(path, f"{our} instead of {their}")

    def compare_array(self, our, their, path):
        self.compare(our["element-type"], their["element-type"], path + "[]")

    def compare_enum(self, our, their, path):
        for value in set(our["values"]) - set(their["values"]) - NEWER:
            self.problem(path, f"value '{value}' is ours alone")
        assert [member["name"] for member in our["members"]] == our["values"]

    def compare_alternate(self, our, their, path):
        def shape(types, name):
            return types[name]["meta-type"], types[name].get("json-type")
        alternatives = {shape(self.theirs, member["type"]): member["type"] for member in their["members"]}
        for member in our["members"]:
            which = shape(self.ours, member["type"])
            if which not in alternatives:
                self.problem(path, f"alternative {which} is ours alone")
            else:
                self.compare(member["type"], alternatives[which], path + "|")

    def compare_object(self, our, their, path):
        our_members = {member["name"]: member for member in our["members"]}
        their_members = {member["name"]: member for member in their["members"]}
        if path in FLAT:
            self.flat.add(path)
            their_members = self.flatten(their)
        for name, member in our_members.items():
            if name not in their_members:
                if name not in NEWER:
                    self.problem(path, f"member '{name}' is ours alone")
                continue
            if ("default" in member) != ("default" in their_members[name]):
                self.problem(path, f"member '{name}' is optional for one only")
            self.compare(member["type"], their_members[name]["type"], f"{path}.{name}")
        for name, member in their_members.items():
            if name not in our_members and ("default" not in member or path in FLAT):
                self.problem(path, f"member '{name}' is missing")
        if path not in FLAT:
            self.compare_variants(our, their, path)

    def flatten(self, their):
        """{name: member} of a union, the variants' included; all of them are optional then."""
        cases = set(self.theirs[next(m["type"] for m in their["members"] if m["name"] == their["tag"])]["values"])
        assert {variant["case"] for variant in their["variants"]} <= cases, their
        objects = [their] + [self.theirs[variant["type"]] for variant in their["variants"]]
        return {member["name"]: {**member, "default": None} for one in objects for member in one["members"]}

    def compare_variants(self, our, their, path):
        if our.get("tag") != their.get("tag"):
            self.problem(path, f"tag {our.get('tag')} instead of {their.get('tag')}")
        types = {variant["case"]: variant["type"] for variant in their.get("variants", [])}
        for variant in our.get("variants", []):
            if variant["case"] in types:
                self.compare(variant["type"], types[variant["case"]], f"{path}/{variant['case']}")
            elif variant["case"] not in NEWER:
                self.problem(path, f"variant '{variant['case']}' is ours alone")


ours, theirs = introspect(OURS), introspect("qemu-storage-daemon")
comparison = Comparison(ours, theirs)
for entry in ours.values():
    if entry["meta-type"] not in ("command", "event"):
        continue
    other = theirs.get(entry["name"])
    if other is None:
        comparison.problem(entry["name"], "is ours alone")
        continue
    comparison.compare(entry["arg-type"], other["arg-type"], entry["name"])
    if entry["meta-type"] == "command":
        comparison.compare(entry["ret-type"], other["ret-type"], entry["name"] + " returns")
assert comparison.compared > 50, comparison.compared
assert comparison.flat == FLAT, comparison.flat
assert not comparison.problems, "\n".join(comparison.problems)
print(f"{comparison.compared} types compared")
