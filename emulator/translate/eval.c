/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evaluator: one operation after the other, as the table of operations says, written to be obviously right. Memory
 * goes through the same TLB and slow path that translated code uses when its inline lookup misses.
 *
 * With a recovery table, puts are sunk: they stay values, and reach the CPU struct only before a helper that declares
 * the slot, and on the way out, where the map of the operation alone says what to write and which instruction it was.
 */
#include <assert.h>
#include <string.h>
#include "emulator/translate/codecache.h"
#include "emulator/translate/compute.h"
#include "emulator/translate/recovery.h"

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

/* --- Sunk puts --- */

struct run {
    struct translate_cpu *tc;
    struct ir_evaluator *e;
    const struct ir_block *b;
    const struct ir_recovery *recovery; /* NULL: puts are not sunk */
    uint64_t insn_pc;
};

static void get(struct run *r, unsigned slot, union ir_number *out)
{
    unsigned sunk = r->recovery ? r->e->sunk[slot] : 0;
    if (!sunk) {
        read_slot(r->tc, r->b, slot, out);
    } else {
        out->i = 0;
        memcpy(out, &r->e->values[sunk], ir_type_size(r->b->slots[slot].type));
    }
}

static void put(struct run *r, const struct ir_op *op)
{
    if (r->recovery)
        r->e->sunk[op->imm] = op->a;
    else
        write_slot(r->tc, r->b, (unsigned)op->imm, &r->e->values[op->a]);
}

/* The helper finds what it reads in the CPU struct, and what it writes holds from then on. */
static void surface_for(struct run *r, const struct ir_helper *helper)
{
    for (unsigned slot = 0; slot < r->b->slot_count; slot++) {
        if (!r->e->sunk[slot] || !(ir_slots_has(&helper->reads, slot) || ir_slots_has(&helper->writes, slot)))
            continue;
        write_slot(r->tc, r->b, slot, &r->e->values[r->e->sunk[slot]]);
        r->e->sunk[slot] = 0;
    }
}

static uint64_t call(struct run *r, const struct ir_op *op)
{
    const struct ir_helper *helper = &r->b->helpers[op->imm];
    const union ir_number *values = r->e->values;
    if (r->recovery)
        surface_for(r, helper);
    return helper->fn(r->tc->cpu, values[op->a].i, values[op->b].i, values[op->c].i);
}

/* Makes the state what it is when operation `index` leaves. */
static bool recover(struct run *r, unsigned index)
{
    struct ir_recovery_map map;
    if (!r->recovery)
        return true;
    if (!ir_recovery_find(r->recovery, index, &map)) {
        r->tc->fatal = "an operation left a block of translated code although it is declared not to";
        return false;
    }
    for (unsigned slot = 0; slot < r->b->slot_count; slot++) {
        if (map.value[slot])
            write_slot(r->tc, r->b, slot, &r->e->values[map.value[slot]]);
    }
    r->insn_pc = map.pc;
    return true;
}

/* --- Operations --- */

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
static void evaluate_value(struct run *r, const struct ir_op *op, union ir_number *result, const union ir_number *x,
                           const union ir_number *y, const union ir_number *z)
{
    struct translate_cpu *tc = r->tc;
    const struct ir_block *b = r->b;
    switch (op->op) {
    case IR_OP_const: result->i = op->imm; break;
    case IR_OP_get: get(r, (unsigned)op->imm, result); break;
    case IR_OP_put: put(r, op); break;
    case IR_OP_set: result->i = ir_compute_condition((enum ir_cond)op->imm, op->type, x->i, y->i); break;
    case IR_OP_select: *result = x->i ? *y : *z; break;
    case IR_OP_bits: result->i = ir_extend(x->i, 8 * ir_type_size(op->type), false); break;
    case IR_OP_box: result->i = x->i | 0xffffffff00000000; break;
    case IR_OP_unbox: result->i = x->i >> 32 == 0xffffffff ? (uint32_t)x->i : 0x7fc00000; break;
    case IR_OP_fp_flags: result->i = translate_fp_flags(tc); break;
    case IR_OP_fp_set_flags: translate_fp_set_flags(tc, (unsigned)x->i & 31); break;
    case IR_OP_fp_set_rounding: translate_fp_set_rounding(tc, (enum ir_rounding)(x->i & 3)); break;
    case IR_OP_fence: atomic_thread_fence(memory_order_seq_cst); break;
    case IR_OP_call: result->i = call(r, op); break;
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

/* --- Blocks --- */

static unsigned leave(struct run *r, unsigned index, uint64_t pc, unsigned reason)
{
    if (!recover(r, index))
        return TRANSLATE_EXIT_FATAL;
    r->tc->pc = pc;
    return reason;
}

static unsigned leave_by_fault(struct run *r, unsigned index)
{
    if (!recover(r, index))
        return TRANSLATE_EXIT_FATAL;
    r->tc->pc = r->insn_pc;
    return TRANSLATE_EXIT_EXCEPTION;
}

static unsigned run(struct run *r)
{
    struct translate_cpu *tc = r->tc;
    union ir_number *values = r->e->values;
    values[0].i = 0;
    for (unsigned index = 1; index < r->b->count; index++) {
        const struct ir_op *op = &r->b->ops[index];
        union ir_number *result = &values[index];
        const union ir_number *x = &values[op->a], *y = &values[op->b], *z = &values[op->c];
        switch (op->op) {
        case IR_OP_nop:
        case IR_OP_push_return: break;
        case IR_OP_insn:
            if (!r->recovery) /* else the map says it */
                r->insn_pc = op->imm;
            break;
        case IR_OP_exit_if:
            if (x->i)
                return leave(r, index, op->imm, TRANSLATE_EXIT_CONTINUE);
            break;
        case IR_OP_exit_direct: return leave(r, index, op->imm, TRANSLATE_EXIT_CONTINUE);
        case IR_OP_exit_indirect: return leave(r, index, x->i, TRANSLATE_EXIT_CONTINUE);
        case IR_OP_exit_runtime: return leave(r, index, op->imm, op->c);
        default:
            if (ir_op_info[op->op].properties & IR_MEM) {
                if (!evaluate_memory(tc, op, result, x->i, y, z))
                    return leave_by_fault(r, index);
            } else {
                evaluate_value(r, op, result, x, y, z);
            }
            if (tc->exception)
                return leave_by_fault(r, index);
        }
    }
    tc->fatal = "a block of translated code has no end";
    return TRANSLATE_EXIT_FATAL;
}

unsigned ir_evaluate(struct translate_cpu *tc, struct ir_evaluator *e, const struct ir_block *b)
{
    struct run r = {.tc = tc, .e = e, .b = b, .insn_pc = tc->pc};
    return run(&r);
}

unsigned ir_evaluate_sunk(struct translate_cpu *tc, struct ir_evaluator *e, const struct ir_block *b,
                          const struct ir_recovery *recovery)
{
    struct run r = {.tc = tc, .e = e, .b = b, .recovery = recovery};
    memset(e->sunk, 0, sizeof e->sunk);
    return run(&r);
}
