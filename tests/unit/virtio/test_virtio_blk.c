/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, disk requests land at the wrong place or a guest reaches beyond its disk. */
#include "tests/unit/virtio/driver.h"

#include <errno.h>
#include "virtio/virtio_blk.h"

static const struct virtio_blk_limits limits = {
    .capacity_bytes = 1 << 20,
    .block_size = 512,
    .seg_max = 126,
    .num_queues = 4,
    .max_discard_sectors = 64,
    .max_discard_ranges = 4,
    .max_zeroes_sectors = 32,
    .max_zeroes_ranges = 1,
};

/* An element over plain memory, cut into pieces as told: sizes of out pieces, 0, sizes of in pieces, 0. */
static uint8_t out_bytes[8192], in_bytes[8192];
static void make(struct virtqueue_element *element, const uint32_t *cuts)
{
    virtqueue_element_release(element);
    element->iov = calloc(64, sizeof *element->iov);
    uint64_t at = 0;
    for (; *cuts; cuts++) {
        element->iov[element->out_count++] = (struct iovec){out_bytes + at, *cuts};
        element->out_bytes = at += *cuts;
    }
    at = 0;
    for (cuts++; *cuts; cuts++) {
        element->iov[element->out_count + element->in_count++] = (struct iovec){in_bytes + at, *cuts};
        element->in_bytes = at += *cuts;
    }
}
#define CUTS(...)                                                                                                      \
    (const uint32_t[])                                                                                                 \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

static void header(uint32_t type, uint64_t sector)
{
    store_le32(out_bytes, type);
    store_le64(out_bytes + 8, sector);
}

static void test_read_write(void **state)
{
    struct virtqueue_element e = {0};
    struct virtio_blk_request r;
    header(VIRTIO_BLK_T_IN, 3);
    make(&e, CUTS(16, 0, 512, 513, 0)); /* status shares the last piece */
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), 0);
    assert_int_equal(r.offset, 3 * 512);
    assert_int_equal(r.length, 1024);
    assert_int_equal(r.data_count, 2);
    assert_int_equal(r.data[1].iov_len, 512);
    assert_ptr_equal(r.status, in_bytes + 1024);
    assert_int_equal(virtio_blk_finish(&r, VIRTIO_BLK_S_OK), 1025);

    header(VIRTIO_BLK_T_OUT, 2047);
    make(&e, CUTS(7, 9, 256, 256, 0, 1, 0)); /* header in two pieces */
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), 0);
    assert_ptr_equal(r.data[0].iov_base, out_bytes + 16);
    assert_int_equal(r.data_count, 2);
    assert_int_equal(r.length, 512);
    in_bytes[0] = 0xff;
    assert_int_equal(virtio_blk_finish(&r, VIRTIO_BLK_S_IOERR), 1);
    assert_int_equal(in_bytes[0], VIRTIO_BLK_S_IOERR);

    make(&e, CUTS(528, 0, 1, 0)); /* header and data in one piece */
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), 0);
    assert_ptr_equal(r.data[0].iov_base, out_bytes + 16);

    struct {
        uint32_t type;
        uint64_t sector;
        uint32_t bytes;
    } bad[] = {
        {VIRTIO_BLK_T_IN, 2047, 1024},      {VIRTIO_BLK_T_IN, 2048, 512},
        {VIRTIO_BLK_T_IN, UINT64_MAX, 512}, {VIRTIO_BLK_T_IN, UINT64_MAX / 512 + 1, 512},
        {VIRTIO_BLK_T_IN, 0, 511},          {VIRTIO_BLK_T_OUT, 0, 513},
        {VIRTIO_BLK_T_OUT, 2048, 512},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        bool in = bad[i].type == VIRTIO_BLK_T_IN;
        header(bad[i].type, bad[i].sector);
        make(&e, in ? CUTS(16, 0, bad[i].bytes, 1, 0) : CUTS(16, bad[i].bytes, 0, 1, 0));
        assert_int_equal(virtio_blk_parse(&e, &limits, &r), VIRTIO_BLK_S_IOERR);
    }
    struct virtio_blk_limits read_only = limits;
    read_only.read_only = true;
    header(VIRTIO_BLK_T_OUT, 0);
    make(&e, CUTS(16, 512, 0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &read_only, &r), VIRTIO_BLK_S_IOERR);
    virtqueue_element_release(&e);
}

static void test_malformed(void **state)
{
    struct virtqueue_element e = {0};
    struct virtio_blk_request r;
    make(&e, CUTS(15, 0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), -EPROTO);
    make(&e, CUTS(16, 0, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), -EPROTO);
    make(&e, CUTS(0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), -EPROTO);
    header(99, 0);
    make(&e, CUTS(16, 0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), VIRTIO_BLK_S_UNSUPP);
    virtqueue_element_release(&e);
}

static void test_ranges(void **state)
{
    struct virtqueue_element e = {0};
    struct virtio_blk_request r;
    header(VIRTIO_BLK_T_DISCARD, 0);
    store_le64(out_bytes + 16, 8);
    store_le32(out_bytes + 24, 64);
    store_le32(out_bytes + 28, 0);
    store_le64(out_bytes + 32, 2040);
    store_le32(out_bytes + 40, 8);
    store_le32(out_bytes + 44, 0);
    make(&e, CUTS(16, 10, 22, 0, 1, 0)); /* a range torn over two pieces */
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), 0);
    assert_int_equal(r.range_count, 2);
    assert_int_equal(r.ranges[0].offset, 4096);
    assert_int_equal(r.ranges[0].length, 64 * 512);
    assert_int_equal(r.ranges[1].offset, 2040 * 512);

    store_le32(out_bytes + 28, 1); /* unmap on a discard */
    make(&e, CUTS(48, 0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), VIRTIO_BLK_S_UNSUPP);
    store_le32(out_bytes + 28, 0);
    store_le32(out_bytes + 40, 9); /* beyond the end */
    make(&e, CUTS(48, 0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), VIRTIO_BLK_S_IOERR);
    make(&e, CUTS(16, 0, 1, 0)); /* none */
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), VIRTIO_BLK_S_IOERR);
    make(&e, CUTS(16 + 5 * 16, 0, 1, 0)); /* too many */
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), VIRTIO_BLK_S_IOERR);
    header(VIRTIO_BLK_T_WRITE_ZEROES, 0);
    store_le32(out_bytes + 24, 32);
    store_le32(out_bytes + 28, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
    make(&e, CUTS(32, 0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), 0);
    assert_true(r.ranges[0].unmap);
    store_le32(out_bytes + 24, 33);
    make(&e, CUTS(32, 0, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), VIRTIO_BLK_S_IOERR);
    virtqueue_element_release(&e);
}

static void test_id_and_config(void **state)
{
    struct virtqueue_element e = {0};
    struct virtio_blk_request r;
    header(VIRTIO_BLK_T_GET_ID, 0);
    memset(in_bytes, 0xee, 64);
    make(&e, CUTS(16, 0, 20, 1, 0));
    assert_int_equal(virtio_blk_parse(&e, &limits, &r), 0);
    virtio_blk_fill_id(&r, "disk-7");
    assert_memory_equal(in_bytes, "disk-7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xee", 21);
    assert_int_equal(virtio_blk_finish(&r, VIRTIO_BLK_S_OK), 21);

    uint8_t config[VIRTIO_BLK_CONFIG_SIZE];
    virtio_blk_config_encode(&limits, config);
    assert_int_equal(load_le64(config), 2048);
    assert_int_equal(load_le32(config + 12), 126);
    assert_int_equal(load_le32(config + 20), 512);
    assert_int_equal(load_le16(config + 34), 4);
    assert_int_equal(load_le32(config + 36), 64);
    assert_int_equal(load_le32(config + 48), 32);
    assert_true(virtio_blk_features(&limits) & VIRTIO_BIT(VIRTIO_BLK_F_MQ));
    assert_false(virtio_blk_features(&limits) & VIRTIO_BIT(VIRTIO_BLK_F_RO));
    virtqueue_element_release(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_read_write), cmocka_unit_test(test_malformed),
                                       cmocka_unit_test(test_ranges), cmocka_unit_test(test_id_and_config)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
