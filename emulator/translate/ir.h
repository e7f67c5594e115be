/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intermediate representation: what a block of guest instructions means, as a flat array of typed operations.
 *
 * A value is the index of the operation that makes it; every value is made once, before its uses. There is no control
 * flow inside a block: one entry, side exits (ir_exit_if), one end. Anything with loops or rare cases is a helper.
 * Guest state is a table of numbered slots that the front end provides; ir_get and ir_put are the only way to it, apart
 * from helpers, and a helper says which slots it reads and writes.
 *
 * The builder functions below make the meaning of an instruction read like the manual:
 *
 *     ir_put(b, rd, ir_add(b, ir_get(b, rs1), ir_get(b, rs2)));                                            // ADD
 *     ir_put(b, rd, ir_sext(b, ir_add32(b, ir_get(b, rs1), ir_const(b, imm)), 32));                         // ADDIW
 *     ir_put(b, rd, ir_load(b, ir_add(b, ir_get(b, rs1), ir_const(b, imm)), IR_LOAD_S(2, mmu)));            // LW
 *
 * They fold constants and forward puts to later gets; the rest is left to the back end.
 *
 * Exactness. A faulting operation (load, store, helper that may fault) leaves the block with the state as of the last
 * ir_insn_start: so write the slots of an instruction after its last faulting operation. Instructions after it have not
 * happened. Types I8 and I16 exist for slots and memory only (a get zero-extends to I64); values are I32 and wider.
 */
#ifndef EMULATOR_TRANSLATE_IR_H
#define EMULATOR_TRANSLATE_IR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "emulator/translate/ir_ops.h"

enum ir_type { IR_NONE, IR_I8, IR_I16, IR_I32, IR_I64, IR_F32, IR_F64, IR_V128, IR_V256, IR_V512, IR_MASK, IR_TYPES };

#define IR_OP_ENUM(name, kind, operands, properties) IR_OP_##name,
enum ir_opcode { IR_OPS(IR_OP_ENUM) IR_OP_COUNT };
#undef IR_OP_ENUM

enum ir_cond { IR_EQ, IR_NE, IR_LT_S, IR_GE_S, IR_LE_S, IR_GT_S, IR_LT_U, IR_GE_U, IR_LE_U, IR_GT_U, IR_CONDS };

/* What a division by zero, and the most negative number by -1, give. */
enum ir_division {
    IR_DIVISION_RISCV, /* quotient all ones, remainder the dividend; overflow: the dividend, 0 */
    IR_DIVISION_ZERO   /* quotient 0, remainder the dividend; overflow: the dividend, 0 (Arm) */
};

/* RISC-V's numbers. NEAREST_AWAY is not a mode of x86 hosts: the front end turns to a helper for it. */
enum ir_rounding {
    IR_ROUND_NEAREST,
    IR_ROUND_ZERO,
    IR_ROUND_DOWN,
    IR_ROUND_UP,
    IR_ROUND_NEAREST_AWAY,
    IR_ROUND_DYNAMIC = 7
};

/* What a NaN result of an arithmetic operation looks like. */
enum ir_nan {
    IR_NAN_DEFAULT, /* always the positive quiet NaN without payload (RISC-V; Arm's FPCR.DN) */
    IR_NAN_X86      /* first NaN operand, quieted; else the negative default NaN */
};
/* Comparisons that are false on unordered; _Q raise invalid for signalling NaNs only, _S for every NaN. */
enum ir_fcond { IR_FEQ_Q, IR_FLT_S, IR_FLE_S, IR_FLT_Q, IR_FLE_Q, IR_FUNORDERED_Q };

/* Sticky exceptions: RISC-V's fflags. */
enum { IR_FLAG_INEXACT = 1, IR_FLAG_UNDERFLOW = 2, IR_FLAG_OVERFLOW = 4, IR_FLAG_DIVZERO = 8, IR_FLAG_INVALID = 16 };

struct ir_fp {
    uint8_t round;                 /* enum ir_rounding */
    uint8_t nan;                   /* enum ir_nan */
    uint8_t cond;                  /* fcmp: enum ir_fcond */
    uint8_t other;                 /* conversions: the source's type */
    bool is_unsigned;              /* conversions from and to integers */
    bool negate_product, negate_c; /* fma */
    uint8_t reserved;
};

enum ir_order { IR_PLAIN, IR_ACQUIRE, IR_RELEASE, IR_ACQ_REL, IR_SEQ_CST };
enum ir_align { IR_ALIGN_ANY, IR_ALIGN_NATURAL /* otherwise the misaligned fault */ };
enum ir_amo {
    IR_AMO_SWAP,
    IR_AMO_ADD,
    IR_AMO_AND,
    IR_AMO_OR,
    IR_AMO_XOR,
    IR_AMO_MIN_S,
    IR_AMO_MAX_S,
    IR_AMO_MIN_U,
    IR_AMO_MAX_U
};

struct ir_mem {
    uint8_t size;   /* log2 of bytes: 0..3; vectors 4..6 */
    bool is_signed; /* sign-extend what is loaded */
    bool big_endian;
    uint8_t align; /* enum ir_align */
    uint8_t order; /* enum ir_order */
    uint8_t mmu;   /* which of the guest's translation regimes, < guest->mmu_count */
    uint8_t amo;   /* enum ir_amo */
    uint8_t reserved;
};
#define IR_LOAD_S(log2_size, mmu_index) ((struct ir_mem){.size = (log2_size), .is_signed = true, .mmu = (mmu_index)})
#define IR_LOAD_U(log2_size, mmu_index) ((struct ir_mem){.size = (log2_size), .mmu = (mmu_index)})
#define IR_STORE(log2_size, mmu_index) ((struct ir_mem){.size = (log2_size), .mmu = (mmu_index)})
#define IR_ATOMIC(log2_size, mmu_index, order_of)                                                                      \
    ((struct ir_mem){                                                                                                  \
        .size = (log2_size), .is_signed = true, .align = IR_ALIGN_NATURAL, .order = (order_of), .mmu = (mmu_index)})

/* Fences: which earlier accesses are ordered before which later ones. */
enum { IR_FENCE_RR = 1, IR_FENCE_RW = 2, IR_FENCE_WR = 4, IR_FENCE_WW = 8, IR_FENCE_ALL = 15 };

enum ir_hint { IR_HINT_NONE, IR_HINT_RETURN };

/* Slots: named pieces of the guest's state. */
enum { IR_MAX_SLOTS = 128 };
struct ir_slot {
    const char *name;
    uint32_t offset; /* in the guest's CPU struct */
    uint8_t type;    /* enum ir_type */
    uint8_t group;   /* the front end's: GPR, FPR, CSR ... for dumps and debuggers */
    uint8_t pin;     /* 1: the most used ... 255; 0: never held in a host register across blocks. Only I64 slots. */
};
struct ir_slots { /* a set of slots */
    uint64_t bits[IR_MAX_SLOTS / 64];
};
#define IR_SLOTS_NONE ((struct ir_slots){{0, 0}})
#define IR_SLOTS_ALL ((struct ir_slots){{~0ull, ~0ull}})
static inline bool ir_slots_has(const struct ir_slots *set, unsigned slot)
{
    return set->bits[slot / 64] >> (slot % 64) & 1;
}

/* Helpers: C functions called from translated code. Floats travel as their bits. */
struct ir_helper {
    const char *name;
    uint64_t (*fn)(void *cpu, uint64_t a, uint64_t b, uint64_t c);
    struct ir_slots reads, writes; /* slots looked at and changed through `cpu` */
    bool may_fault; /* may end with translate_cpu.exception set: the instruction then has not happened (state as of
                     * ir_insn_start, pc = the instruction) */
    bool may_exit;  /* may set translate_cpu.leave, which is looked at when the block ends in ir_exit_runtime() with
                     * TRANSLATE_EXIT_CONTINUE: end it so */
    bool uses_fp;   /* does host floating point arithmetic or looks at the guest's FP flags or rounding */
    bool pure;      /* no effect at all: may be dropped when its value is not used */
    uint8_t result; /* enum ir_type: IR_NONE, I32, I64, F32, F64 */
};

struct ir_value { /* 0: no value */
    uint16_t id;
};
struct ir_op {
    uint8_t op, type;
    uint16_t a, b, c;
    uint64_t imm;
};
_Static_assert(sizeof(struct ir_op) == 16, "sixteen bytes an operation");

enum { IR_MAX_OPS = 2048, IR_RESERVE_OPS = 64 /* always room for one instruction more than ir_is_full() says */ };
struct ir_block {
    const struct ir_slot *slots;
    const struct ir_helper *helpers;
    uint16_t slot_count, helper_count;
    uint16_t count;                 /* operations; number 0 is a nop */
    uint16_t current[IR_MAX_SLOTS]; /* the value a slot is known to have, 0 unknown */
    struct ir_op ops[IR_MAX_OPS];
};

/* Properties from the table. */
struct ir_op_info {
    const char *name;
    char kind; /* 'N', 'V', 'B' */
    uint8_t operands;
    uint8_t properties;
};
extern const struct ir_op_info ir_op_info[IR_OP_COUNT];

void ir_begin(struct ir_block *b, const struct ir_slot *slots, unsigned slot_count, const struct ir_helper *helpers,
              unsigned helper_count);
static inline bool ir_is_full(const struct ir_block *b)
{
    return b->count > IR_MAX_OPS - IR_RESERVE_OPS;
}
static inline bool ir_is_ended(const struct ir_block *b) /* the last operation leaves the block */
{
    return ir_op_info[b->ops[b->count - 1].op].properties & IR_END;
}
static inline enum ir_type ir_type_of(const struct ir_block *b, struct ir_value v)
{
    const struct ir_op *op = &b->ops[v.id];
    return ir_op_info[op->op].kind == 'B' ? IR_I64 : (enum ir_type)op->type;
}
static inline bool ir_is_const(const struct ir_block *b, struct ir_value v, uint64_t *value)
{
    if (b->ops[v.id].op != IR_OP_const)
        return false;
    *value = b->ops[v.id].imm;
    return true;
}
struct ir_value ir_append(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x,
                          struct ir_value y, struct ir_value z, uint64_t imm);

/* Structure and state. */
void ir_insn_start(struct ir_block *b, uint64_t pc, unsigned length);
struct ir_value ir_const(struct ir_block *b, uint64_t value);
struct ir_value ir_const32(struct ir_block *b, uint32_t value);
struct ir_value ir_get(struct ir_block *b, unsigned slot);                       /* I8, I16: as I64 */
struct ir_value ir_get_as(struct ir_block *b, unsigned slot, enum ir_type type); /* same-sized slot read as F64, I64 */
void ir_put(struct ir_block *b, unsigned slot, struct ir_value value);           /* stores the slot's width */

/* Integers. Plain names are I64; names with 32 work on the low halves and yield an I32, which ir_sext(.., 32) and
 * ir_zext(.., 32) bring back to I64. */
struct ir_value ir_binary(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x,
                          struct ir_value y);
struct ir_value ir_unary(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x);
#define IR_BINARY(name)                                                                                                \
    static inline struct ir_value ir_##name(struct ir_block *b, struct ir_value x, struct ir_value y)                  \
    {                                                                                                                  \
        return ir_binary(b, IR_OP_##name, IR_I64, x, y);                                                               \
    }                                                                                                                  \
    static inline struct ir_value ir_##name##32(struct ir_block * b, struct ir_value x, struct ir_value y)             \
    {                                                                                                                  \
        return ir_binary(b, IR_OP_##name, IR_I32, x, y);                                                               \
    }
#define IR_UNARY(name)                                                                                                 \
    static inline struct ir_value ir_##name(struct ir_block *b, struct ir_value x)                                     \
    {                                                                                                                  \
        return ir_unary(b, IR_OP_##name, IR_I64, x);                                                                   \
    }                                                                                                                  \
    static inline struct ir_value ir_##name##32(struct ir_block * b, struct ir_value x)                                \
    {                                                                                                                  \
        return ir_unary(b, IR_OP_##name, IR_I32, x);                                                                   \
    }
IR_BINARY(add)
IR_BINARY(sub)
IR_BINARY(mul)
IR_BINARY(mulh_s)
IR_BINARY(mulh_u)
IR_BINARY(mulh_su)
IR_BINARY(and) IR_BINARY(or) IR_BINARY(xor) IR_BINARY(andn) IR_BINARY(shl) IR_BINARY(shr) IR_BINARY(sar) IR_BINARY(rotl)
    IR_BINARY(rotr) IR_BINARY(min_s) IR_BINARY(max_s) IR_BINARY(min_u) IR_BINARY(max_u) IR_UNARY(clz) IR_UNARY(ctz)
        IR_UNARY(popcount) IR_UNARY(bswap)
#undef IR_BINARY
#undef IR_UNARY
    /* op: IR_OP_div_s, div_u, rem_s, rem_u; type: IR_I32 or IR_I64 */
    struct ir_value ir_divide(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x,
                              struct ir_value y, enum ir_division rule);
struct ir_value ir_not(struct ir_block *b, struct ir_value x);
struct ir_value ir_neg(struct ir_block *b, struct ir_value x);
struct ir_value ir_sext(struct ir_block *b, struct ir_value x, unsigned from_bits); /* I64 of the low 8, 16, 32 bits */
struct ir_value ir_zext(struct ir_block *b, struct ir_value x, unsigned from_bits);
struct ir_value ir_set(struct ir_block *b, enum ir_cond cond, struct ir_value x, struct ir_value y); /* I64: 0, 1 */
struct ir_value ir_set32(struct ir_block *b, enum ir_cond cond, struct ir_value x, struct ir_value y);
struct ir_value ir_select(struct ir_block *b, struct ir_value condition, struct ir_value yes, struct ir_value no);

/* Floating point. type: IR_F32, IR_F64. fp.round: a fixed mode, or IR_ROUND_DYNAMIC: the guest's current one. */
struct ir_value ir_fp2(struct ir_block *b, enum ir_opcode op, enum ir_type type, struct ir_value x, struct ir_value y,
                       struct ir_fp fp); /* fadd fsub fmul fdiv fmin fmax */
struct ir_value ir_fsqrt(struct ir_block *b, enum ir_type type, struct ir_value x, struct ir_fp fp);
struct ir_value ir_fma(struct ir_block *b, enum ir_type type, struct ir_value x, struct ir_value y, struct ir_value z,
                       struct ir_fp fp);
struct ir_value ir_fcmp(struct ir_block *b, enum ir_fcond cond, enum ir_type type, struct ir_value x,
                        struct ir_value y);
/* NaN and positive overflow give the largest number, negative overflow the smallest (RISC-V); raises invalid then. */
struct ir_value ir_f_to_i(struct ir_block *b, enum ir_type integer, bool is_unsigned, enum ir_type from,
                          struct ir_value x, struct ir_fp fp);
struct ir_value ir_i_to_f(struct ir_block *b, enum ir_type to, enum ir_type integer, bool is_unsigned,
                          struct ir_value x, struct ir_fp fp);
struct ir_value ir_f_to_f(struct ir_block *b, enum ir_type to, enum ir_type from, struct ir_value x, struct ir_fp fp);
struct ir_value ir_bits(struct ir_block *b, enum ir_type to, struct ir_value x); /* reinterpret */
struct ir_value ir_box(struct ir_block *b, struct ir_value f32);
struct ir_value ir_unbox(struct ir_block *b, struct ir_value i64_or_f64);
struct ir_value ir_fp_flags(struct ir_block *b);
void ir_fp_set_flags(struct ir_block *b, struct ir_value flags);
void ir_fp_set_rounding(struct ir_block *b, struct ir_value rounding); /* values 0..3 only */

/* Memory. Integer loads yield I64; ir_load_as yields F32 (size 2), F64 (3) or a vector. Stores take any of these. */
struct ir_value ir_load(struct ir_block *b, struct ir_value address, struct ir_mem mem);
struct ir_value ir_load_as(struct ir_block *b, enum ir_type type, struct ir_value address, struct ir_mem mem);
void ir_store(struct ir_block *b, struct ir_value address, struct ir_value value, struct ir_mem mem);
struct ir_value ir_load_reserved(struct ir_block *b, struct ir_value address, struct ir_mem mem);
struct ir_value ir_store_conditional(struct ir_block *b, struct ir_value address, struct ir_value value,
                                     struct ir_mem mem); /* I64: 0 stored, 1 failed */
struct ir_value ir_amo(struct ir_block *b, enum ir_amo amo, struct ir_value address, struct ir_value value,
                       struct ir_mem mem); /* the old value, extended as mem says */
struct ir_value ir_cmpxchg(struct ir_block *b, struct ir_value address, struct ir_value expected,
                           struct ir_value desired, struct ir_mem mem);
void ir_fence(struct ir_block *b, unsigned kinds);

/* Vectors. element: log2 of its bytes. */
struct ir_value ir_vector2(struct ir_block *b, enum ir_opcode op, enum ir_type type, unsigned element,
                           struct ir_value x, struct ir_value y);
struct ir_value ir_vsplat(struct ir_block *b, enum ir_type type, unsigned element, struct ir_value x);
struct ir_value ir_vcmp(struct ir_block *b, enum ir_cond cond, unsigned element, struct ir_value x, struct ir_value y);
struct ir_value ir_vselect(struct ir_block *b, enum ir_type type, unsigned element, struct ir_value mask,
                           struct ir_value yes, struct ir_value no);

/* A helper call; unused arguments are (struct ir_value){0}. The result is the helper's type, or no value. */
struct ir_value ir_call(struct ir_block *b, unsigned helper, struct ir_value x, struct ir_value y, struct ir_value z);

/* Leaving the block. */
void ir_exit_if(struct ir_block *b, struct ir_value condition, uint64_t pc); /* != 0: jump to pc; else go on */
void ir_exit_direct(struct ir_block *b, uint64_t pc);
void ir_exit_indirect(struct ir_block *b, struct ir_value pc, enum ir_hint hint);
/* Before the exit of a call: the pc it will return to, for the shadow stack that serves IR_HINT_RETURN. */
void ir_push_return(struct ir_block *b, uint64_t pc);
/* Back to the caller of translate_run(), which returns `reason` (TRANSLATE_EXIT_*, or TRANSLATE_EXIT_GUEST + n) with
 * translate_cpu.pc = pc. TRANSLATE_EXIT_CONTINUE stays inside: after an instruction that changed the mode, flushed the
 * TLB or synchronised code, the next block is looked up anew. */
void ir_exit_runtime(struct ir_block *b, unsigned reason, uint64_t pc);

/* The text form, one operation a line, for tests and dumps. ir_parse: false names the line in `message`. */
#include <stdio.h>
void ir_print(const struct ir_block *b, FILE *out);
bool ir_parse(struct ir_block *b, const char *text, char message[128]); /* after ir_begin() */

extern const char *const ir_type_names[IR_TYPES];
unsigned ir_type_size(enum ir_type type); /* bytes */

#endif
