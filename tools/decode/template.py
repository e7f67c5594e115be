# SPDX-License-Identifier: Apache-2.0
"""The template language: an instruction's meaning, one statement, becomes calls of the IR builder (emulator/translate/ir.h).

    rd = EXPRESSION                        writes a register; a comparison gives 0 or 1
    branch(CONDITION)                      to pc + imm when it holds
    store_8|16|32|64(ADDRESS, VALUE)
    NAME(WORD, ...)                        PREFIX_NAME(t, o, WORD, ...), a C function that the table declares (`function NAME`)

Expressions are Python's: names are operands (a register's value, a number), `pc`, integers; + - * & | ^ ~, << and >>
(logical), == and !=; and the functions below. Shift counts are taken modulo the width. Values have 64 bits. low() says
that the operations around it work on 32; sext32() and zext32() lead back; the two widths are never mixed.
"""

import ast

BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor",
          ast.LShift: "shl", ast.RShift: "shr"}
BINARY_CALLS = {"sra": "sar", "rotl": "rotl", "rotr": "rotr", "mulh_s": "mulh_s", "mulh_u": "mulh_u", "mulh_su": "mulh_su",
                "min_s": "min_s", "max_s": "max_s", "min_u": "min_u", "max_u": "max_u"}
DIVIDE_CALLS = {"div_s", "div_u", "rem_s", "rem_u"}
UNARY_CALLS = {"clz", "ctz", "popcount", "bswap"}
CONDITIONS = {ast.Eq: "EQ", ast.NotEq: "NE", "lt_s": "LT_S", "ge_s": "GE_S", "lt_u": "LT_U", "ge_u": "GE_U"}
LOADS = {"load_s8": (0, True), "load_u8": (0, False), "load_s16": (1, True), "load_u16": (1, False),
         "load_s32": (2, True), "load_u32": (2, False), "load_64": (3, False)}
STORES = {"store_8": 0, "store_16": 1, "store_32": 2, "store_64": 3}
LOG2_OF_BITS = {32: 2, 64: 3}


class TemplateError(Exception):
    pass


class Template:
    """The meaning of one instruction. What differs between guests are functions with the guest's prefix:
    PREFIX_read_x, _write_x, _branch, _load, _store, _amo, _load_reserved, _store_conditional."""

    def __init__(self, insn, prefix, functions):
        self.insn = insn
        self.functions = functions
        self.prefix = prefix
        self.lines = []
        self.count = 0

    def emit(self):
        """-> the lines of the body of translate_NAME()"""
        tree = ast.parse(self.insn.meaning).body
        if len(tree) != 1:
            raise TemplateError("one statement, please")
        statement = tree[0]
        if isinstance(statement, ast.Assign):
            destination = self.insn.field_named(statement.targets[0].id)
            if not destination:
                raise TemplateError(f"no field '{statement.targets[0].id}' to assign to")
            value = self.value(statement.value, 64)
            self.lines.append(f"{self.prefix}_write_x(t, o->{destination.type.member}, {value});")
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            self.call_statement(statement.value)
        else:
            raise TemplateError("neither an assignment nor a call")
        return self.lines

    def call_statement(self, call):
        name = call.func.id
        if name in self.functions:
            words = "".join(f", {ast.unparse(argument)}" for argument in call.args)
            self.lines.append(f"{self.prefix}_{name}(t, o{words});")
            return
        values = [self.value(argument, 64) for argument in call.args]
        if name == "branch":
            self.lines.append(f"{self.prefix}_branch(t, {values[0]}, o->imm);")
        elif name in STORES:
            self.lines.append(f"{self.prefix}_store(t, {STORES[name]}, {values[0]}, {values[1]});")
        else:
            raise TemplateError(f"no statement '{name}'")

    def temporary(self, expression):
        name = f"v{self.count}"
        self.count += 1
        self.lines.append(f"struct ir_value {name} = {expression};")
        return name

    def value(self, node, bits):
        text, width = self.expression(node)
        if width != bits:
            raise TemplateError(f"{ast.unparse(node)} has {width} bits where {bits} are wanted")
        return text

    def expression(self, node):
        """-> (name of a C variable, width)"""
        if isinstance(node, ast.Constant):
            return self.temporary(f"ir_const(t->ir, {node.value})"), 64
        if isinstance(node, ast.Name):
            return self.operand(node.id), 64
        if isinstance(node, ast.BinOp):
            return self.binary_operator(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
            return self.temporary(f"ir_not(t->ir, {self.value(node.operand, 64)})"), 64
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self.compare(type(node.ops[0]), node.left, node.comparators[0])
        if isinstance(node, ast.Call):
            return self.call(node.func.id, node.args)
        raise TemplateError(f"cannot say '{ast.unparse(node)}'")

    def operand(self, name):
        if name == "pc":
            return self.temporary("ir_const(t->ir, t->pc)")
        field = self.insn.field_named(name)
        if not field:
            raise TemplateError(f"no field '{name}'")
        read = f"{self.prefix}_read_x(t, " if field.type.kind.startswith("x") else "ir_const(t->ir, (uint64_t)"
        return self.temporary(f"{read}o->{field.type.member})")

    def binary_operator(self, node):
        inverted = node.right
        if isinstance(node.op, ast.BitAnd) and isinstance(inverted, ast.UnaryOp) and isinstance(inverted.op, ast.Invert):
            return self.binary("andn", node.left, inverted.operand)
        return self.binary(BINARY[type(node.op)], node.left, node.right)

    def binary(self, operation, left, right):
        a, width = self.expression(left)
        b = self.value(right, width)
        return self.temporary(f"ir_{operation}{suffix(width)}(t->ir, {a}, {b})"), width

    def divide(self, operation, left, right):
        a, width = self.expression(left)
        b = self.value(right, width)
        return self.temporary(f"ir_divide(t->ir, IR_OP_{operation}, IR_I{width}, {a}, {b}, IR_DIVISION_RISCV)"), width

    def compare(self, condition, left, right):
        a, b = self.value(left, 64), self.value(right, 64)
        return self.temporary(f"ir_set(t->ir, IR_{CONDITIONS[condition]}, {a}, {b})"), 64

    def call(self, name, args):
        if name in CONDITIONS:
            return self.compare(name, *args)
        if name in BINARY_CALLS:
            return self.binary(BINARY_CALLS[name], *args)
        if name in DIVIDE_CALLS:
            return self.divide(name, *args)
        if name in UNARY_CALLS:
            text, width = self.expression(args[0])
            return self.temporary(f"ir_{name}{suffix(width)}(t->ir, {text})"), width
        if name == "low":  # an operation on 32 bits reads the low half of what it gets
            return self.value(args[0], 64), 32
        if name[1:4] == "ext":  # sext8, zext16, ...
            text, _ = self.expression(args[0])
            return self.temporary(f"ir_{name[:4]}(t->ir, {text}, {name[4:]})"), 64
        return self.memory(name, [self.value(argument, 64) for argument in args])

    def memory(self, name, values):
        arguments = ", ".join(values)
        if name in LOADS:
            size, signed = LOADS[name]
            return self.temporary(f"{self.prefix}_load(t, {size}, {str(signed).lower()}, {arguments})"), 64
        operation, _, bits = name.rpartition("_")
        if operation in ("load_reserved", "store_conditional"):
            return self.temporary(f"{self.prefix}_{operation}(t, {LOG2_OF_BITS[int(bits)]}, {arguments})"), 64
        if operation.startswith("amo_"):
            amo = f"IR_{operation.upper()}"
            return self.temporary(f"{self.prefix}_amo(t, {amo}, {LOG2_OF_BITS[int(bits)]}, {arguments})"), 64
        raise TemplateError(f"no function '{name}'")


def suffix(width):
    return "32" if width == 32 else ""


def is_template(meaning):
    return not meaning.isidentifier()


def arguments_of(prefix):
    return f"struct {prefix}_translation *t, const struct {prefix}_operands *o"


def emit_declarations(table, prefix):
    """Prototypes of the functions that meanings name, for the header."""
    names = {insn.meaning for insn in table.instructions if insn.base is None and not is_template(insn.meaning)}
    return f"\nstruct {prefix}_translation;\n" + "".join(
        f"void {prefix}_translate_{name}({arguments_of(prefix)});\n" for name in sorted(names))


def emit_translation(table, prefix):
    """The functions of the templates, and the table of all of them."""
    upper = prefix.upper()
    arguments = arguments_of(prefix)
    functions, rows = [], []
    for insn in table.instructions:
        real = insn.base or insn
        if is_template(real.meaning):
            name = f"translate_{real.symbol}"
        else:
            name = f"{prefix}_translate_{real.meaning}"
        rows.append(f"    [{upper}_INSN_{insn.symbol.upper()}] = {name},\n")
        if insn.base is None and is_template(insn.meaning):
            try:
                body = "".join(f"    {line}\n" for line in Template(insn, prefix, table.functions).emit())
            except (TemplateError, SyntaxError, KeyError, TypeError) as problem:
                raise TemplateError(f"{insn.place}: {insn.name}: '{insn.meaning}': {problem}") from problem
            functions.append(f"/* {insn.meaning} */\nstatic void {name}({arguments})\n{{\n{body}}}\n\n")
    return ("".join(functions)
            + f"void (*const {prefix}_translators[{upper}_INSN_COUNT])({arguments}) = {{\n{''.join(rows)}}};\n")
