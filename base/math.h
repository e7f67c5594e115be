/* SPDX-License-Identifier: Apache-2.0 */
/* Checked and rounding arithmetic on sizes and offsets. Everything that enters from a file, socket, guest or user
 * passes here. */
#ifndef BASE_MATH_H
#define BASE_MATH_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#define KiB 1024ull
#define MiB (1024ull * KiB)
#define GiB (1024ull * MiB)
#define TiB (1024ull * GiB)

/* Each use has names of its own, so that MIN(MIN(a, b), c) shadows nothing. */
#define MIN(a, b) BASE_CHOOSE(a, b, <, __COUNTER__)
#define MAX(a, b) BASE_CHOOSE(a, b, >, __COUNTER__)
#define BASE_CHOOSE(a, b, relation, n) BASE_CHOOSE_NAMED(a, b, relation, n)
#define BASE_CHOOSE_NAMED(a, b, relation, n)                                                                           \
    ({                                                                                                                 \
        __typeof__(a) choose_a_##n = (a);                                                                              \
        __typeof__(b) choose_b_##n = (b);                                                                              \
        choose_a_##n relation choose_b_##n ? choose_a_##n : choose_b_##n;                                              \
    })
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define DIV_ROUND_UP(value, divisor) (((value) + (divisor)-1) / (divisor))

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* True when the sum or product does not fit; *result is then unspecified. */
static inline bool add_overflows(uint64_t a, uint64_t b, uint64_t *result)
{
    return __builtin_add_overflow(a, b, result);
}

static inline bool mul_overflows(uint64_t a, uint64_t b, uint64_t *result)
{
    return __builtin_mul_overflow(a, b, result);
}

/* Does [offset, offset + length) lie inside [0, size)? */
static inline bool span_fits(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

/* Do two spans share a byte? The spans themselves must not wrap. */
static inline bool spans_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a_length && b_length && a < b + b_length && b < a + a_length;
}

static inline bool is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

/* `alignment` is a power of two. round_up() of a value within `alignment` of 2^64 wraps: check first where outsiders
 * decide. */
static inline uint64_t round_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

static inline uint64_t round_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline bool is_aligned(uint64_t value, uint64_t alignment)
{
    return !(value & (alignment - 1));
}

/* Index of the lowest / highest set bit; the value must not be 0. */
static inline unsigned lowest_bit(uint64_t value)
{
    return (unsigned)__builtin_ctzll(value);
}

static inline unsigned highest_bit(uint64_t value)
{
    return 63u - (unsigned)__builtin_clzll(value);
}

#endif
