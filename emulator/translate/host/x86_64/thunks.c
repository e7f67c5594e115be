/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces of code that all blocks share, emitted once at the start of the cache: entering and leaving, calling
 * helpers and the slow path of memory accesses.
 */
#include "emulator/translate/host/x86_64/emit.h"

struct thunks {
    struct x86_out o;
    struct x86_layout *l;
};

static struct x86_mem state(const struct thunks *t, size_t offset)
{
    return MEM(RBP, t->l->state + (int32_t)offset);
}
#define TSTATE(t, field) state(t, offsetof(struct translate_cpu, field))

static struct x86_mem pin_home(const struct thunks *t, unsigned pin)
{
    const struct guest *guest = t->l->guest;
    return MEM(RBP, (int32_t)(guest->slots[t->l->slot_of_pin[pin]].offset - guest->base_offset));
}

static bool kept_by_c(unsigned pin)
{
    return pin == RBX || pin >= R12;
}

static void pins(struct thunks *t, bool store, bool all)
{
    for (unsigned i = 0; i < t->l->pin_count; i++) {
        unsigned pin = t->l->pins[i];
        if (!all && kept_by_c(pin))
            continue;
        if (store)
            x86_store(&t->o, 3, pin, pin_home(t, pin));
        else
            x86_load(&t->o, true, pin, pin_home(t, pin));
    }
}

static void begin(struct thunks *t, enum thunk which)
{
    while (x86_offset(&t->o) % 16)
        x86_byte(&t->o, 0xcc);
    t->l->thunk[which] = x86_offset(&t->o);
}

static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};
enum {
    CALLEE_SAVED = sizeof callee_saved,
    ENTER_FRAME = FRAME_SIZE + 8
}; /* 8: after six pushes and a return address */

/* unsigned enter(base, entry) */
static void enter(struct thunks *t)
{
    begin(t, THUNK_ENTER);
    for (unsigned i = 0; i < CALLEE_SAVED; i++)
        x86_push(&t->o, callee_saved[i]);
    x86_alu_imm(&t->o, ALU_SUB, true, RSP, ENTER_FRAME);
    x86_mov_rr(&t->o, true, RBP, RDI);
    x86_stmxcsr(&t->o, TSTATE(t, host_mxcsr));
    x86_ldmxcsr(&t->o, TSTATE(t, mxcsr));
    pins(t, false, true);
    x86_rr(&t->o, 0, false, 0xff, 4, RSI, false); /* jmp rsi */
}

static void leave(struct thunks *t)
{
    begin(t, THUNK_LOOKUP);
    x86_store(&t->o, 3, RAX, TSTATE(t, pc));
    x86_mov_imm(&t->o, RAX, TRANSLATE_EXIT_CONTINUE);
    uint32_t from_lookup = x86_jmp_forward(&t->o);

    begin(t, THUNK_FAULT);
    x86_store(&t->o, 3, RAX, TSTATE(t, pc));
    x86_mov_imm(&t->o, RAX, TRANSLATE_EXIT_EXCEPTION);
    uint32_t from_fault = x86_jmp_forward(&t->o);

    begin(t, THUNK_CAREFUL);
    x86_store(&t->o, 3, RAX, TSTATE(t, pc));
    x86_mov_imm(&t->o, RAX, TRANSLATE_EXIT_CAREFUL);
    uint32_t from_careful = x86_jmp_forward(&t->o);

    begin(t, THUNK_EXIT_LINK);
    x86_store(&t->o, 3, RAX, TSTATE(t, exit_link));
    x86_mov_imm(&t->o, RAX, TRANSLATE_EXIT_CONTINUE);

    while (x86_offset(&t->o) % 16) /* falls into the exit */
        x86_byte(&t->o, 0x90);
    begin(t, THUNK_EXIT);
    x86_land(&t->o, from_lookup);
    x86_land(&t->o, from_fault);
    x86_land(&t->o, from_careful);
    pins(t, true, true);
    x86_stmxcsr(&t->o, TSTATE(t, mxcsr));
    x86_ldmxcsr(&t->o, TSTATE(t, host_mxcsr));
    x86_vzeroupper(&t->o);
    x86_alu_imm(&t->o, ALU_ADD, true, RSP, ENTER_FRAME);
    for (unsigned i = CALLEE_SAVED; i-- > 0;)
        x86_pop(&t->o, callee_saved[i]);
    x86_byte(&t->o, 0xc3);
}

/* rax: offset of the function pointer in the helper table; rsi, rdx, rcx: arguments. */
static void call(struct thunks *t, enum thunk which, bool fp)
{
    begin(t, which);
    x86_alu_imm(&t->o, ALU_SUB, true, RSP, 8);
    pins(t, true, false);
    if (fp) {
        x86_stmxcsr(&t->o, TSTATE(t, mxcsr));
        x86_ldmxcsr(&t->o, TSTATE(t, host_mxcsr));
    }
    x86_lea(&t->o, true, RDI, MEM(RBP, -(int32_t)t->l->guest->base_offset));
    x86_alu_rm(&t->o, ALU_ADD, true, RAX, TSTATE(t, helper_table));
    x86_rm(&t->o, 0, false, 0xff, 2, MEM(RAX, 0), false, 0); /* call */
    if (fp)
        x86_ldmxcsr(&t->o, TSTATE(t, mxcsr));
    pins(t, false, false);
    x86_alu_imm(&t->o, ALU_ADD, true, RSP, 8);
    x86_byte(&t->o, 0xc3);
}

/* Keeps every register. The access is described in the frame of translated code, 8 bytes further from here. */
static void slow(struct thunks *t)
{
    static const uint8_t general[] = {RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11};
    enum { XMMS = 16, GENERAL_AT = 16 * XMMS, SAVE = GENERAL_AT + 8 * sizeof general + 8 - 8 };
    begin(t, THUNK_SLOW);
    enum { AREA = (SAVE + 15) / 16 * 16 + 8 };
    x86_alu_imm(&t->o, ALU_SUB, true, RSP, AREA);
    for (unsigned i = 0; i < sizeof general; i++)
        x86_store(&t->o, 3, general[i], MEM(RSP, GENERAL_AT + 8 * (int)i));
    for (unsigned i = 0; i < XMMS; i++)
        x86_vector_store(&t->o, false, i, MEM(RSP, 16 * (int)i));
    pins(t, true, false);
    x86_stmxcsr(&t->o, TSTATE(t, mxcsr));
    x86_ldmxcsr(&t->o, TSTATE(t, host_mxcsr));
    x86_lea(&t->o, true, RDI, TSTATE(t, pc)); /* the first field */
    x86_lea(&t->o, true, RSI, MEM(RSP, AREA + 8));
    x86_rm(&t->o, 0, false, 0xff, 2, TSTATE(t, slow_access), false, 0);
    x86_ldmxcsr(&t->o, TSTATE(t, mxcsr));
    for (unsigned i = 0; i < XMMS; i++)
        x86_vector_load(&t->o, false, i, MEM(RSP, 16 * (int)i));
    for (unsigned i = 0; i < sizeof general; i++)
        x86_load(&t->o, true, general[i], MEM(RSP, GENERAL_AT + 8 * (int)i));
    x86_alu_imm(&t->o, ALU_ADD, true, RSP, AREA);
    x86_alu_mem_imm(&t->o, ALU_CMP, false, TSTATE(t, exception), 0);
    uint32_t fault = x86_jcc_short(&t->o, CC_NE);
    x86_byte(&t->o, 0xc3);
    x86_land_short(&t->o, fault);
    x86_alu_imm(&t->o, ALU_ADD, true, RSP, 8); /* not back to the access, but out; the pc is stored already */
    x86_mov_imm(&t->o, RAX, TRANSLATE_EXIT_EXCEPTION);
    x86_jmp(&t->o, t->l->thunk[THUNK_EXIT]);
}

static uint8_t flags_out(unsigned mxcsr)
{
    return (uint8_t)((mxcsr & 1 ? IR_FLAG_INVALID : 0) | (mxcsr & 4 ? IR_FLAG_DIVZERO : 0) |
                     (mxcsr & 8 ? IR_FLAG_OVERFLOW : 0) | (mxcsr & 16 ? IR_FLAG_UNDERFLOW : 0) |
                     (mxcsr & 32 ? IR_FLAG_INEXACT : 0));
}

static void constants(struct thunks *t)
{
    static const double limits[LIMITS] = {
        [LIMIT_2_31] = 0x1p31, [LIMIT_MINUS_2_31] = -0x1p31, [LIMIT_2_32] = 0x1p32,
        [LIMIT_2_63] = 0x1p63, [LIMIT_MINUS_2_63] = -0x1p63, [LIMIT_2_64] = 0x1p64,
    };
    static const uint32_t rounding[4] = {0 << 13, 3 << 13, 1 << 13, 2 << 13};
    while (x86_offset(&t->o) % 64)
        x86_byte(&t->o, 0xcc);
    t->l->thunk[THUNK_CONSTANTS] = x86_offset(&t->o);
    uint8_t *at = t->o.at;
    memset(at, 0, CONST_SIZE);
    memcpy(at + CONST_NAN64, &(uint64_t){0x7ff8000000000000}, 8);
    memcpy(at + CONST_NAN32, &(uint32_t){0x7fc00000}, 4);
    for (unsigned m = 0; m < 64; m++)
        at[CONST_FLAGS_OUT + m] = flags_out(m);
    for (unsigned m = 0; m < 64; m++) {
        if (!(m & 2)) /* the denormal bit has no meaning to guests */
            at[CONST_FLAGS_IN + flags_out(m)] = (uint8_t)m;
    }
    memcpy(at + CONST_ROUNDING, rounding, sizeof rounding);
    memcpy(at + CONST_LIMITS64, limits, sizeof limits);
    for (unsigned i = 0; i < LIMITS; i++)
        memcpy(at + CONST_LIMITS32 + 4 * i, &(float){(float)limits[i]}, 4);
    t->o.at += CONST_SIZE;
}

void x86_thunks(struct machine_code *code, struct x86_layout *layout)
{
    struct thunks t = {.o = {code->rw, code->rw}, .l = layout};
    enter(&t);
    leave(&t);
    call(&t, THUNK_CALL, false);
    call(&t, THUNK_CALL_FP, true);
    slow(&t);
    constants(&t);
    code->near_start = code->near = (x86_offset(&t.o) + 63u) & ~63u;
    code->far_start = code->far = code->size / 8 * 5;
}
