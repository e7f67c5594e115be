/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the integer operations compute: the one definition behind constant folding and the evaluator.
 */
#ifndef EMULATOR_TRANSLATE_COMPUTE_H
#define EMULATOR_TRANSLATE_COMPUTE_H

#include "emulator/translate/ir.h"

/* An I32 result has its upper half zero here; users must not rely on it. */
uint64_t ir_compute(enum ir_opcode op, enum ir_type type, uint64_t x, uint64_t y, uint64_t imm);
bool ir_compute_condition(enum ir_cond cond, enum ir_type type, uint64_t x, uint64_t y);
uint64_t ir_extend(uint64_t x, unsigned bits, bool is_signed);
uint64_t ir_compute_amo(enum ir_amo amo, unsigned size_log2, uint64_t old, uint64_t operand); /* new value, low bits */

#endif
