/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, numbers are packed wrongly: refcounts of some width, descriptors of compressed clusters, or what the
 * codecs make of a cluster.
 * links: protocol formats
 */
#include "formats/qcow2/compress.h"
#include "formats/qcow2/entry.h"
#include "tests/unit/formats/qcow2/fixture.h"

static void test_refcount_widths(void **state)
{
    for (uint32_t order = 0; order <= REFCOUNT_ORDER_MAX; order++) {
        uint64_t max = order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;
        uint8_t block[512] = {0};
        uint64_t entries = sizeof block * 8 >> order;
        for (uint64_t i = 0; i < entries; i++)
            refcount_write(block, order, i, i * 0x9e3779b97f4a7c15ull & max);
        for (uint64_t i = 0; i < entries; i++)
            assert_int_equal(refcount_read(block, order, i), i * 0x9e3779b97f4a7c15ull & max);
        /* A neighbour is never touched. */
        refcount_write(block, order, 5, max);
        assert_int_equal(refcount_read(block, order, 4), 4 * 0x9e3779b97f4a7c15ull & max);
        assert_int_equal(refcount_read(block, order, 6), 6 * 0x9e3779b97f4a7c15ull & max);
        refcount_write(block, order, 5, 0);
        assert_int_equal(refcount_read(block, order, 5), 0);
    }
    /* The specification: within a byte the first count is in the lowest bits. */
    uint8_t byte = 0;
    refcount_write(&byte, 0, 0, 1);
    assert_int_equal(byte, 1);
    refcount_write(&byte, 1, 3, 3);
    assert_int_equal(byte, 0xc1);
}

static void test_compressed_descriptors(void **state)
{
    for (uint32_t bits = CLUSTER_BITS_MIN; bits <= CLUSTER_BITS_MAX; bits++) {
        struct qcow2 q = {.cluster_bits = bits, .cluster_size = 1ull << bits};
        for (uint64_t size = 1; size < q.cluster_size; size += size / 3 + 1) {
            for (uint64_t offset = 0x50001; offset < 1ull << 40; offset = offset * 5 + 3) {
                uint64_t descriptor;
                assert_true(compressed_describe(&q, offset, size, &descriptor));
                assert_true(descriptor & ENTRY_COMPRESSED && !(descriptor & ENTRY_COPIED));
                struct host_span span = compressed_span(&q, descriptor);
                assert_int_equal(span.offset, offset);
                /* To the end of the last sector, and no further. */
                assert_true(span.length >= size && span.length < size + 512);
                assert_int_equal((span.offset + span.length) % 512, 0);
            }
        }
        uint64_t descriptor;
        assert_false(compressed_describe(&q, 1ull << 62, 100, &descriptor));
    }
}

static void test_codecs(void **state)
{
    enum { SIZE = 65536 };
    auto_free uint8_t *in = xmalloc(SIZE), *packed = xmalloc(SIZE + 512), *out = xmalloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        in[i] = (uint8_t)(i / 100 * 7);
    for (uint32_t type = COMPRESSION_DEFLATE; type <= COMPRESSION_ZSTD; type++) {
        struct codec_context *context = codec_context_new(type);
        size_t made = codec_compress(context, in, SIZE, packed, SIZE - 1);
        assert_true(made > 0 && made < SIZE);
        memset(packed + made, 0xee, 512); /* what follows in the last sector is somebody else's */
        memset(out, 0, SIZE);
        assert_true(codec_decompress(context, packed, made + 512, out, SIZE));
        assert_memory_equal(in, out, SIZE);
        assert_false(codec_decompress(context, packed, made / 2, out, SIZE));
        codec_context_free(context);
    }
}

static void test_subcluster_masks(void **state)
{
    struct qcow2 q = {.cluster_bits = 16, .cluster_size = 65536, .extended_l2 = true, .subcluster_bits = 11};
    assert_int_equal(touched_subclusters(&q, 0, 1), 1);
    assert_int_equal(touched_subclusters(&q, 0, 2048), 1);
    assert_int_equal(touched_subclusters(&q, 0, 2049), 3);
    assert_int_equal(touched_subclusters(&q, 65535, 65536), 0x80000000u);
    assert_int_equal(touched_subclusters(&q, 0, 65536), 0xffffffffu);
    struct mapping m;
    assert_null(mapping_decode(&q, (struct l2_entry){ENTRY_COPIED | 65536, 0x200000001}, 0, &m));
    assert_true(mapping_in_place(&m, 1) && !mapping_in_place(&m, 3));
    assert_non_null(mapping_decode(&q, (struct l2_entry){ENTRY_COPIED | 65536, 0x100000001}, 0, &m));
    assert_non_null(mapping_decode(&q, (struct l2_entry){ENTRY_COMPRESSED | 65536, 1}, 0, &m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refcount_widths),
        cmocka_unit_test(test_compressed_descriptors),
        cmocka_unit_test(test_codecs),
        cmocka_unit_test(test_subcluster_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
