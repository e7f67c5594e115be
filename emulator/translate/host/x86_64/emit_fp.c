/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floating point in host instructions, exact. Rounding mode and sticky exceptions are the host's own MXCSR, so most
 * operations are one instruction and, where a NaN result must be the default NaN, a comparison of the result with
 * itself that branches out of line. An operation with a rounding mode of its own changes MXCSR around it: compilers
 * ask for that only in conversions, most of which have an instruction with a fixed mode (emit_convert.c).
 */
#include "emulator/translate/host/x86_64/emit.h"

enum { MX_ROUNDING = 0x6000, MX_FLAGS = 0x3f, MX_INVALID = 1 };

struct ir_fp x86_unpack_fp(uint64_t imm)
{
    struct ir_fp fp;
    memcpy(&fp, &imm, sizeof fp);
    return fp;
}

static struct x86_mem scratch(unsigned word)
{
    return MEM(RSP, FRAME_SCRATCH + 4 * (int)word);
}

/* --- A rounding mode for one operation --- */

void x86_begin_rounding(struct emitter *e, enum ir_rounding round)
{
    static const uint32_t mode[4] = {0 << 13, 3 << 13, 1 << 13, 2 << 13};
    if (round == IR_ROUND_DYNAMIC)
        return;
    if (round > IR_ROUND_UP) {
        e->unsupported = true;
        return;
    }
    unsigned t = x86_temp(e);
    x86_stmxcsr(&e->o, scratch(0));
    x86_load(&e->o, false, t, scratch(0));
    x86_alu_imm(&e->o, ALU_AND, false, t, ~MX_ROUNDING);
    if (mode[round])
        x86_alu_imm(&e->o, ALU_OR, false, t, (int32_t)mode[round]);
    x86_store(&e->o, 2, t, scratch(1));
    x86_ldmxcsr(&e->o, scratch(1));
    e->locked &= ~(1u << t);
}

/* Puts the guest's mode back; exceptions raised meanwhile stay. */
void x86_end_rounding(struct emitter *e, enum ir_rounding round)
{
    if (round == IR_ROUND_DYNAMIC)
        return;
    unsigned t = x86_temp(e);
    x86_load(&e->o, false, t, scratch(0));
    x86_alu_imm(&e->o, ALU_AND, false, t, MX_ROUNDING);
    x86_store(&e->o, 2, t, scratch(0));
    x86_stmxcsr(&e->o, scratch(1));
    x86_load(&e->o, false, t, scratch(1));
    x86_alu_imm(&e->o, ALU_AND, false, t, ~MX_ROUNDING);
    x86_alu_rm(&e->o, ALU_OR, false, t, scratch(0));
    x86_store(&e->o, 2, t, scratch(1));
    x86_ldmxcsr(&e->o, scratch(1));
}

/* --- NaN results --- */

static void load_default_nan(struct emitter *e, struct x86_out *o, bool f64, unsigned x)
{
    x86_vload_scalar(o, f64, x, constant(e, f64 ? CONST_NAN64 : CONST_NAN32));
}

void x86_canonical_nan(struct emitter *e, struct ir_fp fp, bool f64, unsigned x)
{
    if (fp.nan != IR_NAN_DEFAULT)
        return;
    x86_vucomi(&e->o, f64, false, x, x);
    uint32_t is_nan = x86_jcc_forward(&e->o, CC_P);
    x86_set_target(&e->o, is_nan, x86_offset(&e->far));
    load_default_nan(e, &e->far, f64, x);
    x86_jmp(&e->far, x86_offset(&e->o));
}

/* --- Arithmetic --- */

/* An operand that may come from memory. */
static void scalar_op(struct emitter *e, bool f64, unsigned opcode, unsigned d, unsigned a, unsigned id)
{
    struct x86_mem m;
    if (!lives_on(e, id) && x86_memory_of(e, id, &m))
        x86_vex_rm(&e->o, MAP_0F, x86_scalar(f64), false, false, opcode, d, a, m, 0);
    else
        x86_vex_rr(&e->o, MAP_0F, x86_scalar(f64), false, false, opcode, d, a, x86_xmm(e, id));
}

static void emit_arithmetic(struct emitter *e, const struct ir_op *op, unsigned opcode)
{
    struct ir_fp fp = x86_unpack_fp(op->imm);
    bool f64 = op->type == IR_F64;
    unsigned a = x86_xmm(e, op->a);
    struct x86_mem m;
    if (lives_on(e, op->b) || !x86_memory_of(e, op->b, &m))
        x86_xmm(e, op->b); /* before the result's register is chosen */
    unsigned d = x86_define_xmm(e, op->a == op->b ? 0 : op->a);
    x86_begin_rounding(e, fp.round);
    scalar_op(e, f64, opcode, d, a, op->b);
    x86_canonical_nan(e, fp, f64, d);
    x86_end_rounding(e, fp.round);
}

static void emit_sqrt(struct emitter *e, const struct ir_op *op)
{
    struct ir_fp fp = x86_unpack_fp(op->imm);
    bool f64 = op->type == IR_F64;
    unsigned a = x86_xmm(e, op->a), d = x86_define_xmm(e, op->a);
    x86_begin_rounding(e, fp.round);
    x86_vex_rr(&e->o, MAP_0F, x86_scalar(f64), false, false, 0x51, d, a, a);
    x86_canonical_nan(e, fp, f64, d);
    x86_end_rounding(e, fp.round);
}

/* A NaN came out of a * b + c. Infinity times zero is invalid even when c is a quiet NaN, which the host may not say:
 * the product alone, with clean flags, tells. */
static void fma_nan(struct emitter *e, bool f64, unsigned d, unsigned a, unsigned b, unsigned t)
{
    struct x86_out *o = &e->far;
    x86_stmxcsr(o, scratch(2));
    x86_load(o, false, t, scratch(2));
    x86_alu_imm(o, ALU_AND, false, t, ~MX_FLAGS);
    x86_store(o, 2, t, scratch(3));
    x86_ldmxcsr(o, scratch(3));
    x86_vex_rr(o, MAP_0F, x86_scalar(f64), false, false, 0x59, d, a, b);
    x86_stmxcsr(o, scratch(3));
    x86_load(o, false, t, scratch(3));
    x86_alu_imm(o, ALU_AND, false, t, MX_INVALID);
    x86_alu_rm(o, ALU_OR, false, t, scratch(2));
    x86_store(o, 2, t, scratch(3));
    x86_ldmxcsr(o, scratch(3));
    load_default_nan(e, o, f64, d);
}

static void emit_fma(struct emitter *e, const struct ir_op *op)
{
    static const uint8_t opcode[2][2] = {{0xb9, 0xbb}, {0xbd, 0xbf}}; /* vf[n]m{add,sub}231 */
    struct ir_fp fp = x86_unpack_fp(op->imm);
    bool f64 = op->type == IR_F64;
    unsigned a = x86_xmm(e, op->a), b = x86_xmm(e, op->b), c = x86_xmm(e, op->c);
    unsigned d = x86_define_xmm(e, op->c == op->a || op->c == op->b ? 0 : op->c), t = x86_temp(e);
    if (d != c)
        x86_vmov_xx(&e->o, d, c);
    e->locked &= ~(1u << t);
    x86_begin_rounding(e, fp.round);
    x86_vex_rr(&e->o, MAP_0F38, PP_66, f64, false, opcode[fp.negate_product][fp.negate_c], d, a, b);
    if (fp.nan == IR_NAN_DEFAULT) {
        x86_vucomi(&e->o, f64, false, d, d);
        uint32_t is_nan = x86_jcc_forward(&e->o, CC_P);
        x86_set_target(&e->o, is_nan, x86_offset(&e->far));
        fma_nan(e, f64, d, a, b, t);
        x86_jmp(&e->far, x86_offset(&e->o));
    }
    x86_end_rounding(e, fp.round);
}

/* --- Minimum, maximum, comparison --- */

static void min_max_of_nan(struct emitter *e, bool f64, unsigned d, unsigned a, unsigned b, uint32_t done)
{
    struct x86_out *o = &e->far;
    x86_vucomi(o, f64, false, a, a);
    uint32_t a_is_number = x86_jcc_short(o, CC_NP);
    x86_vucomi(o, f64, false, b, b);
    uint32_t both = x86_jcc_short(o, CC_P);
    x86_vmov_xx(o, d, b);
    x86_jmp(o, done);
    x86_land_short(o, both);
    load_default_nan(e, o, f64, d);
    x86_jmp(o, done);
    x86_land_short(o, a_is_number);
    x86_vmov_xx(o, d, a);
    x86_jmp(o, done);
}

static void emit_min_max(struct emitter *e, const struct ir_op *op, bool max)
{
    bool f64 = op->type == IR_F64;
    unsigned a = x86_xmm(e, op->a), b = x86_xmm(e, op->b), d = x86_define_xmm(e, 0);
    x86_vucomi(&e->o, f64, false, a, b);
    uint32_t nan = x86_jcc_forward(&e->o, CC_P), different = x86_jcc_short(&e->o, CC_NE);
    x86_vex_rr(&e->o, MAP_0F, PP_NONE, false, false, max ? 0x54 : 0x56, d, a, b); /* equal: zeros differ in sign */
    uint32_t over = x86_jmp_short(&e->o);
    x86_land_short(&e->o, different);
    x86_vex_rr(&e->o, MAP_0F, x86_scalar(f64), false, false, max ? 0x5f : 0x5d, d, a, b);
    x86_land_short(&e->o, over);
    x86_set_target(&e->o, nan, x86_offset(&e->far));
    min_max_of_nan(e, f64, d, a, b, x86_offset(&e->o));
}

static void emit_compare(struct emitter *e, const struct ir_op *op)
{
    struct ir_fp fp = x86_unpack_fp(op->imm);
    bool f64 = op->type == IR_F64, signals = fp.cond == IR_FLT_S || fp.cond == IR_FLE_S;
    unsigned a = x86_xmm(e, op->a), b = x86_xmm(e, op->b), t = x86_temp(e), d = x86_define(e);
    switch (fp.cond) {
    case IR_FEQ_Q:
        x86_vucomi(&e->o, f64, false, a, b);
        x86_setcc(&e->o, CC_NP, t);
        x86_setcc(&e->o, CC_E, d);
        x86_alu_rr(&e->o, ALU_AND, false, d, t);
        break;
    case IR_FUNORDERED_Q:
        x86_vucomi(&e->o, f64, false, a, b);
        x86_setcc(&e->o, CC_P, d);
        break;
    default: /* a < b as b > a: "above" is false on unordered */
        x86_vucomi(&e->o, f64, signals, b, a);
        x86_setcc(&e->o, fp.cond == IR_FLT_S || fp.cond == IR_FLT_Q ? CC_A : CC_AE, d);
    }
    x86_extend(&e->o, 0, false, d, d);
}

/* --- NaN boxing --- */

static void emit_unbox(struct emitter *e, const struct ir_op *op)
{
    struct x86_mem m, upper;
    unsigned d;
    if (x86_memory_of(e, op->a, &m)) {
        d = x86_define_xmm(e, 0);
        upper = m;
        upper.disp += 4;
        x86_alu_mem_imm(&e->o, ALU_CMP, false, upper, -1);
        uint32_t bad = x86_jcc_forward(&e->o, CC_NE);
        x86_vload_scalar(&e->o, false, d, m);
        x86_set_target(&e->o, bad, x86_offset(&e->far));
    } else {
        unsigned r = x86_gpr(e, op->a), t = x86_temp(e);
        d = x86_define_xmm(e, 0);
        x86_mov_rr(&e->o, true, t, r);
        x86_shift_imm(&e->o, SHIFT_SHR, true, t, 32);
        x86_alu_imm(&e->o, ALU_CMP, false, t, -1);
        uint32_t bad = x86_jcc_forward(&e->o, CC_NE);
        x86_vmov_xr(&e->o, false, d, r);
        x86_set_target(&e->o, bad, x86_offset(&e->far));
    }
    load_default_nan(e, &e->far, false, d);
    x86_jmp(&e->far, x86_offset(&e->o));
}

/* --- The environment --- */

static void emit_flags(struct emitter *e)
{
    unsigned table = x86_temp(e), d = x86_define(e);
    x86_stmxcsr(&e->o, scratch(0));
    x86_load(&e->o, false, d, scratch(0));
    x86_alu_imm(&e->o, ALU_AND, false, d, MX_FLAGS);
    x86_lea(&e->o, true, table, constant(e, CONST_FLAGS_OUT));
    x86_load_extend(&e->o, 0, false, d, MEM_INDEX(table, d, 0));
}

/* mxcsr = (mxcsr & ~mask) | t */
static void merge_mxcsr(struct emitter *e, uint32_t mask, unsigned t)
{
    x86_stmxcsr(&e->o, scratch(0));
    x86_alu_mem_imm(&e->o, ALU_AND, false, scratch(0), (int32_t)~mask);
    x86_alu_mr(&e->o, ALU_OR, false, scratch(0), t);
    x86_ldmxcsr(&e->o, scratch(0));
}

static void emit_set_environment(struct emitter *e, const struct ir_op *op)
{
    bool flags = op->op == IR_OP_fp_set_flags;
    unsigned a = x86_gpr(e, op->a), table = x86_temp(e), t = x86_temp(e);
    x86_mov_rr(&e->o, false, t, a);
    x86_alu_imm(&e->o, ALU_AND, false, t, flags ? 31 : 3);
    x86_lea(&e->o, true, table, constant(e, flags ? CONST_FLAGS_IN : CONST_ROUNDING));
    struct x86_mem entry = MEM_INDEX(table, t, 0);
    entry.scale = flags ? 0 : 2;
    x86_load_extend(&e->o, flags ? 0 : 2, false, t, entry);
    merge_mxcsr(e, flags ? MX_FLAGS : MX_ROUNDING, t);
}

bool x86_emit_fp(struct emitter *e, const struct ir_op *op)
{
    switch (op->op) {
    case IR_OP_fadd: emit_arithmetic(e, op, 0x58); break;
    case IR_OP_fmul: emit_arithmetic(e, op, 0x59); break;
    case IR_OP_fsub: emit_arithmetic(e, op, 0x5c); break;
    case IR_OP_fdiv: emit_arithmetic(e, op, 0x5e); break;
    case IR_OP_fsqrt: emit_sqrt(e, op); break;
    case IR_OP_fma: emit_fma(e, op); break;
    case IR_OP_fmin: emit_min_max(e, op, false); break;
    case IR_OP_fmax: emit_min_max(e, op, true); break;
    case IR_OP_fcmp: emit_compare(e, op); break;
    case IR_OP_box: break; /* made where it is used: usually a put, which then is two stores */
    case IR_OP_unbox: emit_unbox(e, op); break;
    case IR_OP_fp_flags: emit_flags(e); break;
    case IR_OP_fp_set_flags:
    case IR_OP_fp_set_rounding: emit_set_environment(e, op); break;
    default: return false;
    }
    return true;
}
