/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: sizes on command lines mean something else, or results print another unit. */
#include "tests/unit/base/check.h"

#include <string.h>
#include "base/math.h"
#include "base/size.h"

static void parses(void **state)
{
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {
        {"0", 0},
        {"4096", 4096},
        {"1k", 1024},
        {"1K", 1024},
        {"10G", 10 * GiB},
        {"1.5M", 3 * MiB / 2},
        {"0.5k", 512},
        {".5k", 512},
        {"1.k", 1024},
        {"2T", 2 * TiB},
        {"1P", 1024 * TiB},
        {"15E", 15 * 1024 * 1024 * TiB},
        {"512b", 512},
        {"0x1000", 4096},
        {"0X10", 16},
        {"+7", 7},
        {" 7", 7},
        {"18446744073709551615", UINT64_MAX},
        {"0.1G", 107374182},
        {"1.0", 1},
        {"0.000000000000000000000000001G", 0},
        {"15.99999999999999999999999E", 18446744073709551614u}, /* 18 digits of the fraction count */
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t size;
        struct error err = {0};
        if (!parse_size(good[i].text, &size, &err))
            print_error("'%s': %s\n", good[i].text, err.message);
        assert_false(error_is_set(&err));
        assert_int_equal(size, good[i].size);
    }
}

static void refuses(void **state)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "k",
                                      "-1",
                                      "1.5",
                                      "1.5b",
                                      "10Q",
                                      "1kk",
                                      "1 k",
                                      "0x",
                                      "0x10k",
                                      "1e3",
                                      "16E",
                                      "18446744073709551616",
                                      "0x10000000000000000",
                                      "1..5k",
                                      "."};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t size;
        struct error err = {0};
        if (parse_size(bad[i], &size, &err))
            print_error("'%s' was taken as %lu\n", bad[i], (unsigned long)size);
        assert_true(error_is_set(&err));
        assert_non_null(strstr(err.message, bad[i])); /* names the text */
        error_clear(&err);
    }
}

static void stops_at_the_end_of_the_size(void **state)
{
    const char *end;
    uint64_t size;
    struct error err = {0};
    assert_true(parse_size_prefix("12,rest", MiB, &end, &size, &err));
    assert_int_equal(size, 12 * MiB);
    assert_string_equal(end, ",rest");
}

static void prints(void **state)
{
    static const struct {
        uint64_t size;
        const char *text;
    } all[] = {
        {0, "0 B"},
        {1, "1 B"},
        {512, "512 B"},
        {999, "999 B"},
        {1000, "0.977 KiB"},
        {1024, "1 KiB"},
        {1536, "1.5 KiB"},
        {64 * KiB, "64 KiB"},
        {196 * KiB, "196 KiB"},
        {1 * MiB, "1 MiB"},
        {1000 * KiB, "0.977 MiB"},
        {1 * GiB, "1 GiB"},
        {1234567890, "1.15 GiB"},
        {10 * TiB, "10 TiB"},
        {UINT64_MAX, "16 EiB"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        char buffer[FORMAT_SIZE_MAX];
        assert_string_equal(format_size(buffer, all[i].size), all[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(refuses),
        cmocka_unit_test(stops_at_the_end_of_the_size),
        cmocka_unit_test(prints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
