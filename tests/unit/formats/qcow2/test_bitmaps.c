/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, a persistent dirty bitmap forgets a write, is trusted after a crash that lost bits, or storing one
 * damages the image when power fails.
 * links: protocol formats
 */
#include "base/bitmap.h"
#include "block/dirty_bitmap.h"
#include "formats/qcow2/write_log.h"
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

/* Crashes ---------------------------------------------------------------------------------------------------------- */

/* A backup program: remembers what the disk held when it cleared the bitmap. */
struct backup_run {
    struct world *world;
    const struct setup *setup;
    uint64_t seed;
    bool is_kill, is_cut;
    uint8_t *copy;
};

static void cut(void *arg)
{
    struct backup_run *run = arg;
    run->is_cut = true;
    if (run->is_kill)
        sim_kill(run->world->loop);
    else
        sim_crash(run->world->loop, run->seed);
}

static void back_up(struct backup_run *run)
{
    struct world *world = run->world;
    if (block_flush(world->edge))
        return;
    auto_free uint8_t *copy = xmalloc(run->setup->size);
    if (block_read_buffer(world->edge, 0, copy, run->setup->size) || run->is_cut)
        return;
    memcpy(run->copy, copy, run->setup->size);
    dirty_bitmap_clear(dirty_bitmap_find(world->edge->child, names[0]));
}

static void change_something(struct backup_run *run, bool is_alone)
{
    struct world *world = run->world;
    uint64_t offset = world_random(world, run->setup->size / SECTOR) * SECTOR;
    uint64_t length = MIN((1 + world_random(world, 60)) * SECTOR, run->setup->size - offset);
    auto_free uint8_t *buffer = xmalloc(length);
    memset(buffer, (int)(1 + world_random(world, 255)), length);
    switch (world_random(world, 12)) {
    case 0:
        if (is_alone)
            back_up(run);
        break;
    case 1: (void)block_flush(world->edge); break;
    case 2: (void)dirty_log_checkpoint(state_of(world), true); break;
    case 3: (void)block_zero(world->edge, offset, length, REQUEST_MAY_UNMAP); break;
    case 4: (void)block_discard(world->edge, offset, length); break;
    default: (void)block_write_buffer(world->edge, offset, buffer, length, 0);
    }
}

static void change_worker(void *arg)
{
    for (int i = 0; i < 4; i++)
        change_something(arg, false);
}

static void crash_workload(struct world *world, void *arg)
{
    struct backup_run *run = arg;
    create(world, IMAGE, run->setup->options);
    open_image(world, IMAGE, true, "");
    add(world, names[0], 4096);
    close_image(world);
    open_image(world, IMAGE, true, "");
    assert_int_equal(block_flush(world->edge), 0);
    sim_at_operation(world->loop, 1 + world_random(world, 250), cut, run);
    while (!run->is_cut) {
        struct co_group group;
        co_group_init(&group);
        /* A backup sees no writes under way: it is alone. */
        change_something(run, true);
        for (int i = 0; i < 3 && world_random(world, 2); i++)
            co_spawn(world->loop, &group, change_worker, run);
        co_group_wait(&group);
        if (world_random(world, 12) == 0) {
            close_image(world);
            auto_error err = {0};
            if (!try_open(world, IMAGE, true, "", &err))
                return;
        }
    }
    close_image(world);
}

static void crash_verify(struct world *world, void *arg)
{
    struct backup_run *run = arg;
    open_image(world, IMAGE, world_random(world, 2), "");
    const struct dirty_bitmap *bitmap = dirty_bitmap_find(world->edge->child, names[0]);
    assert_non_null(bitmap);
    if (bitmap->inconsistent)
        fail_with("%s, seed %" PRIu64 ": the bitmap is inconsistent", run->setup->name, run->seed);
    assert_true(bitmap->recording);
    if (!(state_of(world)->header.incompatible & INCOMPATIBLE_DIRTY)) {
        struct image_check result = check(world, 0);
        assert_int_equal(result.corruptions + result.check_errors, 0);
    }
    auto_free uint8_t *now = xmalloc(run->setup->size);
    assert_int_equal(block_read_buffer(world->edge, 0, now, run->setup->size), 0);
    for (uint64_t s = 0; s < run->setup->size; s += SECTOR) {
        if (memcmp(now + s, run->copy + s, SECTOR) && !dirty_bitmap_get(bitmap, s))
            fail_with("%s, seed %" PRIu64 ": sector %" PRIu64 " has changed, and the bitmap does not know",
                      run->setup->name, run->seed, s / SECTOR);
    }
}

static void crash(const struct setup *setup, uint64_t seed, bool is_kill)
{
    struct world world;
    world_init(&world, seed);
    struct backup_run run = {.world = &world, .setup = setup, .seed = seed, .is_kill = is_kill};
    run.copy = xcalloc(setup->size, 1);
    world_run(&world, crash_workload, &run);
    sim_at_operation(world.loop, UINT64_MAX / 2, cut, &run);
    world_run(&world, crash_verify, &run);
    world_run(&world, crash_verify, &run); /* opening alone loses nothing either */
    loop_free(world.loop);
    free(run.copy);
}

static const struct setup crash_setups[] = {
    {"4k", "size=1M,cluster_size=4k", 1 * MiB},
    {"64k", "size=8M", 8 * MiB},
    {"512", "size=512k,cluster_size=512", 512 * KiB},
    {"lazy", "size=1M,cluster_size=4k,lazy_refcounts=on", 1 * MiB},
    {"data-file", "size=1M,cluster_size=4k,data_file=data.raw,data_file_raw=on", 1 * MiB},
};

static void test_crashes(void **state)
{
    const char *only = getenv("SPINDLE_TEST_ONLY");
    uint64_t first = 1, count = 40;
    const char *range = getenv("SPINDLE_TEST_SEED");
    if (range && sscanf(range, "%" SCNu64 ",%" SCNu64, &first, &count) == 1)
        count = 1;
    for (size_t i = 0; i < ARRAY_SIZE(crash_setups); i++) {
        for (uint64_t seed = first; seed < first + count; seed++) {
            if (only && strcmp(only, crash_setups[i].name))
                continue;
            crash(&crash_setups[i], seed, false);
            crash(&crash_setups[i], seed, true);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
