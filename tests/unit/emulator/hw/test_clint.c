/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, guests have no timer ticks, or harts cannot wake each other. */
#include "tests/unit/emulator/hw/bench.h"

#define BASE 0x2000000u
#define MSIP(hart) (BASE + 4 * (hart))
#define MTIMECMP(hart) (BASE + 0x4000 + 8 * (hart))
#define MTIME (BASE + 0xbff8)
enum { MSI = 1 << 3, MTI = 1 << 7 };

static void start(struct bench *bench)
{
    struct error err = {0};
    bench_start(bench);
    assert_non_null(clint_create(&bench->hw, BASE, bench->cpus, 2, bench->intc, &err));
    bench_reset_devices(bench);
}

static void test_software_interrupt(void **state)
{
    struct bench b;
    start(&b);
    poke32(&b, MSIP(1), 0xffffffff);
    assert_int_equal(lines(&b, 0), 0);
    assert_int_equal(lines(&b, 1), MSI);
    assert_int_equal(peek32(&b, MSIP(1)), 1);
    poke32(&b, MSIP(1), 0);
    assert_int_equal(lines(&b, 1), 0);
    poke32(&b, MSIP(2), 1); /* there is no third hart */
    bench_stop(&b);
}

static void test_timer(void **state)
{
    struct bench b;
    start(&b);
    clock_start(b.hw.clock);
    assert_int_equal(peek(&b, MTIMECMP(0), 8), UINT64_MAX);
    uint64_t now = peek(&b, MTIME, 8);
    poke(&b, MTIMECMP(0), now + 200000, 8); /* 20 ms */
    poke(&b, MTIMECMP(1), now + 50000, 8);
    assert_int_equal(lines(&b, 0) | lines(&b, 1), 0);
    bench_run_until(&b, lines(&b, 1) == MTI);
    assert_true(peek(&b, MTIME, 8) >= now + 50000);
    bench_run_until(&b, lines(&b, 0) == MTI);
    assert_true(peek(&b, MTIME, 8) >= now + 200000);
    poke(&b, MTIMECMP(0), UINT64_MAX, 8);
    assert_int_equal(lines(&b, 0), 0);
    poke(&b, MTIMECMP(0), 0, 8); /* in the past: at once */
    assert_int_equal(lines(&b, 0), MTI);
    bench_stop(&b);
}

/* 32-bit halves, as 32-bit harts write them. */
static void test_halves(void **state)
{
    struct bench b;
    start(&b);
    poke32(&b, MTIMECMP(0) + 4, 0x12345678);
    poke32(&b, MTIMECMP(0), 0x9abcdef0);
    assert_int_equal(peek(&b, MTIMECMP(0), 8), 0x123456789abcdef0);
    assert_int_equal(peek32(&b, MTIMECMP(0) + 4), 0x12345678);
    bench_stop(&b);
}

/* Guest time stands still with the machine, and so does its timer. */
static void test_stopped_clock(void **state)
{
    struct bench b;
    start(&b);
    clock_start(b.hw.clock);
    poke(&b, MTIMECMP(0), peek(&b, MTIME, 8) + 200000, 8);
    clock_stop(b.hw.clock);
    uint64_t frozen = peek(&b, MTIME, 8);
    bench_run_ms(&b, 40);
    assert_int_equal(peek(&b, MTIME, 8), frozen);
    assert_int_equal(lines(&b, 0), 0);
    clock_start(b.hw.clock);
    bench_run_until(&b, lines(&b, 0) == MTI);
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_software_interrupt), cmocka_unit_test(test_timer),
                                       cmocka_unit_test(test_halves), cmocka_unit_test(test_stopped_clock)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
