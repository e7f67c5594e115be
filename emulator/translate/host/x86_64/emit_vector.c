/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of 128 and 256 bits: addition, subtraction, logic and splat, one AVX2 instruction each. Masks and 512 bits
 * are left to the evaluator. Values of 256 bits are kept in memory across memory operations and calls.
 */
#include "emulator/translate/host/x86_64/emit.h"

static void two_operands(struct emitter *e, const struct ir_op *op, unsigned opcode)
{
    unsigned a = x86_xmm(e, op->a), b = x86_xmm(e, op->b), d = x86_define_xmm(e, op->a);
    x86_vex_rr(&e->o, MAP_0F, PP_66, false, op->type == IR_V256, opcode, d, a, b);
}

static void splat(struct emitter *e, const struct ir_op *op)
{
    static const uint8_t opcode[4] = {0x78, 0x79, 0x58, 0x59}; /* vpbroadcast b, w, d, q */
    unsigned r = x86_gpr(e, op->a), d = x86_define_xmm(e, 0);
    x86_vmov_xr(&e->o, true, d, r);
    x86_vex_rr(&e->o, MAP_0F38, PP_66, false, op->type == IR_V256, opcode[op->imm & 3], d, 0, d);
}

bool x86_emit_vector(struct emitter *e, const struct ir_op *op)
{
    static const uint8_t add[4] = {0xfc, 0xfd, 0xfe, 0xd4}, sub[4] = {0xf8, 0xf9, 0xfa, 0xfb};
    switch (op->op) {
    case IR_OP_vadd: two_operands(e, op, add[op->imm & 3]); break;
    case IR_OP_vsub: two_operands(e, op, sub[op->imm & 3]); break;
    case IR_OP_vand: two_operands(e, op, 0xdb); break;
    case IR_OP_vor: two_operands(e, op, 0xeb); break;
    case IR_OP_vxor: two_operands(e, op, 0xef); break;
    case IR_OP_vsplat: splat(e, op); break;
    default: return false;
    }
    return true;
}
