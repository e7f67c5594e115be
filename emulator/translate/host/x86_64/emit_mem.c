/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads and stores. The inline lookup, for a load of 8 bytes at [rbx + 16]:
 *
 *     lea  rcx, [rbx + 16 + 7]            last byte: an access that straddles a page must not match
 *     lea  rax, [rbx + 16]
 *     shr  rax, 7                         page number * 32, the size of an entry ...
 *     and  eax, 4095 * 32                 ... modulo the table
 *     and  rcx, -4096
 *     or   rcx, [rbp + context]           the regime's current tag
 *     cmp  rcx, [rbp + rax + read tags]
 *     jne  slow
 *     mov  rax, [rbp + rax + addends]
 *     mov  r12, [rbx + rax + 16]
 *
 * Where alignment is required the mask keeps the low bits instead, which then do not match. The slow path, out of line,
 * describes the access in the frame and calls the thunk, which keeps all registers and comes back with the value.
 */
#include "emulator/translate/host/x86_64/emit.h"

static struct x86_mem tlb_mem(const struct emitter *e, unsigned index, unsigned mmu, size_t field)
{
    int32_t table = (int32_t)(offsetof(struct translate_cpu, tlb) + mmu * sizeof(((struct translate_cpu *)0)->tlb[0]));
    return MEM_INDEX(RBP, index, e->layout->state + table + (int32_t)field);
}

/* The address as base register and displacement; additions of constants were left for us (liveness.c). */
void x86_split_address(struct emitter *e, unsigned id, struct x86_address *a)
{
    uint64_t c = 0;
    const struct ir_op *op = &e->b->ops[id];
    if (e->values[id].fused && op->op == IR_OP_add) {
        x86_const(e, op->b, &c);
        id = op->a;
    }
    a->base = (uint8_t)x86_gpr(e, id);
    a->disp = (int32_t)c;
}

static void address_plus(struct emitter *e, unsigned to, const struct x86_address *a, int32_t more)
{
    if (a->disp + more)
        x86_lea(&e->o, true, to, MEM(a->base, a->disp + more));
    else
        x86_mov_rr(&e->o, true, to, a->base);
}

struct x86_address x86_translate_address(struct emitter *e, unsigned id, struct ir_mem mem, bool write)
{
    struct x86_address a;
    unsigned size = 1u << mem.size;
    bool aligned = mem.align == IR_ALIGN_NATURAL;
    if (aligned && mem.size > TRANSLATE_CONTEXT_SHIFT)
        e->unsupported = true;
    x86_split_address(e, id, &a);
    unsigned tag = x86_temp(e), index = x86_temp(e);
    address_plus(e, tag, &a, aligned ? 0 : (int32_t)size - 1);
    address_plus(e, index, &a, 0);
    x86_shift_imm(&e->o, SHIFT_SHR, true, index, TRANSLATE_PAGE_BITS - 5);
    x86_alu_imm(&e->o, ALU_AND, false, index, (TRANSLATE_TLB_ENTRIES - 1) << 5);
    x86_alu_imm(&e->o, ALU_AND, true, tag, -TRANSLATE_PAGE | (aligned ? (int32_t)size - 1 : 0));
    struct x86_mem context = STATE(e, context);
    context.disp += 8 * mem.mmu;
    x86_alu_rm(&e->o, ALU_OR, true, tag, context);
    x86_alu_rm(
        &e->o, ALU_CMP, true, tag,
        tlb_mem(e, index, mem.mmu,
                write ? offsetof(struct translate_tlb_entry, write) : offsetof(struct translate_tlb_entry, read)));
    a.slow = x86_jcc_forward(&e->o, CC_NE);
    x86_load(&e->o, true, index, tlb_mem(e, index, mem.mmu, offsetof(struct translate_tlb_entry, addend)));
    a.offset = (uint8_t)index;
    a.scratch = (uint8_t)tag;
    return a;
}

struct x86_mem x86_host_mem(const struct x86_address *a)
{
    return (struct x86_mem){a->base, a->offset, 0, a->disp};
}

/* --- The slow path --- */

uint32_t x86_describe(struct ir_mem mem, unsigned kind)
{
    return mem.size | (uint32_t)mem.is_signed << 3 | (uint32_t)mem.big_endian << 4 | (uint32_t)mem.align << 5 |
           (uint32_t)mem.mmu << 6 | (uint32_t)mem.amo << 8 | kind << 12;
}

static void far_store_pc(struct emitter *e, unsigned scratch)
{
    if (fits32((int64_t)e->insn_pc)) {
        x86_store_imm(&e->far, 3, (int32_t)e->insn_pc, STATE(e, pc));
    } else {
        x86_mov_imm(&e->far, scratch, e->insn_pc);
        x86_store(&e->far, 3, scratch, STATE(e, pc));
    }
}

/* Everything up to the values that go in, which the caller adds to e->far. */
void x86_slow_begin(struct emitter *e, const struct x86_address *a, struct ir_mem mem, unsigned kind)
{
    x86_set_target(&e->far, a->slow, x86_offset(&e->far));
    x86_lea(&e->far, true, a->scratch, MEM(a->base, a->disp));
    x86_store(&e->far, 3, a->scratch, MEM(RSP, FRAME_ADDRESS));
    x86_store_imm(&e->far, 2, (int32_t)x86_describe(mem, kind), MEM(RSP, FRAME_DESCRIPTOR));
    far_store_pc(e, a->scratch);
}

void x86_slow_call(struct emitter *e)
{
    x86_call(&e->far, e->layout->thunk[THUNK_SLOW]);
}

/* --- Loads and stores --- */

static void load_scalar(struct x86_out *o, enum ir_type type, struct ir_mem mem, unsigned d, struct x86_mem from)
{
    if (is_vector_type(type))
        x86_vector_load(o, type == IR_V256, d, from);
    else if (is_xmm_type(type))
        x86_vload_scalar(o, type == IR_F64, d, from);
    else
        x86_load_extend(o, mem.size, mem.is_signed, d, from);
}

/* Moves that make room for the result must come before the branch to the slow path, which does not have them. So a
 * pinned result is claimed first; any other takes the scratch register of the lookup. */
unsigned x86_define_early(struct emitter *e)
{
    return e->values[e->at].hint ? x86_define(e) : NO_REG;
}

static void emit_load(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    bool xmm = is_xmm_type(op->type);
    unsigned d = xmm ? x86_define_xmm(e, 0) : x86_define_early(e);
    struct x86_address a = x86_translate_address(e, op->a, mem, false);
    if (d == NO_REG)
        d = x86_define_at(e, a.scratch);
    struct x86_mem from = x86_host_mem(&a);
    if (mem.big_endian && !xmm && mem.size) {
        x86_load_extend(&e->o, mem.size, false, d, from);
        x86_bswap(&e->o, mem.size == 3, d);
        if (mem.size == 1)
            x86_shift_imm(&e->o, SHIFT_SHR, false, d, 16);
        if (mem.size < 3)
            x86_extend(&e->o, mem.size, mem.is_signed, d, d);
    } else {
        load_scalar(&e->o, op->type, mem, d, from);
        if (mem.big_endian && xmm)
            e->unsupported = true;
    }
    uint32_t done = x86_offset(&e->o);
    x86_slow_begin(e, &a, mem, SLOW_LOAD);
    x86_slow_call(e);
    struct ir_mem whole = {.size = 3};
    load_scalar(&e->far, op->type, whole, d, MEM(RSP, FRAME_VALUE));
    x86_jmp(&e->far, done);
}

static void emit_store(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    uint64_t c;
    enum ir_type type = type_of(e, op->b);
    bool is_const = x86_const(e, op->b, &c) && fits32((int64_t)c) && !mem.big_endian;
    bool xmm = is_vector_type(type) || (e->values[op->b].reg != NO_REG && e->values[op->b].reg >= XMM && mem.size >= 2);
    struct x86_mem home;
    if (is_xmm_type(type) && x86_memory_of(e, op->b, &home))
        xmm = true;
    if (mem.big_endian && xmm)
        e->unsupported = true;
    unsigned value = is_const ? NO_REG : xmm ? x86_xmm(e, op->b) : x86_gpr(e, op->b);
    struct x86_address a = x86_translate_address(e, op->a, mem, true);
    struct x86_mem to = x86_host_mem(&a), in_frame = MEM(RSP, FRAME_VALUE);
    if (is_const)
        x86_store_imm(&e->o, mem.size, (int32_t)c, to);
    else if (is_vector_type(type))
        x86_vector_store(&e->o, type == IR_V256, value, to);
    else if (xmm)
        x86_vstore_scalar(&e->o, mem.size == 3, value, to);
    else if (mem.big_endian && mem.size)
        x86_rm(&e->o, mem.size == 1 ? 0x66 : 0, mem.size == 3, 0x0f38f1, value, to, false, 0); /* movbe */
    else
        x86_store(&e->o, mem.size, value, to);
    uint32_t done = x86_offset(&e->o);
    x86_slow_begin(e, &a, mem, SLOW_STORE);
    if (is_const)
        x86_store_imm(&e->far, 3, (int32_t)c, in_frame);
    else if (is_vector_type(type))
        x86_vector_store(&e->far, type == IR_V256, value, in_frame);
    else if (xmm)
        x86_vstore_scalar(&e->far, mem.size == 3, value, in_frame);
    else
        x86_store(&e->far, 3, value, in_frame);
    x86_slow_call(e);
    x86_jmp(&e->far, done);
}

bool x86_emit_memory(struct emitter *e, const struct ir_op *op)
{
    struct ir_mem mem;
    if (!(ir_op_info[op->op].properties & IR_MEM))
        return false;
    memcpy(&mem, &op->imm, sizeof mem);
    if (e->upper_dirty)
        x86_spill_vectors(e);
    if (op->op == IR_OP_load)
        emit_load(e, op, mem);
    else if (op->op == IR_OP_store) {
        emit_store(e, op, mem);
        if (e->upper_dirty) /* the slow path brought back 128 bits of what was stored; memory has it all */
            x86_spill_vectors(e);
    } else
        return x86_emit_atomic(e, op);
    return true;
}
