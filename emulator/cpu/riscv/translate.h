/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block of RISC-V code becoming IR. The generated translators (insn_translate.c, from the *.decode files) call the
 * small functions below; what has no template has a riscv_translate_NAME() in the file of its chapter.
 */
#ifndef EMULATOR_CPU_RISCV_TRANSLATE_H
#define EMULATOR_CPU_RISCV_TRANSLATE_H

#include "emulator/cpu/riscv/csr.h"
#include "emulator/cpu/riscv/riscv.h"
#include "emulator/cpu/riscv/rv_v.h"

struct riscv_translation {
    struct ir_block *ir;
    struct translate_block *block;
    uint32_t mode;
    uint64_t pc;      /* of this instruction */
    uint64_t next_pc; /* where decoding goes on; a jump that is followed moves it */
    uint32_t bits;    /* the instruction */
    unsigned length;  /* its bytes */
};

/* Slots of the IR: x0 to x31, f0 to f31, and the CSRs that are plain storage. */
enum {
    SLOT_X0 = 0,
    SLOT_F0 = 32,
    SLOT_SSCRATCH = 64,
    SLOT_SEPC,
    SLOT_SCAUSE,
    SLOT_STVAL,
    SLOT_MSCRATCH,
    SLOT_MEPC,
    SLOT_MCAUSE,
    SLOT_MTVAL,
    SLOT_COUNT
};

/* Helpers (helpers.c). */
enum riscv_helper {
    HELPER_RAISE,       /* a: exception, b: its value */
    HELPER_CSR,         /* a: number | operation << 16, b: operand, c: instruction bits -> old value */
    HELPER_CSR_FLOAT,   /* the same for fflags, frm, fcsr */
    HELPER_DIRTY_FS,    /* first floating-point instruction since FS was set clean */
    HELPER_CHECK,       /* a: enum riscv_check, b: instruction bits: illegal when trapped by mstatus or envcfg */
    HELPER_FENCE_VMA,   /* a: address, b: ASID, c: 1 address given, 2 ASID given */
    HELPER_CACHE_BLOCK, /* a: address, b: 1 zero it */
    HELPER_RMM_ADDEND,  /* a: the third operand of the next HELPER_FLOAT_RMM */
    HELPER_FLOAT_RMM,   /* a: operation, b, c: operands, rounding to nearest, ties away */
    HELPER_FCLASS,      /* a: bits, b: 1 double */
    HELPER_VECTOR_INTEGER, /* rv_v.h; a: row of its table * 4 + SEW, b: VECTOR_ARGS, c: scalar */
    HELPER_VECTOR_PERMUTE,
    HELPER_VECTOR_FLOAT,
    HELPER_VECTOR_FROM_START, /* a: instruction bits */
    HELPER_VECTOR_SET,        /* a: vtype, b: AVL, c: enum vector_avl -> vl */
    HELPER_VECTOR_DIRTY,
    HELPER_VECTOR_LOAD, /* a: struct vector_access, b: address, c: stride */
    HELPER_VECTOR_STORE,
    HELPER_COUNT
};
extern const struct ir_helper riscv_helpers[HELPER_COUNT];
extern const struct ir_slot riscv_slots[SLOT_COUNT]; /* translate.c */
void riscv_translate_block(struct translate_block *block);

enum riscv_check { CHECK_SRET, CHECK_WFI, CHECK_SFENCE_VMA, CHECK_CBO_INVAL, CHECK_CBO_CLEAN, CHECK_CBO_ZERO };

/* ---- for the templates ---- */

static inline struct ir_value riscv_read_x(struct riscv_translation *t, unsigned number)
{
    return number ? ir_get(t->ir, SLOT_X0 + number) : ir_const(t->ir, 0);
}

static inline void riscv_write_x(struct riscv_translation *t, unsigned number, struct ir_value value)
{
    if (number)
        ir_put(t->ir, SLOT_X0 + number, value);
}

static inline unsigned riscv_data_mmu(const struct riscv_translation *t)
{
    return MODE_DATA_MMU(t->mode);
}

static inline struct ir_value riscv_load(struct riscv_translation *t, unsigned size_log2, bool is_signed,
                                         struct ir_value address)
{
    return ir_load(t->ir, address,
                   (struct ir_mem){.size = (uint8_t)size_log2, .is_signed = is_signed, .mmu = riscv_data_mmu(t)});
}

static inline void riscv_store(struct riscv_translation *t, unsigned size_log2, struct ir_value address,
                               struct ir_value value)
{
    ir_store(t->ir, address, value, IR_STORE((uint8_t)size_log2, riscv_data_mmu(t)));
}

static inline struct ir_value riscv_load_reserved(struct riscv_translation *t, unsigned size_log2,
                                                  struct ir_value address)
{
    return ir_load_reserved(t->ir, address, IR_ATOMIC((uint8_t)size_log2, riscv_data_mmu(t), IR_SEQ_CST));
}

static inline struct ir_value riscv_store_conditional(struct riscv_translation *t, unsigned size_log2,
                                                      struct ir_value address, struct ir_value value)
{
    return ir_store_conditional(t->ir, address, value, IR_ATOMIC((uint8_t)size_log2, riscv_data_mmu(t), IR_SEQ_CST));
}

static inline struct ir_value riscv_amo(struct riscv_translation *t, enum ir_amo amo, unsigned size_log2,
                                        struct ir_value address, struct ir_value value)
{
    return ir_amo(t->ir, amo, address, value, IR_ATOMIC((uint8_t)size_log2, riscv_data_mmu(t), IR_SEQ_CST));
}

/* The fall-through goes on in the same block. */
static inline void riscv_branch(struct riscv_translation *t, struct ir_value condition, int64_t offset)
{
    ir_exit_if(t->ir, condition, t->pc + (uint64_t)offset);
}

/* ---- for the functions ---- */

/* The instruction raises an exception; ends the block. */
void riscv_translate_exception(struct riscv_translation *t, enum riscv_exception cause, uint64_t value);
void riscv_translate_illegal(struct riscv_translation *t);
/* After the instruction the next one has to be looked up anew (mode, translation or interrupts may have changed). */
void riscv_end_block(struct riscv_translation *t);

struct riscv_operands;

/* system.c */
void riscv_csr_register(struct riscv_translation *t, const struct riscv_operands *o,
                        enum riscv_csr_operation operation);
void riscv_csr_immediate(struct riscv_translation *t, const struct riscv_operands *o,
                         enum riscv_csr_operation operation);

/* rv_fd.c. false: the block has ended, with an exception or to be made again with FS dirty. Stores and moves to integer
 * registers look at the floating-point state, the others change it. */
enum riscv_fp_use { FP_LOOKS, FP_CHANGES };
bool riscv_fp_begin(struct riscv_translation *t, enum riscv_fp_use use);

/* `type` is IR_F32 or IR_F64. */
enum riscv_sign { SIGN_COPY, SIGN_INVERT, SIGN_XOR };
void riscv_fp_load(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type);
void riscv_fp_store(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type);
void riscv_fp_fma(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type, bool negate_product,
                  bool negate_addend);
void riscv_fp_binary(struct riscv_translation *t, const struct riscv_operands *o, enum ir_opcode op, enum ir_type type);
void riscv_fp_minmax(struct riscv_translation *t, const struct riscv_operands *o, enum ir_opcode op, enum ir_type type);
void riscv_fp_sqrt(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type);
void riscv_fp_sign(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type,
                   enum riscv_sign sign);
void riscv_fp_convert(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type to, enum ir_type from);
void riscv_fp_compare(struct riscv_translation *t, const struct riscv_operands *o, enum ir_fcond cond,
                      enum ir_type type);
void riscv_fp_class(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type);
void riscv_fp_to_integer(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type integer,
                         bool is_unsigned, enum ir_type type);
void riscv_fp_from_integer(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type,
                           enum ir_type integer, bool is_unsigned);
void riscv_fp_move_to_x(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type);
void riscv_fp_move_from_x(struct riscv_translation *t, const struct riscv_operands *o, enum ir_type type);

/* Operations of HELPER_FLOAT_RMM: which of float.h, of which type. */
enum riscv_rmm_operation {
    RMM_ADD,
    RMM_SUB,
    RMM_MUL,
    RMM_DIV,
    RMM_SQRT,
    RMM_FMA, /* negations in bits 8 and 9; the addend comes through HELPER_RMM_ADDEND */
    RMM_CONVERT,
    RMM_TO_I32,
    RMM_TO_U32,
    RMM_TO_I64,
    RMM_TO_U64,
    RMM_FROM_I32,
    RMM_FROM_U32,
    RMM_FROM_I64,
    RMM_FROM_U64
};
enum { RMM_DOUBLE = 1 << 16, RMM_NEGATE_PRODUCT = 1 << 8, RMM_NEGATE_ADDEND = 1 << 9 };

/* Generated. */
extern void (*const riscv_translators[RISCV_INSN_COUNT])(struct riscv_translation *t, const struct riscv_operands *o);

#endif
