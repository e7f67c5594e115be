/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's instruction table as data, generated from its *.decode files by tools/decode: for disassembly, for tests
 * that encode instructions, for random instructions and for reports of what was covered. The translator does not read
 * it: it has a generated decoder.
 */
#ifndef EMULATOR_CPU_INSN_TABLE_H
#define EMULATOR_CPU_INSN_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum insn_field_kind {
    INSN_FIELD_X,       /* an integer register */
    INSN_FIELD_F,       /* a floating-point register */
    INSN_FIELD_V,       /* a vector register */
    INSN_FIELD_X_SHORT, /* registers 8 to 15 in three bits */
    INSN_FIELD_F_SHORT,
    INSN_FIELD_SIGNED, /* numbers */
    INSN_FIELD_UNSIGNED
};

struct insn_field {
    const char *name;
    uint8_t kind;  /* enum insn_field_kind */
    uint8_t count; /* of slices */
    uint8_t bits;  /* of the value */
    uint8_t excluded_count;
    struct {
        uint8_t low, to, width; /* bits [low, low + width) of the word are bits [to, to + width) of the value */
    } slices[8];
    uint64_t excluded[2]; /* raw values for which the pattern does not match */
};

struct insn_info {
    const char *name;
    const char *operands; /* as assemblers write them; words are field names or the guest's own tokens */
    uint64_t match, mask;
    uint64_t extension; /* one bit of the guest's set */
    uint8_t length;     /* bytes */
    uint8_t field_count;
    const struct insn_field *fields;
};

/* The field's value in an instruction word, sign-extended or turned into a register number. */
int64_t insn_field_get(const struct insn_field *field, uint64_t bits);

/* Puts the low bits of `value` (raw: what insn_field_get would see before it extends) into the word. */
uint64_t insn_field_put(const struct insn_field *field, uint64_t bits, uint64_t value);

/* NULL when the instruction has no field of that name ("rd" finds rd' too). */
const struct insn_field *insn_field_find(const struct insn_info *insn, const char *name);

/* Does the word match the pattern and hold no excluded value? */
bool insn_matches(const struct insn_info *insn, uint64_t bits);

/* The instruction with its fields taken from `random`, and true; false when they hit an excluded value. */
bool insn_random(const struct insn_info *insn, uint64_t random, uint64_t *bits);

#endif
