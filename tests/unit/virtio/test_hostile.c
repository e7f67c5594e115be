/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, a guest can make the device read or write outside of guest memory, spin or crash. Each case is one
 * lie; the queue must say what is wrong and be broken from then on. Runs under ASan and UBSan. */
#include "tests/unit/virtio/driver.h"

#include <errno.h>

#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define FAR 0xfffffffffffff000u

static void expect_broken(struct driver *driver, const char *what)
{
    struct virtqueue_element element = {0};
    int result;
    unsigned pops = 0;
    while ((result = virtqueue_pop(&driver->queue, &element)) == 1)
        assert_true(++pops <= driver->size);
    if (result != -EPROTO)
        fail_msg("%s: %d", what, result);
    assert_non_null(driver->queue.broken);
    assert_int_equal(virtqueue_pop(&driver->queue, &element), -EPROTO);
    assert_true(virtqueue_empty(&driver->queue));
    virtqueue_element_release(&element);
    driver_stop(driver);
}

static void test_split(void **state)
{
    struct driver d;

    driver_start(&d, 0, 8);
    for (int i = 0; i < 9; i++)
        offer(&d, 0);
    expect_broken(&d, "index moves by more than the size");

    driver_start(&d, 0, 8);
    offer(&d, 8);
    expect_broken(&d, "head outside of the table");

    driver_start(&d, 0, 8);
    put_split(&d, DESC_AT, DATA_AT, 1, 1, 8);
    offer(&d, 0);
    expect_broken(&d, "next outside of the table");

    driver_start(&d, 0, 8);
    put_split(&d, DESC_AT, DATA_AT, 1, 1, 1);
    put_split(&d, DESC_AT + 16, DATA_AT, 1, 1, 0);
    offer(&d, 0);
    expect_broken(&d, "loop");

    driver_start(&d, 0, 8);
    put_split(&d, DESC_AT, DATA_AT, 1, 2 | 1, 1);
    put_split(&d, DESC_AT + 16, DATA_AT, 1, 0, 0);
    offer(&d, 0);
    expect_broken(&d, "readable behind writable");

    struct piece outside[] = {
        {GUEST_BASE - 1, 1},
        {GUEST_BASE + GUEST_BYTES, 1},
        {GUEST_BASE + GUEST_BYTES - 1, 2},
        {GUEST_BASE, 0xffffffff},
        {FAR, 0xffffffff}, /* wraps */
        {UINT64_MAX, 1},
        {0, 1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
        driver_start(&d, 0, 8);
        put_split(&d, DESC_AT, outside[i].address, outside[i].length, 0, 0);
        offer(&d, 0);
        expect_broken(&d, "span outside of memory");
    }

    /* The same head again and again, never given back: no more chains in flight than descriptors. */
    driver_start(&d, 0, 8);
    put_split(&d, DESC_AT, DATA_AT, 1, 0, 0);
    struct virtqueue_element element = {0};
    for (int i = 0; i < 8; i++) {
        offer(&d, 0);
        assert_int_equal(virtqueue_pop(&d.queue, &element), 1);
    }
    offer(&d, 0);
    virtqueue_element_release(&element);
    expect_broken(&d, "a head made available twice");
}

static void test_indirect(void **state)
{
    struct driver d;
    struct {
        const char *what;
        uint64_t features, address;
        uint32_t length;
        uint16_t flags;
    } cases[] = {
        {"not negotiated", 0, TABLES_AT, 16, 4},
        {"with next", INDIRECT, TABLES_AT, 16, 4 | 1},
        {"empty table", INDIRECT, TABLES_AT, 0, 4},
        {"torn table", INDIRECT, TABLES_AT, 17, 4},
        {"table outside", INDIRECT, GUEST_BASE + GUEST_BYTES, 16, 4},
        {"table half outside", INDIRECT, GUEST_BASE + GUEST_BYTES - 8, 16, 4},
        {"table wraps", INDIRECT, UINT64_MAX - 7, 16, 4},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        driver_start(&d, cases[i].features, 8);
        put_split(&d, DESC_AT, cases[i].address, cases[i].length, cases[i].flags, 1);
        offer(&d, 0);
        expect_broken(&d, cases[i].what);
        driver_start(&d, cases[i].features | PACKED, 8);
        put_packed(&d, DESC_AT, cases[i].address, cases[i].length, 0, cases[i].flags | 1 << 7);
        expect_broken(&d, cases[i].what);
    }

    driver_start(&d, INDIRECT, 8);
    put_split(&d, DESC_AT, TABLES_AT, 16, 4, 0);
    put_split(&d, TABLES_AT, TABLES_AT, 16, 4, 0);
    offer(&d, 0);
    expect_broken(&d, "a table in a table");

    driver_start(&d, INDIRECT, 8);
    put_split(&d, DESC_AT, TABLES_AT, 32, 4, 0);
    put_split(&d, TABLES_AT, DATA_AT, 1, 1, 2);
    offer(&d, 0);
    expect_broken(&d, "next outside of the indirect table");

    driver_start(&d, INDIRECT, 8);
    put_split(&d, DESC_AT, TABLES_AT, 32, 4, 0);
    put_split(&d, TABLES_AT, DATA_AT, 1, 1, 1);
    put_split(&d, TABLES_AT + 16, DATA_AT, 1, 1, 0);
    offer(&d, 0);
    expect_broken(&d, "loop in an indirect table");

    /* A table of 4 GiB whose entries all exist in a few bytes of memory cannot keep us busy. */
    driver_start(&d, INDIRECT | PACKED, 8);
    put_packed(&d, DESC_AT, TABLES_AT, 0xfffffff0u, 0, 4 | 1 << 7);
    expect_broken(&d, "an endless indirect table");
    driver_start(&d, INDIRECT, 8);
    put_split(&d, DESC_AT, GUEST_BASE + 0x40000, 16 * 2000, 4, 0);
    for (unsigned i = 0; i < 2000; i++)
        put_split(&d, GUEST_BASE + 0x40000 + 16 * i, DATA_AT, 1, 1, (uint16_t)(i + 1));
    offer(&d, 0);
    expect_broken(&d, "a very long indirect chain");
}

/* What must still work: a long indirect chain on a small ring, direct descriptors in front of an indirect one. */
static void test_honest_oddities(void **state)
{
    struct driver d;
    struct virtqueue_element element = {0};
    driver_start(&d, INDIRECT, 2);
    put_split(&d, DESC_AT, DATA_AT, 3, 1, 1);
    put_split(&d, DESC_AT + 16, TABLES_AT, 16 * 256, 4 | 2, 0); /* WRITE on the reference means nothing */
    for (unsigned i = 0; i < 256; i++)
        put_split(&d, TABLES_AT + 16 * i, DATA_AT + i, 1, (i < 255 ? 1 : 0) | (i > 100 ? 2 : 0), (uint16_t)(i + 1));
    offer(&d, 0);
    assert_int_equal(virtqueue_pop(&d.queue, &element), 1);
    assert_int_equal(element.out_bytes, 3 + 101);
    assert_int_equal(element.in_bytes, 155);
    virtqueue_element_release(&element);
    driver_stop(&d);
}

static void test_packed(void **state)
{
    struct driver d;
    driver_start(&d, PACKED, 4);
    for (unsigned i = 0; i < 4; i++)
        put_packed(&d, DESC_AT + 16 * i, DATA_AT, 1, 0, 1 | 1 << 7); /* NEXT all around the ring */
    expect_broken(&d, "endless chain");

    driver_start(&d, PACKED, 4);
    put_packed(&d, DESC_AT, FAR, 0xffffffff, 0, 1 << 7);
    expect_broken(&d, "span wraps");

    /* Every slot claims to be available on every lap. */
    driver_start(&d, PACKED, 4);
    struct virtqueue_element element = {0};
    for (unsigned i = 0; i < 4; i++)
        put_packed(&d, DESC_AT + 16 * i, DATA_AT, 1, 7, 1 << 7);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(virtqueue_pop(&d.queue, &element), 1);
    put_packed(&d, DESC_AT, DATA_AT, 1, 7, 1 << 15);
    virtqueue_element_release(&element);
    expect_broken(&d, "more chains than slots");
}

static void test_configuration(void **state)
{
    struct driver d;
    struct error err = {0};
    driver_start(&d, 0, 8);
    struct {
        uint64_t features;
        uint16_t size;
        uint64_t desc, driver, device;
    } bad[] = {
        {0, 0, DESC_AT, AVAIL_AT, USED_AT},
        {0, 3, DESC_AT, AVAIL_AT, USED_AT},
        {0, 32769, DESC_AT, AVAIL_AT, USED_AT},
        {PACKED, 32769, DESC_AT, AVAIL_AT, USED_AT},
        {0, 8, DESC_AT + 8, AVAIL_AT, USED_AT},
        {0, 8, DESC_AT, AVAIL_AT + 1, USED_AT},
        {0, 8, DESC_AT, AVAIL_AT, USED_AT + 2},
        {0, 8, GUEST_BASE + GUEST_BYTES - 112, AVAIL_AT, USED_AT},
        {0, 8, DESC_AT, GUEST_BASE + GUEST_BYTES - 4, USED_AT},
        {0, 8, DESC_AT, AVAIL_AT, UINT64_MAX - 3},
        {0, 8, 0, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (virtqueue_configure(&d.queue, bad[i].features, bad[i].size, bad[i].desc, bad[i].driver, bad[i].device,
                                &err))
            fail_msg("case %zu was accepted", i);
        assert_true(error_is_set(&err));
        error_clear(&err);
    }
    struct virtqueue_state state_outside = {.last_avail = 8};
    assert_true(virtqueue_configure(&d.queue, PACKED, 8, DESC_AT, AVAIL_AT, USED_AT, &err));
    assert_false(virtqueue_restore(&d.queue, state_outside, &err));
    error_clear(&err);
    driver_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),  cmocka_unit_test(test_indirect),      cmocka_unit_test(test_honest_oddities),
        cmocka_unit_test(test_packed), cmocka_unit_test(test_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
