/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, device interrupts are lost, delivered twice, or to the wrong hart. */
#include "tests/unit/emulator/hw/bench.h"

#define BASE 0xc000000u
#define PRIORITY(source) (BASE + 4 * (source))
#define PENDING (BASE + 0x1000)
#define ENABLE(context) (BASE + 0x2000 + 0x80 * (context))
#define THRESHOLD(context) (BASE + 0x200000 + 0x1000 * (context))
#define CLAIM(context) (THRESHOLD(context) + 4)
enum { SEI = 1 << 9, MEI = 1 << 11 };

static struct device *start(struct bench *bench)
{
    struct error err = {0};
    bench_start(bench);
    struct device *plic = plic_create(&bench->hw, BASE, 7, bench->cpus, 2, bench->intc, &err);
    assert_non_null(plic);
    bench_reset_devices(bench);
    return plic;
}

static void set(struct device *plic, unsigned source, bool level)
{
    struct irq irq = plic_input(plic, source).irq;
    irq_set(&irq, level);
}

static void test_claim_complete(void **state)
{
    struct bench b;
    struct device *plic = start(&b);
    poke32(&b, PRIORITY(10), 1);
    poke32(&b, ENABLE(1), 1 << 10);
    set(plic, 10, true);
    assert_int_equal(lines(&b, 0), SEI);
    assert_int_equal(lines(&b, 1), 0);
    assert_int_equal(peek32(&b, PENDING), 1 << 10);
    assert_int_equal(peek32(&b, CLAIM(1)), 10);
    assert_int_equal(lines(&b, 0), 0);
    assert_int_equal(peek32(&b, PENDING), 0);
    assert_int_equal(peek32(&b, CLAIM(1)), 0); /* nothing more */

    poke32(&b, CLAIM(1), 10); /* the device has not been served: it asks again */
    assert_int_equal(lines(&b, 0), SEI);
    assert_int_equal(peek32(&b, CLAIM(1)), 10);
    set(plic, 10, false);
    poke32(&b, CLAIM(1), 10);
    assert_int_equal(lines(&b, 0), 0);
    bench_stop(&b);
}

static void test_priorities(void **state)
{
    struct bench b;
    struct device *plic = start(&b);
    poke32(&b, PRIORITY(3), 2);
    poke32(&b, PRIORITY(4), 5);
    poke32(&b, PRIORITY(40), 5);
    poke32(&b, PRIORITY(95), 9); /* three bits: 1 */
    assert_int_equal(peek32(&b, PRIORITY(95)), 1);
    poke32(&b, ENABLE(2), 0xffffffff);
    assert_int_equal(peek32(&b, ENABLE(2)), 0xfffffffe); /* no source 0 */
    poke32(&b, ENABLE(2) + 4, 0xffffffff);
    poke32(&b, ENABLE(2) + 8, 0xffffffff);
    poke32(&b, THRESHOLD(2), 1);
    set(plic, 95, true);
    assert_int_equal(lines(&b, 1), 0); /* not above the threshold */
    set(plic, 40, true);
    set(plic, 3, true);
    set(plic, 4, true);
    assert_int_equal(lines(&b, 1), MEI);
    assert_int_equal(peek32(&b, CLAIM(2)), 4); /* the lowest of equals */
    assert_int_equal(peek32(&b, CLAIM(2)), 40);
    assert_int_equal(peek32(&b, CLAIM(2)), 3);
    assert_int_equal(peek32(&b, CLAIM(2)), 0);
    poke32(&b, THRESHOLD(2), 0);
    assert_int_equal(peek32(&b, CLAIM(2)), 95);
    bench_stop(&b);
}

/* A request that the gateway has passed on stays, even when the device takes its level back. */
static void test_request_stays(void **state)
{
    struct bench b;
    struct device *plic = start(&b);
    poke32(&b, PRIORITY(1), 1);
    poke32(&b, ENABLE(0), 1 << 1);
    set(plic, 1, true);
    set(plic, 1, false);
    assert_int_equal(lines(&b, 0), MEI);
    assert_int_equal(peek32(&b, CLAIM(0)), 1);
    poke32(&b, CLAIM(0), 1);
    assert_int_equal(lines(&b, 0), 0);
    bench_stop(&b);
}

static void test_odd_accesses(void **state)
{
    struct bench b;
    struct device *plic = start(&b);
    uint64_t value;
    assert_false(physmap_mmio_read(b.hw.memory, BASE, 1, &value)); /* 32 bits only */
    assert_false(physmap_mmio_read(b.hw.memory, BASE + 2, 4, &value));
    poke32(&b, PRIORITY(0), 7);
    assert_int_equal(peek32(&b, PRIORITY(0)), 0);
    poke32(&b, PRIORITY(96), 7); /* beyond what there is, here and below */
    poke32(&b, ENABLE(4), 7);
    poke32(&b, THRESHOLD(4), 7);
    poke32(&b, CLAIM(4), 7);
    poke32(&b, CLAIM(0), 1000);
    poke32(&b, CLAIM(0), 0xffffffff);
    assert_int_equal(peek32(&b, CLAIM(4)), 0);
    assert_int_equal(peek32(&b, BASE + PLIC_BYTES - 4), 0);
    set(plic, 95, true);
    bench_stop(&b);
}

static void test_reset(void **state)
{
    struct bench b;
    struct device *plic = start(&b);
    poke32(&b, PRIORITY(1), 1);
    poke32(&b, ENABLE(0), 1 << 1);
    set(plic, 1, true);
    assert_int_equal(peek32(&b, CLAIM(0)), 1);
    bench_reset_devices(&b);
    assert_int_equal(lines(&b, 0), 0);
    assert_int_equal(peek32(&b, ENABLE(0)), 0);
    /* a device that still asks is heard again */
    poke32(&b, PRIORITY(1), 1);
    poke32(&b, ENABLE(0), 1 << 1);
    assert_int_equal(lines(&b, 0), MEI);
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claim_complete), cmocka_unit_test(test_priorities), cmocka_unit_test(test_request_stays),
        cmocka_unit_test(test_odd_accesses),   cmocka_unit_test(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
