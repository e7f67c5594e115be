/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building IR: appending operations, with the two simplifications that are free while building: constants are folded
 * (a guest's zero register, pc-relative addresses), and a get after a put or get of the same slot is the same value.
 */
#include <assert.h>
#include <string.h>
#include "emulator/translate/compute.h"
#include "emulator/translate/ir.h"

#define IR_OP_INFO(name_, kind_, operands_, properties_) {#name_, #kind_[0], operands_, properties_},
const struct ir_op_info ir_op_info[IR_OP_COUNT] = {IR_OPS(IR_OP_INFO)};
#undef IR_OP_INFO

const char *const ir_type_names[IR_TYPES] = {"none", "i8",   "i16",  "i32",  "i64", "f32",
                                             "f64",  "v128", "v256", "v512", "mask"};

unsigned ir_type_size(enum ir_type type)
{
    static const uint8_t size[IR_TYPES] = {0, 1, 2, 4, 8, 4, 8, 16, 32, 64, 8};
    return size[type];
}

void ir_begin(struct ir_block *b, const struct ir_slot *slots, unsigned slot_count, const struct ir_helper *helpers,
              unsigned helper_count)
{
    assert(slot_count <= IR_MAX_SLOTS);
    b->slots = slots;
    b->slot_count = (uint16_t)slot_count;
    b->helpers = helpers;
    b->helper_count = (uint16_t)helper_count;
    b->count = 1;
    b->ops[0] = (struct ir_op){.op = IR_OP_nop};
    memset(b->current, 0, sizeof b->current);
}

struct ir_value ir_append(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x,
                          struct ir_value y, struct ir_value z, uint64_t imm)
{
    assert(b->count < IR_MAX_OPS);
    assert(x.id < b->count && y.id < b->count && z.id < b->count);
    b->ops[b->count] =
        (struct ir_op){.op = (uint8_t)op, .type = (uint8_t)type, .a = x.id, .b = y.id, .c = z.id, .imm = imm};
    return (struct ir_value){b->count++};
}

static const struct ir_value none;

/* --- Structure and state --- */

void ir_insn_start(struct ir_block *b, uint64_t pc, unsigned length)
{
    struct ir_value mark = ir_append(b, IR_OP_insn, IR_NONE, none, none, none, pc);
    b->ops[mark.id].a = (uint16_t)length;
}

struct ir_value ir_const(struct ir_block *b, uint64_t value)
{
    return ir_append(b, IR_OP_const, IR_I64, none, none, none, value);
}

struct ir_value ir_const32(struct ir_block *b, uint32_t value)
{
    return ir_append(b, IR_OP_const, IR_I32, none, none, none, value);
}

static enum ir_type value_type_of_slot(const struct ir_block *b, unsigned slot)
{
    enum ir_type type = b->slots[slot].type;
    return type == IR_I8 || type == IR_I16 ? IR_I64 : type;
}

struct ir_value ir_get(struct ir_block *b, unsigned slot)
{
    return ir_get_as(b, slot, value_type_of_slot(b, slot));
}

struct ir_value ir_get_as(struct ir_block *b, unsigned slot, enum ir_type type)
{
    assert(slot < b->slot_count);
    assert(ir_type_size(type) == ir_type_size(value_type_of_slot(b, slot)));
    struct ir_value known = {b->current[slot]};
    if (known.id)
        return ir_type_of(b, known) == type ? known : ir_bits(b, type, known);
    struct ir_value v = ir_append(b, IR_OP_get, type, none, none, none, slot);
    b->current[slot] = v.id;
    return v;
}

void ir_put(struct ir_block *b, unsigned slot, struct ir_value value)
{
    assert(slot < b->slot_count && value.id);
    enum ir_type of_slot = b->slots[slot].type;
    ir_append(b, IR_OP_put, of_slot, value, none, none, slot);
    /* A narrower slot keeps only the low bits: what a get would see is not this value. */
    bool same = ir_type_size(of_slot) == ir_type_size(ir_type_of(b, value));
    b->current[slot] = same ? value.id : 0;
}

/* --- Integers --- */

static bool commutes(enum ir_opcode op)
{
    switch (op) {
    case IR_OP_add:
    case IR_OP_mul:
    case IR_OP_mulh_s:
    case IR_OP_mulh_u:
    case IR_OP_and:
    case IR_OP_or:
    case IR_OP_xor:
    case IR_OP_min_s:
    case IR_OP_max_s:
    case IR_OP_min_u:
    case IR_OP_max_u: return true;
    default: return false;
    }
}

/* x op constant that needs no operation: the id of the value, or 0. Only where x already has the result's type. */
static struct ir_value identity(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x, uint64_t y)
{
    if (ir_type_of(b, x) != type)
        return none;
    switch (op) {
    case IR_OP_add:
    case IR_OP_sub:
    case IR_OP_or:
    case IR_OP_xor:
    case IR_OP_andn:
    case IR_OP_shl:
    case IR_OP_shr:
    case IR_OP_sar:
    case IR_OP_rotl:
    case IR_OP_rotr: return y == 0 ? x : none;
    case IR_OP_mul: return y == 1 ? x : y == 0 ? (type == IR_I64 ? ir_const(b, 0) : ir_const32(b, 0)) : none;
    case IR_OP_and:
        if (y == 0)
            return type == IR_I64 ? ir_const(b, 0) : ir_const32(b, 0);
        return y == ir_extend(UINT64_MAX, type == IR_I64 ? 64 : 32, false) ? x : none;
    default: return none;
    }
}

struct ir_value ir_binary(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x,
                          struct ir_value y)
{
    return ir_divide(b, op, type, x, y, 0);
}

struct ir_value ir_divide(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x,
                          struct ir_value y, enum ir_division rule)
{
    uint64_t cx, cy;
    bool x_const = ir_is_const(b, x, &cx), y_const = ir_is_const(b, y, &cy);
    if (x_const && y_const) {
        uint64_t value = ir_compute(op, type, cx, cy, rule);
        return type == IR_I64 ? ir_const(b, value) : ir_const32(b, (uint32_t)value);
    }
    if (x_const && commutes(op)) {
        struct ir_value swap = x;
        x = y;
        y = swap;
        y_const = true;
        cy = cx;
    }
    if (y_const) {
        struct ir_value same = identity(b, op, type, x, ir_extend(cy, type == IR_I32 ? 32 : 64, false));
        if (same.id)
            return same;
    }
    return ir_append(b, op, type, x, y, none, rule);
}

struct ir_value ir_unary(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x)
{
    uint64_t c;
    if (ir_is_const(b, x, &c)) {
        uint64_t value = ir_compute(op, type, c, 0, 0);
        return type == IR_I64 ? ir_const(b, value) : ir_const32(b, (uint32_t)value);
    }
    return ir_append(b, op, type, x, none, none, 0);
}

struct ir_value ir_not(struct ir_block *b, struct ir_value x)
{
    return ir_xor(b, x, ir_const(b, UINT64_MAX));
}

struct ir_value ir_neg(struct ir_block *b, struct ir_value x)
{
    return ir_sub(b, ir_const(b, 0), x);
}

static struct ir_value extend(struct ir_block *b, enum ir_opcode op, struct ir_value x, unsigned bits)
{
    uint64_t c;
    assert(bits == 8 || bits == 16 || bits == 32);
    if (ir_is_const(b, x, &c))
        return ir_const(b, ir_compute(op, IR_I64, c, 0, bits));
    const struct ir_op *made = &b->ops[x.id];
    if (made->op == IR_OP_add && made->type == IR_I32 && ir_is_const(b, (struct ir_value){made->b}, &c) &&
        (uint32_t)c == 0 && bits == 32) { /* x + 0 to cut it short */
        x.id = made->a;
        made = &b->ops[x.id];
    }
    if (made->op == op && made->type == IR_I64 && made->imm <= bits) /* already so narrow */
        return x;
    if (made->op == IR_OP_load && made->type == IR_I64) {
        struct ir_mem mem;
        memcpy(&mem, &made->imm, sizeof mem);
        if (mem.size < 3 && 8u << mem.size <= bits && mem.is_signed == (op == IR_OP_sext))
            return x;
    }
    return ir_append(b, op, IR_I64, x, none, none, bits);
}

struct ir_value ir_sext(struct ir_block *b, struct ir_value x, unsigned from_bits)
{
    return extend(b, IR_OP_sext, x, from_bits);
}

struct ir_value ir_zext(struct ir_block *b, struct ir_value x, unsigned from_bits)
{
    return extend(b, IR_OP_zext, x, from_bits);
}

static enum ir_cond swapped(enum ir_cond cond)
{
    static const uint8_t other[IR_CONDS] = {IR_EQ,   IR_NE,   IR_GT_S, IR_LE_S, IR_GE_S,
                                            IR_LT_S, IR_GT_U, IR_LE_U, IR_GE_U, IR_LT_U};
    return other[cond];
}

static struct ir_value compare(struct ir_block *b, enum ir_cond cond, enum ir_type type, struct ir_value x,
                               struct ir_value y)
{
    uint64_t cx, cy;
    bool x_const = ir_is_const(b, x, &cx);
    if (x_const && ir_is_const(b, y, &cy))
        return ir_const(b, ir_compute_condition(cond, type, cx, cy));
    return x_const ? ir_append(b, IR_OP_set, type, y, x, none, swapped(cond))
                   : ir_append(b, IR_OP_set, type, x, y, none, cond);
}

struct ir_value ir_set(struct ir_block *b, enum ir_cond cond, struct ir_value x, struct ir_value y)
{
    return compare(b, cond, IR_I64, x, y);
}

struct ir_value ir_set32(struct ir_block *b, enum ir_cond cond, struct ir_value x, struct ir_value y)
{
    return compare(b, cond, IR_I32, x, y);
}

struct ir_value ir_select(struct ir_block *b, struct ir_value condition, struct ir_value yes, struct ir_value no)
{
    uint64_t c;
    if (ir_is_const(b, condition, &c))
        return c ? yes : no;
    assert(ir_type_of(b, yes) == ir_type_of(b, no));
    return ir_append(b, IR_OP_select, ir_type_of(b, yes), condition, yes, no, 0);
}

/* --- Floating point --- */

static uint64_t pack_fp(struct ir_fp fp)
{
    uint64_t imm;
    _Static_assert(sizeof fp == sizeof imm, "fits the immediate");
    memcpy(&imm, &fp, sizeof imm);
    return imm;
}

struct ir_value ir_fp2(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x, struct ir_value y,
                       struct ir_fp fp)
{
    return ir_append(b, op, type, x, y, none, pack_fp(fp));
}

struct ir_value ir_fsqrt(struct ir_block *b, enum ir_type type, struct ir_value x, struct ir_fp fp)
{
    return ir_append(b, IR_OP_fsqrt, type, x, none, none, pack_fp(fp));
}

struct ir_value ir_fma(struct ir_block *b, enum ir_type type, struct ir_value x, struct ir_value y, struct ir_value z,
                       struct ir_fp fp)
{
    return ir_append(b, IR_OP_fma, type, x, y, z, pack_fp(fp));
}

struct ir_value ir_fcmp(struct ir_block *b, enum ir_fcond cond, enum ir_type type, struct ir_value x, struct ir_value y)
{
    return ir_append(b, IR_OP_fcmp, type, x, y, none, pack_fp((struct ir_fp){.cond = (uint8_t)cond}));
}

struct ir_value ir_f_to_i(struct ir_block *b, enum ir_type integer, bool is_unsigned, enum ir_type from,
                          struct ir_value x, struct ir_fp fp)
{
    fp.other = (uint8_t)from;
    fp.is_unsigned = is_unsigned;
    return ir_append(b, IR_OP_f_to_i, integer, x, none, none, pack_fp(fp));
}

struct ir_value ir_i_to_f(struct ir_block *b, enum ir_type to, enum ir_type integer, bool is_unsigned,
                          struct ir_value x, struct ir_fp fp)
{
    fp.other = (uint8_t)integer;
    fp.is_unsigned = is_unsigned;
    return ir_append(b, IR_OP_i_to_f, to, x, none, none, pack_fp(fp));
}

struct ir_value ir_f_to_f(struct ir_block *b, enum ir_type to, enum ir_type from, struct ir_value x, struct ir_fp fp)
{
    fp.other = (uint8_t)from;
    return ir_append(b, IR_OP_f_to_f, to, x, none, none, pack_fp(fp));
}

struct ir_value ir_bits(struct ir_block *b, enum ir_type to, struct ir_value x)
{
    enum ir_type from = ir_type_of(b, x);
    if (from == to)
        return x;
    assert(ir_type_size(from) == ir_type_size(to) || (from == IR_I64 && to == IR_F32));
    return ir_append(b, IR_OP_bits, to, x, none, none, from);
}

struct ir_value ir_box(struct ir_block *b, struct ir_value f32)
{
    assert(ir_type_of(b, f32) == IR_F32);
    return ir_append(b, IR_OP_box, IR_I64, f32, none, none, 0);
}

struct ir_value ir_unbox(struct ir_block *b, struct ir_value x)
{
    if (b->ops[x.id].op == IR_OP_box)
        return (struct ir_value){b->ops[x.id].a};
    return ir_append(b, IR_OP_unbox, IR_F32, x, none, none, 0);
}

struct ir_value ir_fp_flags(struct ir_block *b)
{
    return ir_append(b, IR_OP_fp_flags, IR_I64, none, none, none, 0);
}

void ir_fp_set_flags(struct ir_block *b, struct ir_value flags)
{
    ir_append(b, IR_OP_fp_set_flags, IR_NONE, flags, none, none, 0);
}

void ir_fp_set_rounding(struct ir_block *b, struct ir_value rounding)
{
    ir_append(b, IR_OP_fp_set_rounding, IR_NONE, rounding, none, none, 0);
}

/* --- Memory --- */

static uint64_t pack_mem(struct ir_mem mem)
{
    uint64_t imm;
    _Static_assert(sizeof mem == sizeof imm, "fits the immediate");
    memcpy(&imm, &mem, sizeof imm);
    return imm;
}

struct ir_value ir_load(struct ir_block *b, struct ir_value address, struct ir_mem mem)
{
    return ir_append(b, IR_OP_load, IR_I64, address, none, none, pack_mem(mem));
}

struct ir_value ir_load_as(struct ir_block *b, enum ir_type type, struct ir_value address, struct ir_mem mem)
{
    assert(type == IR_I64 || ir_type_size(type) == 1u << mem.size);
    return ir_append(b, IR_OP_load, type, address, none, none, pack_mem(mem));
}

void ir_store(struct ir_block *b, struct ir_value address, struct ir_value value, struct ir_mem mem)
{
    ir_append(b, IR_OP_store, ir_type_of(b, value), address, value, none, pack_mem(mem));
}

struct ir_value ir_load_reserved(struct ir_block *b, struct ir_value address, struct ir_mem mem)
{
    return ir_append(b, IR_OP_load_reserved, IR_I64, address, none, none, pack_mem(mem));
}

struct ir_value ir_store_conditional(struct ir_block *b, struct ir_value address, struct ir_value value,
                                     struct ir_mem mem)
{
    return ir_append(b, IR_OP_store_conditional, IR_I64, address, value, none, pack_mem(mem));
}

struct ir_value ir_amo(struct ir_block *b, enum ir_amo amo, struct ir_value address, struct ir_value value,
                       struct ir_mem mem)
{
    mem.amo = (uint8_t)amo;
    return ir_append(b, IR_OP_amo, IR_I64, address, value, none, pack_mem(mem));
}

struct ir_value ir_cmpxchg(struct ir_block *b, struct ir_value address, struct ir_value expected,
                           struct ir_value desired, struct ir_mem mem)
{
    return ir_append(b, IR_OP_cmpxchg, IR_I64, address, expected, desired, pack_mem(mem));
}

void ir_fence(struct ir_block *b, unsigned kinds)
{
    ir_append(b, IR_OP_fence, IR_NONE, none, none, none, kinds);
}

/* --- Vectors --- */

struct ir_value ir_vector2(struct ir_block *b, enum ir_opcode op, enum ir_type type, unsigned element,
                           struct ir_value x, struct ir_value y)
{
    return ir_append(b, op, type, x, y, none, element);
}

struct ir_value ir_vsplat(struct ir_block *b, enum ir_type type, unsigned element, struct ir_value x)
{
    return ir_append(b, IR_OP_vsplat, type, x, none, none, element);
}

struct ir_value ir_vcmp(struct ir_block *b, enum ir_cond cond, unsigned element, struct ir_value x, struct ir_value y)
{
    return ir_append(b, IR_OP_vcmp, IR_MASK, x, y, none, element | (unsigned)cond << 8);
}

struct ir_value ir_vselect(struct ir_block *b, enum ir_type type, unsigned element, struct ir_value mask,
                           struct ir_value yes, struct ir_value no)
{
    return ir_append(b, IR_OP_vselect, type, mask, yes, no, element);
}

/* --- Helpers and exits --- */

struct ir_value ir_call(struct ir_block *b, unsigned helper, struct ir_value x, struct ir_value y, struct ir_value z)
{
    assert(helper < b->helper_count);
    const struct ir_helper *h = &b->helpers[helper];
    struct ir_value v = ir_append(b, IR_OP_call, h->result, x, y, z, helper);
    for (unsigned slot = 0; slot < b->slot_count; slot++) {
        if (ir_slots_has(&h->writes, slot))
            b->current[slot] = 0;
    }
    return h->result == IR_NONE ? none : v;
}

void ir_exit_if(struct ir_block *b, struct ir_value condition, uint64_t pc)
{
    uint64_t c;
    if (!ir_is_const(b, condition, &c))
        ir_append(b, IR_OP_exit_if, IR_NONE, condition, none, none, pc);
    else if (c)
        ir_exit_direct(b, pc);
}

void ir_exit_direct(struct ir_block *b, uint64_t pc)
{
    ir_append(b, IR_OP_exit_direct, IR_NONE, none, none, none, pc);
}

void ir_exit_indirect(struct ir_block *b, struct ir_value pc, enum ir_hint hint)
{
    ir_append(b, IR_OP_exit_indirect, IR_NONE, pc, none, none, hint);
}

void ir_push_return(struct ir_block *b, uint64_t pc)
{
    ir_append(b, IR_OP_push_return, IR_NONE, none, none, none, pc);
}

void ir_exit_runtime(struct ir_block *b, unsigned reason, uint64_t pc)
{
    struct ir_value exit = ir_append(b, IR_OP_exit_runtime, IR_NONE, none, none, none, pc);
    b->ops[exit.id].c = (uint16_t)reason;
}
