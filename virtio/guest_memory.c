/* SPDX-License-Identifier: Apache-2.0 */
/* The table of regions behind `struct guest_memory`: sorted by guest address and searched by halving; real machines
 * have two to ten regions, so the search costs less than the cache miss on the descriptor that asked for it. */
#include "virtio/guest_memory.h"

#include <inttypes.h>
#include <string.h>
#include "base/math.h"

void *guest_memory_pointer(struct guest_memory *memory, uint64_t address, uint64_t length, bool for_write)
{
    uint64_t contiguous = length;
    if (!length)
        return NULL;
    void *host = memory->ops->translate(memory, address, &contiguous, for_write);
    return host && contiguous == length ? host : NULL;
}

static const struct guest_region *find_region(const struct guest_regions *regions, uint64_t address)
{
    size_t low = 0, high = regions->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct guest_region *region = &regions->regions[middle];
        if (address < region->guest_base)
            high = middle;
        else if (address - region->guest_base >= region->size)
            low = middle + 1;
        else
            return region;
    }
    return NULL;
}

static void *regions_translate(struct guest_memory *memory, uint64_t address, uint64_t *length, bool for_write)
{
    struct guest_regions *regions = container_of(memory, struct guest_regions, memory);
    const struct guest_region *region = find_region(regions, address);
    if (!region)
        return NULL;
    uint64_t offset = address - region->guest_base;
    *length = MIN(*length, region->size - offset);
    return region->host + offset;
}

static void regions_written(struct guest_memory *memory, uint64_t address, uint64_t length)
{
    struct guest_regions *regions = container_of(memory, struct guest_regions, memory);
    regions->written(regions->written_arg, address, length);
}

/* Two tables, so that a queue whose writes nobody watches pays one test of a pointer that is NULL. */
static const struct guest_memory_ops quiet_ops = {.translate = regions_translate};
static const struct guest_memory_ops logging_ops = {.translate = regions_translate, .written = regions_written};

void guest_regions_init(struct guest_regions *regions)
{
    *regions = (struct guest_regions){.memory.ops = &quiet_ops};
}

bool guest_regions_add(struct guest_regions *regions, const struct guest_region *region, struct error *err)
{
    uint64_t end;
    if (!region->size || add_overflows(region->guest_base, region->size, &end) ||
        add_overflows(region->user_base, region->size, &end))
        return fail(err, EINVAL, "memory region at 0x%" PRIx64 ": size 0x%" PRIx64 " is empty or wraps around",
                    region->guest_base, region->size);
    if (regions->count == GUEST_REGIONS_MAX)
        return fail(err, ENOSPC, "memory region at 0x%" PRIx64 ": the table holds at most %d regions",
                    region->guest_base, GUEST_REGIONS_MAX);
    size_t place = 0;
    for (size_t i = 0; i < regions->count; i++) {
        const struct guest_region *other = &regions->regions[i];
        if (spans_overlap(region->guest_base, region->size, other->guest_base, other->size) ||
            spans_overlap(region->user_base, region->size, other->user_base, other->size))
            return fail(err, EINVAL,
                        "memory region at 0x%" PRIx64 " (0x%" PRIx64 " bytes) overlaps the one at 0x%" PRIx64
                        " (0x%" PRIx64 " bytes)",
                        region->guest_base, region->size, other->guest_base, other->size);
        if (other->guest_base < region->guest_base)
            place = i + 1;
    }
    memmove(&regions->regions[place + 1], &regions->regions[place],
            (regions->count - place) * sizeof regions->regions[0]);
    regions->regions[place] = *region;
    regions->count++;
    return true;
}

bool guest_regions_remove(struct guest_regions *regions, uint64_t guest_base, uint64_t user_base, uint64_t size,
                          struct guest_region *removed)
{
    for (size_t i = 0; i < regions->count; i++) {
        struct guest_region *region = &regions->regions[i];
        if (region->guest_base != guest_base || region->user_base != user_base || region->size != size)
            continue;
        if (removed)
            *removed = *region;
        memmove(region, region + 1, (regions->count - i - 1) * sizeof *region);
        regions->count--;
        return true;
    }
    return false;
}

void guest_regions_set_written(struct guest_regions *regions, void (*fn)(void *arg, uint64_t address, uint64_t length),
                               void *arg)
{
    regions->written = fn;
    regions->written_arg = arg;
    regions->memory.ops = fn ? &logging_ops : &quiet_ops;
}

static const struct guest_region *find_user_region(const struct guest_regions *regions, uint64_t user_address,
                                                   uint64_t length)
{
    for (size_t i = 0; i < regions->count; i++) {
        const struct guest_region *region = &regions->regions[i];
        if (user_address >= region->user_base && span_fits(user_address - region->user_base, length, region->size))
            return region;
    }
    return NULL;
}

void *guest_regions_user_pointer(const struct guest_regions *regions, uint64_t user_address, uint64_t length)
{
    const struct guest_region *region = find_user_region(regions, user_address, length);
    return region ? region->host + (user_address - region->user_base) : NULL;
}

bool guest_regions_user_to_guest(const struct guest_regions *regions, uint64_t user_address, uint64_t length,
                                 uint64_t *guest_address)
{
    const struct guest_region *region = find_user_region(regions, user_address, length);
    if (!region)
        return false;
    *guest_address = region->guest_base + (user_address - region->user_base);
    return true;
}
