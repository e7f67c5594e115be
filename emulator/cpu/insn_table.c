/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing instruction words by table; see insn_table.h. */
#include <string.h>
#include "emulator/cpu/insn_table.h"

static uint64_t raw_value(const struct insn_field *field, uint64_t bits)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < field->count; i++)
        value |= (bits >> field->slices[i].low & ((1ull << field->slices[i].width) - 1)) << field->slices[i].to;
    return value;
}

int64_t insn_field_get(const struct insn_field *field, uint64_t bits)
{
    uint64_t value = raw_value(field, bits);

    switch (field->kind) {
    case INSN_FIELD_X_SHORT:
    case INSN_FIELD_F_SHORT: return (int64_t)value + 8;
    case INSN_FIELD_SIGNED: return (int64_t)(value << (64 - field->bits)) >> (64 - field->bits);
    default: return (int64_t)value;
    }
}

uint64_t insn_field_put(const struct insn_field *field, uint64_t bits, uint64_t value)
{
    for (unsigned i = 0; i < field->count; i++) {
        uint64_t mask = (1ull << field->slices[i].width) - 1;
        bits &= ~(mask << field->slices[i].low);
        bits |= (value >> field->slices[i].to & mask) << field->slices[i].low;
    }
    return bits;
}

const struct insn_field *insn_field_find(const struct insn_info *insn, const char *name)
{
    size_t length = strlen(name);

    for (unsigned i = 0; i < insn->field_count; i++) {
        const char *candidate = insn->fields[i].name;
        if (!strncmp(candidate, name, length) && (!candidate[length] || candidate[length] == '\''))
            return &insn->fields[i];
    }
    return NULL;
}

static bool has_excluded_value(const struct insn_info *insn, uint64_t bits)
{
    for (unsigned i = 0; i < insn->field_count; i++) {
        const struct insn_field *field = &insn->fields[i];
        for (unsigned j = 0; j < field->excluded_count; j++) {
            if (raw_value(field, bits) == field->excluded[j])
                return true;
        }
    }
    return false;
}

bool insn_matches(const struct insn_info *insn, uint64_t bits)
{
    return (bits & insn->mask) == insn->match && !has_excluded_value(insn, bits);
}

bool insn_random(const struct insn_info *insn, uint64_t random, uint64_t *bits)
{
    uint64_t free_bits = 0;

    for (unsigned i = 0; i < insn->field_count; i++)
        free_bits = insn_field_put(&insn->fields[i], free_bits, ~0ull);
    *bits = insn->match | (random & free_bits & ~insn->mask);
    return !has_excluded_value(insn, *bits);
}
