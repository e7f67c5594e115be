/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken if this fails: a daemon that dies at any step of taking or answering a request, and comes back, loses a
 * request or carries one out that was answered.
 *
 * A driver offers chains; a device pops and answers them in random order. Around every hook of the record, rings and
 * record are copied and handed to a second device as a restarted daemon would find them: what it takes up must be
 * exactly what was offered and has no used entry.
 */
#include "tests/unit/virtio/driver.h"

#include <sys/mman.h>
#include <unistd.h>
#undef fail
#include "base/rng.h"
#include "vhost-user/internal.h"

enum { SIZE = 16, CHAIN = 2, CHAINS = SIZE / CHAIN, RINGS = 0x30000 };

struct daemon {
    struct device device;
    struct queue queue;
    struct block_export export;
    uint8_t *record; /* the test's own view of it */
    int record_fd;
};

struct world {
    struct driver driver;
    struct daemon daemon;
    bool packed, offered[SIZE];
    unsigned deaths, left_alone;
    const struct virtqueue_inflight_ops *hooks;
};

/* What the driver has offered and finds no used entry for. Takes used entries off the driver's state. */
static void driver_collect(struct world *world)
{
    struct driver *driver = &world->driver;
    if (!world->packed) {
        const uint8_t *used = guest(driver, USED_AT);
        for (; driver->seen_used != load_le16(used + 2); driver->seen_used++)
            world->offered[load_le32(used + 4 + 8 * (driver->seen_used % SIZE)) / CHAIN] = false;
        return;
    }
    for (;;) {
        const uint8_t *entry = guest(driver, DESC_AT + 16u * driver->used_place);
        uint16_t flags = load_le16(entry + 14);
        if (!!(flags & 0x80) != !!(flags & 0x8000) || !!(flags & 0x8000) != driver->used_wrap)
            return;
        world->offered[load_le16(entry + 12)] = false;
        driver->used_place += CHAIN;
        if (driver->used_place >= SIZE) {
            driver->used_place -= SIZE;
            driver->used_wrap = !driver->used_wrap;
        }
    }
}

static void driver_offer(struct world *world, uint16_t id)
{
    struct driver *driver = &world->driver;
    world->offered[id] = true;
    if (!world->packed) {
        put_split(driver, DESC_AT + 16u * CHAIN * id, DATA_AT, 16, 1, (uint16_t)(CHAIN * id + 1));
        put_split(driver, DESC_AT + 16u * (CHAIN * id + 1), DATA_AT + 16, 1, 2, 0);
        offer(driver, CHAIN * id);
        return;
    }
    uint16_t flags[CHAIN], place[CHAIN];
    for (int i = 0; i < CHAIN; i++) {
        place[i] = driver->place;
        flags[i] = (uint16_t)((driver->wrap ? 0x80 : 0x8000) | (i ? 2 : 1));
        if (++driver->place == SIZE) {
            driver->place = 0;
            driver->wrap = !driver->wrap;
        }
    }
    for (int i = CHAIN - 1; i >= 0; i--)
        put_packed(driver, DESC_AT + 16u * place[i], DATA_AT + 16u * (unsigned)i, i ? 1 : 16, id, flags[i]);
}

/* The device side ------------------------------------------------------------------------------------------------- */

static void daemon_attach(struct world *world, struct daemon *daemon, int record_fd, uint64_t record_size)
{
    struct error err = {0};
    const struct vhost_user_inflight description = {record_size, 0, 1, SIZE};
    daemon->export.id = (char *)"test";
    daemon->device.export = &daemon->export;
    daemon->device.features = world->driver.features;
    daemon->device.queue_count = 1;
    daemon->device.queues = &daemon->queue;
    daemon->queue.device = &daemon->device;
    daemon->queue.size = SIZE;
    assert_true(inflight_attach(&daemon->device, &description, record_fd, &err));
}

static void daemon_start(struct driver *driver, struct daemon *daemon, bool packed)
{
    struct error err = {0};
    struct virtqueue *ring = &daemon->queue.ring;
    uint32_t position = driver->used_place | (driver->used_wrap ? 0x8000u : 0);
    uint32_t base = packed ? position | position << 16 : load_le16((uint8_t *)guest(driver, USED_AT) + 2);
    virtqueue_init(ring, &driver->regions.memory);
    assert_true(virtqueue_configure_pointers(ring, driver->features, SIZE, guest(driver, DESC_AT),
                                             guest(driver, AVAIL_AT), guest(driver, USED_AT), DESC_AT, USED_AT, &err));
    assert_true(virtqueue_restore(ring, virtqueue_base_decode(packed, base), &err));
    if (!packed)
        virtqueue_load_used(ring);
    assert_true(inflight_start(&daemon->queue, &err));
}

static unsigned id_of(const struct world *world, const struct virtqueue_element *element)
{
    return world->packed ? element->id : element->id / CHAIN;
}

/* A daemon that finds memory as it is now. */
static void die_here(struct world *world)
{
    struct world after = {.driver = world->driver, .packed = world->packed};
    struct driver *driver = &after.driver;
    memcpy(after.offered, world->offered, sizeof after.offered);
    driver->ram = aligned_alloc(4096, GUEST_BYTES);
    memcpy(driver->ram, world->driver.ram, RINGS);
    driver->regions.regions[0].host = driver->ram;
    uint64_t size = world->daemon.device.inflight_region.size;
    int fd = memfd_create("after", 0);
    assert_int_equal(pwrite(fd, world->daemon.record, size, 0), size);

    driver_collect(&after);
    daemon_attach(&after, &after.daemon, fd, size);
    daemon_start(driver, &after.daemon, world->packed);
    struct virtqueue_element elements[2 * CHAINS] = {0};
    unsigned count = 0;
    bool taken[SIZE] = {0};
    while (count < 2 * CHAINS && inflight_resubmit(&after.daemon.queue, &elements[count]) == 1)
        taken[id_of(world, &elements[count++])] = true;
    world->left_alone += count;
    while (count < 2 * CHAINS && virtqueue_pop(&after.daemon.queue.ring, &elements[count]) == 1)
        taken[id_of(world, &elements[count++])] = true;
    assert_null(after.daemon.queue.ring.broken);
    assert_memory_equal(taken, after.offered, sizeof taken);
    for (unsigned i = 0; i < count; i++) {
        virtqueue_push(&after.daemon.queue.ring, &elements[i], 1);
        driver_collect(&after);
    }
    for (unsigned i = 0; i < 2 * CHAINS; i++)
        virtqueue_element_release(&elements[i]);
    for (unsigned i = 0; i < SIZE; i++)
        assert_false(after.offered[i]); /* all answered, each once: a second time would run past the ring's end */
    world->deaths++;
    virtqueue_destroy(&after.daemon.queue.ring);
    inflight_detach(&after.daemon.device);
    close(fd);
    free(driver->ram);
}

static void popped(void *arg, uint16_t id, const struct virtqueue_descriptor *descriptors, uint16_t count)
{
    struct world *world = arg;
    die_here(world);
    world->hooks->popped(&world->daemon.queue.inflight, id, descriptors, count);
    die_here(world);
}

static void completing(void *arg, uint16_t id)
{
    struct world *world = arg;
    die_here(world);
    world->hooks->completing(&world->daemon.queue.inflight, id);
    die_here(world);
}

static void completed(void *arg, uint16_t id, uint16_t used_index, bool used_wrap)
{
    struct world *world = arg;
    die_here(world);
    world->hooks->completed(&world->daemon.queue.inflight, id, used_index, used_wrap);
    die_here(world);
}

static const struct virtqueue_inflight_ops deadly = {popped, completing, completed};

static void dies_anywhere(bool packed)
{
    struct world world = {.packed = packed};
    struct driver *driver = &world.driver;
    struct daemon *daemon = &world.daemon;
    driver_start(driver, VIRTIO_BIT(VIRTIO_F_VERSION_1) | (packed ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0), SIZE);
    daemon->record_fd = memfd_create("record", 0);
    assert_int_equal(ftruncate(daemon->record_fd, 4096), 0);
    daemon_attach(&world, daemon, daemon->record_fd, 4096);
    daemon->record = daemon->device.inflight_region.start;
    daemon_start(driver, daemon, packed);
    struct virtqueue_element elements[CHAINS] = {0};
    assert_int_equal(inflight_resubmit(&daemon->queue, &elements[0]), 0);
    world.hooks = daemon->queue.ring.inflight;
    daemon->queue.ring.inflight = &deadly;
    daemon->queue.ring.inflight_arg = &world;

    struct rng rng;
    rng_seed(&rng, 42);
    bool running[CHAINS] = {0};
    for (int step = 0; step < 600; step++) {
        unsigned slot = (unsigned)rng_below(&rng, CHAINS), id = (unsigned)rng_below(&rng, CHAINS);
        if (running[slot] && rng_below(&rng, 2)) {
            virtqueue_push(&daemon->queue.ring, &elements[slot], 1);
            running[slot] = false;
        } else if (!running[slot]) {
            running[slot] = virtqueue_pop(&daemon->queue.ring, &elements[slot]) == 1;
        }
        assert_null(daemon->queue.ring.broken);
        driver_collect(&world);
        if (!world.offered[id])
            driver_offer(&world, (uint16_t)id);
    }
    print_message("%u deaths, %u requests taken up again\n", world.deaths, world.left_alone);
    assert_true(world.deaths > 500 && world.left_alone > 500);
    for (unsigned i = 0; i < CHAINS; i++)
        virtqueue_element_release(&elements[i]);
    virtqueue_destroy(&daemon->queue.ring);
    inflight_detach(&daemon->device);
    close(daemon->record_fd);
    driver_stop(driver);
}

static void test_split_dies_anywhere(void **state)
{
    dies_anywhere(false);
}

static void test_packed_dies_anywhere(void **state)
{
    dies_anywhere(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_dies_anywhere),
        cmocka_unit_test(test_packed_dies_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
