/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end's table: preparing a machine, compiling a block, and patching code that other threads may be running.
 * The rules for patching are in host.h.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include "base/alloc.h"
#include "emulator/translate/host/x86_64/emit.h"

/* What the back end keeps for a machine. The emitter is large and used under the lock: one serves all vCPUs. */
struct x86_machine {
    struct x86_layout layout;
    struct emitter emitter;
};

enum { ROOM = 512 << 10 }; /* more than the largest block takes, in either part of the cache */

/* --- The slow path of memory accesses --- */

struct slow_frame { /* FRAME_* */
    uint64_t scratch[2], address;
    uint32_t descriptor, unused;
    uint64_t value[8], second[2];
};
_Static_assert(offsetof(struct slow_frame, address) == FRAME_ADDRESS, "frame");
_Static_assert(offsetof(struct slow_frame, value) == FRAME_VALUE, "frame");
_Static_assert(offsetof(struct slow_frame, second) == FRAME_SECOND, "frame");

static void slow_access(struct translate_cpu *tc, struct slow_frame *f)
{
    uint32_t d = f->descriptor;
    struct ir_mem mem = {.size = d & 7, .is_signed = d >> 3 & 1, .big_endian = d >> 4 & 1, .align = d >> 5 & 1};
    mem.mmu = d >> 6 & 3;
    mem.amo = d >> 8 & 15;
    tc->slow_accesses++;
    switch (d >> 12) {
    case SLOW_LOAD: memory_load(tc, f->address, mem, f->value); break;
    case SLOW_STORE: memory_store(tc, f->address, f->value, mem); break;
    case SLOW_LR: memory_load_reserved(tc, f->address, mem, f->value); break;
    case SLOW_SC: memory_store_conditional(tc, f->address, f->value[0], mem, f->value); break;
    case SLOW_AMO: memory_amo(tc, f->address, f->value[0], mem, f->value); break;
    default: memory_cmpxchg(tc, f->address, f->value[0], f->second[0], mem, f->value); break;
    }
}

/* --- Preparing --- */

static void choose_pins(struct x86_layout *l)
{
    /* In order of use: first the registers that calls to C leave alone. */
    static const uint8_t registers[X86_PINS] = {RBX, R12, R13, R14, R15, R8, R9, R10, R11};
    const struct guest *guest = l->guest;
    memset(l->pin_of_slot, PIN_NONE, sizeof l->pin_of_slot);
    memset(l->slot_of_pin, PIN_NONE, sizeof l->slot_of_pin);
    for (unsigned rank = 1; rank < 256 && l->pin_count < X86_PINS; rank++) {
        for (unsigned slot = 0; slot < guest->slot_count && l->pin_count < X86_PINS; slot++) {
            if (guest->slots[slot].pin != rank || guest->slots[slot].type != IR_I64)
                continue;
            unsigned reg = registers[l->pin_count];
            l->pins[l->pin_count++] = (uint8_t)reg;
            l->pin_of_slot[slot] = (uint8_t)reg;
            l->slot_of_pin[reg] = (uint8_t)slot;
        }
    }
}

static bool prepare(struct machine_code *code, struct error *err)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt"))
        return fail(err, ENOTSUP,
                    "this processor lacks AVX2, FMA or BMI, which translated code uses; SPINDLE_TRANSLATE=eval runs "
                    "without");
    struct x86_machine *machine = new (struct x86_machine);
    code->host_data = machine;
    machine->layout.guest = code->guest;
    machine->layout.state = (int32_t)code->guest->state_offset - (int32_t)code->guest->base_offset;
    machine->layout.attention = (int32_t)code->guest->attention_offset - (int32_t)code->guest->base_offset;
    choose_pins(&machine->layout);
    x86_thunks(code, &machine->layout);
    return true;
}

static void unprepare(struct machine_code *code)
{
    free(code->host_data);
}

static void begin_cpu(struct translate_cpu *tc)
{
    tc->helper_table = tc->code->guest->helpers;
    tc->slow_access = (void (*)(void))slow_access;
}

/* --- Compiling --- */

static bool supported(struct emitter *e)
{
    for (unsigned i = 1; i < e->b->count; i++) {
        enum ir_type type = e->b->ops[i].type;
        if (type == IR_V512 || type == IR_MASK)
            return false;
        e->upper_dirty |= type == IR_V256;
    }
    return true;
}

static void emit_op(struct emitter *e, const struct ir_op *op)
{
    if (!x86_emit_int(e, op) && !x86_emit_memory(e, op) && !x86_emit_exit(e, op) && !x86_emit_fp(e, op) &&
        !x86_emit_convert(e, op) && !x86_emit_vector(e, op))
        e->unsupported = true;
}

static uint32_t emit_block(struct emitter *e)
{
    uint32_t entry = e->entry = x86_emit_header(e);
    for (e->at = 1; e->at < e->end && !e->unsupported && !e->full; e->at++) {
        if (e->values[e->at].dead)
            continue;
        if (e->b->ops[e->at].op == IR_OP_insn)
            e->careful_stub = 0;
        emit_op(e, &e->b->ops[e->at]);
        x86_end_op(e);
    }
    return entry;
}

/* The table lies behind the block's stubs. */
static void keep_faults(struct emitter *e)
{
    size_t size = e->fault_count * sizeof e->faults[0];
    e->block->faults = x86_offset(&e->far);
    e->block->fault_count = e->fault_count;
    memcpy(e->far.at, e->faults, size);
    e->far.at += size;
}

/* A block that is beyond this back end leaves to the run time, which evaluates it. */
static uint32_t emit_evaluated(struct emitter *e, uint32_t near, uint32_t far)
{
    e->o.at = e->code->rw + near;
    e->far.at = e->code->rw + far;
    e->code->exit_count = e->block->exits;
    e->block->exit_count = 0;
    uint32_t entry = x86_emit_header(e);
    x86_mov_imm_keep(&e->o, RAX, (uint32_t)(e->block - e->code->blocks));
    x86_store(&e->o, 3, RAX, STATE(e, exit_link));
    x86_mov_imm_keep(&e->o, RAX, TRANSLATE_EXIT_EVALUATE);
    x86_jmp(&e->o, e->layout->thunk[THUNK_EXIT]);
    e->block->ir = block_keep_ir(e->b);
    e->code->statistics.evaluated++;
    return entry;
}

/* Has the kernel provide memory ahead, many pages a call. Where it cannot, faults do it. */
static void populate(struct machine_code *code, uint32_t at, uint32_t *populated)
{
    enum { AHEAD = 16 << 10, CHUNK = 128 << 10 };
    if (at + AHEAD <= *populated)
        return;
    uint32_t from = *populated ? *populated : at & ~4095u;
    *populated = from + CHUNK < code->size ? from + CHUNK : code->size;
    madvise(code->rw + from, *populated - from, MADV_POPULATE_WRITE);
    madvise(code->rx + from, *populated - from, MADV_POPULATE_READ);
}

static bool compile(struct machine_code *code, const struct ir_block *ir, struct code_block *block)
{
    struct x86_machine *machine = code->host_data;
    struct emitter *e = &machine->emitter;
    if (code->near + ROOM > code->far_start || code->far + ROOM > code->size)
        return false;
    populate(code, code->near, &code->near_populated);
    populate(code, code->far, &code->far_populated);
    e->o = (struct x86_out){code->rw, code->rw + code->near};
    e->far = (struct x86_out){code->rw, code->rw + code->far};
    e->code = code;
    e->layout = &machine->layout;
    e->b = ir;
    e->block = block;
    e->unsupported = e->full = e->upper_dirty = false;
    e->at = 0;
    e->careful_stub = e->fault_count = 0;
    e->flags_at = 0;
    e->insn_pc = block->pc;
    x86_regalloc_begin(e);
    uint32_t entry = 0;
    if (supported(e)) {
        x86_liveness(e);
        entry = emit_block(e);
    } else {
        e->unsupported = true;
    }
    if (e->full) {
        code->exit_count = block->exits;
        return false;
    }
    if (e->unsupported)
        entry = emit_evaluated(e, code->near, code->far);
    else
        keep_faults(e);
    code->near = x86_offset(&e->o);
    code->far = x86_offset(&e->far);
    block->code = (uint64_t)(uintptr_t)code->rx + entry;
    return true;
}

/* --- Running and patching --- */

static unsigned enter(struct translate_cpu *tc, uint64_t entry)
{
    const struct x86_machine *machine = tc->code->host_data;
    typedef unsigned enter_fn(void *base, uint64_t entry);
    enter_fn *fn = (enter_fn *)(uintptr_t)(tc->code_base + machine->layout.thunk[THUNK_ENTER]);
    return fn((char *)tc->cpu + tc->code->guest->base_offset, entry);
}

static void patch32(struct machine_code *code, uint32_t at, uint32_t value)
{
    /* One store: emitted so that the field does not straddle 8 bytes. */
    typedef volatile uint32_t __attribute__((aligned(1))) unaligned;
    unaligned *field = (unaligned *)(code->rw + at);
    *field = value;
}

static uint32_t entry_of(struct machine_code *code, const struct code_block *block)
{
    return (uint32_t)(block->code - (uint64_t)(uintptr_t)code->rx);
}

static void link(struct machine_code *code, struct code_exit *exit, struct code_block *target)
{
    patch32(code, exit->patch, entry_of(code, target) - (exit->patch + 4));
    if (exit->guard)
        patch32(code, exit->guard, target->identity);
}

static void unlink(struct machine_code *code, struct code_exit *exit)
{
    if (exit->guard)
        patch32(code, exit->guard, UINT32_MAX);
    patch32(code, exit->patch, exit->stub - (exit->patch + 4));
}

static void kill(struct machine_code *code, struct code_block *block)
{
    /* jmp -12: to the header, 10 bytes before the entry. */
    volatile uint16_t *field = (volatile uint16_t *)(code->rw + entry_of(code, block));
    *field = 0xf4eb;
}

/* --- Faults of the host --- */

/* Blocks lie in the cache in the order of their numbers. */
static const struct code_block *block_at(const struct machine_code *code, uint64_t host_pc)
{
    uint32_t low = 0, high = __atomic_load_n(&code->block_count, __ATOMIC_RELAXED);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (code->blocks[middle].code <= host_pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &code->blocks[low - 1] : NULL;
}

/* Runs in a signal handler on the thread that is in this very code: what it reads was there before the code ran. */
static bool recover(struct translate_cpu *tc, void *ucontext, enum translate_recovery how)
{
    const struct machine_code *code = tc->code;
    const struct x86_machine *machine = code->host_data;
    greg_t *registers = ((ucontext_t *)ucontext)->uc_mcontext.gregs;
    uint64_t host_pc = (uint64_t)registers[REG_RIP];
    if (host_pc - (uint64_t)(uintptr_t)code->rx >= code->size)
        return false;
    const struct code_block *block = block_at(code, host_pc);
    for (uint32_t i = 0; block && i < block->fault_count; i++) {
        struct code_fault fault;
        memcpy(&fault, code->rx + block->faults + i * sizeof fault, sizeof fault);
        if (block->code + fault.host == host_pc) {
            registers[REG_RAX] = (greg_t)(block->pc + fault.guest);
            enum thunk way = how == TRANSLATE_RECOVER_AGAIN ? THUNK_CAREFUL : THUNK_FAULT;
            registers[REG_RIP] = (greg_t)(tc->code_base + machine->layout.thunk[way]);
            return true;
        }
    }
    return false;
}

static const struct translate_host x86_64_host = {
    .name = "x86_64",
    .prepare = prepare,
    .unprepare = unprepare,
    .begin_cpu = begin_cpu,
    .compile = compile,
    .enter = enter,
    .link = link,
    .unlink = unlink,
    .kill = kill,
    .recover = recover,
};

const struct translate_host *translate_native_host(void)
{
    return &x86_64_host;
}
