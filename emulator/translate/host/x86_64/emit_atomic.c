/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomics: address as for a store with the alignment its memory operation asks for, then a locked instruction of the
 * host. Load-reserved remembers address and value; store-conditional succeeds when the address is the same and memory
 * still has that value (compare and exchange), as most emulators do. Minimum and maximum, sub-word and big-endian forms
 * take the slow path.
 */
#include "emulator/translate/host/x86_64/emit.h"

enum { LOCK = 0xf0 };

/* The host instruction that accesses guest memory comes next. */
static struct x86_mem touch(struct emitter *e, const struct x86_address *a)
{
    x86_direct_access(e);
    return e->code->is_direct ? MEM(a->base, a->disp) : x86_host_mem(a);
}

static void sign(struct x86_out *o, struct ir_mem mem, unsigned d)
{
    if (mem.size == 2)
        x86_extend(o, 2, mem.is_signed, d, d);
}

/* Always the slow path, for what has no inline form. */
static void emit_slow(struct emitter *e, const struct ir_op *op, struct ir_mem mem, unsigned kind)
{
    static const uint16_t frame[2] = {FRAME_VALUE, FRAME_SECOND};
    const uint16_t id[2] = {op->b, op->c};
    struct x86_address a = {0};
    x86_split_address(e, op->a, &a);
    for (unsigned i = 0; i + 1 < ir_op_info[op->op].operands; i++)
        x86_store(&e->o, 3, x86_gpr(e, id[i]), MEM(RSP, frame[i]));
    a.scratch = (uint8_t)x86_temp(e);
    a.slow = x86_jmp_forward(&e->o);
    x86_slow_begin(e, &a, mem, kind);
    x86_slow_call(e);
    x86_jmp(&e->far, x86_offset(&e->o));
    x86_load(&e->o, true, x86_define(e), MEM(RSP, FRAME_VALUE));
}

/* The way around the inline instruction: value (NO_REG: none) to the frame, result in d. With direct memory there is
 * none. */
static void slow_way(struct emitter *e, const struct x86_address *a, struct ir_mem mem, unsigned kind, unsigned value,
                     unsigned d, uint32_t done)
{
    if (e->code->is_direct)
        return;
    x86_slow_begin(e, a, mem, kind);
    if (value != NO_REG)
        x86_store(&e->far, 3, value, MEM(RSP, FRAME_VALUE));
    x86_slow_call(e);
    x86_load(&e->far, true, d, MEM(RSP, FRAME_VALUE));
    x86_jmp(&e->far, done);
}

static void emit_load_reserved(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    unsigned d = x86_define_early(e);
    struct x86_address a = x86_translate_address(e, op->a, mem, false);
    unsigned host = e->code->is_direct ? x86_temp(e) : a.offset, guest = a.scratch;
    if (d == NO_REG)
        d = x86_define_at(e, guest);
    x86_lea(&e->o, true, guest, MEM(a.base, a.disp));
    struct x86_mem at = touch(e, &a);
    x86_load_extend(&e->o, mem.size, false, host, at);
    x86_store(&e->o, 3, guest, STATE(e, reserved_address));
    x86_store(&e->o, 3, host, STATE(e, reserved_value));
    x86_mov_rr(&e->o, true, d, host);
    sign(&e->o, mem, d);
    uint32_t done = x86_offset(&e->o);
    slow_way(e, &a, mem, SLOW_LR, NO_REG, d, done);
}

static void emit_store_conditional(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    x86_temp_fixed(e, RAX);
    unsigned value = x86_gpr(e, op->b);
    struct x86_address a = x86_translate_address(e, op->a, mem, true);
    x86_lea(&e->o, true, a.scratch, MEM(a.base, a.disp));
    x86_alu_rm(&e->o, ALU_CMP, true, a.scratch, STATE(e, reserved_address));
    x86_store_imm(&e->o, 3, -1, STATE(e, reserved_address)); /* the flags stay */
    uint32_t lost = x86_jcc_short(&e->o, CC_NE);
    x86_load(&e->o, true, RAX, STATE(e, reserved_value));
    struct x86_mem at = touch(e, &a);
    x86_rm(&e->o, LOCK, mem.size == 3, 0x0fb1, value, at, false, 0); /* cmpxchg: equal on success */
    x86_land_short(&e->o, lost);
    x86_setcc(&e->o, CC_NE, RAX);
    x86_extend(&e->o, 0, false, RAX, RAX);
    uint32_t done = x86_offset(&e->o);
    e->locked = 1u << RAX;
    x86_result_in(e, RAX, true);
    slow_way(e, &a, mem, SLOW_SC, value, RAX, done);
}

static void emit_cmpxchg(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    x86_temp_fixed(e, RAX);
    unsigned expected = x86_gpr(e, op->b), desired = x86_gpr(e, op->c);
    x86_store(&e->o, 3, expected, MEM(RSP, FRAME_VALUE));
    x86_store(&e->o, 3, desired, MEM(RSP, FRAME_SECOND));
    e->locked &= ~(1u << expected | 1u << desired); /* they are in the frame; registers are short */
    struct x86_address a = x86_translate_address(e, op->a, mem, true);
    x86_load(&e->o, true, RAX, MEM(RSP, FRAME_VALUE));
    x86_load(&e->o, true, a.scratch, MEM(RSP, FRAME_SECOND));
    struct x86_mem at = touch(e, &a);
    x86_rm(&e->o, LOCK, mem.size == 3, 0x0fb1, a.scratch, at, false, 0);
    sign(&e->o, mem, RAX);
    uint32_t done = x86_offset(&e->o);
    e->locked = 1u << RAX;
    x86_result_in(e, RAX, true);
    slow_way(e, &a, mem, SLOW_CMPXCHG, NO_REG, RAX, done);
}

/* Old value from one locked instruction: exchange, add. */
static void emit_exchange(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    unsigned value = x86_gpr(e, op->b);
    struct x86_address a = x86_translate_address(e, op->a, mem, true);
    bool add = mem.amo == IR_AMO_ADD;
    x86_mov_rr(&e->o, true, a.scratch, value);
    struct x86_mem at = touch(e, &a);
    x86_rm(&e->o, add ? LOCK : 0, mem.size == 3, add ? 0x0fc1 : 0x87, a.scratch, at, false, 0);
    sign(&e->o, mem, a.scratch);
    uint32_t done = x86_offset(&e->o);
    e->locked = 1u << a.scratch;
    x86_result_in(e, a.scratch, true);
    slow_way(e, &a, mem, SLOW_AMO, value, a.scratch, done);
}

/* and, or, xor: one locked instruction when nobody wants the old value, else a loop of compare and exchange. */
static void emit_logic(struct emitter *e, const struct ir_op *op, struct ir_mem mem, enum x86_alu how)
{
    bool wide = mem.size == 3, wanted = e->values[e->at].last;
    x86_temp_fixed(e, RAX);
    unsigned value = x86_gpr(e, op->b);
    struct x86_address a = x86_translate_address(e, op->a, mem, true);
    struct x86_mem at = touch(e, &a);
    if (!wanted) {
        x86_rm(&e->o, LOCK, wide, (unsigned)how << 3 | 1, value, at, false, 0);
    } else {
        x86_load(&e->o, wide, RAX, at);
        uint32_t again = x86_offset(&e->o);
        x86_mov_rr(&e->o, wide, a.scratch, RAX);
        x86_alu_rr(&e->o, how, wide, a.scratch, value);
        touch(e, &a);
        x86_rm(&e->o, LOCK, wide, 0x0fb1, a.scratch, at, false, 0);
        uint32_t retry = x86_jcc_forward(&e->o, CC_NE);
        x86_set_target(&e->o, retry, again);
        sign(&e->o, mem, RAX);
    }
    uint32_t done = x86_offset(&e->o);
    if (wanted) {
        e->locked = 1u << RAX;
        x86_result_in(e, RAX, true);
    }
    slow_way(e, &a, mem, SLOW_AMO, value, RAX, done);
}

static void emit_amo(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    switch (mem.amo) {
    case IR_AMO_SWAP:
    case IR_AMO_ADD: emit_exchange(e, op, mem); break;
    case IR_AMO_AND: emit_logic(e, op, mem, ALU_AND); break;
    case IR_AMO_OR: emit_logic(e, op, mem, ALU_OR); break;
    case IR_AMO_XOR: emit_logic(e, op, mem, ALU_XOR); break;
    default: emit_slow(e, op, mem, SLOW_AMO);
    }
}

bool x86_emit_atomic(struct emitter *e, const struct ir_op *op)
{
    static const uint8_t kind[] = {SLOW_LR, SLOW_SC, SLOW_AMO, SLOW_CMPXCHG};
    struct ir_mem mem;
    memcpy(&mem, &op->imm, sizeof mem);
    if (mem.size < 2 || mem.big_endian || mem.align != IR_ALIGN_NATURAL) {
        emit_slow(e, op, mem, kind[op->op - IR_OP_load_reserved]);
        return true;
    }
    switch (op->op) {
    case IR_OP_load_reserved: emit_load_reserved(e, op, mem); break;
    case IR_OP_store_conditional: emit_store_conditional(e, op, mem); break;
    case IR_OP_amo: emit_amo(e, op, mem); break;
    case IR_OP_cmpxchg: emit_cmpxchg(e, op, mem); break;
    default: return false;
    }
    return true;
}
