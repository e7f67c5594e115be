# SPDX-License-Identifier: Apache-2.0
"""The table as C data (emulator/cpu/insn_table.h): what the disassembler, the encoder of the tests, the generator of random
instructions and the coverage report read."""


def c_string(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def emit_fields(table):
    arrays = []
    names = {}
    for insn in table.instructions:
        rows = []
        for field in insn.fields:
            slices = ", ".join(f"{{{low}, {to}, {width}}}" for low, to, width in field.slices)
            excluded = sorted(set(field.excluded))
            rows.append(f"    {{{c_string(field.name)}, INSN_FIELD_{kind_name(field)}, {len(field.slices)}, {field.bits}, "
                        f"{len(excluded)}, {{{slices}}}, {{{', '.join(map(str, excluded)) or 0}}}}},\n")
        text = "".join(rows)
        if text and text not in names:
            names[text] = f"fields_{len(names)}"
            arrays.append(f"static const struct insn_field {names[text]}[] = {{\n{text}}};\n")
        insn.field_array = names.get(text, "NULL")
    return "".join(arrays)


def kind_name(field):
    kind = field.type.kind
    if kind == "immediate":
        return "SIGNED" if field.type.signed else "UNSIGNED"
    return {"x": "X", "f": "F", "x'": "X_SHORT", "f'": "F_SHORT", "v": "V", "number": "UNSIGNED"}[kind]


def emit_table(table, prefix):
    upper = prefix.upper()
    text = emit_fields(table)
    text += f"\nconst struct insn_info {prefix}_insn_table[{upper}_INSN_COUNT] = {{\n"
    for insn in table.instructions:
        text += (f"    [{upper}_INSN_{insn.symbol.upper()}] = {{{c_string(insn.name)}, {c_string(insn.operands)}, "
                 f"{hex(insn.match)}, {hex(insn.mask)}, {upper}_EXT_{insn.extension.upper()}, {insn.length // 8}, "
                 f"{len(insn.fields)}, {insn.field_array}}},\n")
    return text + "};\n"


def emit_header(table, prefix):
    upper = prefix.upper()
    text = f"enum {prefix}_insn {{\n    {upper}_INSN_NONE,\n"
    text += "".join(f"    {upper}_INSN_{insn.symbol.upper()},\n" for insn in table.instructions)
    text += f"    {upper}_INSN_COUNT\n}};\n\nenum {prefix}_extension {{\n"
    text += "".join(f"    {upper}_EXT_{name.upper()} = 1 << {index},\n" for index, name in enumerate(table.extensions))
    text += "};\n\n"
    members = sorted({f.type.member for insn in table.instructions for f in insn.fields})
    text += f"struct {prefix}_operands {{\n    int64_t imm;\n"
    text += "".join(f"    uint16_t {member};\n" for member in members if member != "imm")
    text += "};\n\n"
    for length in sorted({insn.length for insn in table.instructions}):
        text += (f"enum {prefix}_insn {prefix}_decode_{length}(uint64_t bits, uint64_t extensions, "
                 f"struct {prefix}_operands *o);\n")
    return text + f"\nextern const struct insn_info {prefix}_insn_table[{upper}_INSN_COUNT]; /* [NONE] is empty */\n"
