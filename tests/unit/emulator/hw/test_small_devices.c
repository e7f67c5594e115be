/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, guests get the wrong time of day or cannot switch themselves off. */
#include "tests/unit/emulator/hw/bench.h"

#define RTC 0x101000u
#define TEST 0x100000u

static uint64_t rtc_time(struct bench *b)
{
    uint64_t low = peek32(b, RTC);
    return low | (uint64_t)peek32(b, RTC + 4) << 32;
}

static void test_rtc(void **state)
{
    struct bench b;
    struct error err = {0};
    bench_start(&b);
    assert_non_null(goldfish_rtc_create(&b.hw, RTC, b.input, &err));
    bench_reset_devices(&b);
    clock_start(b.hw.clock);
    uint64_t host = clock_wall_ns(b.hw.clock);
    assert_true(rtc_time(&b) - host < 1000000000u);

    poke32(&b, RTC + 4, 0x1234); /* set it */
    poke32(&b, RTC + 0, 0);
    uint64_t set = rtc_time(&b);
    assert_true(set >= 0x123400000000 && set - 0x123400000000 < 1000000000u);

    uint64_t alarm = rtc_time(&b) + 20000000; /* in 20 ms */
    poke32(&b, RTC + 0x10, 1);
    poke32(&b, RTC + 0xc, (uint32_t)(alarm >> 32));
    poke32(&b, RTC + 0x8, (uint32_t)alarm);
    assert_int_equal(peek32(&b, RTC + 0x18), 1);
    assert_false(b.irq);
    bench_run_until(&b, b.irq);
    assert_true(rtc_time(&b) >= alarm);
    assert_int_equal(peek32(&b, RTC + 0x18), 0);
    poke32(&b, RTC + 0x1c, 1);
    assert_false(b.irq);

    poke32(&b, RTC + 0xc, 0); /* in the past: at once */
    poke32(&b, RTC + 0x8, 5);
    assert_true(b.irq);
    poke32(&b, RTC + 0x10, 0);
    assert_false(b.irq);
    bench_stop(&b);
}

static void test_power(void **state)
{
    struct bench b;
    struct error err = {0};
    bench_start(&b);
    assert_non_null(sifive_test_create(&b.hw, TEST, 3, &err));
    poke32(&b, TEST, 0x1234);
    poke32(&b, TEST + 4, 0x5555);
    assert_int_equal(b.shutdowns + b.resets, 0);
    poke32(&b, TEST, 0x5555);
    assert_int_equal(b.shutdowns, 1);
    assert_int_equal(b.exit_status, 0);
    poke32(&b, TEST, 7 << 16 | 0x3333);
    assert_int_equal(b.exit_status, 7);
    poke32(&b, TEST, 0x7777);
    assert_int_equal(b.resets, 1);
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rtc), cmocka_unit_test(test_power)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
