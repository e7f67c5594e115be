/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: ranges of bits are set, cleared, counted or found wrongly. The oracle is an array of bools. */
#include "tests/unit/base/check.h"

#include <stdlib.h>
#include <string.h>
#include "base/bitmap.h"
#include "base/rng.h"

static size_t slow_next(const bool *bits, size_t size, size_t start, bool value)
{
    while (start < size && bits[start] != value)
        start++;
    return start < size ? start : size;
}

static size_t slow_run(const bool *bits, size_t size, size_t start, size_t count)
{
    for (; start + count <= size; start++)
        if (slow_next(bits, start + count, start, true) == start + count)
            return start;
    return size;
}

static void ranges_match_an_array(void **state)
{
    struct rng rng;
    rng_seed(&rng, 3);
    for (size_t size = 1; size < 400; size += 13) {
        uint64_t *map = bitmap_new(size);
        bool *bits = calloc(size, 1);
        for (int round = 0; round < 300; round++) {
            size_t start = rng_below(&rng, size), count = rng_below(&rng, size - start + 1);
            bool value = rng_coin(&rng);
            if (rng_coin(&rng) && count > 20)
                count = 20; /* leaves small pieces too */
            if (value)
                bitmap_set(map, start, count);
            else
                bitmap_clear(map, start, count);
            memset(bits + start, value, count);

            size_t from = rng_below(&rng, size + 1), total = 0, wanted = rng_between(&rng, 1, 30);
            for (size_t i = start; i < start + count; i++)
                assert_int_equal(bitmap_test(map, i), value);
            assert_int_equal(bitmap_next_set(map, size, from), slow_next(bits, size, from, true));
            assert_int_equal(bitmap_next_clear(map, size, from), slow_next(bits, size, from, false));
            assert_int_equal(bitmap_find_clear_run(map, size, from, wanted), slow_run(bits, size, from, wanted));
            for (size_t i = from; i < size; i++)
                total += bits[i];
            assert_int_equal(bitmap_count(map, from, size - from), total);
            assert_int_equal(bitmap_is_set(map, from, size - from), total == size - from);
            assert_int_equal(bitmap_is_clear(map, from, size - from), total == 0);
        }
        free(map);
        free(bits);
    }
}

static void single_bits_and_or(void **state)
{
    uint64_t a[BITMAP_WORDS(130)] = {0}, b[BITMAP_WORDS(130)] = {0};
    bitmap_set_bit(a, 0);
    bitmap_set_bit(a, 129);
    bitmap_set_bit(b, 64);
    bitmap_or(b, a, 130);
    assert_int_equal(bitmap_count(b, 0, 130), 3);
    bitmap_clear_bit(b, 64);
    assert_int_equal(bitmap_next_set(b, 130, 1), 129);
    assert_null(bitmap_try_new(SIZE_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranges_match_an_array), cmocka_unit_test(single_bits_and_or)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
