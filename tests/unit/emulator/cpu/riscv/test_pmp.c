/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, physical memory protection lets something through, or forbids what it should not. */
#include "emulator/cpu/riscv/bits.h"
#include "emulator/cpu/riscv/pmp.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum {
    R = PMP_R,
    W = PMP_W,
    X = PMP_X,
    TOR = PMP_TOR << PMP_A_SHIFT,
    NA4 = PMP_NA4 << PMP_A_SHIFT,
    NAPOT = PMP_NAPOT << PMP_A_SHIFT
};

static void set(struct riscv_pmp *pmp, unsigned index, uint8_t cfg, uint64_t address)
{
    unsigned shift = 8 * (index % 8), group = index / 8 * 2;
    uint64_t value = riscv_pmp_cfg_read(pmp, group);

    riscv_pmp_address_write(pmp, index, address);
    riscv_pmp_cfg_write(pmp, group, (value & ~(0xffull << shift)) | (uint64_t)cfg << shift);
}

static void nothing_configured(void **state)
{
    struct riscv_pmp pmp;

    riscv_pmp_reset(&pmp);
    assert_true(riscv_pmp_allows(&pmp, PRIV_M, 0x80000000, 8, R | W | X));
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x80000000, 8, R));
}

static void napot_spans(void **state)
{
    struct riscv_pmp pmp;

    riscv_pmp_reset(&pmp);
    set(&pmp, 0, NAPOT | R, 0x1000 >> 2); /* 8 bytes */
    assert_true(riscv_pmp_allows(&pmp, PRIV_S, 0x1000, 8, R));
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x1008, 1, R));
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x1004, 8, R)); /* straddles */
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x1000, 4, W));
    set(&pmp, 0, NAPOT | R | W | X, ~0ull); /* everything */
    assert_true(riscv_pmp_allows(&pmp, PRIV_S, 0, 8, R | W | X));
    assert_true(riscv_pmp_allows(&pmp, PRIV_S, (1ull << 56) - 8, 8, R | W | X));
}

static void tor_and_na4(void **state)
{
    struct riscv_pmp pmp;

    riscv_pmp_reset(&pmp);
    set(&pmp, 0, 0, 0x1000 >> 2);
    set(&pmp, 1, TOR | R | W, 0x3000 >> 2);
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0xffc, 4, R));
    assert_true(riscv_pmp_allows(&pmp, PRIV_S, 0x1000, 8, R | W));
    assert_true(riscv_pmp_allows(&pmp, PRIV_S, 0x2ff8, 8, R | W));
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x3000, 1, R));
    set(&pmp, 1, TOR | R, 0x1000 >> 2); /* empty: matches nothing */
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x1000, 1, R));
    set(&pmp, 2, NA4 | X, 0x5000 >> 2);
    assert_true(riscv_pmp_allows(&pmp, PRIV_S, 0x5000, 4, X));
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x5000, 8, X));
}

static void the_lowest_entry_wins(void **state)
{
    struct riscv_pmp pmp;
    bool uniform;

    riscv_pmp_reset(&pmp);
    set(&pmp, 0, NAPOT | R, 0x1000 >> 2 | 0x1ff); /* one page */
    set(&pmp, 15, NAPOT | R | W | X, ~0ull);      /* the rest */
    assert_int_equal(riscv_pmp_page(&pmp, PRIV_S, 0x1000, &uniform), R);
    assert_true(uniform);
    assert_int_equal(riscv_pmp_page(&pmp, PRIV_S, 0x2000, &uniform), R | W | X);
    assert_true(uniform);
    assert_int_equal(riscv_pmp_page(&pmp, PRIV_M, 0x1000, &uniform), R | W | X);
    set(&pmp, 0, NAPOT | R, 0x1000 >> 2);
    riscv_pmp_page(&pmp, PRIV_S, 0x1000, &uniform);
    assert_false(uniform);
}

static void locks(void **state)
{
    struct riscv_pmp pmp;

    riscv_pmp_reset(&pmp);
    set(&pmp, 0, 0, 0x1000 >> 2);
    set(&pmp, 1, PMP_L | TOR | R, 0x2000 >> 2);
    assert_false(riscv_pmp_allows(&pmp, PRIV_M, 0x1000, 4, W));
    assert_true(riscv_pmp_allows(&pmp, PRIV_M, 0x1000, 4, R));
    set(&pmp, 1, 0, 0);
    set(&pmp, 0, 0, 0); /* the lower bound of a locked TOR entry */
    assert_int_equal(pmp.address[0], 0x1000 >> 2);
    assert_int_equal(pmp.address[1], 0x2000 >> 2);
    assert_false(riscv_pmp_allows(&pmp, PRIV_M, 0x1000, 4, W));
}

static void write_without_read_is_reserved(void **state)
{
    struct riscv_pmp pmp;

    riscv_pmp_reset(&pmp);
    set(&pmp, 0, NAPOT | W, ~0ull);
    assert_false(riscv_pmp_allows(&pmp, PRIV_S, 0x1000, 4, W));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_configured),
        cmocka_unit_test(napot_spans),
        cmocka_unit_test(tor_and_na4),
        cmocka_unit_test(the_lowest_entry_wins),
        cmocka_unit_test(locks),
        cmocka_unit_test(write_without_read_is_reserved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
