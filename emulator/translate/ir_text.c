/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text form of IR, one operation a line, printed for people and parsed by tests:
 *
 *     insn #0x80000000 length=4
 *     %2 = get i64 x10
 *     %3 = const i64 #0x8
 *     %4 = add i64 %2, %3
 *     %5 = load i64 %4 mem(size=2,signed,align=1,order=0,mmu=1,amo=0)
 *     put i64 %5 x11
 *     exit_direct #0x80000004
 *
 * Numbers of values are those of the array, so the parser insists that they are in order: text and array are the same
 * thing. Types are always written, also where an operation has none.
 */
#include <stdlib.h>
#include <string.h>
#include "emulator/translate/ir.h"

static void print_mem(FILE *out, uint64_t imm)
{
    struct ir_mem m;
    memcpy(&m, &imm, sizeof m);
    fprintf(out, " mem(size=%u,signed=%u,big=%u,align=%u,order=%u,mmu=%u,amo=%u)", m.size, m.is_signed, m.big_endian,
            m.align, m.order, m.mmu, m.amo);
}

static void print_fp(FILE *out, uint64_t imm)
{
    struct ir_fp f;
    memcpy(&f, &imm, sizeof f);
    fprintf(out, " fp(round=%u,nan=%u,cond=%u,other=%u,unsigned=%u,negate_product=%u,negate_c=%u)", f.round, f.nan,
            f.cond, f.other, f.is_unsigned, f.negate_product, f.negate_c);
}

static void print_op(const struct ir_block *b, unsigned index, FILE *out)
{
    const struct ir_op *op = &b->ops[index];
    const struct ir_op_info *info = &ir_op_info[op->op];
    const uint16_t operand[3] = {op->a, op->b, op->c};
    if (info->kind != 'N')
        fprintf(out, "%%%u = ", index);
    fprintf(out, "%s %s", info->name, ir_type_names[op->type]);
    for (unsigned i = 0; i < info->operands; i++)
        fprintf(out, "%s%%%u", i ? ", " : " ", operand[i]);
    if (info->properties & IR_MEM)
        print_mem(out, op->imm);
    else if (info->properties & IR_FP)
        print_fp(out, op->imm);
    else if (info->properties & IR_SLOT)
        fprintf(out, " %s", b->slots[op->imm].name);
    else if (op->op == IR_OP_call)
        fprintf(out, " %s", b->helpers[op->imm].name);
    else if (info->properties & IR_IMM)
        fprintf(out, " #0x%llx", (unsigned long long)op->imm);
    if (op->op == IR_OP_insn)
        fprintf(out, " length=%u", op->a);
    if (op->op == IR_OP_exit_runtime)
        fprintf(out, " reason=%u", op->c);
    fputc('\n', out);
}

void ir_print(const struct ir_block *b, FILE *out)
{
    for (unsigned i = 1; i < b->count; i++)
        print_op(b, i, out);
}

/* --- Parsing --- */

struct reader {
    struct ir_block *block;
    const char *at;
    const char *problem;
};

static void skip_blanks(struct reader *r)
{
    while (*r->at == ' ' || *r->at == ',')
        r->at++;
}

static bool accept(struct reader *r, const char *text)
{
    skip_blanks(r);
    size_t length = strlen(text);
    if (strncmp(r->at, text, length))
        return false;
    r->at += length;
    return true;
}

static bool expect(struct reader *r, const char *text)
{
    if (accept(r, text))
        return true;
    r->problem = text;
    return false;
}

static bool read_word(struct reader *r, char *word, size_t size)
{
    skip_blanks(r);
    size_t length = strcspn(r->at, " ,\n");
    if (length == 0 || length >= size)
        return r->problem = "a word", false;
    memcpy(word, r->at, length);
    word[length] = 0;
    r->at += length;
    return true;
}

static bool read_number(struct reader *r, uint64_t *value)
{
    char *end;
    skip_blanks(r);
    *value = strtoull(r->at, &end, 0);
    if (end == r->at)
        return r->problem = "a number", false;
    r->at = end;
    return true;
}

static bool read_field(struct reader *r, const char *name, uint8_t *value)
{
    uint64_t number;
    if (!expect(r, name) || !expect(r, "=") || !read_number(r, &number))
        return false;
    *value = (uint8_t)number;
    return true;
}

static bool read_mem(struct reader *r, uint64_t *imm)
{
    struct ir_mem m = {0};
    uint8_t is_signed, big;
    if (!expect(r, "mem(") || !read_field(r, "size", &m.size) || !read_field(r, "signed", &is_signed) ||
        !read_field(r, "big", &big) || !read_field(r, "align", &m.align) || !read_field(r, "order", &m.order) ||
        !read_field(r, "mmu", &m.mmu) || !read_field(r, "amo", &m.amo) || !expect(r, ")"))
        return false;
    m.is_signed = is_signed;
    m.big_endian = big;
    memcpy(imm, &m, sizeof m);
    return true;
}

static bool read_fp(struct reader *r, uint64_t *imm)
{
    struct ir_fp f = {0};
    uint8_t is_unsigned, product, c;
    if (!expect(r, "fp(") || !read_field(r, "round", &f.round) || !read_field(r, "nan", &f.nan) ||
        !read_field(r, "cond", &f.cond) || !read_field(r, "other", &f.other) ||
        !read_field(r, "unsigned", &is_unsigned) || !read_field(r, "negate_product", &product) ||
        !read_field(r, "negate_c", &c) || !expect(r, ")"))
        return false;
    f.is_unsigned = is_unsigned;
    f.negate_product = product;
    f.negate_c = c;
    memcpy(imm, &f, sizeof f);
    return true;
}

static bool read_slot(struct reader *r, uint64_t *imm)
{
    char word[64];
    if (!read_word(r, word, sizeof word))
        return false;
    for (*imm = 0; *imm < r->block->slot_count; ++*imm) {
        if (!strcmp(r->block->slots[*imm].name, word))
            return true;
    }
    return r->problem = "the name of a slot", false;
}

static bool read_helper(struct reader *r, uint64_t *imm)
{
    char word[64];
    if (!read_word(r, word, sizeof word))
        return false;
    for (*imm = 0; *imm < r->block->helper_count; ++*imm) {
        if (!strcmp(r->block->helpers[*imm].name, word))
            return true;
    }
    return r->problem = "the name of a helper", false;
}

static bool read_opcode(struct reader *r, struct ir_op *op)
{
    char word[64];
    if (!read_word(r, word, sizeof word))
        return false;
    for (op->op = 0; op->op < IR_OP_COUNT; op->op++) {
        if (!strcmp(ir_op_info[op->op].name, word))
            break;
    }
    if (op->op == IR_OP_COUNT)
        return r->problem = "an operation", false;
    if (!read_word(r, word, sizeof word))
        return false;
    for (op->type = 0; op->type < IR_TYPES; op->type++) {
        if (!strcmp(ir_type_names[op->type], word))
            return true;
    }
    return r->problem = "a type", false;
}

static bool read_operands(struct reader *r, struct ir_op *op)
{
    uint16_t *operand[3] = {&op->a, &op->b, &op->c};
    for (unsigned i = 0; i < ir_op_info[op->op].operands; i++) {
        uint64_t id;
        if (!expect(r, "%") || !read_number(r, &id))
            return false;
        if (id >= r->block->count)
            return r->problem = "an operand that exists", false;
        *operand[i] = (uint16_t)id;
    }
    return true;
}

static bool read_immediate(struct reader *r, struct ir_op *op)
{
    unsigned properties = ir_op_info[op->op].properties;
    if (properties & IR_MEM)
        return read_mem(r, &op->imm);
    if (properties & IR_FP)
        return read_fp(r, &op->imm);
    if (properties & IR_SLOT)
        return read_slot(r, &op->imm);
    if (op->op == IR_OP_call)
        return read_helper(r, &op->imm);
    return !(properties & IR_IMM) || (expect(r, "#") && read_number(r, &op->imm));
}

static bool read_op(struct reader *r)
{
    struct ir_op op = {0};
    uint64_t number;
    bool has_result = accept(r, "%");
    if (has_result) {
        if (!read_number(r, &number) || !expect(r, "="))
            return false;
        if (number != r->block->count)
            return r->problem = "the next value's number", false;
    }
    if (!read_opcode(r, &op))
        return false;
    if (has_result != (ir_op_info[op.op].kind != 'N'))
        return r->problem = has_result ? "an operation with a result" : "'%number ='", false;
    if (!read_operands(r, &op) || !read_immediate(r, &op))
        return false;
    if (op.op == IR_OP_insn) {
        if (!expect(r, "length=") || !read_number(r, &number))
            return false;
        op.a = (uint16_t)number;
    }
    if (op.op == IR_OP_exit_runtime) {
        if (!expect(r, "reason=") || !read_number(r, &number))
            return false;
        op.c = (uint16_t)number;
    }
    if (r->block->count == IR_MAX_OPS)
        return r->problem = "fewer operations", false;
    r->block->ops[r->block->count++] = op;
    return true;
}

bool ir_parse(struct ir_block *b, const char *text, char message[128])
{
    struct reader r = {.block = b, .at = text};
    for (unsigned line = 1; *r.at; line++) {
        skip_blanks(&r);
        if (*r.at != '\n' && *r.at && (!read_op(&r) || (skip_blanks(&r), *r.at && *r.at != '\n'))) {
            snprintf(message, 128, "line %u: expected %s before '%.20s'", line, r.problem ? r.problem : "end of line",
                     r.at);
            return false;
        }
        if (*r.at == '\n')
            r.at++;
    }
    return true;
}
