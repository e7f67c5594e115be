/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, a persistent dirty bitmap forgets a write, is trusted after a crash that lost bits, or storing one
 * damages the image when power fails.
 * links: protocol formats
 */
#include "base/bitmap.h"
#include "block/dirty_bitmap.h"
#include "tests/unit/formats/qcow2/fixture.h"

enum { SECTOR = 512, NAMES = 4 };
static const char *const names[NAMES] = {"one", "two", "three", "a bitmap with a longer name than the others"};

struct setup {
    const char *name, *options;
    uint64_t size;
};

static const struct setup setups[] = {
    {"4k", "size=4M,cluster_size=4k", 4 * MiB},
    {"64k", "size=4M", 4 * MiB},
    {"512", "size=4M,cluster_size=512,refcount_bits=64", 4 * MiB},
    {"odd", "size=3147264,cluster_size=4k", 3147264},
    {"lazy", "size=4M,cluster_size=4k,lazy_refcounts=on", 4 * MiB},
    {"data-file", "size=4M,cluster_size=4k,data_file=data.raw,data_file_raw=on", 4 * MiB},
};

static struct dirty_bitmap *add(struct world *world, const char *name, uint32_t granularity)
{
    auto_error err = {0};
    struct node *node = world->edge->child;
    if (!node->driver->bitmaps->can_store(node, name, granularity, &err))
        fail_with("can_store: %s", err.message);
    struct dirty_bitmap *bitmap = dirty_bitmap_new(node, name, granularity, &err);
    assert_non_null(bitmap);
    bitmap->persistent = true;
    return bitmap;
}

static void remove_bitmap(struct world *world, struct dirty_bitmap *bitmap)
{
    auto_error err = {0};
    if (!world->edge->child->driver->bitmaps->remove(world->edge->child, bitmap, &err))
        fail_with("remove: %s", err.message);
    dirty_bitmap_free(bitmap);
}

struct kept {
    bool exists, recording;
    uint32_t granularity;
    uint64_t size, *bits;
};

static void keep(struct world *world, struct kept *kept)
{
    for (int i = 0; i < NAMES; i++) {
        const struct dirty_bitmap *bitmap = dirty_bitmap_find(world->edge->child, names[i]);
        free(kept[i].bits);
        kept[i] = (struct kept){.exists = bitmap != NULL};
        if (!bitmap)
            continue;
        kept[i].recording = bitmap->recording;
        kept[i].granularity = bitmap->granularity;
        kept[i].size = bitmap->size;
        kept[i].bits = dirty_bitmap_save(bitmap);
    }
}

static void compare(struct world *world, const struct kept *kept, const char *when)
{
    for (int i = 0; i < NAMES; i++) {
        const struct dirty_bitmap *bitmap = dirty_bitmap_find(world->edge->child, names[i]);
        if (kept[i].exists != (bitmap != NULL))
            fail_with("%s: bitmap '%s' is %s", when, names[i], bitmap ? "back" : "gone");
        if (!bitmap)
            continue;
        assert_false(bitmap->inconsistent);
        assert_true(bitmap->persistent);
        assert_int_equal(bitmap->recording, kept[i].recording);
        assert_int_equal(bitmap->granularity, kept[i].granularity);
        assert_int_equal(bitmap->size, kept[i].size);
        for (uint64_t b = 0; b < dirty_bitmap_bits(bitmap); b++)
            assert_int_equal(bitmap_test(bitmap->bits, b), bitmap_test(kept[i].bits, b));
    }
}

static void act(struct world *world)
{
    struct node *node = world->edge->child;
    struct dirty_bitmap *bitmap = dirty_bitmap_find(node, names[world_random(world, NAMES)]);
    uint64_t offset = world_random(world, node->size / SECTOR) * SECTOR;
    uint64_t length = MIN((1 + world_random(world, 200)) * SECTOR, node->size - offset);
    auto_error err = {0};
    switch (world_random(world, 10)) {
    case 0: {
        const char *name = names[world_random(world, NAMES)];
        if (!dirty_bitmap_find(node, name))
            add(world, name, 512u << world_random(world, 9));
        break;
    }
    case 1:
        if (bitmap && world_random(world, 3) == 0)
            remove_bitmap(world, bitmap);
        break;
    case 2:
        if (bitmap)
            dirty_bitmap_clear(bitmap);
        break;
    case 3:
        if (bitmap)
            bitmap->recording = !bitmap->recording;
        break;
    case 4:
        if (bitmap)
            dirty_bitmap_set(bitmap, 0, node->size);
        break;
    case 5:
        if (!node_resize(world->edge, round_up(2 * MiB + offset / 2, SECTOR), PREALLOCATION_OFF, true, &err))
            fail_with("resize: %s", err.message);
        break;
    case 6: assert_int_equal(block_flush(world->edge), 0); break;
    default: {
        auto_free uint8_t *buffer = xmalloc(length);
        memset(buffer, 7, length);
        assert_int_equal(block_write_buffer(world->edge, offset, buffer, length, 0), 0);
    }
    }
}

static void run_store(struct world *world, void *arg)
{
    const struct setup *setup = arg;
    struct kept kept[NAMES] = {0};
    create(world, IMAGE, setup->options);
    open_image(world, IMAGE, true, "");
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 12; i++)
            act(world);
        keep(world, kept);
        assert_clean(world, true, setup->name);
        close_image(world);
        const char *path = getenv("SPINDLE_TEST_DUMP");
        if (path)
            dump(world, IMAGE, path);
        open_image(world, IMAGE, false, "");
        assert_clean(world, false, setup->name);
        compare(world, kept, setup->name);
        close_image(world);
        open_image(world, IMAGE, true, "");
        compare(world, kept, setup->name);
    }
    for (int i = 0; i < NAMES; i++)
        free(kept[i].bits);
}

static void test_store(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
        for (uint64_t seed = 1; seed <= 3; seed++)
            in_world(seed, run_store, (void *)(uintptr_t)&setups[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
