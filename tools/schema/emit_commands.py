# SPDX-License-Identifier: Apache-2.0
"""Writes commands.h (what handlers look like), a table of commands and events for every module, and the event emitters."""
from emit_types import BANNER, c_string, comment
from model import snake


def handler_prototype(command):
    parameters = ["struct qmp_context *context"]
    if command.arg:
        parameters.append(f"struct {command.arg.c_name} *arg")
    if not command.generated:
        parameters.append("struct json **ret")
    elif command.ret:
        parameters.append(f"struct {command.ret.c_name}{'_list' if command.ret_is_list else ''} **ret")
    return f"bool qmp_{command.c_name}({', '.join(parameters)}, struct error *err)"


def commands_header(schema):
    yield BANNER
    yield """/*
 * Handlers of commands, and the tables that name them. A program that registers a module (qmp/schema/command.h) implements
 * its handlers. A handler runs in a coroutine and may yield. It returns false with `err` filled, or true with *ret set if
 * the command returns something. `arg` is the caller's, but the handler may take members out of it (TAKE); *ret is an
 * owned value that the caller frees.
 */
#ifndef QMP_SCHEMA_COMMANDS_H
#define QMP_SCHEMA_COMMANDS_H

#include "qmp/schema/command.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"
"""
    for module in schema.modules:
        commands = [c for c in schema.commands if c.module == module]
        events = [e for e in schema.events if e.module == module]
        if not commands and not events:
            continue
        yield f"/* {module}.json */"
        yield f"extern const struct qmp_module qmp_module_{snake(module)};"
        yield from (f"{handler_prototype(command)};{comment(command.doc)}" for command in commands)
        yield ""
    yield "#endif"


def thunk(command):
    """One type-erased signature for every handler, so that the dispatcher is not generated."""
    arguments = ["context"]
    if command.arg:
        arguments.append("arg")
    if not command.generated:
        arguments.append("(struct json **)ret")
    elif command.ret:
        arguments.append(f"(struct {command.ret.c_name}{'_list' if command.ret_is_list else ''} **)ret")
    yield f"static bool call_{command.c_name}(struct qmp_context *context, void *arg, void **ret, struct error *err)"
    yield "{"
    yield f"    return qmp_{command.c_name}({', '.join(arguments)}, err);"
    yield "}\n"


def command_row(command):
    cells = [f".name = {c_string(command.name)}", f".doc = {c_string(command.doc)}", f".call = call_{command.c_name}"]
    if command.arg:
        cells.append(f".arg = &{command.arg.table}")
    if command.ret:
        cells.append(f".ret = &{command.ret.c_name}_list_type" if command.ret_is_list else f".ret = &{command.ret.table}")
    if not command.generated:
        cells.append(".returns_json = true")
    if command.features:
        cells.append(".features = (const char *const[]){" + ", ".join(map(c_string, command.features)) + ", NULL}")
    return "    {" + ", ".join(cells) + "},"


def module_source(schema, module):
    commands = [c for c in schema.commands if c.module == module]
    events = [e for e in schema.events if e.module == module]
    yield BANNER
    yield '#include "qmp/schema/commands.h"\n'
    for command in commands:
        yield from thunk(command)
    cells = [f".name = {c_string(module)}"]
    if commands:
        yield "static const struct qmp_command commands[] = {"
        yield from (command_row(command) for command in commands)
        yield "};\n"
        cells += [".commands = commands", f".n_commands = {len(commands)}"]
    if events:
        yield "static const struct qmp_event events[] = {"
        for event in events:
            arg = f", .arg = &{event.arg.table}" if event.arg else ""
            yield f"    {{.name = {c_string(event.name)}, .doc = {c_string(event.doc)}{arg}}},"
        yield "};\n"
        cells += [".events = events", f".n_events = {len(events)}"]
    yield f"const struct qmp_module qmp_module_{snake(module)} = {{{', '.join(cells)}}};"


def event_parameters(event):
    if not event.arg:
        return []
    if event.boxed:
        return [f"const struct {event.arg.c_name} *arg"]
    parameters = []
    for member in event.arg.members:
        if member.needs_has:
            parameters.append(f"bool has_{snake(member.name)}")
        if member.is_list:
            parameters.append(f"size_t n_{snake(member.name)}")
        const = "const " if member.type.is_pointer else ""
        parameters.append(f"{const}{member.type.c_type}{'*' if member.is_list else ''}{member.c_name}")
    return parameters


def event_prototype(event):
    return f"void qmp_event_{event.c_name}({', '.join(['struct qmp_events *sink'] + event_parameters(event))})"


def events_header(schema):
    yield BANNER
    yield """/* One function an event: makes its data and hands it to the sink (qmp/schema/command.h). A NULL sink is nobody listening. Optional
 * strings are NULL when absent. The arguments stay the caller's. Never yields. */
#ifndef QMP_SCHEMA_EVENTS_H
#define QMP_SCHEMA_EVENTS_H

#include "qmp/schema/command.h"
#include "qmp/schema/types.h"
"""
    yield from (f"{event_prototype(event)};{comment(event.doc)}" for event in schema.events)
    yield "\n#endif"


def events_source(schema):
    yield BANNER
    yield '#include "qmp/schema/events.h"\n'
    yield '#include "qmp/schema/json.h"\n'
    for event in schema.events:
        yield event_prototype(event)
        yield "{"
        yield "    if (!sink)"
        yield "        return;"
        if not event.arg:
            yield f"    sink->emit(sink, {c_string(event.name)}, NULL);"
        elif event.boxed:
            yield f"    sink->emit(sink, {c_string(event.name)}, {event.arg.c_name}_to_json(arg));"
        else:
            yield f"    const struct {event.arg.c_name} arg = {{"
            for member in event.arg.members:
                if member.needs_has:
                    yield f"        .has_{snake(member.name)} = has_{snake(member.name)},"
                if member.is_list:
                    yield f"        .n_{snake(member.name)} = n_{snake(member.name)},"
                cast = f"({member.type.c_type}{'*' if member.is_list else ''})" if member.type.is_pointer else ""
                yield f"        .{member.c_name} = {cast}{member.c_name},"
            yield "    };"
            yield f"    sink->emit(sink, {c_string(event.name)}, {event.arg.c_name}_to_json(&arg));"
        yield "}\n"
