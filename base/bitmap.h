/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bitmaps: arrays of 64-bit words, bit 0 is the lowest bit of word 0. The functions work on plain words, so that a
 * bitmap may live in a struct, on a stack or in memory from bitmap_new(). Ranges are [start, start + count).
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_WORDS(bits) (((bits) + 63) / 64)

/* Zeroed; released by free(). bitmap_try_new() returns NULL when memory is out: for sizes that outsiders decide. */
uint64_t *bitmap_new(size_t bits);
uint64_t *bitmap_try_new(size_t bits);

static inline bool bitmap_test(const uint64_t *map, size_t bit)
{
    return map[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set_bit(uint64_t *map, size_t bit)
{
    map[bit / 64] |= 1ull << (bit % 64);
}

static inline void bitmap_clear_bit(uint64_t *map, size_t bit)
{
    map[bit / 64] &= ~(1ull << (bit % 64));
}

void bitmap_set(uint64_t *map, size_t start, size_t count);
void bitmap_clear(uint64_t *map, size_t start, size_t count);

/* The first bit at or after `start` that is set (clear); `bits`, the size of the map, when there is none. */
size_t bitmap_next_set(const uint64_t *map, size_t bits, size_t start);
size_t bitmap_next_clear(const uint64_t *map, size_t bits, size_t start);

/* The start of the first run of `count` clear bits at or after `start`; `bits` when there is none. */
size_t bitmap_find_clear_run(const uint64_t *map, size_t bits, size_t start, size_t count);

size_t bitmap_count(const uint64_t *map, size_t start, size_t count);  /* set bits in the range */
bool bitmap_is_set(const uint64_t *map, size_t start, size_t count);   /* all of them */
bool bitmap_is_clear(const uint64_t *map, size_t start, size_t count); /* all of them */

void bitmap_or(uint64_t *to, const uint64_t *from, size_t bits);

#endif
