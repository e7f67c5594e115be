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
 * Several accesses at the same base share a lookup (see emit_windowed()).
 *
 * With direct memory the same load is
 *
 *     cmp  rbx, [rbp + direct_size]       once a block for each base
 *     jae  careful
 *     mov  r12, gs:[rbx + 16]
 *
 * and the host's fault, if there is one, finds the guest's instruction in the block's table of struct code_fault. The
 * displacement needs no check: the memory's guards on both sides are wider than it can reach.
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
    a->id = (uint16_t)id;
    a->disp = (int32_t)c;
}

static void address_plus(struct x86_out *o, unsigned to, unsigned base, int32_t disp)
{
    if (disp)
        x86_lea(o, true, to, MEM(base, disp));
    else
        x86_mov_rr(o, true, to, base);
}

/* Looks up [low, high) from the base. Returns the displacement of the jump taken when it is not there, or straddles a
 * page; else `index` holds host minus guest address. */
static uint32_t look_up(struct emitter *e, struct x86_out *o, unsigned base, int32_t low, int32_t high,
                        struct ir_mem mem, bool write, unsigned tag, unsigned index)
{
    bool aligned = mem.align == IR_ALIGN_NATURAL;
    address_plus(o, tag, base, aligned ? low : high - 1);
    if (low) {
        x86_lea(o, true, index, MEM(base, low));
        x86_shift_imm(o, SHIFT_SHR, true, index, TRANSLATE_PAGE_BITS - 5);
    } else {
        x86_rorx(o, index, base, TRANSLATE_PAGE_BITS - 5); /* a move and a shift at once; the mask drops the rest */
    }
    x86_alu_imm(o, ALU_AND, false, index, (TRANSLATE_TLB_ENTRIES - 1) << 5);
    x86_alu_imm(o, ALU_AND, true, tag, -TRANSLATE_PAGE | (aligned ? (1 << mem.size) - 1 : 0));
    struct x86_mem context = STATE(e, context);
    context.disp += 8 * mem.mmu;
    x86_alu_rm(o, ALU_OR, true, tag, context);
    size_t field = write ? offsetof(struct translate_tlb_entry, write) : offsetof(struct translate_tlb_entry, read);
    x86_alu_rm(o, ALU_CMP, true, tag, tlb_mem(e, index, mem.mmu, field));
    uint32_t miss = x86_jcc_forward(o, CC_NE);
    x86_load(o, true, index, tlb_mem(e, index, mem.mmu, offsetof(struct translate_tlb_entry, addend)));
    return miss;
}

/* --- Direct memory --- */

/* The address is wild, or misaligned where it must not be: the run time does the instruction with the evaluator. */
static void careful_if(struct emitter *e, enum x86_cc cc)
{
    if (!e->careful_stub) {
        e->careful_stub = x86_offset(&e->far);
        x86_mov_imm(&e->far, RAX, e->insn_pc);
        x86_jmp(&e->far, e->layout->thunk[THUNK_CAREFUL]);
    }
    uint32_t jump = x86_jcc_forward(&e->o, cc);
    x86_set_target(&e->o, jump, e->careful_stub);
}

static void check_base(struct emitter *e, const struct x86_address *a)
{
    uint64_t c;
    bool known = x86_const(e, a->id, &c) ? c < e->code->direct.size : e->values[a->id].in_direct;
    if (known)
        return;
    x86_alu_rm(&e->o, ALU_CMP, true, a->base, STATE(e, direct_size));
    careful_if(e, CC_AE);
    e->values[a->id].in_direct = true;
}

static void check_alignment(struct emitter *e, const struct x86_address *a, struct ir_mem mem)
{
    if (mem.align != IR_ALIGN_NATURAL || !mem.size)
        return;
    unsigned low = x86_temp(e);
    if (a->disp)
        x86_lea(&e->o, false, low, MEM(a->base, a->disp));
    else
        x86_mov_rr(&e->o, false, low, a->base);
    x86_rr(&e->o, 0, false, 0xf6, 0, low, true); /* test low byte, imm8 */
    x86_byte(&e->o, (1u << mem.size) - 1);
    careful_if(e, CC_NE);
    e->locked &= ~(1u << low);
}

void x86_direct_check(struct emitter *e, const struct x86_address *a, struct ir_mem mem)
{
    check_base(e, a);
    check_alignment(e, a, mem);
}

void x86_direct_access(struct emitter *e)
{
    if (!e->code->is_direct)
        return;
    uint32_t at = x86_offset(&e->o) - e->entry;
    uint64_t pc = e->insn_pc - e->block->pc;
    if (e->fault_count == FAULTS || at > UINT16_MAX || pc > UINT16_MAX)
        e->unsupported = true;
    else
        e->faults[e->fault_count++] = (struct code_fault){(uint16_t)at, (uint16_t)pc};
    x86_byte(&e->o, 0x65); /* gs: holds the base */
}

/* --- The lookup --- */

struct x86_address x86_translate_address(struct emitter *e, unsigned id, struct ir_mem mem, bool write)
{
    struct x86_address a;
    if (e->code->is_direct) {
        x86_split_address(e, id, &a);
        x86_direct_check(e, &a, mem);
        a.scratch = (uint8_t)x86_temp(e);
        a.offset = NO_REG;
        a.slow = 0;
        return a;
    }
    if (mem.align == IR_ALIGN_NATURAL && mem.size > TRANSLATE_CONTEXT_SHIFT)
        e->unsupported = true;
    x86_split_address(e, id, &a);
    a.scratch = (uint8_t)x86_temp(e);
    a.offset = (uint8_t)x86_temp(e);
    a.slow = look_up(e, &e->o, a.base, a.disp, a.disp + (1 << mem.size), mem, write, a.scratch, a.offset);
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

struct access {
    enum ir_type type;
    struct ir_mem mem;
    bool store, xmm, is_const;
    uint8_t reg; /* general or xmm (0..15): destination or value */
    int32_t imm; /* is_const */
};

static void move_xmm(struct x86_out *o, const struct access *x, struct x86_mem at)
{
    bool vector = is_vector_type(x->type), l256 = x->type == IR_V256, f64 = x->mem.size == 3;
    if (vector)
        (x->store ? x86_vector_store : x86_vector_load)(o, l256, x->reg, at);
    else
        (x->store ? x86_vstore_scalar : x86_vload_scalar)(o, f64, x->reg, at);
}

static void load_swapped(struct x86_out *o, const struct access *x, struct x86_mem at)
{
    x86_load_extend(o, x->mem.size, false, x->reg, at);
    x86_bswap(o, x->mem.size == 3, x->reg);
    if (x->mem.size == 1)
        x86_shift_imm(o, SHIFT_SHR, false, x->reg, 16);
    if (x->mem.size < 3)
        x86_extend(o, x->mem.size, x->mem.is_signed, x->reg, x->reg);
}

/* The access itself, the address being known. */
static void move(struct x86_out *o, const struct access *x, struct x86_mem at)
{
    bool swap = x->mem.big_endian && x->mem.size;
    if (x->xmm)
        move_xmm(o, x, at);
    else if (x->is_const)
        x86_store_imm(o, x->mem.size, x->imm, at);
    else if (!x->store && swap)
        load_swapped(o, x, at);
    else if (!x->store)
        x86_load_extend(o, x->mem.size, x->mem.is_signed, x->reg, at);
    else if (swap)
        x86_rm(o, x->mem.size == 1 ? 0x66 : 0, x->mem.size == 3, 0x0f38f1, x->reg, at, false, 0); /* movbe */
    else
        x86_store(o, x->mem.size, x->reg, at);
}

/* The slow path: between frame and register. */
static void slow_access(struct emitter *e, const struct x86_address *a, const struct access *x)
{
    struct access in_frame = *x;
    in_frame.mem.big_endian = false;
    if (!x->xmm)
        in_frame.mem.size = 3;
    x86_slow_begin(e, a, x->mem, x->store ? SLOW_STORE : SLOW_LOAD);
    if (x->store)
        move(&e->far, &in_frame, MEM(RSP, FRAME_VALUE));
    x86_slow_call(e);
    if (!x->store)
        move(&e->far, &in_frame, MEM(RSP, FRAME_VALUE));
}

/* Several accesses at one base. The first looks up the whole range that they touch and keeps the result; the others
 * only test whether that worked. Where it did not (a miss, or the range straddles a page), each looks up its own bytes,
 * out of line. */
static void emit_windowed(struct emitter *e, struct x86_address *a, const struct access *x, bool first,
                          const struct window *w)
{
    int32_t high = a->disp + (1 << x->mem.size);
    uint32_t failed;
    if (first) {
        failed = look_up(e, &e->o, a->base, w->low, w->high, x->mem, w->writes, a->scratch, a->offset);
    } else {
        x86_test_rr(&e->o, true, a->offset, a->offset);
        failed = x86_jcc_forward(&e->o, CC_E);
    }
    move(&e->o, x, x86_host_mem(a));
    uint32_t done = x86_offset(&e->o);

    x86_set_target(&e->o, failed, x86_offset(&e->far));
    a->slow = look_up(e, &e->far, a->base, a->disp, high, x->mem, x->store, a->scratch, a->offset);
    move(&e->far, x, x86_host_mem(a));
    x86_alu_rr(&e->far, ALU_XOR, false, a->offset, a->offset);
    x86_jmp(&e->far, done);
    slow_access(e, a, x);
    x86_alu_rr(&e->far, ALU_XOR, false, a->offset, a->offset);
    x86_jmp(&e->far, done);
}

static bool within(const struct window *w, const struct x86_address *a, const struct access *x)
{
    return a->disp >= w->low && a->disp + (1 << x->mem.size) <= w->high && (w->writes || !x->store);
}

static void emit_access(struct emitter *e, const struct ir_op *op, struct access *x, unsigned d)
{
    struct x86_address a;
    unsigned reg;
    x86_split_address(e, op->a, &a);
    struct value *v = &e->values[e->at];
    struct window *w = x->mem.align == IR_ALIGN_ANY ? x86_window_find(e, a.id, x->mem.mmu, &reg) : NULL;
    bool joins = w && within(w, &a, x), begins = !joins && v->base == a.id && v->reaches > e->at;
    if (w && begins) /* its range or rights do not do: look up anew */
        x86_window_drop(e, (unsigned)(w - e->windows));
    if (!joins && w)
        e->locked &= ~(1u << reg);
    if (x->mem.align == IR_ALIGN_NATURAL && x->mem.size > TRANSLATE_CONTEXT_SHIFT)
        e->unsupported = true;
    a.scratch = (uint8_t)x86_temp(e);
    a.offset = (uint8_t)(joins ? reg : x86_temp(e));
    if (d == NO_REG)
        d = x86_define_at(e, a.scratch);
    x->reg = (uint8_t)d;
    if (joins) {
        emit_windowed(e, &a, x, false, w);
    } else if (begins) {
        w = x86_window_new(e, a.id, v->reaches, a.offset);
        w->mmu = x->mem.mmu;
        w->writes = v->writes;
        w->low = v->low;
        w->high = v->high;
        emit_windowed(e, &a, x, true, w);
    } else {
        a.slow = look_up(e, &e->o, a.base, a.disp, a.disp + (1 << x->mem.size), x->mem, x->store, a.scratch, a.offset);
        move(&e->o, x, x86_host_mem(&a));
        uint32_t done = x86_offset(&e->o);
        slow_access(e, &a, x);
        x86_jmp(&e->far, done);
    }
}

/* Moves that make room for the result must come before the branch to the slow path, which does not have them. So a
 * pinned result is claimed first; any other takes the scratch register of the lookup. */
unsigned x86_define_early(struct emitter *e)
{
    return e->values[e->at].hint ? x86_define(e) : NO_REG;
}

static void emit_direct(struct emitter *e, const struct ir_op *op, struct access *x, unsigned d)
{
    struct x86_address a;
    x86_split_address(e, op->a, &a);
    x86_direct_check(e, &a, x->mem);
    x->reg = (uint8_t)(d == NO_REG ? x86_define(e) : d);
    x86_direct_access(e);
    move(&e->o, x, MEM(a.base, a.disp));
}

static void emit_load(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    struct access x = {.type = op->type, .mem = mem, .xmm = is_xmm_type(op->type)};
    e->unsupported |= x.xmm && mem.big_endian;
    if (e->code->is_direct)
        emit_direct(e, op, &x, x.xmm ? x86_define_xmm(e, 0) : NO_REG);
    else
        emit_access(e, op, &x, x.xmm ? x86_define_xmm(e, 0) : x86_define_early(e));
}

static void emit_store(struct emitter *e, const struct ir_op *op, struct ir_mem mem)
{
    uint64_t c;
    struct x86_mem home;
    struct access x = {.type = type_of(e, op->b), .mem = mem, .store = true};
    const struct value *v = &e->values[op->b];
    x.is_const = x86_const(e, op->b, &c) && fits32((int64_t)c) && !mem.big_endian;
    x.imm = x.is_const ? (int32_t)c : 0;
    x.xmm = is_vector_type(x.type) || (v->reg != NO_REG && v->reg >= XMM && mem.size >= 2) ||
            (is_xmm_type(x.type) && x86_memory_of(e, op->b, &home));
    e->unsupported |= x.xmm && mem.big_endian;
    unsigned from = x.is_const ? RSP : x.xmm ? x86_xmm(e, op->b) : x86_gpr(e, op->b);
    if (e->code->is_direct)
        emit_direct(e, op, &x, from);
    else
        emit_access(e, op, &x, from);
}

bool x86_emit_memory(struct emitter *e, const struct ir_op *op)
{
    struct ir_mem mem;
    if (!(ir_op_info[op->op].properties & IR_MEM))
        return false;
    memcpy(&mem, &op->imm, sizeof mem);
    if (e->upper_dirty && !e->code->is_direct)
        x86_spill_vectors(e);
    if (op->op == IR_OP_load)
        emit_load(e, op, mem);
    else if (op->op == IR_OP_store) {
        emit_store(e, op, mem);
        if (e->upper_dirty &&
            !e->code->is_direct) /* the slow path brought back 128 bits of what was stored; memory has it all */
            x86_spill_vectors(e);
    } else
        return x86_emit_atomic(e, op);
    return true;
}
