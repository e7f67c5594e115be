/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, guest addresses reach the wrong host memory, or memory that is not the guest's. */
#include "tests/unit/virtio/driver.h"

static uint8_t first[4096], second[4096];

static void make(struct guest_regions *regions)
{
    struct error err = {0};
    guest_regions_init(regions);
    /* added in the wrong order; neighbours in the guest, strangers in the host */
    struct guest_region b = {0x11000, 0x1000, 0x500000, second}, a = {0x10000, 0x1000, 0x900000, first};
    assert_true(guest_regions_add(regions, &b, &err));
    assert_true(guest_regions_add(regions, &a, &err));
}

static void test_translate(void **state)
{
    struct guest_regions regions;
    make(&regions);
    assert_ptr_equal(guest_memory_pointer(&regions.memory, 0x10000, 0x1000, true), first);
    assert_ptr_equal(guest_memory_pointer(&regions.memory, 0x11fff, 1, true), second + 0xfff);
    assert_null(guest_memory_pointer(&regions.memory, 0x10fff, 2, true)); /* not contiguous here */
    assert_null(guest_memory_pointer(&regions.memory, 0xffff, 1, true));
    assert_null(guest_memory_pointer(&regions.memory, 0x12000, 1, true));
    assert_null(guest_memory_pointer(&regions.memory, 0x11000, UINT64_MAX, true));
    assert_null(guest_memory_pointer(&regions.memory, 0x11000, 0, true));
    assert_ptr_equal(guest_regions_user_pointer(&regions, 0x500010, 0xff0), second + 0x10);
    assert_null(guest_regions_user_pointer(&regions, 0x500010, 0xff1));
    uint64_t address;
    assert_true(guest_regions_user_to_guest(&regions, 0x900123, 4, &address));
    assert_int_equal(address, 0x10123);
    assert_false(guest_regions_user_to_guest(&regions, 0x10000, 4, &address));
}

/* A descriptor that crosses from one region into the next becomes two pieces, and so does a table. */
static void test_crossing(void **state)
{
    struct guest_regions regions;
    struct virtqueue queue;
    struct virtqueue_element element = {0};
    static _Alignas(16) uint8_t rings[3][256];
    struct error err = {0};
    make(&regions);
    virtqueue_init(&queue, &regions.memory);
    assert_true(virtqueue_configure_pointers(&queue, VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC), 4, rings[0], rings[1],
                                             rings[2], 0, 0, &err));
    store_le64(rings[0], 0x10ff0);
    store_le32(rings[0] + 8, 32);
    store_le16(rings[0] + 12, 4);
    store_le64(first + 0xff0, 0x10f00); /* table entry 0, at the end of the first region */
    store_le32(first + 0xff8, 0x200);
    store_le16(first + 0xffc, 1);
    store_le16(first + 0xffe, 1);
    store_le64(second, 0x11800); /* entry 1, at the start of the second */
    store_le32(second + 8, 8);
    store_le16(second + 12, 2);
    store_le16(rings[1] + 2, 1);
    assert_int_equal(virtqueue_pop(&queue, &element), 1);
    assert_int_equal(element.out_count, 2);
    assert_ptr_equal(element.iov[0].iov_base, first + 0xf00);
    assert_int_equal(element.iov[0].iov_len, 0x100);
    assert_ptr_equal(element.iov[1].iov_base, second);
    assert_ptr_equal(element.iov[2].iov_base, second + 0x800);
    virtqueue_element_release(&element);
    virtqueue_destroy(&queue);
}

static void test_refusals(void **state)
{
    struct guest_regions regions;
    make(&regions);
    struct guest_region bad[] = {
        {0x20000, 0, 0x100000, first},      {UINT64_MAX - 1, 2, 0x100000, first}, {0x20000, 2, UINT64_MAX - 1, first},
        {0x10800, 0x1000, 0x100000, first}, {0xf000, 0x1001, 0x100000, first},    {0x20000, 0x1000, 0x500fff, first},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error err = {0};
        assert_false(guest_regions_add(&regions, &bad[i], &err));
        assert_true(error_is_set(&err));
        error_clear(&err);
    }
    assert_false(guest_regions_remove(&regions, 0x10000, 0x900000, 0x800, NULL));
    assert_true(guest_regions_remove(&regions, 0x10000, 0x900000, 0x1000, NULL));
    assert_null(guest_memory_pointer(&regions.memory, 0x10000, 1, false));
    assert_ptr_equal(guest_memory_pointer(&regions.memory, 0x11000, 1, false), second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_translate), cmocka_unit_test(test_crossing),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
