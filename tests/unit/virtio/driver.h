/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio driver small enough to read at once, and able to lie: it writes rings into a block of pretended guest memory
 * as sections 2.7 and 2.8 tell drivers to. The tests are the device. */
#ifndef TESTS_UNIT_VIRTIO_DRIVER_H
#define TESTS_UNIT_VIRTIO_DRIVER_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/endian.h"
#include "base/math.h"
#include "virtio/features.h"
#include "virtio/guest_memory.h"
#include "virtio/virtqueue.h"
#include <cmocka.h> /* last: its fail() would hide ours */

#define GUEST_BASE 0x80000000u
#define GUEST_BYTES (1u << 20)
#define DESC_AT (GUEST_BASE + 0x0000)
#define AVAIL_AT (GUEST_BASE + 0x10000)
#define USED_AT (GUEST_BASE + 0x20000)
#define TABLES_AT (GUEST_BASE + 0x30000)
#define DATA_AT (GUEST_BASE + 0x80000)

struct driver {
    uint8_t *ram;
    struct guest_regions regions;
    struct virtqueue queue;
    uint64_t features;
    uint16_t size;
    /* split */
    uint16_t avail_index, seen_used;
    /* packed */
    uint16_t place, used_place;
    bool wrap, used_wrap;
};

struct piece {
    uint64_t address;
    uint32_t length;
    bool write;
};

static inline void *guest(struct driver *driver, uint64_t address)
{
    return driver->ram + (address - GUEST_BASE);
}

static inline void driver_start(struct driver *driver, uint64_t features, uint16_t size)
{
    struct error err = {0};
    memset(driver, 0, sizeof *driver);
    driver->ram = aligned_alloc(4096, GUEST_BYTES);
    memset(driver->ram, 0, GUEST_BYTES);
    guest_regions_init(&driver->regions);
    /* Two regions side by side that are not neighbours in the host would be the hard case; see test_guest_memory. */
    struct guest_region region = {GUEST_BASE, GUEST_BYTES, 0x7f0000000000, driver->ram};
    assert_true(guest_regions_add(&driver->regions, &region, &err));
    driver->features = features;
    driver->size = size;
    driver->wrap = driver->used_wrap = true;
    virtqueue_init(&driver->queue, &driver->regions.memory);
    if (!virtqueue_configure(&driver->queue, features, size, DESC_AT, AVAIL_AT, USED_AT, &err))
        fail_msg("%s", err.message);
}

static inline void driver_stop(struct driver *driver)
{
    virtqueue_destroy(&driver->queue);
    free(driver->ram);
}

static inline void put_split(struct driver *driver, uint64_t at, uint64_t address, uint32_t length, uint16_t flags,
                             uint16_t next)
{
    uint8_t *p = guest(driver, at);
    store_le64(p, address);
    store_le32(p + 8, length);
    store_le16(p + 12, flags);
    store_le16(p + 14, next);
}

static inline void put_packed(struct driver *driver, uint64_t at, uint64_t address, uint32_t length, uint16_t id,
                              uint16_t flags)
{
    uint8_t *p = guest(driver, at);
    store_le64(p, address);
    store_le32(p + 8, length);
    store_le16(p + 12, id);
    __atomic_store_n((uint16_t *)(p + 14), htole16(flags), __ATOMIC_RELEASE);
}

/* Split: make `head` available. */
static inline void offer(struct driver *driver, uint16_t head)
{
    uint8_t *avail = guest(driver, AVAIL_AT);
    store_le16(avail + 4 + 2 * (driver->avail_index % driver->size), head);
    driver->avail_index++;
    __atomic_store_n((uint16_t *)(avail + 2), htole16(driver->avail_index), __ATOMIC_RELEASE);
}

#endif
