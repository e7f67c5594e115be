/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer operations. The pattern: operands to registers (or immediates, or memory), then the result's register, then
 * one or two instructions. The result's register may be that of an operand that dies here, so the order of moves
 * matters; a comment says so where it does.
 */
#include "emulator/translate/host/x86_64/emit.h"

static bool is_wide(const struct ir_op *op)
{
    return op->type == IR_I64;
}

/* A comparison with zero right behind can use the flags of this instruction. */
static void flags_of(struct emitter *e, unsigned reg, bool wide)
{
    e->flags_at = x86_offset(&e->o);
    e->flags_reg = (uint8_t)reg;
    e->flags_wide = wide;
}

static void alu(struct emitter *e, enum x86_alu op, bool wide, unsigned to, const struct operand *b)
{
    if (b->kind == OPERAND_REG)
        x86_alu_rr(&e->o, op, wide, to, b->reg);
    else if (b->kind == OPERAND_IMM)
        x86_alu_imm(&e->o, op, wide, to, b->imm);
    else
        x86_alu_rm(&e->o, op, wide, to, b->mem);
    if (op != ALU_CMP)
        flags_of(e, to, wide);
}

static void move(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    if (to != from)
        x86_mov_rr(&e->o, wide, to, from);
}

static void emit_add(struct emitter *e, const struct ir_op *op)
{
    unsigned a = x86_gpr(e, op->a);
    struct operand b = x86_operand(e, op->b, is_wide(op));
    unsigned d = x86_define_reusing(e, op->a);
    if (d == a)
        alu(e, ALU_ADD, is_wide(op), d, &b);
    else if (b.kind == OPERAND_REG && b.reg == d)
        x86_alu_rr(&e->o, ALU_ADD, is_wide(op), d, a);
    else if (b.kind == OPERAND_REG)
        x86_lea(&e->o, is_wide(op), d, MEM_INDEX(a, b.reg, 0));
    else if (b.kind == OPERAND_IMM)
        x86_lea(&e->o, is_wide(op), d, MEM(a, b.imm));
    else {
        move(e, is_wide(op), d, a);
        alu(e, ALU_ADD, is_wide(op), d, &b);
    }
}

static void emit_sub(struct emitter *e, const struct ir_op *op)
{
    uint64_t c;
    bool wide = is_wide(op);
    if (x86_const(e, op->a, &c) && c == 0) {
        unsigned b = x86_gpr(e, op->b), d = x86_define_reusing(e, op->b);
        move(e, wide, d, b);
        x86_unary(&e->o, 3, wide, d);
        return;
    }
    unsigned a = x86_gpr(e, op->a);
    struct operand b = x86_operand(e, op->b, wide);
    unsigned d = x86_define_reusing(e, op->a);
    if (d != a && b.kind == OPERAND_REG && b.reg == d) { /* d = a - d */
        x86_unary(&e->o, 3, wide, d);
        x86_alu_rr(&e->o, ALU_ADD, wide, d, a);
    } else if (d != a && b.kind == OPERAND_IMM && b.imm != INT32_MIN) {
        x86_lea(&e->o, wide, d, MEM(a, -b.imm));
    } else {
        move(e, wide, d, a);
        alu(e, ALU_SUB, wide, d, &b);
    }
}

static void emit_logic(struct emitter *e, const struct ir_op *op, enum x86_alu how)
{
    unsigned a = x86_gpr(e, op->a);
    struct operand b = x86_operand(e, op->b, is_wide(op));
    unsigned d = x86_define_reusing(e, op->a);
    if (d != a && b.kind == OPERAND_REG && b.reg == d) {
        x86_alu_rr(&e->o, how, is_wide(op), d, a);
        return;
    }
    move(e, is_wide(op), d, a);
    if (how == ALU_XOR && b.kind == OPERAND_IMM && b.imm == -1)
        x86_unary(&e->o, 2, is_wide(op), d);
    else
        alu(e, how, is_wide(op), d, &b);
}

static void emit_mul(struct emitter *e, const struct ir_op *op)
{
    unsigned a = x86_gpr(e, op->a);
    struct operand b = x86_operand(e, op->b, is_wide(op));
    unsigned d = x86_define_reusing(e, op->a);
    if (b.kind == OPERAND_IMM)
        x86_imul_imm(&e->o, is_wide(op), d, a, b.imm);
    else if (b.kind == OPERAND_REG && b.reg == d)
        x86_imul(&e->o, is_wide(op), d, a);
    else {
        move(e, is_wide(op), d, a);
        if (b.kind == OPERAND_REG)
            x86_imul(&e->o, is_wide(op), d, b.reg);
        else
            x86_rm(&e->o, 0, is_wide(op), 0x0faf, d, b.mem, false, 0);
    }
}

static void emit_mulh(struct emitter *e, const struct ir_op *op)
{
    bool wide = is_wide(op);
    x86_temp_fixed(e, RAX);
    x86_temp_fixed(e, RDX);
    unsigned a = x86_gpr(e, op->a), b = x86_gpr(e, op->b);
    x86_mov_rr(&e->o, wide, RAX, a);
    x86_unary(&e->o, op->op == IR_OP_mulh_s ? 5 : 4, wide, b);
    if (op->op == IR_OP_mulh_su) { /* a < 0 was taken as a + 2^n: subtract b * 2^n */
        x86_mov_rr(&e->o, wide, RAX, a);
        x86_shift_imm(&e->o, SHIFT_SAR, wide, RAX, wide ? 63 : 31);
        x86_alu_rr(&e->o, ALU_AND, wide, RAX, b);
        x86_alu_rr(&e->o, ALU_SUB, wide, RDX, RAX);
    }
    x86_result_in(e, RDX, wide);
}

/* The host traps on a zero divisor and on overflow: both go out of line. */
static void emit_divide(struct emitter *e, const struct ir_op *op)
{
    bool wide = is_wide(op), is_signed = op->op == IR_OP_div_s || op->op == IR_OP_rem_s;
    bool quotient = op->op == IR_OP_div_s || op->op == IR_OP_div_u;
    x86_temp_fixed(e, RAX);
    x86_temp_fixed(e, RDX);
    unsigned a = x86_gpr(e, op->a), b = x86_gpr(e, op->b), result = quotient ? RAX : RDX;
    x86_test_rr(&e->o, wide, b, b);
    uint32_t zero = x86_jcc_forward(&e->o, CC_E), minus_one = 0;
    if (is_signed) {
        x86_alu_imm(&e->o, ALU_CMP, wide, b, -1);
        minus_one = x86_jcc_forward(&e->o, CC_E);
    }
    x86_mov_rr(&e->o, wide, RAX, a);
    if (is_signed) {
        x86_rex(&e->o, wide, NO_REG, NO_REG, NO_REG, false);
        x86_byte(&e->o, 0x99); /* cdq, cqo */
    } else {
        x86_alu_rr(&e->o, ALU_XOR, false, RDX, RDX);
    }
    x86_unary(&e->o, is_signed ? 7 : 6, wide, b);
    uint32_t done = x86_offset(&e->o);

    x86_set_target(&e->o, zero, x86_offset(&e->far));
    if (quotient)
        x86_mov_imm(&e->far, RAX, op->imm == IR_DIVISION_RISCV ? UINT64_MAX : 0);
    else
        x86_mov_rr(&e->far, wide, RDX, a);
    x86_jmp(&e->far, done);
    if (is_signed) {
        x86_set_target(&e->o, minus_one, x86_offset(&e->far));
        if (quotient) {
            x86_mov_rr(&e->far, wide, RAX, a);
            x86_unary(&e->far, 3, wide, RAX);
        } else {
            x86_mov_imm(&e->far, RDX, 0);
        }
        x86_jmp(&e->far, done);
    }
    x86_result_in(e, result, wide);
}

static void emit_andn(struct emitter *e, const struct ir_op *op)
{
    unsigned a = x86_gpr(e, op->a), b = x86_gpr(e, op->b), d = x86_define_reusing(e, op->a);
    x86_vex_rr(&e->o, MAP_0F38, PP_NONE, is_wide(op), false, 0xf2, d, b, a);
}

static void emit_shift(struct emitter *e, const struct ir_op *op, enum x86_shift how, unsigned pp)
{
    uint64_t count;
    bool wide = is_wide(op);
    unsigned a = x86_gpr(e, op->a);
    if (x86_const(e, op->b, &count)) {
        unsigned d = x86_define_reusing(e, op->a);
        move(e, wide, d, a);
        x86_shift_imm(&e->o, how, wide, d, (unsigned)count & (wide ? 63 : 31));
        return;
    }
    unsigned b = x86_gpr(e, op->b),
             d = x86_define_reusing(e, op->a); /* shlx, shrx, sarx: flags and rcx are left alone */
    x86_vex_rr(&e->o, MAP_0F38, pp, wide, false, 0xf7, d, b, a);
}

static void emit_rotate(struct emitter *e, const struct ir_op *op, enum x86_shift how)
{
    uint64_t count;
    bool wide = is_wide(op);
    if (x86_const(e, op->b, &count)) {
        unsigned a = x86_gpr(e, op->a), d = x86_define_reusing(e, op->a);
        move(e, wide, d, a);
        x86_shift_imm(&e->o, how, wide, d, (unsigned)count & (wide ? 63 : 31));
        return;
    }
    x86_temp_fixed(e, RCX);
    unsigned t = x86_temp(e), a = x86_gpr(e, op->a), b = x86_gpr(e, op->b);
    x86_mov_rr(&e->o, false, RCX, b);
    x86_mov_rr(&e->o, wide, t, a);
    x86_shift_cl(&e->o, how, wide, t);
    x86_result_in(e, t, wide);
}

static void emit_min_max(struct emitter *e, const struct ir_op *op, enum x86_cc a_wins, enum x86_cc b_wins)
{
    bool wide = is_wide(op);
    unsigned a = x86_gpr(e, op->a), b = x86_gpr(e, op->b), d = x86_define_reusing(e, op->a);
    x86_alu_rr(&e->o, ALU_CMP, wide, a, b);
    if (d == b) {
        x86_cmov(&e->o, a_wins, wide, d, a);
    } else {
        move(e, wide, d, a);
        x86_cmov(&e->o, b_wins, wide, d, b);
    }
}

static void emit_extend(struct emitter *e, const struct ir_op *op)
{
    struct x86_mem m;
    if (e->values[e->at].fused)
        return;
    unsigned log2 = op->imm == 8 ? 0 : op->imm == 16 ? 1 : 2;
    if (!lives_on(e, op->a) && x86_memory_of(e, op->a, &m)) {
        x86_load_extend(&e->o, log2, op->op == IR_OP_sext, x86_define(e), m);
        return;
    }
    unsigned a = x86_gpr(e, op->a), d = x86_define_reusing(e, op->a);
    x86_extend(&e->o, log2, op->op == IR_OP_sext, d, a);
}

static void emit_count(struct emitter *e, const struct ir_op *op, unsigned opcode)
{
    unsigned a = x86_gpr(e, op->a), d = x86_define_reusing(e, op->a);
    x86_rr(&e->o, 0xf3, is_wide(op), opcode, d, a, false);
}

static void emit_bswap(struct emitter *e, const struct ir_op *op)
{
    unsigned a = x86_gpr(e, op->a), d = x86_define_reusing(e, op->a);
    move(e, is_wide(op), d, a);
    x86_bswap(&e->o, is_wide(op), d);
}

/* --- Conditions --- */

static const uint8_t cc_of[IR_CONDS] = {CC_E, CC_NE, CC_L, CC_GE, CC_LE, CC_G, CC_B, CC_AE, CC_BE, CC_A};

static void compare(struct emitter *e, const struct ir_op *op)
{
    uint64_t c;
    struct x86_mem m;
    bool wide = is_wide(op);
    if (x86_const(e, op->b, &c) && fits32((int64_t)c) && !lives_on(e, op->a) && x86_memory_of(e, op->a, &m) &&
        ir_type_size(type_of(e, op->a)) == (wide ? 8u : 4u)) {
        x86_alu_mem_imm(&e->o, ALU_CMP, wide, m, (int32_t)c);
        return;
    }
    unsigned a = x86_gpr(e, op->a);
    struct operand b = x86_operand(e, op->b, wide);
    bool zero = b.kind == OPERAND_IMM && b.imm == 0, equality = op->imm == IR_EQ || op->imm == IR_NE;
    if (zero && equality && e->flags_at == x86_offset(&e->o) && e->flags_reg == a && e->flags_wide == wide)
        return;
    if (zero)
        x86_test_rr(&e->o, wide, a, a); /* as cmp with 0: carry clear, overflow clear */
    else
        alu(e, ALU_CMP, wide, a, &b);
}

enum x86_cc x86_condition(struct emitter *e, unsigned id)
{
    const struct ir_op *op = &e->b->ops[id];
    if (op->op == IR_OP_set && e->values[id].fused) {
        compare(e, op);
        return cc_of[op->imm];
    }
    unsigned r = x86_gpr(e, id);
    x86_test_rr(&e->o, true, r, r);
    return CC_NE;
}

static void emit_set(struct emitter *e, const struct ir_op *op)
{
    if (e->values[e->at].fused)
        return;
    compare(e, op);
    unsigned d = x86_define(e); /* moves at most: the flags stay */
    x86_setcc(&e->o, cc_of[op->imm], d);
    x86_extend(&e->o, 0, false, d, d);
}

static void emit_select(struct emitter *e, const struct ir_op *op)
{
    if (is_xmm_type(op->type)) {
        unsigned yes = x86_xmm(e, op->b), no = x86_xmm(e, op->c);
        enum x86_cc cc = x86_condition(e, op->a);
        unsigned d = x86_define_xmm(e, 0);
        x86_vex_rr(&e->o, MAP_0F, PP_NONE, false, op->type == IR_V256, 0x28, d, 0, yes);
        uint32_t skip = x86_jcc_short(&e->o, cc);
        x86_vex_rr(&e->o, MAP_0F, PP_NONE, false, op->type == IR_V256, 0x28, d, 0, no);
        x86_land_short(&e->o, skip);
        return;
    }
    /* Constants are loaded before the comparison: loading zero changes the flags. */
    unsigned yes = x86_gpr(e, op->b), no = x86_gpr(e, op->c);
    enum x86_cc cc = x86_condition(e, op->a);
    unsigned d = x86_define_reusing(e, op->c);
    if (d == yes && d != no) {
        x86_cmov(&e->o, cc ^ 1, true, d, no);
    } else {
        move(e, true, d, no);
        x86_cmov(&e->o, cc, true, d, yes);
    }
}

/* --- The rest --- */

static void emit_bits(struct emitter *e, const struct ir_op *op)
{
    if (is_xmm_type(op->type)) {
        unsigned x = x86_xmm(e, op->a);
        if (e->reg_value[XMM + x] == 0) {
            x86_define_at(e, XMM + x);
        } else {
            unsigned d = x86_define_xmm(e, op->a);
            if (d != x)
                x86_vmov_xx(&e->o, d, x);
        }
        return;
    }
    unsigned d = x86_define(e);
    x86_gpr_into(e, d, op->a);
}

static void emit_call(struct emitter *e, const struct ir_op *op)
{
    static const uint8_t argument[3] = {RSI, RDX, RCX};
    const struct ir_helper *h = &e->b->helpers[op->imm];
    const uint16_t id[3] = {op->a, op->b, op->c};
    for (unsigned i = 0; i < 3; i++) {
        if (id[i]) {
            x86_temp_fixed(e, argument[i]);
            x86_gpr_into(e, argument[i], id[i]);
        }
    }
    for (unsigned i = 0; i < e->layout->pin_count; i++) {
        unsigned pin = e->layout->pins[i], slot = e->layout->slot_of_pin[pin];
        bool kept_by_c = pin == RBX || pin >= R12;
        if (kept_by_c && (ir_slots_has(&h->reads, slot) || ir_slots_has(&h->writes, slot)))
            x86_store(&e->o, 3, pin, slot_mem(e, slot));
    }
    for (unsigned slot = 0; slot < e->b->slot_count; slot++) {
        if (ir_slots_has(&h->writes, slot))
            x86_slot_changes(e, slot);
    }
    /* Values that live on leave the temporaries; the arguments sit there nameless. */
    x86_before_call(e);
    if (e->upper_dirty)
        x86_vzeroupper(&e->o);
    x86_mov_imm_keep(&e->o, RAX, (uint32_t)op->imm * sizeof(struct ir_helper) + offsetof(struct ir_helper, fn));
    x86_call(&e->o, e->layout->thunk[h->uses_fp ? THUNK_CALL_FP : THUNK_CALL]);
    for (unsigned i = 0; i < e->layout->pin_count; i++) {
        unsigned pin = e->layout->pins[i], slot = e->layout->slot_of_pin[pin];
        bool kept_by_c = pin == RBX || pin >= R12;
        if (kept_by_c && ir_slots_has(&h->writes, slot))
            x86_load(&e->o, true, pin, slot_mem(e, slot));
    }
    if (h->may_fault) {
        x86_alu_mem_imm(&e->o, ALU_CMP, false, STATE(e, exception), 0);
        uint32_t fault = x86_jcc_forward(&e->o, CC_NE);
        x86_set_target(&e->o, fault, x86_offset(&e->far));
        x86_mov_imm(&e->far, RAX, e->insn_pc);
        x86_jmp(&e->far, e->layout->thunk[THUNK_FAULT]);
    }
    e->locked = 1u << RAX;
    if (h->result != IR_NONE && e->values[e->at].last) {
        if (is_xmm_type(h->result))
            x86_vmov_xr(&e->o, h->result != IR_F32, x86_define_xmm(e, 0), RAX);
        else
            x86_result_in(e, RAX, h->result == IR_I64);
    }
}

static void emit_fence(struct emitter *e, const struct ir_op *op)
{
    if (!(op->imm & IR_FENCE_WR)) /* the host orders everything else by itself */
        return;
    x86_byte(&e->o, 0xf0); /* lock or dword [rsp], 0: cheaper than mfence */
    x86_alu_mem_imm(&e->o, ALU_OR, false, MEM(RSP, FRAME_SCRATCH), 0);
}

bool x86_emit_int(struct emitter *e, const struct ir_op *op)
{
    switch (op->op) {
    case IR_OP_nop:
    case IR_OP_const: break;
    case IR_OP_insn: e->insn_pc = op->imm; break;
    case IR_OP_get: x86_get(e, (unsigned)op->imm); break;
    case IR_OP_put: x86_put(e, (unsigned)op->imm, op->a); break;
    case IR_OP_add: e->values[e->at].fused ? (void)0 : emit_add(e, op); break;
    case IR_OP_sub: emit_sub(e, op); break;
    case IR_OP_mul: emit_mul(e, op); break;
    case IR_OP_mulh_s:
    case IR_OP_mulh_u:
    case IR_OP_mulh_su: emit_mulh(e, op); break;
    case IR_OP_div_s:
    case IR_OP_div_u:
    case IR_OP_rem_s:
    case IR_OP_rem_u: emit_divide(e, op); break;
    case IR_OP_and: emit_logic(e, op, ALU_AND); break;
    case IR_OP_or: emit_logic(e, op, ALU_OR); break;
    case IR_OP_xor: emit_logic(e, op, ALU_XOR); break;
    case IR_OP_andn: emit_andn(e, op); break;
    case IR_OP_shl: emit_shift(e, op, SHIFT_SHL, PP_66); break;
    case IR_OP_shr: emit_shift(e, op, SHIFT_SHR, PP_F2); break;
    case IR_OP_sar: emit_shift(e, op, SHIFT_SAR, PP_F3); break;
    case IR_OP_rotl: emit_rotate(e, op, SHIFT_ROL); break;
    case IR_OP_rotr: emit_rotate(e, op, SHIFT_ROR); break;
    case IR_OP_min_s: emit_min_max(e, op, CC_L, CC_G); break;
    case IR_OP_max_s: emit_min_max(e, op, CC_G, CC_L); break;
    case IR_OP_min_u: emit_min_max(e, op, CC_B, CC_A); break;
    case IR_OP_max_u: emit_min_max(e, op, CC_A, CC_B); break;
    case IR_OP_sext:
    case IR_OP_zext: emit_extend(e, op); break;
    case IR_OP_clz: emit_count(e, op, 0x0fbd); break;
    case IR_OP_ctz: emit_count(e, op, 0x0fbc); break;
    case IR_OP_popcount: emit_count(e, op, 0x0fb8); break;
    case IR_OP_bswap: emit_bswap(e, op); break;
    case IR_OP_set: emit_set(e, op); break;
    case IR_OP_select: emit_select(e, op); break;
    case IR_OP_bits: emit_bits(e, op); break;
    case IR_OP_call: emit_call(e, op); break;
    case IR_OP_fence: emit_fence(e, op); break;
    default: return false;
    }
    return true;
}
