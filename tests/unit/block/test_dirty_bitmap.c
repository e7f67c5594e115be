/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a dirty bitmap misses a write, counts wrongly, or loses bits when merged, resized or walked. */
#include "block/dirty_bitmap.h"
#include "tests/unit/block/memory.h"

#define SIZE (64 * KiB + 100)

static struct node *add_disk(void *graph)
{
    return add_node(graph, "driver=null-co,node-name=m,size=65636");
}

static struct dirty_bitmap *add_bitmap(struct node *node, const char *name, uint32_t granularity)
{
    auto_error err = {0};
    struct dirty_bitmap *bitmap = dirty_bitmap_new(node, name, granularity, &err);
    assert_non_null(bitmap);
    return bitmap;
}

/* The slow, obvious bitmap: a byte for each granule. */
struct oracle {
    uint8_t dirty[129];
    uint64_t granularity;
};

static void check_against(const struct dirty_bitmap *bitmap, const struct oracle *oracle)
{
    uint64_t bytes = 0, seen = 0, offset = 0, start, length;
    for (uint64_t at = 0; at < SIZE; at++) {
        bool dirty = oracle->dirty[at / oracle->granularity];
        bytes += dirty;
        if (at % 97 == 0)
            assert_int_equal(dirty_bitmap_get(bitmap, at), dirty);
    }
    assert_int_equal(dirty_bitmap_count(bitmap), bytes);
    while (dirty_bitmap_next_dirty(bitmap, offset, 1500, &start, &length)) {
        assert_true(length && length <= 1500 && start >= offset);
        for (uint64_t at = offset; at < start; at += oracle->granularity)
            assert_false(oracle->dirty[at / oracle->granularity]);
        for (uint64_t at = start; at < start + length; at++)
            assert_true(oracle->dirty[at / oracle->granularity]);
        seen += length;
        offset = start + length;
    }
    assert_int_equal(seen, bytes);
    for (offset = 0; offset < SIZE; offset += length) {
        bool dirty;
        length = dirty_bitmap_run(bitmap, offset, UINT64_MAX, &dirty);
        assert_true(length);
        for (uint64_t at = offset; at < offset + length; at++)
            assert_int_equal(oracle->dirty[at / oracle->granularity], dirty);
        assert_true(offset + length == SIZE || oracle->dirty[(offset + length) / oracle->granularity] != dirty);
    }
    assert_int_equal(offset, SIZE);
}

static int random_ranges(void *graph)
{
    struct node *node = add_disk(graph);
    struct dirty_bitmap *bitmap = add_bitmap(node, "b", 512);
    struct oracle oracle = {.granularity = 512};
    srand(7);
    for (int i = 0; i < 300; i++) {
        uint64_t offset = (uint64_t)rand() % SIZE, length = (uint64_t)rand() % (i % 3 ? 5000 : 60000);
        uint64_t end = MIN(offset + length, (uint64_t)SIZE);
        if (rand() % 2) {
            dirty_bitmap_set(bitmap, offset, length);
            for (uint64_t at = offset; at < end; at++)
                oracle.dirty[at / 512] = 1;
        } else {
            dirty_bitmap_reset(bitmap, offset, length);
            for (uint64_t at = 0; at < SIZE; at += 512) {
                if (at >= offset && MIN(at + 512, (uint64_t)SIZE) <= end)
                    oracle.dirty[at / 512] = 0;
            }
        }
        check_against(bitmap, &oracle);
    }
    delete_node(graph, "m");
    return 0;
}

static int requests_are_recorded(void *graph)
{
    struct node *node = add_disk(graph);
    struct edge *edge = use_node(node);
    struct dirty_bitmap *bitmap = add_bitmap(node, "b", 4096), *off = add_bitmap(node, "off", 4096);
    off->recording = false;
    assert_int_equal(write_pattern(edge, 5000, 10, 1), 0);
    assert_int_equal(dirty_bitmap_count(bitmap), 4096);
    assert_true(dirty_bitmap_get(bitmap, 4096));
    assert_int_equal(block_zero(edge, 8192, 4096, 0), 0);
    assert_int_equal(dirty_bitmap_count(bitmap), 8192);
    node->discard = BLOCK_DISCARD_UNMAP;
    assert_int_equal(block_discard(edge, 16384, 4096), 0);
    assert_int_equal(dirty_bitmap_count(bitmap), 3 * 4096);
    memory_of(node)->fail_next = -EIO; /* who knows what it left behind */
    assert_int_equal(write_pattern(edge, 32768, 4096, 1), -EIO);
    assert_int_equal(dirty_bitmap_count(bitmap), 4 * 4096);
    assert_int_equal(write_pattern(edge, SIZE, 1, 1), -EIO); /* refused: nothing changed */
    assert_int_equal(write_pattern(edge, SIZE - 1, 1, 1), 0);
    assert_int_equal(dirty_bitmap_count(bitmap), 4 * 4096 + 100);
    assert_int_equal(dirty_bitmap_count(off), 0);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

/* Who clears a bit while a write is under way, and reads the old bytes, must find it set when the write is done. */
struct slow_write {
    struct edge *edge;
    struct dirty_bitmap *bitmap;
};

static void write_slowly(void *arg)
{
    struct slow_write *slow = arg;
    assert_int_equal(write_pattern(slow->edge, 0, 4096, 7), 0);
}

static int cleared_in_flight(void *graph)
{
    struct node *node = add_disk(graph);
    struct slow_write slow = {use_node(node), add_bitmap(node, "b", 4096)};
    struct co_group group;
    co_group_init(&group);
    memory_of(node)->delay_ns = 1000000;
    co_spawn(node->loop, &group, write_slowly, &slow);
    co_sleep_ns(500000);
    assert_true(dirty_bitmap_get(slow.bitmap, 0)); /* before the data is there */
    dirty_bitmap_clear(slow.bitmap);
    co_group_wait(&group);
    assert_true(dirty_bitmap_get(slow.bitmap, 0));
    edge_detach(slow.edge);
    delete_node(graph, "m");
    return 0;
}

static int merging(void *graph)
{
    auto_error err = {0};
    struct node *node = add_disk(graph);
    struct dirty_bitmap *fine = add_bitmap(node, "fine", 512), *coarse = add_bitmap(node, "coarse", 4096);
    struct dirty_bitmap *same = add_bitmap(node, "same", 512);
    dirty_bitmap_set(fine, 5000, 1);
    dirty_bitmap_set(same, 60000, 6000);
    assert_true(dirty_bitmap_merge(coarse, fine, &err));
    assert_int_equal(dirty_bitmap_count(coarse), 4096);
    assert_true(dirty_bitmap_get(coarse, 4096));
    assert_true(dirty_bitmap_merge(same, coarse, &err));
    assert_int_equal(dirty_bitmap_count(same), 4096 + SIZE - 59904);
    uint64_t *saved = dirty_bitmap_save(same);
    dirty_bitmap_clear(same);
    assert_int_equal(dirty_bitmap_count(same), 0);
    dirty_bitmap_restore(same, saved);
    assert_int_equal(dirty_bitmap_count(same), 4096 + SIZE - 59904);
    fine->size--;
    assert_false(dirty_bitmap_merge(fine, coarse, &err));
    assert_non_null(strstr(err.message, "different sizes"));
    fine->size++;
    delete_node(graph, "m");
    return 0;
}

static int resizing(void *graph)
{
    struct node *node = add_disk(graph);
    struct edge *edge = use_node(node);
    struct dirty_bitmap *bitmap = add_bitmap(node, "b", 512);
    dirty_bitmap_set(bitmap, 0, 512);
    node_set_size(node, 1 * MiB);
    assert_int_equal(bitmap->size, 1 * MiB);
    assert_int_equal(dirty_bitmap_count(bitmap), 512 + 1 * MiB - round_down(SIZE, 512));
    node_set_size(node, 1024);
    assert_int_equal(dirty_bitmap_count(bitmap), 512);
    node_set_size(node, 2048); /* bits of what was cut off do not come back by accident */
    assert_int_equal(dirty_bitmap_count(bitmap), 512 + 1024);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int names_and_states(void *graph)
{
    auto_error err = {0};
    struct node *node = add_disk(graph);
    struct dirty_bitmap *bitmap = add_bitmap(node, "b", 0);
    assert_int_equal(bitmap->granularity, 65536);
    assert_null(dirty_bitmap_new(node, "b", 0, &err));
    error_clear(&err);
    assert_null(dirty_bitmap_new(node, "c", 3000, &err));
    error_clear(&err);
    assert_null(dirty_bitmap_new(node, "c", 256, &err));
    error_clear(&err);
    assert_true(dirty_bitmap_check(bitmap, DIRTY_BITMAP_DEFAULT, &err));
    bitmap->busy++;
    assert_false(dirty_bitmap_check(bitmap, DIRTY_BITMAP_REMOVABLE, &err));
    error_clear(&err);
    struct dirty_bitmap *lost = dirty_bitmap_new_inconsistent(node, "lost", 4096, &err);
    assert_true(dirty_bitmap_check(lost, DIRTY_BITMAP_REMOVABLE, &err));
    assert_false(dirty_bitmap_check(lost, DIRTY_BITMAP_DEFAULT, &err));
    error_clear(&err);
    dirty_bitmap_set(lost, 0, 100);
    assert_int_equal(dirty_bitmap_count(lost), 0);
    assert_ptr_equal(dirty_bitmap_find(node, "lost"), lost);
    dirty_bitmap_free(lost);
    assert_null(dirty_bitmap_find(node, "lost"));
    delete_node(graph, "m");
    return 0;
}

SIMULATED(random_ranges)
SIMULATED(requests_are_recorded)
SIMULATED(cleared_in_flight)
SIMULATED(merging)
SIMULATED(resizing)
SIMULATED(names_and_states)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_ranges_simulated),     cmocka_unit_test(requests_are_recorded_simulated),
        cmocka_unit_test(cleared_in_flight_simulated), cmocka_unit_test(merging_simulated),
        cmocka_unit_test(resizing_simulated),          cmocka_unit_test(names_and_states_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
