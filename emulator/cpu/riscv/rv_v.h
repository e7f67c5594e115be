/* SPDX-License-Identifier: Apache-2.0 */
/* The V extension's side of translation: what the table's meanings are made of (rv_v.c), and memory (vector_memory.c).
 */
#ifndef EMULATOR_CPU_RISCV_RV_V_H
#define EMULATOR_CPU_RISCV_RV_V_H

#include <stdbool.h>
#include <stdint.h>
#include "emulator/cpu/riscv/vector/vector.h"

struct cpu_riscv;
struct riscv_operands;
struct riscv_translation;

/* vtype in the mode word: 0 is vill, else 1 + sew * 7 + lmul + 3. */
enum { VECTOR_VILL = 0, VECTOR_LMULS = 7 };
static inline unsigned vector_setting(unsigned sew, int lmul)
{
    return 1 + sew * VECTOR_LMULS + (unsigned)(lmul + 3);
}
static inline unsigned vector_setting_sew(unsigned setting)
{
    return (setting - 1) / VECTOR_LMULS;
}
static inline int vector_setting_lmul(unsigned setting)
{
    return (int)((setting - 1) % VECTOR_LMULS) - 3;
}
unsigned vector_setting_of(uint64_t vtype); /* VECTOR_VILL for what is not supported */

/* Which registers an instruction touches, and of what width beside SEW: a row of shapes[] each. */
enum vector_shape {
    SHAPE_SAME,
    SHAPE_WITH_MASK, /* v0 is an operand, not a condition */
    SHAPE_SPLAT,     /* no vs2 */
    SHAPE_CARRY,     /* writes a mask; v0 is an operand */
    SHAPE_COMPARE,   /* writes a mask */
    SHAPE_WIDEN,
    SHAPE_WIDEN_INTO, /* vd is accumulated into */
    SHAPE_WIDEN_W,    /* vs2 is wide too */
    SHAPE_NARROW,
    SHAPE_EXTEND_2,
    SHAPE_EXTEND_4,
    SHAPE_EXTEND_8,
    SHAPE_UNARY,
    SHAPE_WIDEN_UNARY,
    SHAPE_NARROW_UNARY,
    SHAPE_REDUCE,
    SHAPE_WIDEN_REDUCE,
    SHAPE_MASKS,
    SHAPE_MASK_TO_X,
    SHAPE_MASK_FIRST,
    SHAPE_IOTA,
    SHAPE_ID,
    SHAPE_TO_SCALAR,
    SHAPE_FROM_SCALAR,
    SHAPE_SLIDE,
    SHAPE_GATHER,
    SHAPE_GATHER_X,
    SHAPE_GATHER_16,
    SHAPE_COMPRESS,
    SHAPE_COUNT
};
enum vector_operand { OPERAND_NONE, OPERAND_V, OPERAND_X, OPERAND_I, OPERAND_F };

void riscv_vector_integer(struct riscv_translation *t, const struct riscv_operands *o, enum vector_integer op,
                          enum vector_shape shape, enum vector_operand source);
void riscv_vector_permute(struct riscv_translation *t, const struct riscv_operands *o, enum vector_permute op,
                          enum vector_shape shape, enum vector_operand source);
void riscv_vector_float(struct riscv_translation *t, const struct riscv_operands *o, enum vector_float op,
                        enum vector_shape shape, enum vector_operand source);
void riscv_vector_move(struct riscv_translation *t, const struct riscv_operands *o, unsigned registers);

enum vector_addressing { ACCESS_UNIT, ACCESS_STRIDED, ACCESS_INDEXED, ACCESS_FIRST, ACCESS_WHOLE, ACCESS_MASK };
/* `width`: log2 of the bytes of an element, or of an index. */
void riscv_vector_elements(struct riscv_translation *t, const struct riscv_operands *o, enum vector_addressing how,
                           unsigned width, bool is_load);
void riscv_vector_load_whole(struct riscv_translation *t, const struct riscv_operands *o, unsigned width,
                             unsigned registers);
void riscv_vector_load_mask(struct riscv_translation *t, const struct riscv_operands *o);
void riscv_vector_store_whole(struct riscv_translation *t, const struct riscv_operands *o, unsigned registers);
void riscv_vector_store_mask(struct riscv_translation *t, const struct riscv_operands *o);

void riscv_vector_set_immediate(struct riscv_translation *t, const struct riscv_operands *o);
void riscv_vector_set_both(struct riscv_translation *t, const struct riscv_operands *o);
void riscv_vector_set_register(struct riscv_translation *t, const struct riscv_operands *o);

/* Helpers. */
uint64_t riscv_help_vector_integer(void *cpu, uint64_t row, uint64_t args, uint64_t scalar);
uint64_t riscv_help_vector_permute(void *cpu, uint64_t row, uint64_t args, uint64_t scalar);
uint64_t riscv_help_vector_float(void *cpu, uint64_t row, uint64_t args, uint64_t scalar);
uint64_t riscv_help_vector_from_start(void *cpu, uint64_t bits, uint64_t b, uint64_t c); /* illegal unless vstart 0 */
uint64_t riscv_help_vector_set(void *cpu, uint64_t vtype, uint64_t avl, uint64_t how);
uint64_t riscv_help_vector_dirty(void *cpu, uint64_t a, uint64_t b, uint64_t c);
uint64_t riscv_help_vector_load(void *cpu, uint64_t what, uint64_t address, uint64_t stride);
uint64_t riscv_help_vector_store(void *cpu, uint64_t what, uint64_t address, uint64_t stride);

enum vector_avl { VECTOR_AVL_GIVEN, VECTOR_AVL_MOST, VECTOR_AVL_KEPT };

/* A load or store: `what` of its helper. */
struct vector_access {
    uint8_t addressing;     /* enum vector_addressing */
    uint8_t reg, index_reg; /* vd or vs3; vs2 */
    uint8_t width;          /* log2 bytes of an element */
    uint8_t index_width;
    uint8_t fields;    /* of a segment; of ACCESS_WHOLE registers */
    uint8_t registers; /* from one field's group to the next's */
    uint8_t mmu : 4;
    uint8_t vm : 1;
};
_Static_assert(sizeof(struct vector_access) == 8, "travels as a constant");

#endif
