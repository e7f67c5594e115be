/* SPDX-License-Identifier: Apache-2.0 */
/* The guest-physical address map: see the header. The table is small (a board has some 20 ranges) and fixed once the
 * vCPUs run, so a search by halving in one or two cache lines needs no lock. */
#include "emulator/memory/physmap.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"

#define PAGE_BYTES 4096u
#define MAX_RANGES 128u

struct write_listener {
    void (*fn)(void *arg, uint64_t address, uint64_t length);
    void *arg;
};

struct physmap {
    size_t count;
    struct physmap_range ranges[MAX_RANGES]; /* ascending base, none overlapping */
    struct write_listener listener;          /* set before the vCPUs start */
    pthread_mutex_t lock;                    /* the machine lock */
};

struct physmap *physmap_new(void)
{
    struct physmap *map = new (struct physmap);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
#ifndef NDEBUG
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
#endif
    pthread_mutex_init(&map->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return map;
}

void physmap_free(struct physmap *map)
{
    if (!map)
        return;
    for (size_t i = 0; i < map->count; i++) {
        struct physmap_range *range = &map->ranges[i];
        if (range->host)
            munmap(range->host, range->size);
        if (range->fd >= 0)
            close(range->fd);
    }
    pthread_mutex_destroy(&map->lock);
    free(map);
}

/* --- building --------------------------------------------------------------------------------------------------- */

static bool insert(struct physmap *map, const struct physmap_range *range, struct error *err)
{
    uint64_t end;
    size_t place = 0;
    if (!range->size || add_overflows(range->base, range->size - 1, &end))
        return fail(err, EINVAL, "%s at 0x%" PRIx64 ": 0x%" PRIx64 " bytes do not fit into the address space",
                    range->name, range->base, range->size);
    if (map->count == MAX_RANGES)
        return fail(err, ENOSPC, "%s: more than %u address ranges", range->name, MAX_RANGES);
    for (size_t i = 0; i < map->count; i++) {
        const struct physmap_range *other = &map->ranges[i];
        if (spans_overlap(range->base, range->size, other->base, other->size))
            return fail(err, EEXIST, "%s at 0x%" PRIx64 " overlaps %s at 0x%" PRIx64, range->name, range->base,
                        other->name, other->base);
        if (other->base < range->base)
            place = i + 1;
    }
    memmove(&map->ranges[place + 1], &map->ranges[place], (map->count - place) * sizeof *range);
    map->ranges[place] = *range;
    map->count++;
    return true;
}

static bool check_pages(const char *name, uint64_t base, uint64_t size, struct error *err)
{
    if (is_aligned(base, PAGE_BYTES) && is_aligned(size, PAGE_BYTES) && size)
        return true;
    return fail(err, EINVAL, "%s at 0x%" PRIx64 ", 0x%" PRIx64 " bytes: not whole pages of %u bytes", name, base, size,
                PAGE_BYTES);
}

bool physmap_add_ram(struct physmap *map, const char *name, uint64_t base, uint64_t size, struct error *err)
{
    if (!check_pages(name, base, size, err))
        return false;
    auto_close int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return fail_errno(err, errno, "%s: cannot make %" PRIu64 " bytes of memory", name, size);
    uint8_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (host == MAP_FAILED)
        return fail_errno(err, errno, "%s: cannot map %" PRIu64 " bytes of memory", name, size);
    madvise(host, size, MADV_HUGEPAGE); /* a wish */
    madvise(host, size, MADV_DONTFORK); /* children must not hold the guest's memory */
    struct physmap_range range = {base, size, PHYSMAP_RAM, name, host, fd, NULL, NULL};
    if (!insert(map, &range, err)) {
        munmap(host, size);
        return false;
    }
    (void)TAKE_FD(fd);
    return true;
}

bool physmap_add_rom(struct physmap *map, const char *name, uint64_t base, uint64_t size, struct error *err)
{
    if (!check_pages(name, base, size, err))
        return false;
    uint8_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (host == MAP_FAILED)
        return fail_errno(err, errno, "%s: cannot map %" PRIu64 " bytes of memory", name, size);
    struct physmap_range range = {base, size, PHYSMAP_ROM, name, host, -1, NULL, NULL};
    if (!insert(map, &range, err)) {
        munmap(host, size);
        return false;
    }
    return true;
}

bool physmap_add_mmio(struct physmap *map, const char *name, uint64_t base, uint64_t size, const struct mmio_ops *ops,
                      void *device, struct error *err)
{
    struct physmap_range range = {base, size, PHYSMAP_MMIO, name, NULL, -1, ops, device};
    return insert(map, &range, err);
}

/* --- looking up ------------------------------------------------------------------------------------------------- */

size_t physmap_count(const struct physmap *map)
{
    return map->count;
}

const struct physmap_range *physmap_at(const struct physmap *map, size_t index)
{
    return index < map->count ? &map->ranges[index] : NULL;
}

const struct physmap_range *physmap_find(const struct physmap *map, uint64_t address)
{
    size_t low = 0, high = map->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct physmap_range *range = &map->ranges[middle];
        if (address < range->base)
            high = middle;
        else if (address - range->base >= range->size)
            low = middle + 1;
        else
            return range;
    }
    return NULL;
}

void *physmap_pointer(const struct physmap *map, uint64_t address, uint64_t length, bool for_write)
{
    const struct physmap_range *range = physmap_find(map, address);
    if (!range || !range->host || (for_write && range->kind != PHYSMAP_RAM) ||
        !span_fits(address - range->base, length, range->size))
        return NULL;
    return range->host + (address - range->base);
}

bool physmap_load(struct physmap *map, uint64_t address, const void *data, size_t size, struct error *err)
{
    if (!size)
        return true;
    uint8_t *host = physmap_pointer(map, address, size, false);
    if (!host)
        return fail(err, EFAULT, "%zu bytes at 0x%" PRIx64 ": there is no memory for all of them", size, address);
    memcpy(host, data, size);
    physmap_note_write(map, address, size);
    return true;
}

/* --- devices ----------------------------------------------------------------------------------------------------- */

void machine_lock(struct physmap *map)
{
    int result = pthread_mutex_lock(&map->lock);
    assert(!result); /* EDEADLK: taken twice by one thread */
    (void)result;
}

void machine_unlock(struct physmap *map)
{
    int result = pthread_mutex_unlock(&map->lock);
    assert(!result);
    (void)result;
}

void machine_wait(struct physmap *map, pthread_cond_t *condition)
{
    pthread_cond_wait(condition, &map->lock);
}

/* How one access reaches the device: `pieces` accesses of `size` bytes. 0: refused. */
struct mmio_shape {
    unsigned pieces, size;
};

static struct mmio_shape mmio_shape(const struct physmap_range *range, uint64_t offset, unsigned size)
{
    unsigned min = range->ops->min_size ? range->ops->min_size : 1,
             max = range->ops->max_size ? range->ops->max_size : 8;
    if (!is_power_of_two(size) || size > 8 || !is_aligned(offset, size) || size < min ||
        !span_fits(offset, size, range->size))
        return (struct mmio_shape){0, 0};
    unsigned piece = MIN(size, max);
    return (struct mmio_shape){size / piece, piece};
}

static const struct physmap_range *find_device(const struct physmap *map, uint64_t address)
{
    const struct physmap_range *range = physmap_find(map, address);
    return range && range->kind == PHYSMAP_MMIO ? range : NULL;
}

bool physmap_mmio_read(struct physmap *map, uint64_t address, unsigned size, uint64_t *value)
{
    const struct physmap_range *range = find_device(map, address);
    if (!range || !range->ops->read)
        return false;
    uint64_t offset = address - range->base;
    struct mmio_shape shape = mmio_shape(range, offset, size);
    if (!shape.pieces)
        return false;
    uint64_t mask = shape.size == 8 ? UINT64_MAX : (UINT64_C(1) << shape.size * 8) - 1;
    *value = 0;
    machine_lock(map);
    for (unsigned i = 0; i < shape.pieces; i++)
        *value |= (range->ops->read(range->device, offset + i * shape.size, shape.size) & mask) << i * shape.size * 8;
    machine_unlock(map);
    return true;
}

bool physmap_mmio_write(struct physmap *map, uint64_t address, uint64_t value, unsigned size)
{
    const struct physmap_range *range = find_device(map, address);
    if (!range || !range->ops->write)
        return false;
    uint64_t offset = address - range->base;
    struct mmio_shape shape = mmio_shape(range, offset, size);
    if (!shape.pieces)
        return false;
    uint64_t mask = shape.size == 8 ? UINT64_MAX : (UINT64_C(1) << shape.size * 8) - 1;
    machine_lock(map);
    for (unsigned i = 0; i < shape.pieces; i++)
        range->ops->write(range->device, offset + i * shape.size, value >> i * shape.size * 8 & mask, shape.size);
    machine_unlock(map);
    return true;
}

/* --- writes by others -------------------------------------------------------------------------------------------- */

void physmap_note_write(struct physmap *map, uint64_t address, uint64_t length)
{
    if (map->listener.fn && length)
        map->listener.fn(map->listener.arg, address, length);
}

void physmap_set_write_listener(struct physmap *map, void (*listener)(void *arg, uint64_t address, uint64_t length),
                                void *arg)
{
    map->listener = (struct write_listener){listener, arg};
}
