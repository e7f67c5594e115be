/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a buffer with data counts as zeros (data loss), or zeros as data (images grow). */
#include "tests/unit/base/check.h"

#include <stdlib.h>
#include <string.h>
#include "base/is_zero.h"
#include "base/math.h"

/* Every size to 1200 at several alignments; one byte set at every place, the bytes around the buffer not zero. Exact
 * allocations let AddressSanitizer see a read outside. */
static void one_byte_at_every_place(void **state)
{
    for (size_t size = 0; size <= 1200; size += size < 300 ? 1 : 37) {
        for (size_t shift = 0; shift < 9; shift += 4) {
            unsigned char *memory = malloc(size + shift + 1);
            memset(memory, 0xff, size + shift + 1);
            unsigned char *buffer = memory + shift;
            memset(buffer, 0, size);
            assert_true(buffer_is_zero(buffer, size));
            for (size_t at = 0; at < size; at++) {
                buffer[at] = 0x80;
                assert_false(buffer_is_zero(buffer, size));
                buffer[at] = 0;
            }
            free(memory);
        }
    }
}

static void large_buffers(void **state)
{
    size_t size = 1 * MiB + 3;
    unsigned char *buffer = calloc(1, size);
    assert_true(buffer_is_zero(buffer, size));
    for (size_t at = 0; at < size; at += 4099) {
        buffer[at] = 1;
        assert_false(buffer_is_zero(buffer, size));
        buffer[at] = 0;
    }
    free(buffer);
}

static void runs(void **state)
{
    unsigned char buffer[4096 * 4 + 100] = {0};
    bool is_zero;
    assert_int_equal(buffer_zero_run(buffer, sizeof buffer, 4096, &is_zero), sizeof buffer);
    assert_true(is_zero);
    buffer[4096 * 2 + 7] = 1;
    assert_int_equal(buffer_zero_run(buffer, sizeof buffer, 4096, &is_zero), 8192);
    assert_true(is_zero);
    assert_int_equal(buffer_zero_run(buffer + 8192, sizeof buffer - 8192, 4096, &is_zero), 4096);
    assert_false(is_zero);
    assert_int_equal(buffer_zero_run(buffer + 8192, 100, 4096, &is_zero), 100);
    assert_false(is_zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_byte_at_every_place),
        cmocka_unit_test(large_buffers),
        cmocka_unit_test(runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
