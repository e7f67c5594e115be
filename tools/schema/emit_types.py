# SPDX-License-Identifier: Apache-2.0
"""Writes types.h (structs and enums) and types.c (the tables that describe them); see qmp/schema/schema.h for the mapping."""
from model import BUILTINS, member_name, snake

BANNER = "/* SPDX-License-Identifier: Apache-2.0 */\n/* Generated from the schema (qmp/schema) by tools/schema/generate.py. */\n"


def c_string(text):
    if not text:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def comment(text):
    return f" /* {text.replace('*/', '* /')} */" if text else ""


def number(value):
    """An int64_t constant: INT64_MIN has no literal of its own."""
    if value == -2**63:
        return "INT64_MIN"
    return f"INT64_C({value - 2**64 if value > 2**63 - 1 else value})"


def declare_enum(made):
    yield f"/* {made.doc} */"
    yield f"enum {made.c_name} {{"
    for value in made.values:
        yield f"    {made.constant(value)},{comment(made.value_docs[value])}"
    yield f"    {made.c_name.upper()}__COUNT"
    yield "};"
    yield f"SCHEMA_ENUM_FUNCTIONS({made.c_name})"
    yield ""


def declare_member(member):
    if member.needs_has:
        yield f"    bool has_{snake(member.name)};"
    if member.is_list:
        yield f"    size_t n_{snake(member.name)};"
    yield f"    {member.type.c_type}{'*' if member.is_list else ''}{member.c_name};{comment(member.doc)}"


def declare_struct(made):
    yield f"/* {made.doc} */"
    if made.kind == "ALTERNATE":
        yield f"enum {made.c_name}_kind {{"
        yield from (f"    {made.c_name.upper()}_KIND_{snake(name).upper()}," for name in made.branches)
        yield "};"
    yield f"struct {made.c_name} {{"
    if made.kind == "ALTERNATE":
        yield f"    enum {made.c_name}_kind kind;"
        yield "    union {"
        for name, alternative in made.branches.items():
            if alternative.kind != "NULL":
                yield f"        {alternative.c_type}{member_name(name)};{comment(made.branch_docs[name])}"
        yield "    } u;"
    for member in made.members:
        yield from declare_member(member)
    if made.tag and made.branches:
        yield "    union {"
        yield from (f"        struct {branch.c_name} {member_name(value)};" for value, branch in made.branches.items())
        yield "    } u;"
    yield "};"
    yield f"SCHEMA_FUNCTIONS({made.c_name})"
    yield f"#define auto_{made.c_name} __attribute__((cleanup({made.c_name}_cleanup))) struct {made.c_name}"
    if made.kind == "STRUCT" and not made.implicit:
        yield f"struct {made.c_name}_list {{"
        yield "    size_t n;"
        yield f"    struct {made.c_name} **items;"
        yield "};"
        yield f"SCHEMA_LIST_FUNCTIONS({made.c_name})"
        yield f"#define auto_{made.c_name}_list __attribute__((cleanup({made.c_name}_list_cleanup))) struct {made.c_name}_list"
    yield ""


def header(schema):
    yield BANNER
    yield "/* The types of the interface. How they look in C is told in qmp/schema/schema.h. */"
    yield "#ifndef QMP_SCHEMA_TYPES_H\n#define QMP_SCHEMA_TYPES_H\n"
    yield '#include "qmp/schema/schema.h"\n'
    yield from (f"struct {made.c_name};" for made in schema.structs_in_order())
    yield ""
    for made in schema.user_types():
        if made.kind == "ENUM":
            yield from declare_enum(made)
    for made in schema.structs_in_order():
        yield from declare_struct(made)
    yield "#endif"


def describe_member(made, member):
    struct = f"struct {made.c_name}"
    flags = [flag for flag, on in (("SCHEMA_OPTIONAL", member.optional), ("SCHEMA_IS_LIST", member.is_list),
                                   ("SCHEMA_HAS_DEFAULT", member.default is not None), ("SCHEMA_HAS_LIMITS", member.min is not None)) if on]
    cells = [f".name = {c_string(member.name)}", f".type = &{member.type.table}", f".offset = offsetof({struct}, {member.c_name})"]
    if member.needs_has:
        cells.append(f".has_offset = offsetof({struct}, has_{snake(member.name)})")
    if member.is_list:
        cells.append(f".count_offset = offsetof({struct}, n_{snake(member.name)})")
    if flags:
        cells.append(".flags = " + " | ".join(flags))
    if member.default is not None:
        cells.append(f".default_value = {number(member.default_number())}")
    if member.min is not None:
        cells.append(f".min = {number(member.min)}, .max = {number(member.max)}")
    if member.unit:
        cells.append(f".unit = {c_string(member.unit)}")
    if member.features:
        cells.append(".features = (const char *const[]){" + ", ".join(map(c_string, member.features)) + ", NULL}")
    cells.append(f".doc = {c_string(member.doc)}")
    return "    {" + ", ".join(cells) + "},"


def describe_enum(made):
    yield f"static const char *const {made.c_name}_values[] = {{{', '.join(map(c_string, made.values))}}};"
    docs = ", ".join(c_string(made.value_docs[value]) for value in made.values)
    yield f"static const char *const {made.c_name}_docs[] = {{{docs}}};"
    yield (f"const struct schema_type {made.c_name}_type = {{.name = {c_string(made.name)}, .doc = {c_string(made.doc)}, .kind = SCHEMA_ENUM, "
           f".size = sizeof(enum {made.c_name}), .n_values = {len(made.values)}, .values = {made.c_name}_values, "
           f".value_docs = {made.c_name}_docs}};\n")


def describe_struct(made):
    struct = f"struct {made.c_name}"
    cells = [f".name = {c_string(made.name)}", f".doc = {c_string(made.doc)}", f".kind = SCHEMA_{made.kind}", f".size = sizeof({struct})"]
    if made.members:
        yield f"static const struct schema_member {made.c_name}_members[] = {{"
        yield from (describe_member(made, member) for member in made.members)
        yield "};"
        cells += [f".n_members = {len(made.members)}", f".members = {made.c_name}_members"]
    if made.kind == "ALTERNATE":
        rows = ", ".join(f"{{{c_string(name)}, &{branch.table}}}" for name, branch in made.branches.items())
        cells += [f".n_branches = {len(made.branches)}"]
    elif made.tag:
        rows = ", ".join(f"{{NULL, &{made.branches[value].table}}}" if value in made.branches else "{NULL, NULL}" for value in made.tag.type.values)
        cells += [f".n_branches = {len(made.tag.type.values)}", f".tag = {made.members.index(made.tag)}"]
    if made.kind == "ALTERNATE" or made.tag:
        yield f"static const struct schema_branch {made.c_name}_branches[] = {{{rows}}};"
        cells += [f".branches = {made.c_name}_branches"]
        if made.branches:
            cells += [f".u_offset = offsetof({struct}, u)"]
    yield f"const struct schema_type {made.c_name}_type = {{{', '.join(cells)}}};"
    if made.kind == "STRUCT" and not made.implicit:
        yield from describe_list(made)
    yield ""


def describe_list(made):
    struct = f"struct {made.c_name}_list"
    yield (f"static const struct schema_member {made.c_name}_list_member = {{.name = NULL, .type = &{made.c_name}_type, "
           f".offset = offsetof({struct}, items), .count_offset = offsetof({struct}, n), .flags = SCHEMA_IS_LIST}};")
    yield (f"const struct schema_type {made.c_name}_list_type = {{.name = {c_string(made.name + 'List')}, .kind = SCHEMA_LIST, "
           f".size = sizeof({struct}), .n_members = 1, .members = &{made.c_name}_list_member}};")


def source(schema):
    yield BANNER
    yield '#include "qmp/schema/types.h"\n'
    for name, (c_type, kind, _, _) in BUILTINS.items():
        size = f", .size = sizeof({c_type})" if c_type else ""
        yield f"const struct schema_type schema_{name} = {{.name = \"{name}\", .kind = SCHEMA_{kind}{size}}};"
    yield ""
    for made in schema.user_types():
        if made.kind == "ENUM":
            yield from describe_enum(made)
    for made in schema.structs_in_order():
        yield from describe_struct(made)
