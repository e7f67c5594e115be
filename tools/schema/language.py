# SPDX-License-Identifier: Apache-2.0
"""The schema language: reads qmp/schema/*.json into plain dictionaries.

The language is QAPI as the ecosystem knows it: a sequence of objects written like JSON, with single quotes and with
comments from '#' to the end of the line. A comment block between two lines '##' is the documentation of the object that
follows: '@Name: text', then '@member: text' a member; a line that begins with more than one space goes on.

Beyond QAPI, a member may be an object instead of the name of a type:

    '*cluster-size': { 'type': 'size', 'default': 65536, 'min': 512, 'max': 2097152, 'unit': 'bytes' }

and a struct with a base may say 'own-first': true, when its own members are to be written before those of the base.
This module knows the notation only; what the objects mean is model.py's business.
"""
import os
import re

TOKEN = re.compile(r"""\s*(?:(?P<punctuation>[{}\[\]:,])|'(?P<string>[^'\n]*)'|(?P<number>-?\d+)|(?P<word>true|false))""")


class SchemaError(Exception):
    """What is wrong, with file and line in front."""

    def __init__(self, where, text):
        super().__init__(f"{where}: {text}")


class Reader:
    """Values of one file, one after another."""

    def __init__(self, path):
        self.path = path
        self.position = 0
        with open(path, encoding="utf-8") as file:
            self.text = file.read()

    def where(self):
        return f"{self.path}:{self.text.count(chr(10), 0, self.position) + 1}"

    def skip_space_and_comments(self):
        """Returns the lines of the last '##' block that was skipped, or None."""
        block = None
        while True:
            match = re.compile(r"[ \t\n]+|#[^\n]*(\n|$)").match(self.text, self.position)
            if not match:
                return block
            if match.group().rstrip() == "##":
                end = self.text.find("\n##", match.end() - 1)
                if end < 0:
                    raise SchemaError(self.where(), "documentation block has no closing '##'")
                block = self.text[match.end():end].split("\n")
                self.position = end + len("\n##")
            else:
                self.position = match.end()

    def token(self):
        self.skip_space_and_comments()
        match = TOKEN.match(self.text, self.position)
        if not match:
            raise SchemaError(self.where(), f"unexpected {self.text[self.position:self.position + 20]!r}")
        self.position = match.end()
        return match

    def value(self, match=None):
        match = match or self.token()
        if match["string"] is not None:
            return match["string"]
        if match["number"] is not None:
            return int(match["number"])
        if match["word"]:
            return match["word"] == "true"
        if match["punctuation"] == "[":
            return self.array()
        if match["punctuation"] == "{":
            return self.object()
        raise SchemaError(self.where(), f"unexpected '{match['punctuation']}'")

    def array(self):
        items = []
        match = self.token()
        while match["punctuation"] != "]":
            items.append(self.value(match))
            match = self.token()
            if match["punctuation"] == ",":
                match = self.token()
        return items

    def object(self):
        members = {}
        match = self.token()
        while match["punctuation"] != "}":
            key = match["string"]
            if key is None:
                raise SchemaError(self.where(), "expected a member's name in single quotes")
            if key in members:
                raise SchemaError(self.where(), f"member '{key}' stands twice")
            if self.token()["punctuation"] != ":":
                raise SchemaError(self.where(), f"expected ':' after '{key}'")
            members[key] = self.value()
            match = self.token()
            if match["punctuation"] == ",":
                match = self.token()
        return members


def parse_doc(lines):
    """{'Name': text, 'member': text ...}: the first key is the name of the documented thing."""
    docs, current = {}, None
    for line in lines or []:
        line = line[1:] if line.startswith("#") else line
        match = re.match(r" ?@([^:]+):\s*(.*)", line)
        if match:
            current = match[1]
            docs[current] = match[2]
        elif line.strip() and current is not None:
            docs[current] += " " + line.strip()
    return docs


def read_file(path, done=None):
    """All objects of a file and of those it includes, each as (module, where, docs, object); a file is read once."""
    done = done if done is not None else set()
    path = os.path.normpath(path)
    if path in done:
        return
    done.add(path)
    reader = Reader(path)
    module = os.path.splitext(os.path.basename(path))[0]
    while True:
        lines = reader.skip_space_and_comments()
        if reader.position >= len(reader.text):
            return
        where = reader.where()
        item = reader.value()
        if not isinstance(item, dict):
            raise SchemaError(where, "expected an object")
        if "include" in item:
            yield from read_file(os.path.join(os.path.dirname(path), item["include"]), done)
        else:
            yield module, where, parse_doc(lines), item
