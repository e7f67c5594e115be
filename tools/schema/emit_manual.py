# SPDX-License-Identifier: Apache-2.0
"""Writes the reference manual: every module's commands, events and types, with their defaults and limits."""


def anchor(made):
    return made.name if made.is_builtin else f"[{made.name}](#{made.name.lower()})"


def type_text(member):
    return f"list of {anchor(member.type)}" if member.is_list else anchor(member.type)


def member_row(member):
    notes = []
    if member.default is not None:
        value = str(member.default).lower() if isinstance(member.default, bool) else member.default
        notes.append(f"default {value}")
    if member.min is not None:
        notes.append(f"{member.min} to {member.max}")
    if member.unit:
        notes.append(member.unit)
    notes += member.features
    text = member.doc + (f" ({'; '.join(notes)})" if notes else "")
    return f"| `{member.name}` | {type_text(member)} | {'no' if member.optional else 'yes'} | {text} |"


def member_table(members):
    if not members:
        return
    yield "| Member | Type | Mandatory | Meaning |"
    yield "|---|---|---|---|"
    yield from map(member_row, members)
    yield ""


def command_section(command):
    yield f"### Command `{command.name}`\n"
    yield command.doc[0].upper() + command.doc[1:] + "\n"
    if command.arg is not None:
        if command.arg.implicit:
            yield from member_table(command.arg.members)
        else:
            yield f"Arguments: {anchor(command.arg)}.\n"
    if command.ret is not None:
        yield f"Returns: {'a list of ' if command.ret_is_list else ''}{anchor(command.ret)}.\n"


def event_section(event):
    yield f"### Event `{event.name}`\n"
    yield event.doc[0].upper() + event.doc[1:] + "\n"
    if event.arg is not None:
        yield from member_table(event.arg.members)


def type_section(made):
    yield f"### {made.name}\n"
    yield made.doc[0].upper() + made.doc[1:] + "\n"
    if made.kind == "ENUM":
        yield from (f"- `{value}`: {made.value_docs[value]}" for value in made.values)
        yield ""
    elif made.kind == "ALTERNATE":
        yield "One of:\n"
        yield from (f"- {anchor(branch)}: {made.branch_docs[name]}" for name, branch in made.branches.items())
        yield ""
    else:
        yield from member_table(made.members)
    if made.tag:
        yield f"Further members, by `{made.tag.name}`:\n"
        yield from (f"- `{value}`: those of {anchor(branch)}" for value, branch in made.branches.items())
        yield ""


def manual(schema):
    yield "# QMP reference\n"
    yield ("Generated from the schema. Commands and events exist in the programs that have their module; `query-commands` and "
           "`query-qmp-schema` tell what a running program has. The same types are the options of the command line, written as "
           "`key=value,...` or as JSON.\n")
    for module in schema.modules:
        yield f"## {module}\n"
        for command in schema.commands:
            if command.module == module:
                yield from command_section(command)
        for event in schema.events:
            if event.module == module:
                yield from event_section(event)
        for made in schema.user_types():
            if made.module == module and not made.implicit:
                yield from type_section(made)
