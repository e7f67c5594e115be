/* SPDX-License-Identifier: Apache-2.0 */
/* Bitmaps, a word at a time: a range is a masked first word, whole words, and a masked last word. */
#include "base/bitmap.h"

#include "base/alloc.h"
#include "base/math.h"

uint64_t *bitmap_new(size_t bits)
{
    return xcalloc(BITMAP_WORDS(bits), sizeof(uint64_t));
}

uint64_t *bitmap_try_new(size_t bits)
{
    return try_calloc(bits / 64 + (bits % 64 != 0), sizeof(uint64_t));
}

/* Bits of word `word` that lie in [start, end). */
static uint64_t range_mask(size_t word, size_t start, size_t end)
{
    uint64_t mask = ~0ull;
    if (word == start / 64)
        mask &= ~0ull << (start % 64);
    if (word == end / 64)
        mask &= (1ull << (end % 64)) - 1;
    return mask;
}

void bitmap_set(uint64_t *map, size_t start, size_t count)
{
    size_t end = start + count;
    for (size_t word = start / 64; word * 64 < end; word++)
        map[word] |= range_mask(word, start, end);
}

void bitmap_clear(uint64_t *map, size_t start, size_t count)
{
    size_t end = start + count;
    for (size_t word = start / 64; word * 64 < end; word++)
        map[word] &= ~range_mask(word, start, end);
}

/* First bit that differs from `flip` (0: set bits, ~0: clear bits) in [start, bits), else bits. */
static size_t next(const uint64_t *map, size_t bits, size_t start, uint64_t flip)
{
    if (start >= bits)
        return bits;
    size_t word = start / 64;
    uint64_t value = (map[word] ^ flip) & (~0ull << (start % 64));
    while (!value) {
        if (++word * 64 >= bits)
            return bits;
        value = map[word] ^ flip;
    }
    return MIN(word * 64 + lowest_bit(value), bits);
}

size_t bitmap_next_set(const uint64_t *map, size_t bits, size_t start)
{
    return next(map, bits, start, 0);
}

size_t bitmap_next_clear(const uint64_t *map, size_t bits, size_t start)
{
    return next(map, bits, start, ~0ull);
}

size_t bitmap_find_clear_run(const uint64_t *map, size_t bits, size_t start, size_t count)
{
    for (size_t from = bitmap_next_clear(map, bits, start); from < bits;) {
        if (count > bits - from)
            return bits;
        size_t end = bitmap_next_set(map, bits, from);
        if (end - from >= count)
            return from;
        from = bitmap_next_clear(map, bits, end);
    }
    return bits;
}

size_t bitmap_count(const uint64_t *map, size_t start, size_t count)
{
    size_t end = start + count, total = 0;
    for (size_t word = start / 64; word * 64 < end; word++)
        total += (size_t)__builtin_popcountll(map[word] & range_mask(word, start, end));
    return total;
}

bool bitmap_is_set(const uint64_t *map, size_t start, size_t count)
{
    return bitmap_next_clear(map, start + count, start) == start + count;
}

bool bitmap_is_clear(const uint64_t *map, size_t start, size_t count)
{
    return bitmap_next_set(map, start + count, start) == start + count;
}

void bitmap_or(uint64_t *to, const uint64_t *from, size_t bits)
{
    for (size_t word = 0; word < BITMAP_WORDS(bits); word++)
        to[word] |= from[word];
}
