/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking over elements: what the chapters' files share.
 *
 * `ivdep` promises that no element's store changes what a later element reads. The manual's overlap rules see to it:
 * groups of one width are equal or apart; a wider destination may cover a source only with its upper part, a narrower
 * one only the source's lower part, so the stores stay behind the loads when elements go upwards. Slides and gathers,
 * whose sources lie elsewhere, may not overlap or go element by element.
 */
#ifndef EMULATOR_CPU_RISCV_VECTOR_LOOPS_H
#define EMULATOR_CPU_RISCV_VECTOR_LOOPS_H

#include "emulator/cpu/riscv/vector/vector.h"

typedef uint8_t __attribute__((may_alias)) vector_u8;
typedef uint16_t __attribute__((may_alias)) vector_u16;
typedef uint32_t __attribute__((may_alias)) vector_u32;
typedef uint64_t __attribute__((may_alias)) vector_u64;
typedef int8_t __attribute__((may_alias)) vector_s8;
typedef int16_t __attribute__((may_alias)) vector_s16;
typedef int32_t __attribute__((may_alias)) vector_s32;
typedef int64_t __attribute__((may_alias)) vector_s64;

#define VECTOR_PASTE2(a, b) a##b
#define VECTOR_PASTE(a, b) VECTOR_PASTE2(a, b)

/* The rest of a vector_function: `...` for each active element i. */
#define VECTOR_EACH(...)                                                                                               \
    uint64_t vl = v->vl, i = v->vstart;                                                                                \
    if (VECTOR_VM(args)) {                                                                                             \
        _Pragma("GCC ivdep") for (; i < vl; i++)                                                                       \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    } else {                                                                                                           \
        const uint8_t *mask = v->reg;                                                                                  \
        for (; i < vl; i++) {                                                                                          \
            if (vector_mask_bit(mask, i)) {                                                                            \
                __VA_ARGS__                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    v->vstart = 0;                                                                                                     \
    return 0;

/* The same where v0 is an operand and every element is written; `in` is its bit, 0 in the unmasked form. */
#define VECTOR_EACH_WITH_MASK(...)                                                                                     \
    const uint8_t *mask = v->reg;                                                                                      \
    uint64_t vl = v->vl;                                                                                               \
    bool reads = !VECTOR_VM(args);                                                                                     \
    for (uint64_t i = v->vstart; i < vl; i++) {                                                                        \
        bool in = reads && vector_mask_bit(mask, i);                                                                   \
        __VA_ARGS__                                                                                                    \
    }                                                                                                                  \
    v->vstart = 0;                                                                                                     \
    return 0;

/* The rest of a vector_function that writes a mask: bit i becomes `condition`. Eight at a time: the byte of the mask
 * in v0 and the elements behind it are read before the byte is written, for the destination may be any of them. */
#define VECTOR_EACH_BIT(active_only, condition)                                                                        \
    uint8_t *to = vector_register(v, VECTOR_VD(args));                                                                 \
    const uint8_t *mask = v->reg;                                                                                      \
    uint64_t vl = v->vl;                                                                                               \
    for (uint64_t base = v->vstart & ~7ull; base < vl; base += 8) {                                                    \
        uint8_t in_byte = mask[base >> 3];                                                                             \
        unsigned count = vl - base < 8 ? (unsigned)(vl - base) : 8;                                                    \
        unsigned touched = (1u << count) - 1, byte = 0;                                                                \
        if (base < v->vstart)                                                                                          \
            touched &= ~0u << (v->vstart - base);                                                                      \
        if ((active_only) && !VECTOR_VM(args))                                                                         \
            touched &= in_byte;                                                                                        \
        for (unsigned k = 0; k < count; k++) {                                                                         \
            uint64_t i = base + k;                                                                                     \
            bool in = in_byte >> k & 1;                                                                                \
            (void)in;                                                                                                  \
            byte |= (unsigned)((condition) != 0) << k;                                                                 \
        }                                                                                                              \
        to[base >> 3] = (uint8_t)((to[base >> 3] & ~touched) | (byte & touched));                                      \
    }                                                                                                                  \
    v->vstart = 0;                                                                                                     \
    return 0;

#endif
