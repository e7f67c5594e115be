# SPDX-License-Identifier: Apache-2.0
"""The instruction table of one guest: reads *.decode files and refuses what is ambiguous.

The language is explained at the top of each guest's fields.decode. Here it becomes a list of Instruction objects, in the
order of the files. Everything the generator emits (decoder, disassembler data, encoder data, translation) is derived from
these objects, so an encoding is written down exactly once.
"""

import os
import re
from dataclasses import dataclass, field

OPERANDS = ["rd", "rs1", "rs2", "rs3", "rm", "csr", "imm", "aq", "rl"]  # the order in which an abbreviation names them


class TableError(Exception):
    """A mistake in a table, with the place where it stands."""


@dataclass
class FieldType:
    name: str
    width: int  # 0 for an immediate, whose width is that of its slices
    member: str
    kind: str
    signed: bool = False


@dataclass
class Field:
    """One operand of one instruction: bits [low, low + width) of the word become bits [to, to + width) of the value."""

    type: FieldType
    slices: list  # of (low, to, width)
    excluded: list = field(default_factory=list)

    @property
    def name(self):
        return self.type.name

    @property
    def bits(self):
        return max(to + width for _, to, width in self.slices)


@dataclass
class Instruction:
    name: str
    extension: str
    length: int
    match: int
    mask: int
    fields: list
    operands: str
    meaning: str
    place: str
    base: "Instruction" = None  # what a compressed instruction abbreviates
    actual: dict = None  # then: operand member -> Field or number

    @property
    def symbol(self):
        return re.sub(r"\W", "_", self.name)

    def field_named(self, name):
        return next((f for f in self.fields if f.name.rstrip("'") == name), None)

    def field_of_member(self, member):
        return next((f for f in self.fields if f.type.member == member), None)


class Table:
    def __init__(self, paths):
        self.unit = 8
        self.types = {}
        self.functions = set()  # of the guest's C code, that meanings may call
        self.extensions = []
        self.instructions = []
        for path in paths:
            self.read(path)
        self.resolve_abbreviations()
        self.check_names()
        self.check_overlaps()

    def read(self, path):
        extension = None
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                place = f"{os.path.basename(path)}:{number}"
                words = line.split()
                if not words or words[0].startswith("#"):
                    continue
                try:
                    if " | " in line:
                        self.instructions.append(self.parse_instruction(line, extension, place))
                    elif words[0] == "extension":
                        extension = words[1]
                        if extension not in self.extensions:
                            self.extensions.append(extension)
                    else:
                        self.parse_declaration(words)
                except (TableError, ValueError, IndexError, KeyError) as problem:
                    raise TableError(f"{place}: {problem}") from problem

    def parse_declaration(self, words):
        if words[0] == "unit":
            self.unit = int(words[1])
        elif words[0] == "field":
            _, name, width, member, kind = words
            self.types[name] = FieldType(name, int(width), member, kind)
        elif words[0] == "immediate":
            _, name, member, sign = words
            self.types[name] = FieldType(name, 0, member, "immediate", sign == "signed")
        elif words[0] == "function":
            self.functions.update(words[1:])
        else:
            raise TableError(f"'{words[0]}' starts no declaration")

    def parse_instruction(self, line, extension, place):
        name, pattern, operands, meaning = [column.strip() for column in re.split(r"\s\|(?=\s|$)", line, maxsplit=3)]
        tokens = [self.parse_token(token) for token in pattern.split()]
        length = sum(width for width, *_ in tokens)
        if length % self.unit or not length:
            raise TableError(f"{name}: {length} bits are no multiple of {self.unit}")
        insn = Instruction(name, extension, length, 0, 0, [], operands, meaning, place)
        position = length
        for width, literal, type_, slices, excluded in tokens:
            position -= width
            if literal is not None:
                for index, bit in enumerate(reversed(literal)):
                    insn.mask |= (bit != "-") << (position + index)
                    insn.match |= (bit == "1") << (position + index)
            else:
                self.add_field(insn, type_, slices, excluded, position)
        return insn

    def parse_token(self, token):
        """-> (width, literal bits or None, field type, slices high to low as (high, low), excluded values)"""
        if re.fullmatch(r"[01-]+", token):
            return len(token), token, None, None, None
        parts = re.fullmatch(r"([a-z]\w*'?)(?:\[([\d:|]+)\])?(?:!=([\d,]+))?", token)
        if not parts or parts[1] not in self.types:
            raise TableError(f"'{token}' is neither bits nor a declared field")
        type_ = self.types[parts[1]]
        excluded = [int(value) for value in (parts[3] or "").split(",") if value]
        if not type_.width and not parts[2]:
            raise TableError(f"'{token}': an immediate needs its slices, as in {type_.name}[11:0]")
        slices = []
        for piece in (parts[2] or f"{type_.width - 1}:0").split("|"):
            high, _, low = piece.partition(":")
            slices.append((int(high), int(low or high)))
        return sum(high - low + 1 for high, low in slices), None, type_, slices, excluded

    @staticmethod
    def add_field(insn, type_, slices, excluded, position):
        existing = next((f for f in insn.fields if f.type is type_), None)
        if existing is None:
            taken = insn.field_of_member(type_.member)
            if taken:
                raise TableError(f"{insn.name}: {taken.name} and {type_.name} fill the same operand")
            existing = Field(type_, [])
            insn.fields.append(existing)
        existing.excluded += excluded
        for high, low in reversed(slices):
            existing.slices.append((position, low, high - low + 1))
            position += high - low + 1

    def named(self, name):
        return next((i for i in self.instructions if i.name == name), None)

    def resolve_abbreviations(self):
        for insn in self.instructions:
            call = re.fullmatch(r"(\w+)(?:\((.*)\))?", insn.meaning)
            base = call and self.named(call[1])
            if not base or base is insn or insn.name == insn.meaning:
                continue
            formal = sorted((f.type.member for f in base.fields), key=OPERANDS.index)
            actual = [a.strip() for a in (call[2] or "").split(",") if a.strip()]
            if len(formal) != len(actual):
                raise TableError(f"{insn.place}: {base.name} has the operands {', '.join(formal) or '(none)'}")
            insn.base = base
            insn.actual = {}
            for member, value in zip(formal, actual):
                source = int(value) if value.isdigit() else insn.field_named(value)
                if source is None:
                    raise TableError(f"{insn.place}: {insn.name} has no field '{value}'")
                insn.actual[member] = source

    def check_names(self):
        seen = {}
        for insn in self.instructions:
            if insn.symbol in seen:
                raise TableError(f"{insn.place}: {insn.name} stands also at {seen[insn.symbol]}")
            seen[insn.symbol] = insn.place

    def check_overlaps(self):
        for index, one in enumerate(self.instructions):
            for other in self.instructions[:index]:
                if one.length == other.length and overlap(one, other):
                    raise TableError(f"{one.place}: {one.name} overlaps {other.name} ({other.place})")


def overlap(one, other):
    if (one.match ^ other.match) & one.mask & other.mask:
        return False
    return not (excludes(one, other) or excludes(other, one))


def excludes(one, other):
    """Does one of `one`'s excluded values keep every word of `other` away?"""
    for f in one.fields:
        if f.excluded and all(other.mask >> low + i & 1 for low, _, width in f.slices for i in range(width)):
            value = sum((other.match >> low & (1 << width) - 1) << to for low, to, width in f.slices)
            if value in f.excluded:
                return True
    return False
