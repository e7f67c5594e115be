/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: scatter/gather arithmetic loses, repeats or misplaces bytes. The oracle is a flat buffer. */
#include "tests/unit/base/check.h"

#include <stdlib.h>
#include <string.h>
#include "base/iov.h"
#include "base/math.h"
#include "base/rng.h"

#define SIZE 300

/* A random cutting of `size` bytes of `base` into elements, some of them empty. */
static int cut(struct rng *rng, struct iovec *iov, int max, unsigned char *base, size_t size)
{
    int n = 0;
    while (n < max - 1 && size && rng_below(rng, 8)) {
        size_t length = rng_below(rng, MIN(size, (size_t)50) + 1);
        iov[n++] = (struct iovec){base, length};
        base += length;
        size -= length;
    }
    iov[n++] = (struct iovec){base, size};
    return n;
}

static void every_function_matches_a_flat_buffer(void **state)
{
    struct rng rng;
    rng_seed(&rng, 1);
    for (int round = 0; round < 3000; round++) {
        unsigned char bytes[SIZE], flat[SIZE], out[SIZE], other[SIZE] = {0};
        struct iovec iov[12], part[12], other_iov[12];
        rng_fill(&rng, bytes, SIZE);
        memcpy(flat, bytes, SIZE);
        size_t total = rng_below(&rng, SIZE + 1);
        int count = cut(&rng, iov, 12, bytes, total);
        assert_int_equal(iov_total(iov, count), total);

        size_t offset = rng_below(&rng, SIZE), length = rng_below(&rng, SIZE);
        size_t there = offset < total ? MIN(length, total - offset) : 0;
        int parts = iov_slice(part, iov, count, offset, length);
        assert_int_equal(parts, iov_slice_count(iov, count, offset, length));
        assert_int_equal(iov_total(part, parts), there);
        assert_int_equal(iov_to_buffer(part, parts, 0, out, SIZE), there);
        assert_memory_equal(out, flat + offset, there);
        for (int i = 0; i < parts; i++)
            assert_int_not_equal(part[i].iov_len, 0);

        assert_int_equal(iov_to_buffer(iov, count, offset, out, length), there);
        assert_memory_equal(out, flat + offset, there);

        int other_count = cut(&rng, other_iov, 12, other, SIZE);
        size_t room = MIN(there, (size_t)SIZE - 20);
        assert_int_equal(iov_copy(other_iov, other_count, 20, iov, count, offset, length), room);
        assert_memory_equal(other + 20, flat + offset, room);

        rng_fill(&rng, out, SIZE);
        assert_int_equal(iov_from_buffer(iov, count, offset, out, length), there);
        memcpy(flat + offset, out, there);
        assert_memory_equal(bytes, flat, SIZE);

        assert_int_equal(iov_set(iov, count, offset, 0, length), there);
        memset(flat + offset, 0, there);
        assert_memory_equal(bytes, flat, SIZE);
        assert_true(iov_is_zero(iov, count, offset, length));
        if (there) {
            bytes[offset + rng_below(&rng, there)] = 1;
            assert_false(iov_is_zero(iov, count, offset, length));
        }

        struct iovec *rest = iov;
        iov_advance(&rest, &count, offset);
        assert_int_equal(iov_total(rest, count), total - MIN(offset, total));
        if (offset < total)
            assert_ptr_equal(rest->iov_base, bytes + offset);
    }
}

static void advance_skips_empty_elements(void **state)
{
    char byte;
    struct iovec all[4] = {{NULL, 0}, {&byte, 1}, {NULL, 0}, {NULL, 0}}, *iov = all;
    int count = 4;
    iov_advance(&iov, &count, 0);
    assert_ptr_equal(iov, all + 1);
    iov_advance(&iov, &count, 1);
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_function_matches_a_flat_buffer),
        cmocka_unit_test(advance_skips_empty_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
