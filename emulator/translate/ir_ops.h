/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of the IR, once: X(name, kind, operands, properties). The enum, the printer, the parser, the liveness
 * pass, the evaluator's checks and the random tests all read this table.
 *
 *   kind        what the operation yields: N nothing, V a value of the operation's own type, B an I64 that is 0 or 1
 *   operands    how many of a, b, c are values
 *   properties  FX   has an effect: never removed although nobody uses its value
 *               FLT  may fault: the guest state must be exact here (a barrier for pending puts)
 *               SEE  shows the whole guest state to the outside (an exit, or a helper that looks)
 *               END  last operation of a block
 *               MEM  imm is a struct ir_mem      FP  imm is a struct ir_fp     IMM  imm is a number
 */
#ifndef EMULATOR_TRANSLATE_IR_OPS_H
#define EMULATOR_TRANSLATE_IR_OPS_H

enum { IR_FX = 1, IR_FLT = 2, IR_SEE = 4, IR_END = 8, IR_MEM = 16, IR_FP = 32, IR_IMM = 64, IR_SLOT = 128 };

#define IR_OPS(X)                                                                                                      \
    X(nop, N, 0, 0)                                                                                                    \
    /* State and structure. insn: imm = guest pc, a = length in bytes. get, put: slot in imm. */                       \
    X(insn, N, 0, IR_FX | IR_IMM)                                                                                      \
    X(const, V, 0, IR_IMM)                                                                                             \
    X(get, V, 0, IR_SLOT)                                                                                              \
    X(put, N, 1, IR_FX | IR_SLOT)                                                                                      \
    /* Integers, I32 or I64. An I32 operation reads the low halves of its operands. Shift counts are taken modulo the  \
     * width. div, rem: imm is enum ir_division. */                                                                    \
    X(add, V, 2, 0)                                                                                                    \
    X(sub, V, 2, 0)                                                                                                    \
    X(mul, V, 2, 0)                                                                                                    \
    X(mulh_s, V, 2, 0)                                                                                                 \
    X(mulh_u, V, 2, 0)                                                                                                 \
    X(mulh_su, V, 2, 0)                                                                                                \
    X(div_s, V, 2, IR_IMM)                                                                                             \
    X(div_u, V, 2, IR_IMM)                                                                                             \
    X(rem_s, V, 2, IR_IMM)                                                                                             \
    X(rem_u, V, 2, IR_IMM)                                                                                             \
    X(and, V, 2, 0)                                                                                                    \
    X(or, V, 2, 0)                                                                                                     \
    X(xor, V, 2, 0)                                                                                                    \
    X(andn, V, 2, 0) /* a & ~b */                                                                                      \
    X(shl, V, 2, 0)                                                                                                    \
    X(shr, V, 2, 0)                                                                                                    \
    X(sar, V, 2, 0)                                                                                                    \
    X(rotl, V, 2, 0)                                                                                                   \
    X(rotr, V, 2, 0)                                                                                                   \
    X(min_s, V, 2, 0)                                                                                                  \
    X(max_s, V, 2, 0)                                                                                                  \
    X(min_u, V, 2, 0)                                                                                                  \
    X(max_u, V, 2, 0)                                                                                                  \
    X(sext, V, 1, IR_IMM) /* imm: from how many bits: 8, 16, 32 */                                                     \
    X(zext, V, 1, IR_IMM)                                                                                              \
    X(clz, V, 1, 0) /* of 0: the width */                                                                              \
    X(ctz, V, 1, 0)                                                                                                    \
    X(popcount, V, 1, 0)                                                                                               \
    X(bswap, V, 1, 0)                                                                                                  \
    X(set, B, 2, IR_IMM) /* imm: enum ir_cond; type: width compared */                                                 \
    X(select, V, 3, 0)   /* a (an I64) != 0 ? b : c */                                                                 \
    /* Floating point, F32 or F64. Sticky exceptions accumulate in the guest's flags. */                               \
    X(fadd, V, 2, IR_FP)                                                                                               \
    X(fsub, V, 2, IR_FP)                                                                                               \
    X(fmul, V, 2, IR_FP)                                                                                               \
    X(fdiv, V, 2, IR_FP)                                                                                               \
    X(fsqrt, V, 1, IR_FP)                                                                                              \
    X(fma, V, 3, IR_FP)  /* +-(a * b) +- c, one rounding; signs in struct ir_fp */                                     \
    X(fmin, V, 2, IR_FP) /* minimumNumber of IEEE 754-2019 */                                                          \
    X(fmax, V, 2, IR_FP)                                                                                               \
    X(fcmp, B, 2, IR_FP)     /* ir_fp.cond; type: operands */                                                          \
    X(f_to_i, V, 1, IR_FP)   /* saturating; type: the integer; ir_fp.other: the float, ir_fp.is_unsigned */            \
    X(i_to_f, V, 1, IR_FP)   /* type: the float; ir_fp.other: the integer */                                           \
    X(f_to_f, V, 1, IR_FP)   /* type: result; ir_fp.other: source */                                                   \
    X(bits, V, 1, IR_IMM)    /* same bits, other class: I32 <-> F32, I64 <-> F64; imm: source type */                  \
    X(box, V, 1, 0)          /* F32 to I64: upper half all ones */                                                     \
    X(unbox, V, 1, 0)        /* I64 (F64) to F32: the low half when the upper half is all ones, else default NaN */    \
    X(fp_flags, V, 0, IR_FX) /* I64 of IR_FLAG_* */                                                                    \
    X(fp_set_flags, N, 1, IR_FX)                                                                                       \
    X(fp_set_rounding, N, 1, IR_FX) /* enum ir_rounding, 0..3 */                                                       \
    /* Memory. */                                                                                                      \
    X(load, V, 1, IR_FX | IR_FLT | IR_MEM)  /* a: address */                                                           \
    X(store, N, 2, IR_FX | IR_FLT | IR_MEM) /* a: address, b: value */                                                 \
    X(load_reserved, V, 1, IR_FX | IR_FLT | IR_MEM)                                                                    \
    X(store_conditional, B, 2, IR_FX | IR_FLT | IR_MEM) /* 0: stored, 1: failed */                                     \
    X(amo, V, 2, IR_FX | IR_FLT | IR_MEM)               /* ir_mem.amo; yields the old value */                         \
    X(cmpxchg, V, 3, IR_FX | IR_FLT | IR_MEM)           /* b: expected, c: new; yields the old value */                \
    X(fence, N, 0, IR_FX | IR_IMM)                      /* imm: IR_FENCE_* */                                          \
    /* Vectors: V128, V256, V512. imm: log2 of the element's bytes (and, for vcmp, enum ir_cond << 8). */              \
    X(vadd, V, 2, IR_IMM)                                                                                              \
    X(vsub, V, 2, IR_IMM)                                                                                              \
    X(vand, V, 2, IR_IMM)                                                                                              \
    X(vor, V, 2, IR_IMM)                                                                                               \
    X(vxor, V, 2, IR_IMM)                                                                                              \
    X(vsplat, V, 1, IR_IMM)  /* an I64 to every element */                                                             \
    X(vcmp, V, 2, IR_IMM)    /* type: MASK; a, b vectors: one bit an element: EQ, NE, LT_S, GE_S... */                 \
    X(vselect, V, 3, IR_IMM) /* a: MASK, b, c: vectors */                                                              \
    /* Helpers: imm: index in the guest's table. */                                                                    \
    X(call, V, 3, IR_FX | IR_FLT | IR_SEE | IR_IMM)                                                                    \
    /* Leaving. imm: guest pc (run-time reason in c for exit_runtime). */                                              \
    X(push_return, N, 0, IR_FX | IR_IMM)                                                                               \
    X(exit_if, N, 1, IR_FX | IR_SEE | IR_IMM)                                                                          \
    X(exit_direct, N, 0, IR_FX | IR_SEE | IR_END | IR_IMM)                                                             \
    X(exit_indirect, N, 1, IR_FX | IR_SEE | IR_END | IR_IMM) /* imm: enum ir_hint */                                   \
    X(exit_runtime, N, 0, IR_FX | IR_SEE | IR_END | IR_IMM)

#endif
