/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tier 1 for x86-64 hosts: one backward pass over the IR (liveness.c) and one forward pass that emits (emit_*.c).
 *
 *   rbp          base: the guest's CPU struct + guest->base_offset; guest state and translate_cpu are at fixed offsets
 *   rsp          the frame made by the enter thunk: scratch words, then spill slots
 *   rbx r12-r15  the most used guest registers, for good ("pins"); callee-saved, so calls to C leave them alone
 *   r8-r11       more pins; saved around calls to C by the thunks
 *   rax rcx rdx rsi rdi   values within a block
 *   xmm0-xmm15   floating point and vector values within a block
 *   mxcsr        the guest's rounding mode and sticky exceptions, all exceptions masked
 *
 * Where a value is. A value made by the block is in a register, in the memory of the guest slot it was read from or put
 * to ("home"), in a spill slot, or nowhere because it is a constant or is computed at its only use ("fused"). Pins are
 * always up to date: a put to a pinned slot writes its register, any other put writes memory. So exits need no stores,
 * blocks agree on everything without talking to each other, and a fault finds the state complete.
 *
 * Code goes to two places: the hot path to `o`, everything unusual (slow memory accesses, NaNs, exits not yet linked)
 * to `far`.
 */
#ifndef EMULATOR_TRANSLATE_HOST_X86_64_EMIT_H
#define EMULATOR_TRANSLATE_HOST_X86_64_EMIT_H

#include <assert.h>
#include "emulator/translate/codecache.h"
#include "emulator/translate/host/x86_64/x86_asm.h"

enum { X86_PINS = 9, X86_TEMPS = 5, XMM = 16 /* register number of xmm0 */, REGS = 32 };
#define PIN_NONE 255

/* The frame of translated code, from rsp. */
enum {
    FRAME_SCRATCH = 0,  /* 16 bytes for passing through memory */
    FRAME_ADDRESS = 16, /* slow accesses: address, descriptor, value(s) in, value out */
    FRAME_DESCRIPTOR = 24,
    FRAME_VALUE = 32, /* up to 64 bytes */
    FRAME_SECOND = 96,
    FRAME_SPILLS = 112,
    SPILLS = 64,
    FRAME_VECTORS = FRAME_SPILLS + 8 * SPILLS,
    VECTOR_SPILLS = 16,
    FRAME_SIZE = FRAME_VECTORS + 32 * VECTOR_SPILLS
};

enum thunk {
    THUNK_ENTER,     /* C calls it */
    THUNK_EXIT,      /* reason in eax; the state is complete */
    THUNK_EXIT_LINK, /* number of the exit in eax: lookup, then link it */
    THUNK_LOOKUP,    /* guest pc in rax: lookup */
    THUNK_FAULT,     /* guest pc in rax: exception */
    THUNK_CAREFUL,   /* guest pc in rax: one instruction by the evaluator */
    THUNK_CALL,      /* helper: offset in the table in eax, arguments in rsi, rdx, rcx */
    THUNK_CALL_FP,   /* the same, with the host's FP environment meanwhile */
    THUNK_SLOW,      /* memory access described in the frame; guest pc stored */
    THUNK_CONSTANTS, /* not code */
    THUNKS
};
/* Offsets in the constants. */
enum {
    CONST_NAN64 = 0,
    CONST_NAN32 = 8,
    CONST_FLAGS_OUT = 64, /* 64 bytes: mxcsr bits to IR_FLAG_* */
    CONST_FLAGS_IN = 128, /* 32 bytes: the way back */
    CONST_ROUNDING = 160, /* 4 dwords: mxcsr bits of enum ir_rounding */
    CONST_LIMITS64 = 192, /* enum x86_limit */
    CONST_LIMITS32 = 256,
    CONST_SIZE = 320
};

enum x86_limit {
    LIMIT_ZERO,
    LIMIT_2_31,
    LIMIT_MINUS_2_31,
    LIMIT_2_32,
    LIMIT_2_63,
    LIMIT_MINUS_2_63,
    LIMIT_2_64,
    LIMITS
};

struct x86_layout { /* of one machine */
    const struct guest *guest;
    uint8_t pin_of_slot[IR_MAX_SLOTS]; /* register or PIN_NONE */
    uint8_t slot_of_pin[16];           /* by register */
    uint8_t pins[X86_PINS], pin_count;
    int32_t state; /* translate_cpu from base */
    int32_t attention;
    uint32_t thunk[THUNKS]; /* cache offsets */
};

struct value {
    uint16_t uses, last; /* last: index of the last operation that needs it */
    uint8_t reg;         /* 0..15 general, 16..31 xmm, NO_REG */
    uint8_t home;        /* slot + 1 whose memory holds it; 0 none. Never a pinned slot */
    uint8_t hint;        /* slot + 1 it is put to, when it may be computed right into the pin */
    int8_t spill;        /* -1 none */
    bool dead, fused;
    bool full_uses; /* somebody looks at more than the low 32 bits */
    /* Memory operations: this one and the later ones of the block with the same base register (emit_mem.c). */
    uint16_t base;     /* the base's value; 0: this one is alone */
    uint16_t reaches;  /* index of the last one */
    int32_t low, high; /* displacements they touch: [low, high) */
    bool writes;
    bool in_direct; /* direct memory: as a base, it has been compared with its size */
};

/* A window: memory at a base value that was looked up for several operations at once. Its register, a temporary, holds
 * host minus guest address, or 0 when the lookup failed; it appears in reg_value[] under a number behind the values. */
enum { WINDOWS = 2, WINDOW_ID = IR_MAX_OPS };
enum { FAULTS = IR_MAX_OPS }; /* host instructions of a block that access direct memory */
struct window {
    uint16_t base; /* value; 0 unused */
    uint8_t mmu;
    bool writes;
    int32_t low, high;
};

struct emitter {
    struct x86_out o, far;
    struct machine_code *code;
    const struct x86_layout *layout;
    const struct ir_block *b;
    struct code_block *block;
    unsigned at, end; /* current operation; behind the last one */
    uint64_t insn_pc;
    uint32_t careful_stub;             /* of the current instruction, 0 not made (direct memory) */
    uint32_t entry;                    /* of the block */
    uint32_t locked;                   /* registers of the current operation */
    uint16_t reg_value[REGS];          /* temporaries: what they hold, 0 free; pins: a value known to be equal, or 0 */
    uint16_t slot_value[IR_MAX_SLOTS]; /* a value known to equal the slot, or 0 */
    uint64_t spills;
    uint32_t vector_spills;
    uint32_t flags_at; /* just behind an instruction whose flags are those of flags_reg; 0 none */
    uint8_t flags_reg;
    bool flags_wide;
    bool full;        /* no exits left: empty the cache */
    bool unsupported; /* give the block to the evaluator */
    bool upper_dirty; /* 256-bit registers were used */
    struct window windows[WINDOWS];
    struct code_fault faults[FAULTS];
    unsigned fault_count;
    struct value values[IR_MAX_OPS + WINDOWS];
};

/* liveness.c */
void x86_liveness(struct emitter *e);

/* regalloc.c */
struct operand {
    enum { OPERAND_REG, OPERAND_IMM, OPERAND_MEM } kind;
    uint8_t reg;
    int32_t imm;
    struct x86_mem mem;
};
extern const uint8_t x86_temps[X86_TEMPS];
void x86_evict(struct emitter *e, unsigned r);       /* what `r` holds is about to be lost there */
void x86_leave_pin(struct emitter *e, unsigned pin); /* the same, for a pin that the current operation may still read */
void x86_load_xmm(struct emitter *e, enum ir_type type, unsigned x, struct x86_mem m);
void x86_store_xmm(struct emitter *e, enum ir_type type, unsigned x, struct x86_mem m);
void x86_regalloc_begin(struct emitter *e);
unsigned x86_temp(struct emitter *e);                   /* a scratch register until the end of the operation */
unsigned x86_temp_fixed(struct emitter *e, unsigned r); /* that very register, whoever has it moves */
unsigned x86_xtemp(struct emitter *e);                  /* 0..15 */
unsigned x86_gpr(struct emitter *e, unsigned id);       /* the value in a general register */
unsigned x86_xmm(struct emitter *e, unsigned id);       /* in an xmm register, 0..15 */
struct operand x86_operand(struct emitter *e, unsigned id, bool wide);
bool x86_memory_of(struct emitter *e, unsigned id, struct x86_mem *mem); /* is it in memory only? */
bool x86_const(const struct emitter *e, unsigned id, uint64_t *value);
void x86_gpr_into(struct emitter *e, unsigned r, unsigned id); /* copy into a fixed register */
unsigned x86_define(struct emitter *e);                        /* result of the current operation, general */
unsigned x86_define_at(struct emitter *e, unsigned r);        /* in this register (0..31), which this operation holds */
void x86_result_in(struct emitter *e, unsigned r, bool wide); /* the result is in this temporary already */
unsigned x86_define_reusing(struct emitter *e, unsigned id);  /* in the register of an operand that dies, if it can */
unsigned x86_define_xmm(struct emitter *e, unsigned reuse); /* 0..15; reuse: an operand that may be overwritten, or 0 */
/* slots.c */
void x86_put(struct emitter *e, unsigned slot, unsigned id);
void x86_get(struct emitter *e, unsigned slot);
void x86_slot_changes(struct emitter *e, unsigned slot); /* a helper will write it */
/* regalloc.c again */
void x86_before_call(struct emitter *e);   /* nothing lives in temporaries any more */
void x86_spill_vectors(struct emitter *e); /* wide values to memory: the slow path keeps 128 bits only */
/* window.c */
struct window *x86_window_find(struct emitter *e, unsigned base, unsigned mmu, unsigned *reg); /* locks *reg */
struct window *x86_window_new(struct emitter *e, unsigned base, unsigned reaches, unsigned reg);
void x86_window_drop(struct emitter *e, unsigned number);
void x86_end_op(struct emitter *e);

/* Emission by subject. Each returns false when the operation is not its business. */
bool x86_emit_int(struct emitter *e, const struct ir_op *op);
bool x86_emit_fp(struct emitter *e, const struct ir_op *op);
bool x86_emit_convert(struct emitter *e, const struct ir_op *op);
bool x86_emit_memory(struct emitter *e, const struct ir_op *op);
bool x86_emit_atomic(struct emitter *e, const struct ir_op *op);
bool x86_emit_vector(struct emitter *e, const struct ir_op *op);
bool x86_emit_exit(struct emitter *e, const struct ir_op *op);
uint32_t x86_emit_header(struct emitter *e); /* returns the entry */
/* Compares for a fused or plain condition; the condition code under which it is true. */
enum x86_cc x86_condition(struct emitter *e, unsigned id);

/* memory: translates the address of the current operation. */
struct x86_address {
    uint8_t base; /* register */
    uint16_t id;  /* and the value in it */
    int32_t disp;
    uint8_t offset;  /* register with host minus guest: the bytes are at [base + offset + disp] */
    uint8_t scratch; /* a register that is free again behind the lookup */
    uint32_t slow;   /* displacement of the jump to the slow path */
};
struct x86_address x86_translate_address(struct emitter *e, unsigned id, struct ir_mem mem, bool write);
void x86_split_address(struct emitter *e, unsigned id, struct x86_address *a);
struct x86_mem x86_host_mem(const struct x86_address *a);
/* Direct memory: leaves when the address is wild; x86_direct_access() comes right before each accessing instruction,
 * whose operand is MEM(a.base, a.disp). */
void x86_direct_check(struct emitter *e, const struct x86_address *a, struct ir_mem mem);
void x86_direct_access(struct emitter *e);
void x86_slow_begin(struct emitter *e, const struct x86_address *a, struct ir_mem mem, unsigned kind);
unsigned x86_define_early(struct emitter *e); /* NO_REG: use x86_define_at(a.scratch) behind the lookup */
void x86_slow_call(struct emitter *e);
uint32_t x86_describe(struct ir_mem mem, unsigned kind);
enum { SLOW_LOAD, SLOW_STORE, SLOW_LR, SLOW_SC, SLOW_AMO, SLOW_CMPXCHG };

/* Shared by the floating point files. */
struct ir_fp x86_unpack_fp(uint64_t imm);
void x86_begin_rounding(struct emitter *e, enum ir_rounding round);
void x86_end_rounding(struct emitter *e, enum ir_rounding round);
void x86_canonical_nan(struct emitter *e, struct ir_fp fp, bool f64, unsigned x);

/* thunks.c */
void x86_thunks(struct machine_code *code, struct x86_layout *layout);

/* Small things. */
static inline struct x86_mem state_mem(const struct emitter *e, size_t offset)
{
    return MEM(RBP, e->layout->state + (int32_t)offset);
}
#define STATE(e, field) state_mem(e, offsetof(struct translate_cpu, field))
static inline struct x86_mem slot_mem(const struct emitter *e, unsigned slot)
{
    return MEM(RBP, (int32_t)(e->b->slots[slot].offset - e->layout->guest->base_offset));
}
static inline struct x86_mem constant(const struct emitter *e, unsigned offset)
{
    return MEM_CACHE(e->layout->thunk[THUNK_CONSTANTS] + offset);
}
static inline bool is_xmm_type(enum ir_type type)
{
    return type >= IR_F32 && type <= IR_V512;
}
static inline bool is_vector_type(enum ir_type type)
{
    return type >= IR_V128 && type <= IR_V512;
}
static inline bool is_pin(const struct emitter *e, unsigned reg)
{
    return reg < 16 && e->layout->slot_of_pin[reg] != PIN_NONE;
}
static inline enum ir_type type_of(const struct emitter *e, unsigned id)
{
    return ir_type_of(e->b, (struct ir_value){(uint16_t)id});
}
static inline bool lives_on(const struct emitter *e, unsigned id)
{
    return e->values[id].last > e->at;
}

#endif
