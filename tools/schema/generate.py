#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Generates everything that follows from qmp/schema/*.json.

    generate.py SCHEMA --sources DIR --manual FILE     writes the C files and the manual
    generate.py SCHEMA --list DIR                      prints the C files it would write, one a line (for CMake)

A file whose contents would not change is not touched, so that nothing is compiled again without need.
"""
import argparse
import os
import sys

import emit_commands
import emit_manual
import emit_types
from language import SchemaError, read_file
from model import Schema, snake


def outputs(schema):
    """File name -> lines."""
    files = {
        "types.h": emit_types.header(schema),
        "types.c": emit_types.source(schema),
        "commands.h": emit_commands.commands_header(schema),
        "events.h": emit_commands.events_header(schema),
        "events.c": emit_commands.events_source(schema),
    }
    for module in schema.modules:
        if any(entity.module == module for entity in schema.commands + schema.events):
            files[f"module_{snake(module)}.c"] = emit_commands.module_source(schema, module)
    return files


def write_if_changed(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schema")
    parser.add_argument("--sources", metavar="DIR")
    parser.add_argument("--manual", metavar="FILE")
    parser.add_argument("--list", metavar="DIR")
    arguments = parser.parse_args()
    try:
        schema = Schema(read_file(arguments.schema))
    except (SchemaError, OSError) as problem:
        sys.exit(str(problem))
    if arguments.list:
        print("\n".join(os.path.join(arguments.list, name) for name in outputs(schema)))
    if arguments.sources:
        for name, lines in outputs(schema).items():
            write_if_changed(os.path.join(arguments.sources, name), "\n".join(lines) + "\n")
    if arguments.manual:
        write_if_changed(arguments.manual, "\n".join(emit_manual.manual(schema)) + "\n")


if __name__ == "__main__":
    main()
