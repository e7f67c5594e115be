/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, a power cut at a bad moment damages an image: its metadata, data that was flushed, or it shows data
 * that was never written there.
 * links: protocol formats
 *
 * A random workload runs on a simulated disk that loses, keeps or tears what was not flushed, and is cut at a random
 * operation. Afterwards the image must open, check without corruptions (leaks are allowed), and every sector must hold
 * one of the values it may hold: the last one flushed, or one written since.
 *
 * The same for programs that are killed: then every write that was answered must be there. Each cut is one seed:
 * SPINDLE_TEST_SEED=first,count repeats or extends them.
 */
#include "tests/unit/formats/qcow2/fixture.h"

enum { SECTOR = 512, VALUES_MAX = 24, BATCH = 5, CUTS = 60 };

struct setup {
    const char *name, *create, *open;
    bool has_backing;
    uint64_t size;
};

/* What a sector may hold; value 0 is zeroes. */
struct sector {
    uint32_t values[VALUES_MAX];
    unsigned count;
    bool busy; /* in this batch */
};

struct run {
    struct world *world;
    const struct setup *setup;
    struct sector *sectors;
    uint64_t size, other_size; /* a resize was under way: either is right */
    uint32_t next_value;
    uint64_t seed;
    bool is_cut, is_kill;
};

struct operation {
    struct run *run;
    uint64_t offset, length;
    unsigned kind;
    uint32_t value;
};

static void fill(uint8_t *buffer, uint64_t length, uint32_t value)
{
    for (uint64_t i = 0; i < length; i += 4)
        memcpy(buffer + i, &value, 4);
}

static void may_hold(struct sector *sector, uint32_t value)
{
    for (unsigned i = 0; i < sector->count; i++) {
        if (sector->values[i] == value) {
            memmove(sector->values + i, sector->values + i + 1, (sector->count - i - 1) * sizeof *sector->values);
            sector->count--;
            break;
        }
    }
    assert_true(sector->count < VALUES_MAX);
    sector->values[sector->count++] = value;
}

/* The last value of each is on stable storage now. */
static void settle_span(struct run *run, uint64_t offset, uint64_t length)
{
    for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++) {
        struct sector *sector = &run->sectors[s];
        sector->values[0] = sector->values[sector->count - 1];
        sector->count = 1;
    }
}

static void settle(struct run *run)
{
    settle_span(run, 0, run->setup->size * 2);
}

/* A discard may leave what was there: read it, so that the model knows. */
static void learn(struct run *run, uint64_t offset, uint64_t length)
{
    auto_free uint8_t *buffer = xmalloc(length);
    if (block_read_buffer(run->world->edge, offset, buffer, length))
        return;
    for (uint64_t i = 0; i < length; i += SECTOR) {
        uint32_t value;
        memcpy(&value, buffer + i, 4);
        may_hold(&run->sectors[(offset + i) / SECTOR], value);
    }
}

static void operate(void *arg)
{
    struct operation *op = arg;
    struct run *run = op->run;
    struct edge *edge = run->world->edge;
    if (op->kind <= 1) {
        int result = block_zero(edge, op->offset, op->length, op->kind ? 0 : REQUEST_MAY_UNMAP);
        if (run->is_kill && !result && !run->is_cut)
            settle_span(run, op->offset, op->length);
    } else if (op->kind == 2) {
        if (!block_discard(edge, op->offset, op->length))
            learn(run, op->offset, op->length);
    } else {
        auto_free uint8_t *buffer = xmalloc(op->length);
        fill(buffer, op->length, op->value);
        struct iovec iov = {buffer, op->length};
        uint32_t flags = op->kind == 3 ? REQUEST_COMPRESSED : op->kind == 4 ? REQUEST_FUA : 0;
        int result = block_write(edge, op->offset, op->length, buffers_of(&iov, 1), flags);
        if ((flags & REQUEST_FUA || run->is_kill) && !result && !run->is_cut)
            settle_span(run, op->offset, op->length);
    }
}

/* A span that no other operation of this batch touches. */
static bool choose(struct run *run, struct operation *op)
{
    struct world *world = run->world;
    uint64_t cluster = state_of(world)->cluster_size;
    *op = (struct operation){.run = run, .kind = (unsigned)world_random(world, 10), .value = ++run->next_value};
    op->offset = world_random(world, run->size / SECTOR) * SECTOR;
    op->length = MIN((1 + world_random(world, 2 * cluster / SECTOR)) * SECTOR, run->size - op->offset);
    if (op->kind == 3) {
        op->offset = round_down(op->offset, cluster);
        op->length = MIN(cluster, run->size - op->offset);
    }
    for (uint64_t s = op->offset / SECTOR; s < (op->offset + op->length) / SECTOR; s++) {
        if (run->sectors[s].busy || run->sectors[s].count > VALUES_MAX - 3)
            return false;
    }
    for (uint64_t s = op->offset / SECTOR; s < (op->offset + op->length) / SECTOR; s++) {
        run->sectors[s].busy = true;
        may_hold(&run->sectors[s], op->kind < 3 ? 0 : op->value);
    }
    return true;
}

static void batch(struct run *run)
{
    struct operation ops[BATCH];
    struct co_group group;
    co_group_init(&group);
    for (unsigned i = 0; i < BATCH; i++) {
        if (choose(run, &ops[i]))
            co_spawn(run->world->loop, &group, operate, &ops[i]);
    }
    co_group_wait(&group);
    for (uint64_t s = 0; s < run->setup->size * 2 / SECTOR; s++)
        run->sectors[s].busy = false;
}

static void resize(struct run *run)
{
    uint64_t size = (run->setup->size / 2 / SECTOR + world_random(run->world, run->setup->size / SECTOR)) * SECTOR;
    for (uint64_t s = MIN(size, run->size) / SECTOR; s < run->setup->size * 2 / SECTOR; s++) {
        if (run->sectors[s].count > VALUES_MAX - 3)
            return;
    }
    run->other_size = size;
    for (uint64_t s = MIN(size, run->size) / SECTOR; s < run->setup->size * 2 / SECTOR; s++)
        may_hold(&run->sectors[s], 0);
    auto_error err = {0};
    if (node_resize(run->world->edge, size, PREALLOCATION_OFF, true, &err)) {
        run->size = size;
        /* What the disk gained is zero for certain. */
        for (uint64_t s = size / SECTOR; s < run->setup->size * 2 / SECTOR; s++) {
            run->sectors[s].values[0] = 0;
            run->sectors[s].count = 1;
        }
    }
    if (!run->is_cut)
        run->other_size = run->size;
}

static void cut(void *arg)
{
    struct run *run = arg;
    run->is_cut = true;
    if (run->is_kill)
        sim_kill(run->world->loop);
    else
        sim_crash(run->world->loop, run->seed);
}

static void prepare(struct run *run)
{
    struct world *world = run->world;
    if (run->setup->has_backing) {
        create(world, "base.qcow2", "size=128k,cluster_size=4k");
        open_image(world, "base.qcow2", true, "");
        for (uint64_t s = 0; s < 128 * KiB / SECTOR; s++) {
            uint8_t buffer[SECTOR];
            fill(buffer, SECTOR, ++run->next_value);
            assert_int_equal(block_write_buffer(world->edge, s * SECTOR, buffer, SECTOR, 0), 0);
            run->sectors[s].values[0] = run->next_value;
        }
        assert_int_equal(block_flush(world->edge), 0);
        close_image(world);
    }
    create(world, IMAGE, run->setup->create);
}

static void workload(struct world *world, void *arg)
{
    struct run *run = arg;
    prepare(run);
    open_image(world, IMAGE, true, run->setup->open);
    assert_int_equal(block_flush(world->edge), 0);
    sim_at_operation(world->loop, 1 + world_random(world, 300), cut, run);
    while (!run->is_cut) {
        batch(run);
        switch (world_random(world, 8)) {
        case 0:
        case 1:
            if (!block_flush(world->edge) && !run->is_cut)
                settle(run);
            break;
        case 2: resize(run); break;
        default: break;
        }
    }
    close_image(world);
}

static void verify(struct world *world, void *arg)
{
    struct run *run = arg;
    open_image(world, IMAGE, true, run->setup->open);
    struct image_check result = check(world, 0);
    if (result.corruptions || result.check_errors)
        fail_with("%s, seed %" PRIu64 ": %" PRId64 " corruptions, %" PRId64 " errors", run->setup->name, run->seed,
                  result.corruptions, result.check_errors);
    uint64_t size = world->edge->child->size;
    assert_true(size == run->size || size == run->other_size);
    auto_free uint8_t *bytes = xmalloc(size);
    assert_int_equal(block_read_buffer(world->edge, 0, bytes, size), 0);
    for (uint64_t s = 0; s < size / SECTOR; s++) {
        struct sector *sector = &run->sectors[s];
        uint8_t expected[SECTOR];
        bool found = false;
        for (unsigned i = 0; i < sector->count && !found; i++) {
            fill(expected, SECTOR, sector->values[i]);
            found = memcmp(bytes + s * SECTOR, expected, SECTOR) == 0;
        }
        if (!found)
            fail_with("%s, seed %" PRIu64 ": sector %" PRIu64 " holds 0x%08x, none of its %u possible values (last %u)",
                      run->setup->name, run->seed, s, load_le32(bytes + s * SECTOR), sector->count,
                      sector->values[sector->count - 1]);
    }
    result = check(world, CHECK_REPAIR_LEAKS);
    assert_int_equal(result.leaks, 0);
    close_image(world);
    open_image(world, IMAGE, false, run->setup->open);
    assert_clean(world, false, "after repair");
}

static void run_cut(const struct setup *setup, uint64_t seed, bool is_kill)
{
    struct world world;
    world_init(&world, seed);
    struct run run = {.world = &world,
                      .setup = setup,
                      .size = setup->size,
                      .other_size = setup->size,
                      .seed = seed,
                      .is_kill = is_kill};
    auto_free struct sector *sectors = run.sectors = xcalloc(setup->size * 2 / SECTOR, sizeof *sectors);
    for (uint64_t s = 0; s < setup->size * 2 / SECTOR; s++)
        sectors[s].count = 1;
    world_run(&world, workload, &run);
    if (!run.is_cut)
        cut(&run);
    world_run(&world, verify, &run);
    loop_free(world.loop);
}

static const struct setup setups[] = {
    {"v3-4k", "size=256k,cluster_size=4k", "", false, 256 * KiB},
    {"v3-64k", "size=512k", "", false, 512 * KiB},
    {"v3-512", "size=128k,cluster_size=512", ", 'l2-cache-size': 1024, 'l2-cache-entry-size': 512", false, 128 * KiB},
    {"v2-4k", "size=256k,cluster_size=4k,compat=0.10", "", false, 256 * KiB},
    {"backing", "size=256k,cluster_size=4k,backing_file=base.qcow2,backing_fmt=qcow2", "", true, 256 * KiB},
    {"extended", "size=512k,cluster_size=16k,extended_l2=on", "", false, 512 * KiB},
    {"lazy", "size=256k,cluster_size=4k,lazy_refcounts=on", "", false, 256 * KiB},
    {"refcount-64", "size=128k,cluster_size=512,refcount_bits=64", "", false, 128 * KiB},
    {"preallocated", "size=256k,cluster_size=4k,preallocation=metadata", "", false, 256 * KiB},
};

static void cut_all(bool is_kill)
{
    uint64_t first = 1, count = CUTS;
    const char *range = getenv("SPINDLE_TEST_SEED"), *only = getenv("SPINDLE_TEST_ONLY");
    if (range && sscanf(range, "%" SCNu64 ",%" SCNu64, &first, &count) == 1)
        count = 1;
    for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
        for (uint64_t seed = first; seed < first + count; seed++) {
            if (is_kill && strncmp(setups[i].name, "v2", 2) == 0)
                continue; /* has no log */
            if (!only || strcmp(only, setups[i].name) == 0)
                run_cut(&setups[i], seed, is_kill);
        }
    }
}

static void test_power_cuts(void **state)
{
    cut_all(false);
}

static void test_kills(void **state)
{
    cut_all(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_cuts), cmocka_unit_test(test_kills)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
