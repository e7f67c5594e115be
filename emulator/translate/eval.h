/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evaluator: runs a block of IR directly. It is the oracle of every back end and the way to run where there is
 * none.
 */
#ifndef EMULATOR_TRANSLATE_EVAL_H
#define EMULATOR_TRANSLATE_EVAL_H

#include "emulator/translate/ir.h"

struct translate_cpu;

union ir_number {
    uint64_t i; /* I32, F32: low half; MASK: one bit an element */
    uint64_t v[8];
};
struct ir_evaluator {
    union ir_number values[IR_MAX_OPS];
};

/* Runs `b` on tc->cpu. Returns an enum translate_exit; tc->pc is where to go on (or the instruction that faulted). */
unsigned ir_evaluate(struct translate_cpu *tc, struct ir_evaluator *e, const struct ir_block *b);

/* Floating point operations (eval_fp.c). */
void ir_evaluate_fp(struct translate_cpu *tc, const struct ir_block *b, const struct ir_op *op, union ir_number *result,
                    const union ir_number *x, const union ir_number *y, const union ir_number *z);
/* Vector operations (eval_vector.c). */
void ir_evaluate_vector(const struct ir_block *b, const struct ir_op *op, union ir_number *result,
                        const union ir_number *x, const union ir_number *y, const union ir_number *z);

#endif
