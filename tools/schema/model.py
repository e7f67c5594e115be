# SPDX-License-Identifier: Apache-2.0
"""What a schema means: types, commands and events, checked and with their C names.

Every check of the schema itself is here, so that the emitters may rely on it: names resolve, discriminators are enums,
branches are structs, defaults lie within limits, alternatives can be told apart, everything is documented.
"""
import re
from dataclasses import dataclass, field

from language import SchemaError

# name -> (C type, SCHEMA_ kind, smallest value, largest value)
BUILTINS = {
    "bool": ("bool", "BOOL", 0, 1), "str": ("char *", "STR", None, None), "number": ("double", "NUMBER", None, None),
    "null": (None, "NULL", None, None), "any": ("struct json *", "ANY", None, None),
    "int": ("int64_t", "INT", -2**63, 2**63 - 1), "int8": ("int8_t", "INT", -2**7, 2**7 - 1),
    "int16": ("int16_t", "INT", -2**15, 2**15 - 1), "int32": ("int32_t", "INT", -2**31, 2**31 - 1),
    "uint8": ("uint8_t", "UINT", 0, 2**8 - 1), "uint16": ("uint16_t", "UINT", 0, 2**16 - 1),
    "uint32": ("uint32_t", "UINT", 0, 2**32 - 1), "uint64": ("uint64_t", "UINT", 0, 2**64 - 1),
    "size": ("uint64_t", "UINT", 0, 2**64 - 1),
}

# Words that C or its preprocessor has taken.
TAKEN = set("""auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof unix linux bool
    true false errno u kind""".split())


def snake(name):
    """BlockdevOptionsQcow2 -> blockdev_options_qcow2, node-name -> node_name, 0.10 -> 0_10."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"[^A-Za-z0-9]+", "_", name).lower()


def member_name(name):
    name = snake(name)
    if name in TAKEN or name[0].isdigit():
        return name + "_"
    return name


@dataclass
class Type:
    name: str
    kind: str  # SCHEMA_ kind without the prefix
    doc: str = ""
    module: str = ""
    where: str = ""
    members: list = field(default_factory=list)     # STRUCT: those of the base first
    tag: object = None                              # flat union: the Member
    branches: dict = field(default_factory=dict)    # union: value -> Type; alternate: name -> Type
    branch_docs: dict = field(default_factory=dict)
    values: list = field(default_factory=list)      # ENUM
    value_docs: dict = field(default_factory=dict)
    implicit: bool = False                          # arguments of a command or event that were written in place

    @property
    def c_name(self):
        return snake(self.name)

    @property
    def is_builtin(self):
        return self.name in BUILTINS

    @property
    def is_pointer(self):
        return self.kind in ("STR", "ANY", "STRUCT", "ALTERNATE")

    @property
    def c_type(self):
        """Of a variable that holds one, ready to be followed by a name."""
        if self.is_builtin:
            text = BUILTINS[self.name][0]
            return text if text.endswith("*") else text + " "
        return f"enum {self.c_name} " if self.kind == "ENUM" else f"struct {self.c_name} *"

    @property
    def table(self):
        return f"schema_{self.name}" if self.is_builtin else f"{self.c_name}_type"

    def constant(self, value):
        return f"{self.c_name}_{snake(value)}".upper()


@dataclass
class Member:
    name: str
    type: Type
    optional: bool
    is_list: bool
    default: object = None
    min: int = None
    max: int = None
    unit: str = None
    doc: str = ""
    features: list = field(default_factory=list)

    @property
    def c_name(self):
        return member_name(self.name)

    @property
    def needs_has(self):
        return self.optional and (self.is_list or not self.type.is_pointer)

    def default_number(self):
        if isinstance(self.default, str):
            return self.type.values.index(self.default)
        return int(self.default)


@dataclass
class Command:
    name: str
    doc: str
    module: str
    where: str
    arg: Type
    ret: Type
    ret_is_list: bool
    generated: bool  # False: the handler makes the JSON of its answer itself
    features: list

    @property
    def c_name(self):
        return snake(self.name)


@dataclass
class Event:
    name: str
    doc: str
    module: str
    where: str
    arg: Type
    boxed: bool

    @property
    def c_name(self):
        return self.name.lower().replace("-", "_")


KEYS = {  # what an object may have besides its name
    "enum": {"data", "features"}, "struct": {"data", "base", "own-first", "features"},
    "union": {"data", "base", "discriminator", "features"}, "alternate": {"data", "features"},
    "command": {"data", "boxed", "returns", "gen", "features", "coroutine", "allow-oob"},
    "event": {"data", "boxed", "features"},
}


class Schema:
    """Everything, in the order of the files. Types are made first and filled afterwards, so that they may refer to each other."""

    def __init__(self, items):
        self.types = {name: Type(name, row[1]) for name, row in BUILTINS.items()}
        self.commands, self.events, self.modules = [], [], []
        items = list(items)
        for module, where, docs, item in items:
            meta = self.meta(where, item)
            if module not in self.modules:
                self.modules.append(module)
            self.check_doc(where, docs, item[meta])
            if meta in ("enum", "struct", "union", "alternate"):
                if item[meta] in self.types:
                    raise SchemaError(where, f"'{item[meta]}' is defined twice")
                kind = {"enum": "ENUM", "alternate": "ALTERNATE"}.get(meta, "STRUCT")
                self.types[item[meta]] = Type(item[meta], kind, docs[item[meta]], module, where)
        self.items = {item[self.meta(where, item)]: (where, docs, item) for _, where, docs, item in items}
        self.filled = set()
        for module, where, docs, item in items:
            meta = self.meta(where, item)
            if meta == "command":
                self.add_command(module, where, docs, item)
            elif meta == "event":
                self.add_event(module, where, docs, item)
            else:
                self.fill(self.types[item[meta]])

    @staticmethod
    def meta(where, item):
        found = [key for key in KEYS if key in item]
        if len(found) != 1:
            raise SchemaError(where, f"expected exactly one of {', '.join(KEYS)}")
        unknown = set(item) - KEYS[found[0]] - {found[0]}
        if unknown:
            raise SchemaError(where, f"{found[0]} '{item[found[0]]}': unknown key '{sorted(unknown)[0]}'")
        return found[0]

    @staticmethod
    def check_doc(where, docs, name):
        if not docs or next(iter(docs)) != name:
            raise SchemaError(where, f"'{name}' needs a documentation block that begins with '@{name}:'")

    def lookup(self, where, name):
        if name not in self.types:
            raise SchemaError(where, f"unknown type '{name}'")
        return self.types[name]

    def fill(self, made):
        """Members, branches or values of a type; a base or branch is filled before its user."""
        if made.name in self.filled or made.is_builtin:
            return
        self.filled.add(made.name)
        where, docs, item = self.items[made.name]
        if made.kind == "ENUM":
            self.fill_enum(made, docs, item)
        elif made.kind == "ALTERNATE":
            self.fill_alternate(made, docs, item)
        elif "union" in item:
            self.fill_union(made, docs, item)
        else:
            inherited = self.base_members(made, where, docs, item)
            own = self.make_members(where, made.name, docs, item.get("data", {}))
            made.members = own + inherited if item.get("own-first") else inherited + own
            self.check_members(made)
        unknown = set(docs) - {made.name} - set(made.values) - set(made.branches) - {m.name for m in made.members}
        if unknown:
            raise SchemaError(where, f"'{made.name}': documents '{sorted(unknown)[0]}', which it does not have")

    def fill_enum(self, made, docs, item):
        made.values = [v["name"] if isinstance(v, dict) else v for v in item["data"]]
        made.value_docs = docs
        for value in made.values:
            if value not in docs:
                raise SchemaError(made.where, f"enum '{made.name}': value '{value}' is not documented")

    def fill_alternate(self, made, docs, item):
        made.branch_docs = docs
        seen = {}
        for name, type_name in item["data"].items():
            alternative = self.lookup(made.where, type_name)
            shape = {"INT": "number", "UINT": "number", "NUMBER": "number", "ENUM": "string", "STR": "string",
                     "STRUCT": "object"}.get(alternative.kind, alternative.kind)
            if shape in seen or alternative.kind in ("ANY", "ALTERNATE"):
                raise SchemaError(made.where, f"alternate '{made.name}': '{name}' cannot be told from '{seen.get(shape, name)}'")
            if name not in docs:
                raise SchemaError(made.where, f"alternate '{made.name}': '{name}' is not documented")
            seen[shape] = name
            made.branches[name] = alternative

    def fill_union(self, made, docs, item):
        made.members = self.base_members(made, made.where, docs, item)
        tag = next((m for m in made.members if m.name == item["discriminator"]), None)
        if not tag or tag.type.kind != "ENUM" or tag.optional or tag.is_list:
            raise SchemaError(made.where, f"union '{made.name}': the discriminator must be a mandatory enum member of its base")
        self.fill(tag.type)
        made.tag = tag
        for value, type_name in item["data"].items():
            branch = self.lookup(made.where, type_name)
            if value not in tag.type.values or branch.kind != "STRUCT":
                raise SchemaError(made.where, f"union '{made.name}': branch '{value}' must be a value of '{tag.type.name}' with a struct")
            self.fill(branch)
            if branch.tag:
                raise SchemaError(made.where, f"union '{made.name}': branch '{value}' must not be a union")
            clash = {m.name for m in made.members} & {m.name for m in branch.members}
            if clash:
                raise SchemaError(made.where, f"union '{made.name}': branch '{value}' has member '{sorted(clash)[0]}' of the base again")
            made.branches[value] = branch
        self.check_members(made)

    def base_members(self, made, where, docs, item):
        base = item.get("base")
        if base is None:
            return []
        if isinstance(base, dict):
            return self.make_members(where, made.name, docs, base)
        base_type = self.lookup(where, base)
        if base_type.kind != "STRUCT" or base_type.tag:
            raise SchemaError(where, f"'{made.name}': base '{base}' must be a struct")
        self.fill(base_type)
        return list(base_type.members)

    def make_members(self, where, owner, docs, data):
        return [self.make_member(where, owner, docs, key, value) for key, value in data.items()]

    def make_member(self, where, owner, docs, key, value):
        optional, name = key.startswith("*"), key.lstrip("*")
        extra = dict(value) if isinstance(value, dict) else {}
        reference = extra.pop("type") if extra else value
        is_list = isinstance(reference, list)
        member = Member(name, self.lookup(where, reference[0] if is_list else reference), optional, is_list, doc=docs.get(name, ""))
        for attribute in ("default", "min", "max", "unit", "features"):
            if attribute in extra:
                setattr(member, attribute, extra.pop(attribute))
        if extra:
            raise SchemaError(where, f"'{owner}.{name}': unknown key '{sorted(extra)[0]}'")
        if not member.doc:
            raise SchemaError(where, f"'{owner}': member '{name}' is not documented")
        if member.type.kind == "NULL":
            raise SchemaError(where, f"'{owner}.{name}': null is for alternates only")
        self.check_limits(where, owner, member)
        return member

    def check_limits(self, where, owner, member):
        what = f"'{owner}.{member.name}'"
        if member.min is not None or member.max is not None:
            if member.type.kind not in ("INT", "UINT") or member.is_list:
                raise SchemaError(where, f"{what}: only integers have limits")
            _, _, low, high = BUILTINS[member.type.name]
            member.min = low if member.min is None else member.min
            member.max = min(high, 2**63 - 1) if member.max is None else member.max
            if not low <= member.min <= member.max <= high:
                raise SchemaError(where, f"{what}: limits do not fit its type")
        if member.default is None:
            return
        if not member.optional or member.is_list:
            raise SchemaError(where, f"{what}: only an optional scalar has a default")
        if member.type.kind == "ENUM":
            self.fill(member.type)
            fits = member.default in member.type.values
        elif member.type.kind == "BOOL":
            fits = isinstance(member.default, bool)
        else:
            fits = member.type.kind in ("INT", "UINT") and isinstance(member.default, int)
            low, high = BUILTINS[member.type.name][2:] if fits else (0, 0)
            fits = fits and (low if member.min is None else member.min) <= member.default <= (high if member.max is None else member.max)
        if not fits:
            raise SchemaError(where, f"{what}: default {member.default!r} does not fit")

    @staticmethod
    def check_members(made):
        names = [m.c_name for m in made.members]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise SchemaError(made.where, f"'{made.name}': two members become '{sorted(twice)[0]}' in C")

    def argument_type(self, module, where, docs, name, data):
        if isinstance(data, str):
            return self.lookup(where, data)
        if not data:
            return None
        made = Type(f"q-{name.lower()}-arg", "STRUCT", docs[name], module, where, implicit=True)
        made.members = self.make_members(where, name, docs, data)
        self.check_members(made)
        self.types[made.name] = made
        return made

    def add_command(self, module, where, docs, item):
        name = item["command"]
        arg = self.argument_type(module, where, docs, name, item.get("data"))
        if arg is not None and arg.tag and not item.get("boxed"):
            raise SchemaError(where, f"command '{name}': a union as argument needs 'boxed': true")
        returns = item.get("returns")
        is_list = isinstance(returns, list)
        ret = self.lookup(where, returns[0] if is_list else returns) if returns else None
        if ret is not None and ret.kind != "STRUCT" and (is_list or ret.kind not in ("STR", "ANY")):
            raise SchemaError(where, f"command '{name}': returns a struct, a union, a list of them, 'str' or 'any'")
        generated = item.get("gen", True) and (ret is None or ret.kind == "STRUCT")
        self.commands.append(Command(name, docs[name], module, where, arg, ret, is_list, generated, item.get("features", [])))

    def add_event(self, module, where, docs, item):
        name = item["event"]
        arg = self.argument_type(module, where, docs, name, item.get("data"))
        self.events.append(Event(name, docs[name], module, where, arg, isinstance(item.get("data"), str)))

    def user_types(self):
        return [made for made in self.types.values() if not made.is_builtin]

    def structs_in_order(self):
        """Structs and alternates, a branch before the union that embeds it."""
        done, order = set(), []

        def visit(made):
            if made.name in done:
                return
            done.add(made.name)
            if made.tag:
                for branch in made.branches.values():
                    visit(branch)
            order.append(made)

        for made in self.user_types():
            if made.kind in ("STRUCT", "ALTERNATE"):
                visit(made)
        return order
