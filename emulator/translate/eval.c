/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evaluator: one operation after the other, as the table of operations says, written to be obviously right. Memory
 * goes through the same TLB and slow path that translated code uses when its inline lookup misses.
 */
#include <assert.h>
#include <string.h>
#include "emulator/translate/codecache.h"
#include "emulator/translate/compute.h"

static void read_slot(struct translate_cpu *tc, const struct ir_block *b, unsigned number, union ir_number *out)
{
    const struct ir_slot *slot = &b->slots[number];
    out->i = 0;
    memcpy(out, (const char *)tc->cpu + slot->offset, ir_type_size(slot->type));
}

static void write_slot(struct translate_cpu *tc, const struct ir_block *b, unsigned number,
                       const union ir_number *value)
{
    const struct ir_slot *slot = &b->slots[number];
    memcpy((char *)tc->cpu + slot->offset, value, ir_type_size(slot->type));
}

/* false: an exception is recorded. */
static bool evaluate_memory(struct translate_cpu *tc, const struct ir_op *op, union ir_number *result, uint64_t address,
                            const union ir_number *y, const union ir_number *z)
{
    struct ir_mem mem;
    memcpy(&mem, &op->imm, sizeof mem);
    switch (op->op) {
    case IR_OP_load: return memory_load(tc, address, mem, result);
    case IR_OP_store: return memory_store(tc, address, y, mem);
    case IR_OP_load_reserved: return memory_load_reserved(tc, address, mem, &result->i);
    case IR_OP_store_conditional: return memory_store_conditional(tc, address, y->i, mem, &result->i);
    case IR_OP_amo: return memory_amo(tc, address, y->i, mem, &result->i);
    case IR_OP_cmpxchg: return memory_cmpxchg(tc, address, y->i, z->i, mem, &result->i);
    default: break;
    }
    assert(!"memory operation");
    return false;
}

/* Operations that are neither memory nor exits. */
static void evaluate_value(struct translate_cpu *tc, const struct ir_block *b, const struct ir_op *op,
                           union ir_number *result, const union ir_number *x, const union ir_number *y,
                           const union ir_number *z)
{
    switch (op->op) {
    case IR_OP_const: result->i = op->imm; break;
    case IR_OP_get: read_slot(tc, b, (unsigned)op->imm, result); break;
    case IR_OP_put: write_slot(tc, b, (unsigned)op->imm, x); break;
    case IR_OP_set: result->i = ir_compute_condition((enum ir_cond)op->imm, op->type, x->i, y->i); break;
    case IR_OP_select: *result = x->i ? *y : *z; break;
    case IR_OP_bits: result->i = ir_extend(x->i, 8 * ir_type_size(op->type), false); break;
    case IR_OP_box: result->i = x->i | 0xffffffff00000000; break;
    case IR_OP_unbox: result->i = x->i >> 32 == 0xffffffff ? (uint32_t)x->i : 0x7fc00000; break;
    case IR_OP_fp_flags: result->i = translate_fp_flags(tc); break;
    case IR_OP_fp_set_flags: translate_fp_set_flags(tc, (unsigned)x->i & 31); break;
    case IR_OP_fp_set_rounding: translate_fp_set_rounding(tc, (enum ir_rounding)(x->i & 3)); break;
    case IR_OP_fence: atomic_thread_fence(memory_order_seq_cst); break;
    case IR_OP_call: result->i = b->helpers[op->imm].fn(tc->cpu, x->i, y->i, z->i); break;
    case IR_OP_vadd:
    case IR_OP_vsub:
    case IR_OP_vand:
    case IR_OP_vor:
    case IR_OP_vxor:
    case IR_OP_vsplat:
    case IR_OP_vcmp:
    case IR_OP_vselect: ir_evaluate_vector(b, op, result, x, y, z); break;
    default:
        if (ir_op_info[op->op].properties & IR_FP)
            ir_evaluate_fp(tc, b, op, result, x, y, z);
        else
            result->i = ir_compute(op->op, op->type, x->i, y->i, op->imm);
    }
}

static unsigned leave(struct translate_cpu *tc, uint64_t pc, unsigned reason)
{
    tc->pc = pc;
    return reason;
}

unsigned ir_evaluate(struct translate_cpu *tc, struct ir_evaluator *e, const struct ir_block *b)
{
    uint64_t insn_pc = tc->pc;
    e->values[0].i = 0;
    for (unsigned index = 1; index < b->count; index++) {
        const struct ir_op *op = &b->ops[index];
        union ir_number *result = &e->values[index];
        const union ir_number *x = &e->values[op->a], *y = &e->values[op->b], *z = &e->values[op->c];
        switch (op->op) {
        case IR_OP_nop:
        case IR_OP_push_return: break;
        case IR_OP_insn: insn_pc = op->imm; break;
        case IR_OP_exit_if:
            if (x->i)
                return leave(tc, op->imm, TRANSLATE_EXIT_CONTINUE);
            break;
        case IR_OP_exit_direct: return leave(tc, op->imm, TRANSLATE_EXIT_CONTINUE);
        case IR_OP_exit_indirect: return leave(tc, x->i, TRANSLATE_EXIT_CONTINUE);
        case IR_OP_exit_runtime: return leave(tc, op->imm, op->c);
        default:
            if (ir_op_info[op->op].properties & IR_MEM) {
                if (!evaluate_memory(tc, op, result, x->i, y, z))
                    return leave(tc, insn_pc, TRANSLATE_EXIT_EXCEPTION);
            } else {
                evaluate_value(tc, b, op, result, x, y, z);
            }
            if (tc->exception)
                return leave(tc, insn_pc, TRANSLATE_EXIT_EXCEPTION);
        }
    }
    tc->fatal = "a block of translated code has no end";
    return TRANSLATE_EXIT_FATAL;
}
