/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions between floating point formats and integers.
 *
 * To integers. The host's instruction gives the most negative number for everything that does not fit, and raises what
 * it should; so signed conversions that truncate, or round as MXCSR says, only look for that number and repair it out
 * of line. The others (unsigned, fixed rounding modes) round first, without raising anything, compare with the limits,
 * and raise inexact only when the result fits.
 */
#include "emulator/translate/host/x86_64/emit.h"

static struct x86_mem limit(const struct emitter *e, bool f64, enum x86_limit which)
{
    return constant(e, (f64 ? CONST_LIMITS64 : CONST_LIMITS32) + (f64 ? 8u : 4u) * which);
}

static void to_integer(struct x86_out *o, bool f64, bool wide, bool truncate, unsigned d, unsigned x)
{
    x86_vex_rr(o, MAP_0F, x86_scalar(f64), wide, false, truncate ? 0x2c : 0x2d, d, 0, x);
}

/* vroundsd, vroundss; mode: 0 nearest, 1 down, 2 up, 3 zero, 4 MXCSR; 8: without raising inexact */
static void round_to_integral(struct emitter *e, bool f64, unsigned d, unsigned x, unsigned mode)
{
    x86_vex_rr(&e->o, MAP_0F3A, PP_66, false, false, f64 ? 0x0b : 0x0a, d, x, x);
    x86_byte(&e->o, mode);
}

struct integer {
    bool wide, is_unsigned;
};

static uint64_t largest(struct integer i)
{
    return UINT64_MAX >> ((i.wide ? 0 : 32) + !i.is_unsigned);
}

static uint64_t smallest(struct integer i)
{
    return i.is_unsigned ? 0 : i.wide ? 1ull << 63 : 1ull << 31;
}

/* Out of line: x did not fit. */
static void saturate(struct emitter *e, bool f64, struct integer i, unsigned d, unsigned x, uint32_t done)
{
    struct x86_out *o = &e->far;
    x86_vucomi(o, f64, false, x, x);
    uint32_t nan = x86_jcc_short(o, CC_P);
    x86_vex_rr(o, MAP_0F, f64 ? PP_66 : PP_NONE, false, false, 0x50, d, 0, x); /* vmovmskp: the sign in bit 0 */
    x86_alu_imm(o, ALU_AND, false, d, 1);
    uint32_t negative = x86_jcc_short(o, CC_NE);
    x86_land_short(o, nan);
    x86_mov_imm(o, d, largest(i));
    x86_jmp(o, done);
    x86_land_short(o, negative);
    x86_mov_imm(o, d, smallest(i));
    x86_jmp(o, done);
}

static void convert_direct(struct emitter *e, bool f64, struct integer i, bool truncate, unsigned d, unsigned x)
{
    to_integer(&e->o, f64, i.wide, truncate, d, x);
    x86_alu_imm(&e->o, ALU_CMP, i.wide, d, 1); /* overflows for the most negative number only */
    uint32_t check = x86_jcc_forward(&e->o, CC_O);
    x86_set_target(&e->o, check, x86_offset(&e->far));
    saturate(e, f64, i, d, x, x86_offset(&e->o));
}

static void convert_checked(struct emitter *e, bool f64, struct integer i, unsigned mode, unsigned d, unsigned x,
                            unsigned t)
{
    enum x86_limit low = i.is_unsigned ? LIMIT_ZERO : i.wide ? LIMIT_MINUS_2_63 : LIMIT_MINUS_2_31;
    enum x86_limit high = i.is_unsigned ? (i.wide ? LIMIT_2_64 : LIMIT_2_32) : i.wide ? LIMIT_2_63 : LIMIT_2_31;
    round_to_integral(e, f64, t, x, mode | 8);
    x86_vucomi_mem(&e->o, f64, t, limit(e, f64, low));
    uint32_t too_low = x86_jcc_forward(&e->o, CC_B); /* or not a number */
    x86_vucomi_mem(&e->o, f64, t, limit(e, f64, high));
    uint32_t too_high = x86_jcc_forward(&e->o, CC_AE);
    round_to_integral(e, f64, t, x, mode);
    uint32_t upper_half = 0, resume = 0;
    if (i.wide && i.is_unsigned) {
        x86_vucomi_mem(&e->o, f64, t, limit(e, f64, LIMIT_2_63));
        upper_half = x86_jcc_forward(&e->o, CC_AE);
    }
    to_integer(&e->o, f64, true, true, d, t);
    resume = x86_offset(&e->o);
    if (upper_half) {
        x86_set_target(&e->o, upper_half, x86_offset(&e->far));
        x86_vex_rm(&e->far, MAP_0F, x86_scalar(f64), false, false, 0x5c, t, t, limit(e, f64, LIMIT_2_63), 0);
        to_integer(&e->far, f64, true, true, d, t);
        x86_rr(&e->far, 0, true, 0x0fba, 7, d, false); /* btc d, 63 */
        x86_byte(&e->far, 63);
        x86_jmp(&e->far, resume);
    }
    x86_set_target(&e->o, too_low, x86_offset(&e->far));
    x86_set_target(&e->o, too_high, x86_offset(&e->far));
    x86_vload_scalar(&e->far, f64, t, constant(e, f64 ? CONST_NAN64 : CONST_NAN32));
    to_integer(&e->far, f64, true, true, d, t); /* raises invalid */
    saturate(e, f64, i, d, x, resume);
}

static void emit_to_integer(struct emitter *e, const struct ir_op *op)
{
    static const uint8_t mode[8] = {0, 3, 1, 2, 0, 0, 0, 4};
    struct ir_fp fp = x86_unpack_fp(op->imm);
    struct integer i = {.wide = op->type == IR_I64, .is_unsigned = fp.is_unsigned};
    bool f64 = fp.other == IR_F64;
    if (fp.round == IR_ROUND_NEAREST_AWAY)
        e->unsupported = true;
    unsigned x = x86_xmm(e, op->a), t = x86_xtemp(e), d = x86_define(e);
    if (!fp.is_unsigned && (fp.round == IR_ROUND_ZERO || fp.round == IR_ROUND_DYNAMIC))
        convert_direct(e, f64, i, fp.round == IR_ROUND_ZERO, d, x);
    else
        convert_checked(e, f64, i, mode[fp.round & 7], d, x, t);
}

/* --- From integers --- */

static void from_integer(struct x86_out *o, bool f64, bool wide, unsigned d, unsigned r)
{
    x86_vex_rr(o, MAP_0F, x86_scalar(f64), wide, false, 0x2a, d, d, r);
}

static void emit_from_integer(struct emitter *e, const struct ir_op *op)
{
    struct ir_fp fp = x86_unpack_fp(op->imm);
    bool f64 = op->type == IR_F64, wide = fp.other == IR_I64;
    enum ir_rounding round = f64 && !wide ? IR_ROUND_DYNAMIC : fp.round; /* exact: no rounding */
    unsigned r = x86_gpr(e, op->a), t = x86_temp(e), u = x86_temp(e), d = x86_define_xmm(e, 0);
    e->locked &= ~(1u << u);
    x86_begin_rounding(e, round);
    x86_vxor(&e->o, d, d, d);
    if (!fp.is_unsigned) {
        from_integer(&e->o, f64, wide, d, r);
    } else if (!wide) {
        x86_mov_rr(&e->o, false, t, r);
        from_integer(&e->o, f64, true, d, t);
    } else {
        x86_test_rr(&e->o, true, r, r);
        uint32_t large = x86_jcc_forward(&e->o, CC_S);
        from_integer(&e->o, f64, true, d, r);
        /* Half of it, keeping the lost bit for the rounding, and twice the result. */
        x86_set_target(&e->o, large, x86_offset(&e->far));
        x86_mov_rr(&e->far, true, t, r);
        x86_shift_imm(&e->far, SHIFT_SHR, true, t, 1);
        uint32_t even = x86_jcc_short(&e->far, CC_AE); /* the bit shifted out is the carry */
        x86_alu_imm(&e->far, ALU_OR, true, t, 1);
        x86_land_short(&e->far, even);
        from_integer(&e->far, f64, true, d, t);
        x86_vex_rr(&e->far, MAP_0F, x86_scalar(f64), false, false, 0x58, d, d, d);
        x86_jmp(&e->far, x86_offset(&e->o));
    }
    x86_end_rounding(e, round);
}

static void emit_between_floats(struct emitter *e, const struct ir_op *op)
{
    struct ir_fp fp = x86_unpack_fp(op->imm);
    bool to_f64 = op->type == IR_F64;
    enum ir_rounding round = to_f64 ? IR_ROUND_DYNAMIC : fp.round;
    unsigned a = x86_xmm(e, op->a), d = x86_define_xmm(e, op->a);
    x86_begin_rounding(e, round);
    x86_vex_rr(&e->o, MAP_0F, x86_scalar(!to_f64), false, false, 0x5a, d, a, a);
    x86_canonical_nan(e, fp, to_f64, d);
    x86_end_rounding(e, round);
}

bool x86_emit_convert(struct emitter *e, const struct ir_op *op)
{
    switch (op->op) {
    case IR_OP_f_to_i: emit_to_integer(e, op); break;
    case IR_OP_i_to_f: emit_from_integer(e, op); break;
    case IR_OP_f_to_f: emit_between_floats(e, op); break;
    default: return false;
    }
    return true;
}
