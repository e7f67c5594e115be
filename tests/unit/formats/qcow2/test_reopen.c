/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, an option of an open image cannot change as blockdev-reopen allows: caches of other sizes lose
 * metadata, or persistent bitmaps are not stored when the image becomes read-only, or not taken up again.
 *
 * links: protocol formats
 */
#include "base/bitmap.h"
#include "block/dirty_bitmap.h"
#include "formats/qcow2/write_log.h"
#include "tests/unit/formats/qcow2/fixture.h"

static struct blockdev_options *parse(const char *text)
{
    auto_error err = {0};
    auto_json *json = json_parse(text, strlen(text), &err);
    struct blockdev_options *options = NULL;
    if (!json || !blockdev_options_from_json(json, &options, &err))
        fail_with("%s: %s", text, err.message);
    return options;
}

/* The file is a node of its own, since a reopen must name it. */
static void open_named(struct world *world)
{
    auto_error err = {0};
    auto_blockdev_options *file = parse("{'driver': 'file', 'node-name': 'f', 'filename': '" IMAGE "'}");
    auto_blockdev_options *image = parse("{'driver': 'qcow2', 'node-name': 'd', 'file': 'f'}");
    if (!graph_add(world->graph, file, &err) || !graph_add(world->graph, image, &err))
        fail_with("%s", err.message);
    world->edge =
        edge_attach(NULL, "test", graph_find(world->graph, "d"), BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, &err);
    assert_non_null(world->edge);
}

static void reopen(struct world *world, const char *extra)
{
    auto_error err = {0};
    auto_free char *text = xasprintf("{'driver': 'qcow2', 'node-name': 'd', 'file': 'f'%s}", extra);
    struct blockdev_options *options = parse(text);
    if (!graph_reopen(world->graph, &options, 1, &err))
        fail_with("reopen %s: %s", extra, err.message);
    blockdev_options_free(options);
}

static void writes(struct world *world, uint8_t *model, uint64_t size)
{
    assert_true(edge_set_perm(world->edge, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE, BLOCK_PERM_ALL, NULL));
    for (int i = 0; i < 60; i++) {
        uint64_t offset = world_random(world, size / 512) * 512;
        uint64_t length = MIN((1 + world_random(world, 40)) * 512, size - offset);
        memset(model + offset, (int)(1 + world_random(world, 255)), length);
        assert_int_equal(block_write_buffer(world->edge, offset, model + offset, length, 0), 0);
    }
}

static void holds(struct world *world, const uint8_t *model, uint64_t size)
{
    auto_free uint8_t *bytes = xmalloc(size);
    assert_int_equal(block_read_buffer(world->edge, 0, bytes, size), 0);
    assert_memory_equal(bytes, model, size);
    assert_clean(world, false, "reopened");
}

static void run(struct world *world, void *arg)
{
    enum { SIZE = 4 << 20 };
    auto_free uint8_t *model = xcalloc(SIZE, 1);
    auto_error err = {0};
    create(world, IMAGE, "size=4M,cluster_size=4k");
    open_named(world);
    struct node *node = world->edge->child;
    struct dirty_bitmap *bitmap = dirty_bitmap_new(node, "b", 65536, &err);
    bitmap->persistent = true;
    assert_true(node->driver->bitmaps->changed(node, &err));
    static const char *const caches[] = {", 'l2-cache-size': 8192, 'l2-cache-entry-size': 512",
                                         ", 'cache-size': 1048576, 'refcount-cache-size': 65536",
                                         ", 'l2-cache-entry-size': 1024, 'cache-clean-interval': 1", ""};
    for (size_t i = 0; i < ARRAY_SIZE(caches); i++) {
        writes(world, model, SIZE);
        reopen(world, caches[i]);
        holds(world, model, SIZE);
        assert_int_equal(co_sleep_ns(3000000000ull), 0); /* the caches are cleaned */
        holds(world, model, SIZE);
    }
    uint64_t dirty = dirty_bitmap_count(bitmap);
    assert_true(edge_set_perm(world->edge, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, NULL));
    reopen(world, ", 'read-only': true");
    assert_true(bitmap->read_only);
    assert_int_equal(state_of(world)->header.log_offset, 0); /* closed as for others */
    holds(world, model, SIZE);
    reopen(world, "");
    assert_false(bitmap->read_only);
    assert_int_equal(dirty_bitmap_count(bitmap), dirty);
    writes(world, model, SIZE);
    dirty = dirty_bitmap_count(bitmap);
    edge_detach(TAKE(world->edge));
    assert_true(graph_del(world->graph, "d", &err) && graph_del(world->graph, "f", &err));
    open_named(world);
    bitmap = dirty_bitmap_find(world->edge->child, "b");
    assert_true(bitmap && bitmap->recording && dirty_bitmap_count(bitmap) == dirty);
    holds(world, model, SIZE);
    edge_detach(TAKE(world->edge));
    assert_true(graph_del(world->graph, "d", &err) && graph_del(world->graph, "f", &err));
}

static void test_reopen(void **state)
{
    for (uint64_t seed = 1; seed <= 5; seed++)
        in_world(seed, run, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reopen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
