/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evaluator: runs a block of IR directly. It is the oracle of every back end and the way to run where there is
 * none. It can also keep back every put until somebody looks, as an optimising back end would: the proof of the
 * recovery maps (recovery.h).
 */
#ifndef EMULATOR_TRANSLATE_EVAL_H
#define EMULATOR_TRANSLATE_EVAL_H

#include "emulator/translate/ir.h"

struct translate_cpu;
struct ir_recovery;

union ir_number {
    uint64_t i; /* I32, F32: low half; MASK: one bit an element */
    uint64_t v[8];
};
struct ir_evaluator {
    union ir_number values[IR_MAX_OPS];
    uint16_t sunk[IR_MAX_SLOTS]; /* ir_evaluate_sunk(): the value that was put but not written, 0 none */
};

/* Runs `b` on tc->cpu. Returns an enum translate_exit; tc->pc is where to go on (or the instruction that faulted). */
unsigned ir_evaluate(struct translate_cpu *tc, struct ir_evaluator *e, const struct ir_block *b);

/* The same, but a put is written only when a helper declares to look, or from the recovery map when the block is left.
 */
unsigned ir_evaluate_sunk(struct translate_cpu *tc, struct ir_evaluator *e, const struct ir_block *b,
                          const struct ir_recovery *recovery);

/* Floating point operations (eval_fp.c). */
void ir_evaluate_fp(struct translate_cpu *tc, const struct ir_block *b, const struct ir_op *op, union ir_number *result,
                    const union ir_number *x, const union ir_number *y, const union ir_number *z);
/* Vector operations (eval_vector.c). */
void ir_evaluate_vector(const struct ir_block *b, const struct ir_op *op, union ir_number *result,
                        const union ir_number *x, const union ir_number *y, const union ir_number *z);

#endif
