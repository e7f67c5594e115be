/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector operations of the evaluator, element by element.
 */
#include <assert.h>
#include <string.h>
#include "emulator/translate/compute.h"
#include "emulator/translate/eval.h"

static uint64_t element_get(const union ir_number *v, unsigned log2, unsigned index)
{
    uint64_t x = 0;
    memcpy(&x, (const char *)v + ((size_t)index << log2), (size_t)1 << log2);
    return x;
}

static void element_set(union ir_number *v, unsigned log2, unsigned index, uint64_t x)
{
    memcpy((char *)v + ((size_t)index << log2), &x, (size_t)1 << log2);
}

static bool compare(enum ir_cond cond, unsigned log2, uint64_t x, uint64_t y)
{
    unsigned bits = 8u << log2;
    bool is_signed = cond == IR_LT_S || cond == IR_GE_S || cond == IR_LE_S || cond == IR_GT_S;
    return ir_compute_condition(cond, IR_I64, ir_extend(x, bits, is_signed), ir_extend(y, bits, is_signed));
}

static uint64_t combine(const struct ir_op *op, uint64_t x, uint64_t y)
{
    switch (op->op) {
    case IR_OP_vadd: return x + y;
    case IR_OP_vsub: return x - y;
    case IR_OP_vand: return x & y;
    case IR_OP_vor: return x | y;
    case IR_OP_vxor: return x ^ y;
    default: break;
    }
    assert(!"vector operation");
    return 0;
}

void ir_evaluate_vector(const struct ir_block *b, const struct ir_op *op, union ir_number *result,
                        const union ir_number *x, const union ir_number *y, const union ir_number *z)
{
    unsigned log2 = op->imm & 0xff;
    unsigned count = ir_type_size(op->op == IR_OP_vcmp ? b->ops[op->a].type : op->type) >> log2;
    uint64_t mask = 0;
    for (unsigned i = 0; i < count; i++) {
        if (op->op == IR_OP_vcmp)
            mask |= (uint64_t)compare(op->imm >> 8, log2, element_get(x, log2, i), element_get(y, log2, i)) << i;
        else if (op->op == IR_OP_vsplat)
            element_set(result, log2, i, x->i);
        else if (op->op == IR_OP_vselect)
            element_set(result, log2, i, element_get(x->i >> i & 1 ? y : z, log2, i));
        else
            element_set(result, log2, i, combine(op, element_get(x, log2, i), element_get(y, log2, i)));
    }
    if (op->op == IR_OP_vcmp)
        result->i = mask;
}
