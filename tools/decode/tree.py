# SPDX-License-Identifier: Apache-2.0
"""The decoder: a tree of switch statements over the bits that tell instructions apart.

At every node the bits that all remaining patterns fix, and that are not looked at yet, are candidates; the run of
neighbouring bits that separates most patterns wins. Where no common bit is left, the patterns are tested one after the
other; they exclude each other (the table was checked), so their order does not matter. Operands are extracted by small
functions that instructions of the same shape share.
"""

MAX_SWITCH_BITS = 7


class Extractors:
    """C functions that fill the operands, one for each distinct shape."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.by_body = {}

    def call(self, insn):
        body = "".join(self.assignments(insn))
        if not body:
            return ""
        name = self.by_body.setdefault(body, f"extract_{len(self.by_body)}")
        return f"{name}(bits, o); "

    def assignments(self, insn):
        sources = insn.actual if insn.base else {f.type.member: f for f in insn.fields}
        for member, source in sources.items():
            value = source if isinstance(source, int) else field_value(source)
            yield f"    o->{member} = {value};\n"

    def functions(self):
        for body, name in self.by_body.items():
            yield f"static void {name}(uint64_t bits, struct {self.prefix}_operands *o)\n{{\n{body}}}\n\n"


def field_value(field):
    pieces = []
    for low, to, width in field.slices:
        piece = f"(bits >> {low} & {hex((1 << width) - 1)})" if low else f"(bits & {hex((1 << width) - 1)})"
        pieces.append(f"{piece} << {to}" if to else piece)
    value = " | ".join(pieces)
    if field.type.kind.endswith("'"):
        return f"8 + ({value})"
    if field.type.signed:
        unused = 64 - field.bits
        return f"(int64_t)(({value}) << {unused}) >> {unused}"
    return value


def best_run(instructions, tested):
    """The (low, width) of neighbouring untested bits, fixed in all patterns, that tells most of them apart."""
    common = ~tested
    for insn in instructions:
        common &= insn.mask
    best, best_count = None, 1
    low = 0
    while common >> low:
        if not common >> low & 1:
            low += 1
            continue
        width = 0
        while width < MAX_SWITCH_BITS and common >> (low + width) & 1:
            width += 1
        mask = (1 << width) - 1
        count = len({insn.match >> low & mask for insn in instructions})
        if count > best_count:
            best, best_count = (low, width), count
        low += 1
    return best


def condition(insn, tested):
    terms = []
    rest = insn.mask & ~tested
    if rest:
        terms.append(f"(bits & {hex(rest)}) == {hex(insn.match & rest)}")
    for field in insn.fields:
        for value in field.excluded:
            mask = sum(((1 << width) - 1) << low for low, _, width in field.slices)
            match = sum((value >> to & (1 << width) - 1) << low for low, to, width in field.slices)
            terms.append(f"(bits & {hex(mask)}) != {hex(match)}")
    return " && ".join(terms)


def leaf(insn, tested, prefix, extractors, indent):
    upper = prefix.upper()
    gate = f"extensions & {upper}_EXT_{insn.extension.upper()}"
    test = condition(insn, tested)
    test = f"({gate}) && {test}" if test else gate
    return (f"{indent}if ({test}) {{\n{indent}    {extractors.call(insn)}\n"
            f"{indent}    return {upper}_INSN_{insn.symbol.upper()};\n{indent}}}\n")


def emit_tree(instructions, tested, prefix, extractors, indent="    "):
    run = best_run(instructions, tested) if len(instructions) > 1 else None
    if run is None:
        return "".join(leaf(insn, tested, prefix, extractors, indent) for insn in instructions)
    low, width = run
    mask = (1 << width) - 1
    groups = {}
    for insn in instructions:
        groups.setdefault(insn.match >> low & mask, []).append(insn)
    text = f"{indent}switch (bits >> {low} & {hex(mask)}) {{\n"
    for value in sorted(groups):
        text += f"{indent}case {hex(value)}:\n"
        text += emit_tree(groups[value], tested | mask << low, prefix, extractors, indent + "    ")
        text += f"{indent}    break;\n"
    return text + f"{indent}}}\n"


def emit_decoder(table, prefix):
    """One function for each length; the guest's fetch knows the length before it decodes."""
    extractors = Extractors(prefix)
    functions = []
    for length in sorted({insn.length for insn in table.instructions}):
        some = [insn for insn in table.instructions if insn.length == length]
        body = emit_tree(some, 0, prefix, extractors)
        functions.append(f"enum {prefix}_insn {prefix}_decode_{length}(uint64_t bits, uint64_t extensions, "
                         f"struct {prefix}_operands *o)\n{{\n{body}    return {prefix.upper()}_INSN_NONE;\n}}\n\n")
    return "".join(extractors.functions()) + "".join(functions)
