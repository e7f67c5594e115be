/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, requests that overlap in time and place damage an image: a discard frees what a write is filling, a
 * cluster is allocated twice, a reader sees somebody else's cluster.
 * links: protocol formats
 */
#include "tests/unit/formats/qcow2/fixture.h"

enum { SECTOR = 512, WORKERS = 8, STEPS = 60, CLUSTERS = 6 };

struct area {
    struct world *world;
    uint64_t size, cluster;
    const char *setup;
    bool *written; /* [sector * WORKERS + worker]: the worker has written its mark there */
};

struct worker {
    struct area *area;
    uint8_t mark;
};

/* A sector holds zeroes or the mark of one worker, as a whole, and of one that was there. */
static void expect_marks(struct area *area, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    for (uint64_t i = 0; i < length; i += SECTOR) {
        for (unsigned b = 1; b < SECTOR; b++)
            assert_int_equal(bytes[i + b], bytes[i]);
        uint8_t mark = bytes[i];
        if (mark && (mark > WORKERS || !area->written[(offset + i) / SECTOR * WORKERS + mark - 1]))
            fail_with("%s: sector %" PRIu64 " holds mark %u, which was never written there", area->setup,
                      (offset + i) / SECTOR, mark);
    }
}

static void fight(void *arg)
{
    struct worker *worker = arg;
    struct area *area = worker->area;
    struct world *world = area->world;
    auto_free uint8_t *buffer = xmalloc(area->size);
    for (int step = 0; step < STEPS; step++) {
        uint64_t offset = world_random(world, area->size / SECTOR) * SECTOR;
        uint64_t length = MIN(SECTOR * (1 + world_random(world, 2 * area->cluster / SECTOR)), area->size - offset);
        uint64_t start = round_down(offset, area->cluster);
        struct iovec iov = {buffer, area->size};
        if (worker->mark == 1 && step % 12 == 11) {
            /* A repair beside writes: what they have allocated and not linked yet is not a leak. */
            struct image_check found = check(world, CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS);
            assert_int_equal(found.corruptions + found.corruptions_fixed + found.leaks + found.leaks_fixed, 0);
        }
        switch (world_random(world, 8)) {
        case 0: assert_int_equal(block_discard(world->edge, start, area->cluster), 0); break;
        case 1: assert_int_equal(block_zero(world->edge, offset, length, REQUEST_MAY_UNMAP), 0); break;
        case 2: assert_int_equal(block_zero(world->edge, start, area->cluster, 0), 0); break;
        case 3:
            assert_int_equal(block_read(world->edge, offset, length, buffers_of(&iov, 1), 0), 0);
            expect_marks(area, offset, buffer, length);
            break;
        case 4: assert_int_equal(block_flush(world->edge), 0); break;
        case 5:
            offset = start;
            length = area->cluster;
            /* fall through */
        default:
            memset(buffer, worker->mark, length);
            for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++)
                area->written[s * WORKERS + worker->mark - 1] = true;
            uint32_t flags = length == area->cluster && offset == start ? REQUEST_COMPRESSED : 0;
            assert_int_equal(block_write(world->edge, offset, length, buffers_of(&iov, 1), flags), 0);
            break;
        }
    }
}

static void run_fight(struct world *world, void *arg)
{
    const char *options = arg;
    create(world, IMAGE, options);
    open_image(world, IMAGE, true, ", 'pass-discard-other': true");
    struct area area = {.world = world, .setup = options, .cluster = state_of(world)->cluster_size};
    area.size = CLUSTERS * area.cluster;
    auto_free bool *written = area.written = xcalloc(area.size / SECTOR * WORKERS, sizeof(bool));
    struct worker workers[WORKERS];
    struct co_group group;
    co_group_init(&group);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){&area, (uint8_t)(i + 1)};
        co_spawn(world->loop, &group, fight, &workers[i]);
    }
    co_group_wait(&group);
    auto_free uint8_t *bytes = xmalloc(area.size), *again = xmalloc(area.size);
    assert_int_equal(block_read_buffer(world->edge, 0, bytes, area.size), 0);
    expect_marks(&area, 0, bytes, area.size);
    assert_clean(world, true, options);
    close_image(world);
    open_image(world, IMAGE, false, "");
    assert_clean(world, false, options);
    assert_int_equal(block_read_buffer(world->edge, 0, again, area.size), 0);
    assert_memory_equal(bytes, again, area.size);
}

static void test_overlapping_requests(void **state)
{
    static const char *const setups[] = {
        "size=1M,cluster_size=4k",
        "size=2M,cluster_size=16k,extended_l2=on",
        "size=1M,cluster_size=4k,preallocation=metadata",
        "size=1M,cluster_size=4k,lazy_refcounts=on",
        "size=1M,cluster_size=2k,compat=0.10",
        "size=64k,cluster_size=512,refcount_bits=1",
    };
    for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
        for (uint64_t seed = 1; seed <= 8; seed++)
            in_world(seed, run_fight, (void *)(uintptr_t)setups[i]);
    }
}

/* The loss that other implementations had: a discard overtakes the write that is allocating the same cluster. */

struct late_write {
    struct world *world;
    bool done;
};

static void write_part(void *arg)
{
    struct late_write *late = arg;
    uint8_t buffer[SECTOR];
    memset(buffer, 0xaa, sizeof buffer);
    assert_int_equal(block_write_buffer(late->world->edge, 64 * KiB + 4096, buffer, sizeof buffer, 0), 0);
    late->done = true;
}

static void discard_meets_write(struct world *world, void *arg)
{
    create(world, IMAGE, "size=1M");
    open_image(world, IMAGE, true, "");
    auto_free uint8_t *buffer = xmalloc(128 * KiB);
    memset(buffer, 0x11, 128 * KiB);
    struct iovec iov = {buffer, 64 * KiB};
    /* A compressed cluster: the write must copy around itself, which takes a while. */
    assert_int_equal(block_write(world->edge, 64 * KiB, 64 * KiB, buffers_of(&iov, 1), REQUEST_COMPRESSED), 0);
    struct late_write late = {.world = world};
    struct co_group group;
    co_group_init(&group);
    co_spawn(world->loop, &group, write_part, &late);
    for (uintptr_t i = 0; i < (uintptr_t)arg; i++)
        co_yield ();
    assert_int_equal(block_discard(world->edge, 64 * KiB, 64 * KiB), 0);
    assert_int_equal(block_flush(world->edge), 0);
    /* Whatever was freed is given to others now. */
    assert_int_equal(block_write_buffer(world->edge, 512 * KiB, buffer, 128 * KiB, 0), 0);
    co_group_wait(&group);
    assert_true(late.done);
    auto_free uint8_t *other = xmalloc(128 * KiB);
    assert_int_equal(block_read_buffer(world->edge, 512 * KiB, other, 128 * KiB), 0);
    assert_memory_equal(other, buffer, 128 * KiB);
    assert_clean(world, true, "discard during a write");
    close_image(world);
    open_image(world, IMAGE, false, "");
    assert_clean(world, false, "discard during a write, closed");
}

static void test_discard_meets_write(void **state)
{
    for (uintptr_t yields = 0; yields < 40; yields++)
        in_world(yields + 1, discard_meets_write, (void *)yields);
}

/* Opening, mapping and writing of different images at once must not share anything. */
static void two_images(struct world *world, void *arg)
{
    create(world, "a.qcow2", "size=1M,cluster_size=4k");
    create(world, "b.qcow2", "size=1M,cluster_size=4k");
    uint8_t a[SECTOR], b[SECTOR], got[SECTOR];
    memset(a, 1, sizeof a);
    memset(b, 2, sizeof b);
    open_image(world, "a.qcow2", true, "");
    struct edge *first = TAKE(world->edge);
    open_image(world, "b.qcow2", true, "");
    assert_int_equal(block_write_buffer(first, 0, a, SECTOR, 0), 0);
    assert_int_equal(block_write_buffer(world->edge, 0, b, SECTOR, 0), 0);
    assert_int_equal(block_read_buffer(first, 0, got, SECTOR), 0);
    assert_memory_equal(got, a, SECTOR);
    assert_int_equal(block_read_buffer(world->edge, 0, got, SECTOR), 0);
    assert_memory_equal(got, b, SECTOR);
    edge_detach(first);
}

static void test_two_images(void **state)
{
    in_world(1, two_images, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlapping_requests),
        cmocka_unit_test(test_discard_meets_write),
        cmocka_unit_test(test_two_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
