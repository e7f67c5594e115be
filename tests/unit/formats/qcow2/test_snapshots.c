/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, an internal snapshot does not keep what the disk held, refcounts or COPIED flags are wrong after it,
 * or a power cut in the middle of creating, applying or deleting one damages the image.
 * links: protocol formats
 */
#include "tests/unit/formats/qcow2/fixture.h"

enum { SECTOR = 512, SNAPSHOTS_MAX = 5, STEPS = 60 };

struct picture {
    uint8_t *bytes;
    uint64_t size;
    char *id;
};

struct gallery {
    struct world *world;
    const char *setup;
    struct picture now;
    struct picture kept[SNAPSHOTS_MAX];
    unsigned count;
    bool compressed;
};

static const struct snapshot_ops *ops(const struct world *world)
{
    return world->edge->child->driver->snapshots;
}

static struct picture copy_of(const struct picture *picture)
{
    struct picture copy = {.bytes = xmalloc(picture->size), .size = picture->size};
    memcpy(copy.bytes, picture->bytes, picture->size);
    return copy;
}

static void drop(struct picture *picture)
{
    free(picture->bytes);
    free(picture->id);
    *picture = (struct picture){0};
}

static void assert_shows(struct world *world, const struct picture *picture, const char *when)
{
    auto_free uint8_t *bytes = xmalloc(picture->size);
    assert_int_equal(world->edge->child->size, picture->size);
    assert_int_equal(block_read_buffer(world->edge, 0, bytes, picture->size), 0);
    for (uint64_t i = 0; i < picture->size; i++) {
        if (bytes[i] != picture->bytes[i])
            fail_with("%s: byte %" PRIu64 " is %02x, not %02x", when, i, bytes[i], picture->bytes[i]);
    }
}

static void write_some(struct gallery *g)
{
    struct world *world = g->world;
    uint64_t cluster = state_of(world)->cluster_size;
    uint64_t offset = world_random(world, g->now.size / SECTOR) * SECTOR;
    uint64_t length = MIN((1 + world_random(world, 3 * cluster / SECTOR)) * SECTOR, g->now.size - offset);
    uint32_t flags = 0;
    unsigned kind = (unsigned)world_random(world, 8);
    if (kind < 2) {
        assert_int_equal(block_zero(world->edge, offset, length, kind ? REQUEST_MAY_UNMAP : 0), 0);
        memset(g->now.bytes + offset, 0, length);
        return;
    }
    if (kind == 2 && g->compressed) {
        offset = round_down(offset, cluster);
        length = MIN(cluster, g->now.size - offset);
        flags = REQUEST_COMPRESSED;
    }
    memset(g->now.bytes + offset, (int)(1 + world_random(world, 255)), length);
    struct iovec iov = {g->now.bytes + offset, length};
    assert_int_equal(block_write(world->edge, offset, length, buffers_of(&iov, 1), flags), 0);
}

/* The ID of the snapshot that was listed last. */
static char *last_id(struct world *world)
{
    struct internal_snapshot *list;
    size_t count;
    assert_true(ops(world)->list(world->edge->child, &list, &count, NULL));
    assert_true(count > 0);
    char *id = xstrdup(list[count - 1].id);
    for (size_t i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
    return id;
}

static void take(struct gallery *g)
{
    auto_error err = {0};
    if (g->count == SNAPSHOTS_MAX)
        return;
    if (!ops(g->world)->create(g->world->edge->child, "taken", &err))
        fail_with("%s: create: %s", g->setup, err.message);
    g->kept[g->count] = copy_of(&g->now);
    g->kept[g->count++].id = last_id(g->world);
}

static void go_back(struct gallery *g)
{
    auto_error err = {0};
    if (!g->count)
        return;
    const struct picture *to = &g->kept[world_random(g->world, g->count)];
    if (!ops(g->world)->apply(g->world->edge->child, to->id, &err))
        fail_with("%s: apply: %s", g->setup, err.message);
    drop(&g->now);
    g->now = copy_of(to);
}

static void delete (struct gallery *g)
{
    auto_error err = {0};
    if (!g->count)
        return;
    unsigned index = (unsigned)world_random(g->world, g->count);
    if (!ops(g->world)->remove(g->world->edge->child, g->kept[index].id, &err))
        fail_with("%s: delete: %s", g->setup, err.message);
    drop(&g->kept[index]);
    g->kept[index] = g->kept[--g->count];
}

static void change_size(struct gallery *g, uint64_t base)
{
    auto_error err = {0};
    uint64_t size = (base / 2 / SECTOR + world_random(g->world, base / SECTOR)) * SECTOR;
    if (!node_resize(g->world->edge, size, PREALLOCATION_OFF, true, &err))
        fail_with("%s: resize: %s", g->setup, err.message);
    uint8_t *bytes = xcalloc(size, 1);
    memcpy(bytes, g->now.bytes, MIN(size, g->now.size));
    free(g->now.bytes);
    g->now.bytes = bytes;
    g->now.size = size;
}

static void assert_all(struct gallery *g)
{
    close_image(g->world);
    open_image(g->world, IMAGE, false, "");
    assert_clean(g->world, false, g->setup);
    assert_shows(g->world, &g->now, g->setup);
    for (unsigned i = 0; i < g->count; i++) {
        auto_error err = {0};
        if (!ops(g->world)->load(g->world->edge->child, g->kept[i].id, &err))
            fail_with("%s: load: %s", g->setup, err.message);
        assert_shows(g->world, &g->kept[i], "a snapshot");
    }
    close_image(g->world);
    open_image(g->world, IMAGE, true, "");
}

struct setup {
    const char *name, *options, *open;
    uint64_t size;
    bool resizes;
};

static void run_random(struct world *world, void *arg)
{
    const struct setup *setup = arg;
    create(world, IMAGE, setup->options);
    open_image(world, IMAGE, true, setup->open);
    struct gallery g = {.world = world, .setup = setup->name, .compressed = true};
    g.now = (struct picture){.bytes = xcalloc(setup->size, 1), .size = setup->size};
    for (int step = 0; step < STEPS; step++) {
        switch (world_random(world, 9)) {
        case 0:
        case 1: take(&g); break;
        case 2: go_back(&g); break;
        case 3: delete (&g); break;
        case 4:
            if (setup->resizes)
                change_size(&g, setup->size);
            break;
        default: write_some(&g); break;
        }
        if (step % 10 == 9)
            assert_all(&g);
        else
            assert_clean(world, true, setup->name);
    }
    const char *path = getenv("SPINDLE_TEST_DUMP");
    close_image(world);
    if (path)
        dump(world, IMAGE, path);
    open_image(world, IMAGE, true, "");
    while (g.count)
        delete (&g);
    assert_all(&g);
    drop(&g.now);
}

static const struct setup setups[] = {
    {"v3-4k", "size=256k,cluster_size=4k", "", 256 * KiB, true},
    {"v3-64k", "size=1M", "", 1 * MiB, true},
    {"v3-512", "size=128k,cluster_size=512", ", 'l2-cache-size': 1024, 'l2-cache-entry-size': 512", 128 * KiB, true},
    {"v2", "size=256k,cluster_size=4k,compat=0.10", "", 256 * KiB, false},
    {"extended", "size=512k,cluster_size=16k,extended_l2=on", "", 512 * KiB, true},
    {"lazy", "size=256k,cluster_size=4k,lazy_refcounts=on", "", 256 * KiB, true},
    {"refcount-64", "size=128k,cluster_size=512,refcount_bits=64", "", 128 * KiB, true},
    {"overlap-all", "size=256k,cluster_size=4k", ", 'overlap-check': 'all'", 256 * KiB, true},
};

static void test_snapshots(void **state)
{
    const char *only = getenv("SPINDLE_TEST_ONLY");
    for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
        for (uint64_t seed = 1; seed <= 4; seed++) {
            if (!only || strcmp(only, setups[i].name) == 0)
                in_world(seed, run_random, (void *)(uintptr_t)&setups[i]);
        }
    }
}

/* A count that cannot grow: nothing changes. */
static void narrow_counts(struct world *world, void *arg)
{
    auto_error err = {0};
    create(world, IMAGE, "size=64k,cluster_size=4k,refcount_bits=1");
    open_image(world, IMAGE, true, "");
    struct gallery g = {.world = world, .setup = "refcount-1"};
    g.now = (struct picture){.bytes = xcalloc(64 * KiB, 1), .size = 64 * KiB};
    for (int i = 0; i < 10; i++)
        write_some(&g);
    assert_false(ops(world)->create(world->edge->child, "one too many", &err));
    assert_int_equal(err.code, ERANGE);
    write_some(&g);
    assert_all(&g);
    drop(&g.now);
}

static void test_narrow_counts(void **state)
{
    in_world(1, narrow_counts, NULL);
}

/* Power cuts ------------------------------------------------------------------------------------------------------- */

enum act { CREATE, APPLY, DELETE, ACTS };

struct cut_run {
    struct world *world;
    const struct setup *setup;
    enum act act;
    uint64_t seed, after; /* operations */
    bool is_cut, over;    /* over: the act ended before the cut */
    struct gallery g;
    struct picture other; /* what the disk may hold too */
};

static void cut(void *arg)
{
    struct cut_run *run = arg;
    run->is_cut = true;
    sim_crash(run->world->loop, run->seed);
}

static void cut_workload(struct world *world, void *arg)
{
    struct cut_run *run = arg;
    struct gallery *g = &run->g;
    create(world, IMAGE, run->setup->options);
    open_image(world, IMAGE, true, run->setup->open);
    *g = (struct gallery){.world = world, .setup = run->setup->name, .compressed = true};
    g->now = (struct picture){.bytes = xcalloc(run->setup->size, 1), .size = run->setup->size};
    for (int i = 0; i < 12; i++) {
        write_some(g);
        if (i == 3 || i == 7)
            take(g);
        if (i == 5 && run->setup->resizes)
            change_size(g, run->setup->size);
    }
    assert_int_equal(block_flush(world->edge), 0);
    struct node *node = world->edge->child;
    run->other = copy_of(run->act == APPLY ? &g->kept[0] : &g->now);
    sim_at_operation(world->loop, run->after, cut, run);
    switch (run->act) {
    case CREATE: (void)ops(world)->create(node, "cut", NULL); break;
    case APPLY: (void)ops(world)->apply(node, g->kept[0].id, NULL); break;
    default: (void)ops(world)->remove(node, g->kept[0].id, NULL); break;
    }
    run->over = !run->is_cut;
    sim_at_operation(world->loop, UINT64_MAX / 2, cut, run); /* not in what follows */
    if (run->over)
        cut(run);
    close_image(world);
}

static bool shows(struct world *world, const struct picture *picture)
{
    auto_free uint8_t *bytes = xmalloc(picture->size);
    return world->edge->child->size == picture->size && !block_read_buffer(world->edge, 0, bytes, picture->size) &&
           !memcmp(bytes, picture->bytes, picture->size);
}

static void cut_verify(struct world *world, void *arg)
{
    struct cut_run *run = arg;
    open_image(world, IMAGE, true, run->setup->open);
    struct image_check result = check(world, 0);
    /* Version 2 cannot be marked dirty: flags may be clear without need. */
    bool v2 = state_of(world)->header.version < 3;
    if ((result.corruptions && !v2) || result.check_errors)
        fail_with("%s, act %d, cut at %" PRIu64 ": %" PRId64 " corruptions", run->setup->name, run->act, run->after,
                  result.corruptions);
    if (!shows(world, &run->g.now) && !shows(world, &run->other))
        fail_with("%s, act %d, cut at %" PRIu64 ": the disk holds neither the old nor the new", run->setup->name,
                  run->act, run->after);
    (void)check(world, CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS);
    close_image(world);
    open_image(world, IMAGE, false, "");
    assert_clean(world, false, "after repair");
    for (unsigned i = 0; i < run->g.count; i++) {
        auto_error err = {0};
        if (!ops(world)->load(world->edge->child, run->g.kept[i].id, &err)) {
            assert_true(run->act == DELETE && i == 0);
            continue;
        }
        assert_shows(world, &run->g.kept[i], "a snapshot after a cut");
    }
}

static void test_power_cuts(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
        for (int act = 0; act < ACTS; act++) {
            for (uint64_t after = 1;; after++) {
                struct world world;
                world_init(&world, i + 1);
                struct cut_run run = {
                    .world = &world, .setup = &setups[i], .act = (enum act)act, .seed = after, .after = after};
                world_run(&world, cut_workload, &run);
                world_run(&world, cut_verify, &run);
                bool ended = run.over || after >= 80;
                drop(&run.g.now);
                drop(&run.other);
                while (run.g.count)
                    drop(&run.g.kept[--run.g.count]);
                loop_free(world.loop);
                if (ended)
                    break;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_narrow_counts),
        cmocka_unit_test(test_power_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
