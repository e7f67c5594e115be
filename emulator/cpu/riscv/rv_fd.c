/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volume I, "F" and "D". Arithmetic is the IR's, with RISC-V's NaN rule; a single is unboxed when read (anything that
 * is not NaN-boxed reads as the default NaN) and boxed when written. fflags accumulate where the host keeps them.
 * Rounding to nearest with ties away is no host mode and goes to software, whether the instruction or frm asks for it.
 *
 * The state of mstatus.FS is part of the mode: when it is off, blocks hold the exception; when it is dirty, no code is
 * needed; when it is clean, the first instruction that would change f registers or fflags sets it dirty and has the
 * block made again.
 */
#include "emulator/cpu/riscv/translate.h"

enum { RM_DYNAMIC = 7, RM_RMM = 4 };

bool riscv_fp_begin(struct riscv_translation *t, enum riscv_fp_use use)
{
    if (MODE_FS(t->mode) == RISCV_FS_OFF) {
        riscv_translate_illegal(t);
        return false;
    }
    if (use == FP_CHANGES && MODE_FS(t->mode) == RISCV_FS_CLEAN) {
        ir_call(t->ir, HELPER_DIRTY_FS, (struct ir_value){0}, (struct ir_value){0}, (struct ir_value){0});
        ir_exit_runtime(t->ir, TRANSLATE_EXIT_CONTINUE, t->pc);
        return false;
    }
    return true;
}

/* As riscv_fp_begin(), for an instruction with a rounding mode, which it tells. */
static bool begin_rounding(struct riscv_translation *t, const struct riscv_operands *o, struct ir_fp *fp)
{
    unsigned round = o->rm;

    if (round == RM_DYNAMIC) {
        static const uint8_t of_class[] = {
            [RISCV_FRM_HOST] = IR_ROUND_DYNAMIC, [RISCV_FRM_RMM] = RM_RMM, [RISCV_FRM_INVALID] = 5};
        round = of_class[MODE_FRM(t->mode)];
    }
    if (round > RM_RMM && round != IR_ROUND_DYNAMIC) {
        riscv_translate_illegal(t);
        return false;
    }
    *fp = (struct ir_fp){.round = (uint8_t)round, .nan = IR_NAN_DEFAULT};
    return riscv_fp_begin(t, FP_CHANGES);
}

/* ---- registers ---- */

static struct ir_value read_f(struct riscv_translation *t, unsigned number, enum ir_type type)
{
    struct ir_value value = ir_get(t->ir, SLOT_F0 + number);

    return type == IR_F32 ? ir_unbox(t->ir, value) : value;
}

static void write_f(struct riscv_translation *t, unsigned number, struct ir_value value)
{
    if (ir_type_of(t->ir, value) == IR_F32)
        value = ir_box(t->ir, value);
    ir_put(t->ir, SLOT_F0 + number, value);
}

static struct ir_value raw_f(struct riscv_translation *t, unsigned number)
{
    return ir_get_as(t->ir, SLOT_F0 + number, IR_I64);
}

/* ---- ties away, in software: registers go in and come out as they are ---- */

static struct ir_value rmm(struct riscv_translation *t, unsigned operation, enum ir_type type, struct ir_value a,
                           struct ir_value b)
{
    return ir_call(t->ir, HELPER_FLOAT_RMM, ir_const(t->ir, operation | (type == IR_F64 ? RMM_DOUBLE : 0)), a, b);
}

static enum riscv_rmm_operation rmm_of(enum ir_opcode op)
{
    switch (op) {
    case IR_OP_fsub: return RMM_SUB;
    case IR_OP_fmul: return RMM_MUL;
    case IR_OP_fdiv: return RMM_DIV;
    default: return RMM_ADD;
    }
}

/* ---- loads and stores ---- */

void riscv_fp_load(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type)
{
    struct ir_value address;

    if (!riscv_fp_begin(t, FP_CHANGES))
        return;
    address = ir_add(t->ir, riscv_read_x(t, o->rs1), ir_const(t->ir, (uint64_t)o->imm));
    write_f(t, o->rd, ir_load_as(t->ir, type, address, IR_LOAD_U(type == IR_F64 ? 3 : 2, riscv_data_mmu(t))));
}

void riscv_fp_store(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type)
{
    struct ir_value address;

    if (!riscv_fp_begin(t, FP_LOOKS))
        return;
    address = ir_add(t->ir, riscv_read_x(t, o->rs1), ir_const(t->ir, (uint64_t)o->imm));
    /* The low half of the register, whether it is a boxed single or not. */
    ir_store(t->ir, address, raw_f(t, o->rs2), IR_STORE(type == IR_F64 ? 3 : 2, riscv_data_mmu(t)));
}

/* ---- arithmetic ---- */

void riscv_fp_binary(struct riscv_translation *t, const struct riscv_operands *o, enum ir_opcode op, enum ir_type type)
{
    struct ir_fp fp;

    if (!begin_rounding(t, o, &fp))
        return;
    if (fp.round == RM_RMM)
        write_f(t, o->rd, rmm(t, rmm_of(op), type, raw_f(t, o->rs1), raw_f(t, o->rs2)));
    else
        write_f(t, o->rd, ir_fp2(t->ir, op, type, read_f(t, o->rs1, type), read_f(t, o->rs2, type), fp));
}

void riscv_fp_minmax(struct riscv_translation *t, const struct riscv_operands *o, enum ir_opcode op, enum ir_type type)
{
    struct ir_fp fp = {.round = IR_ROUND_DYNAMIC, .nan = IR_NAN_DEFAULT};

    if (riscv_fp_begin(t, FP_CHANGES))
        write_f(t, o->rd, ir_fp2(t->ir, op, type, read_f(t, o->rs1, type), read_f(t, o->rs2, type), fp));
}

void riscv_fp_sqrt(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type)
{
    struct ir_fp fp;

    if (!begin_rounding(t, o, &fp))
        return;
    if (fp.round == RM_RMM)
        write_f(t, o->rd, rmm(t, RMM_SQRT, type, raw_f(t, o->rs1), ir_const(t->ir, 0)));
    else
        write_f(t, o->rd, ir_fsqrt(t->ir, type, read_f(t, o->rs1, type), fp));
}

/* FMADD a*b+c, FMSUB a*b-c, FNMSUB -(a*b)+c, FNMADD -(a*b)-c. */
void riscv_fp_fma(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type, bool negate_product,
                  bool negate_addend)
{
    struct ir_fp fp;

    if (!begin_rounding(t, o, &fp))
        return;
    if (fp.round == RM_RMM) {
        unsigned operation =
            RMM_FMA | (negate_product ? RMM_NEGATE_PRODUCT : 0) | (negate_addend ? RMM_NEGATE_ADDEND : 0);

        ir_call(t->ir, HELPER_RMM_ADDEND, raw_f(t, o->rs3), (struct ir_value){0}, (struct ir_value){0});
        write_f(t, o->rd, rmm(t, operation, type, raw_f(t, o->rs1), raw_f(t, o->rs2)));
        return;
    }
    fp.negate_product = negate_product;
    fp.negate_c = negate_addend;
    write_f(t, o->rd,
            ir_fma(t->ir, type, read_f(t, o->rs1, type), read_f(t, o->rs2, type), read_f(t, o->rs3, type), fp));
}

/* ---- signs ---- */

static struct ir_value with_sign(struct ir_block *b, struct ir_value a, struct ir_value sign_of, enum riscv_sign sign,
                                 bool is_double)
{
    struct ir_value sign_bit = ir_const(b, is_double ? 1ull << 63 : 1ull << 31);

    if (sign == SIGN_XOR)
        return ir_xor(b, a, ir_and(b, sign_of, sign_bit));
    if (sign == SIGN_INVERT)
        sign_of = ir_not(b, sign_of);
    return ir_or(b, ir_andn(b, a, sign_bit), ir_and(b, sign_of, sign_bit));
}

static struct ir_value integer_of(struct riscv_translation *t, unsigned number, enum ir_type type)
{
    if (type == IR_F64)
        return raw_f(t, number);
    return ir_zext(t->ir, ir_bits(t->ir, IR_I32, read_f(t, number, IR_F32)), 32);
}

void riscv_fp_sign(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type, enum riscv_sign sign)
{
    struct ir_value result;

    if (!riscv_fp_begin(t, FP_CHANGES))
        return;
    if (o->rs1 == o->rs2 && sign == SIGN_COPY) { /* FMV */
        write_f(t, o->rd, read_f(t, o->rs1, type));
        return;
    }
    result = with_sign(t->ir, integer_of(t, o->rs1, type), integer_of(t, o->rs2, type), sign, type == IR_F64);
    write_f(t, o->rd, ir_bits(t->ir, type, result));
}

/* ---- comparisons and classes ---- */

void riscv_fp_compare(struct riscv_translation *t, const struct riscv_operands *o, enum ir_fcond cond,
                      enum ir_type type)
{
    if (riscv_fp_begin(t, FP_CHANGES))
        riscv_write_x(t, o->rd, ir_fcmp(t->ir, cond, type, read_f(t, o->rs1, type), read_f(t, o->rs2, type)));
}

void riscv_fp_class(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type)
{
    if (riscv_fp_begin(t, FP_LOOKS))
        riscv_write_x(
            t, o->rd,
            ir_call(t->ir, HELPER_FCLASS, raw_f(t, o->rs1), ir_const(t->ir, type == IR_F64), (struct ir_value){0}));
}

/* ---- conversions ---- */

void riscv_fp_convert(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type to, enum ir_type from)
{
    struct ir_fp fp;

    if (!begin_rounding(t, o, &fp))
        return;
    if (fp.round == RM_RMM && to == IR_F32)
        write_f(t, o->rd, rmm(t, RMM_CONVERT, from, raw_f(t, o->rs1), ir_const(t->ir, 0)));
    else /* widening is exact: the rounding mode does not matter */
        write_f(t, o->rd,
                ir_f_to_f(t->ir, to, from, read_f(t, o->rs1, from),
                          (struct ir_fp){.round = to == IR_F64 ? IR_ROUND_DYNAMIC : fp.round}));
}

void riscv_fp_to_integer(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type integer,
                         bool is_unsigned, enum ir_type type)
{
    struct ir_value result;
    struct ir_fp fp;

    if (!begin_rounding(t, o, &fp))
        return;
    if (fp.round == RM_RMM) {
        unsigned operation = (integer == IR_I64 ? RMM_TO_I64 : RMM_TO_I32) + is_unsigned;
        result = rmm(t, operation, type, raw_f(t, o->rs1), ir_const(t->ir, 0));
    } else {
        result = ir_f_to_i(t->ir, integer, is_unsigned, type, read_f(t, o->rs1, type), fp);
    }
    riscv_write_x(t, o->rd, integer == IR_I32 ? ir_sext(t->ir, result, 32) : result); /* FCVT.WU sign-extends too */
}

void riscv_fp_from_integer(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type,
                           enum ir_type integer, bool is_unsigned)
{
    struct ir_value value = riscv_read_x(t, o->rs1);
    struct ir_fp fp;

    if (!begin_rounding(t, o, &fp))
        return;
    if (fp.round == RM_RMM) {
        unsigned operation = (integer == IR_I64 ? RMM_FROM_I64 : RMM_FROM_I32) + is_unsigned;
        write_f(t, o->rd, rmm(t, operation, type, value, ir_const(t->ir, 0)));
    } else {
        write_f(t, o->rd, ir_i_to_f(t->ir, type, integer, is_unsigned, value, fp));
    }
}

/* ---- moves between the register files ---- */

void riscv_fp_move_to_x(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type)
{
    struct ir_value value;

    if (!riscv_fp_begin(t, FP_LOOKS))
        return;
    value = raw_f(t, o->rs1);
    riscv_write_x(t, o->rd, type == IR_F32 ? ir_sext(t->ir, value, 32) : value);
}

void riscv_fp_move_from_x(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type)
{
    if (riscv_fp_begin(t, FP_CHANGES))
        write_f(t, o->rd, ir_bits(t->ir, type, riscv_read_x(t, o->rs1)));
}
