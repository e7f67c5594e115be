/* SPDX-License-Identifier: Apache-2.0 */
/* Chapters "Vector Mask" and "Vector Permutation" of the V extension. permute_width.h is the body for one width. */
#include <stddef.h>
#include <string.h>
#include "base/math.h"
#include "emulator/cpu/riscv/vector/loops.h"

#define DEFINE(op) static uint64_t op(struct riscv_vector *v, uint64_t args, uint64_t scalar)

/* ---- masks as operands: bits [vstart, vl), 64 at a time ---- */

static uint64_t word_at(const uint8_t *mask, uint64_t bit)
{
    uint64_t word;
    memcpy(&word, mask + bit / 8, sizeof(word));
    return word;
}

/* Bits of [from, to) among the 64 from `base` on. */
static uint64_t range_bits(uint64_t base, uint64_t from, uint64_t to)
{
    uint64_t bits = to - base >= 64 ? ~0ull : (1ull << (to - base)) - 1;
    return from > base ? (from - base >= 64 ? 0 : bits & ~0ull << (from - base)) : bits;
}

static bool is_active(const struct riscv_vector *v, uint64_t args, uint64_t i)
{
    return VECTOR_VM(args) || vector_mask_bit(v->reg, i);
}

#define MASK_LOGICAL(op, expression)                                                                                   \
    DEFINE(op)                                                                                                         \
    {                                                                                                                  \
        uint8_t *to = vector_register(v, VECTOR_VD(args));                                                             \
        const uint8_t *from = vector_register(v, VECTOR_VS2(args)), *with = vector_register(v, VECTOR_VS1(args));      \
        for (uint64_t base = 0; base < v->vl; base += 64) {                                                            \
            uint64_t a = word_at(from, base), b = word_at(with, base), old = word_at(to, base);                        \
            uint64_t touched = range_bits(base, v->vstart, v->vl);                                                     \
            uint64_t word = (old & ~touched) | ((expression)&touched);                                                 \
            memcpy(to + base / 8, &word, sizeof(word));                                                                \
        }                                                                                                              \
        v->vstart = 0;                                                                                                 \
        return 0;                                                                                                      \
    }

MASK_LOGICAL(MAND, a &b)
MASK_LOGICAL(MNAND, ~(a &b))
MASK_LOGICAL(MANDN, a & ~b)
MASK_LOGICAL(MXOR, a ^ b)
MASK_LOGICAL(MOR, a | b)
MASK_LOGICAL(MNOR, ~(a | b))
MASK_LOGICAL(MORN, a | ~b)
MASK_LOGICAL(MXNOR, ~(a ^ b))

static uint64_t active_word(const struct riscv_vector *v, uint64_t args, const uint8_t *from, uint64_t base)
{
    uint64_t word = word_at(from, base) & range_bits(base, 0, v->vl);
    return VECTOR_VM(args) ? word : word & word_at(v->reg, base);
}

DEFINE(CPOP)
{
    const uint8_t *from = vector_register(v, VECTOR_VS2(args));
    uint64_t count = 0;

    for (uint64_t base = 0; base < v->vl; base += 64)
        count += (unsigned)__builtin_popcountll(active_word(v, args, from, base));
    return count;
}

DEFINE(FIRST)
{
    const uint8_t *from = vector_register(v, VECTOR_VS2(args));

    for (uint64_t base = 0; base < v->vl; base += 64) {
        uint64_t word = active_word(v, args, from, base);
        if (word)
            return base + (unsigned)__builtin_ctzll(word);
    }
    return UINT64_MAX;
}

/* The bits before, up to, or at the first that is set; no register of these may be the destination too. */
static void around_first(struct riscv_vector *v, uint64_t args, bool before, bool at)
{
    uint8_t *to = vector_register(v, VECTOR_VD(args));
    uint64_t first = FIRST(v, args, 0);

    for (uint64_t i = 0; i < v->vl; i++) {
        bool bit = (before && i < first) || (at && i == first);
        if (is_active(v, args, i))
            to[i / 8] = (uint8_t)((to[i / 8] & ~(1u << i % 8)) | (unsigned)bit << i % 8);
    }
}

DEFINE(MSBF)
{
    around_first(v, args, true, false);
    return 0;
}

DEFINE(MSIF)
{
    around_first(v, args, true, true);
    return 0;
}

DEFINE(MSOF)
{
    around_first(v, args, false, true);
    return 0;
}

/* ---- whole registers: scalar says how many ---- */

DEFINE(MVR)
{
    /* vstart counts elements of vtype's SEW, which stands in place of vs1; what is below it stays. */
    uint64_t bytes = scalar * RISCV_VLENB, from = MIN(v->vstart << VECTOR_VS1(args), bytes);

    memmove(vector_register(v, VECTOR_VD(args)) + from, vector_register(v, VECTOR_VS2(args)) + from, bytes - from);
    v->vstart = 0;
    return 0;
}

#undef DEFINE

#define BITS 8
#define SEW 0
#include "emulator/cpu/riscv/vector/permute_width.h"
#undef BITS
#undef SEW
#define BITS 16
#define SEW 1
#include "emulator/cpu/riscv/vector/permute_width.h"
#undef BITS
#undef SEW
#define BITS 32
#define SEW 2
#include "emulator/cpu/riscv/vector/permute_width.h"
#undef BITS
#undef SEW
#define BITS 64
#define SEW 3
#include "emulator/cpu/riscv/vector/permute_width.h"

#define ANY(name) [VECTOR_##name] = {name, name, name, name}
#define ALL(name) [VECTOR_##name] = {name##_8, name##_16, name##_32, name##_64}
#define FLOATS(name) [VECTOR_##name] = {NULL, NULL, name##_32, name##_64}

vector_row vector_permute[VECTOR_PERMUTE_COUNT] = {
    ANY(MAND),       ANY(MNAND),      ANY(MANDN),       ANY(MXOR),     ANY(MOR),       ANY(MNOR),     ANY(MORN),
    ANY(MXNOR),      ANY(CPOP),       ANY(FIRST),       ANY(MSBF),     ANY(MSIF),      ANY(MSOF),     ALL(IOTA),
    ALL(ID),         ALL(MV_XS),      ALL(MV_SX),       ALL(SLIDEUP),  ALL(SLIDEDOWN), ALL(SLIDE1UP), ALL(SLIDE1DOWN),
    ALL(RGATHER_VV), ALL(RGATHER_VX), ALL(RGATHEREI16), ALL(COMPRESS), ANY(MVR),       FLOATS(MV_FS), FLOATS(MV_SF),
};
