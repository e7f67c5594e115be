/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata cache: a hash table of entries and a clock hand that looks for the next victim. Memory of an entry is
 * allocated when it is first used, so that a large cache of a small image costs nothing.
 */
#include "formats/qcow2/cache.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "block/request.h"
#include "formats/qcow2/state.h"

enum { WRITE_RUN_MAX = 32 }; /* neighbouring blocks that go out in one request */

bool cache_init(struct cache *cache, struct edge *file, uint32_t entry_size, uint64_t bytes)
{
    uint64_t capacity = MIN(MAX(bytes / entry_size, 2ull), 1ull << 24);
    uint32_t bucket_bits = highest_bit(capacity) + 1;
    *cache = (struct cache){.file = file,
                            .entry_size = entry_size,
                            .entry_shift = lowest_bit(entry_size),
                            .capacity = (uint32_t)capacity,
                            .bucket_shift = 64 - bucket_bits,
                            .entries = try_calloc(capacity, sizeof *cache->entries),
                            .buckets = try_calloc(1ull << bucket_bits, sizeof *cache->buckets)};
    co_queue_init(&cache->loads);
    return cache->entries && cache->buckets;
}

void cache_destroy(struct cache *cache)
{
    for (uint32_t i = 0; cache->entries && i < cache->touched; i++)
        free(cache->entries[i].data);
    free(cache->entries);
    free(cache->buckets);
    *cache = (struct cache){0};
}

static uint32_t *bucket_of(const struct cache *cache, uint64_t offset)
{
    return &cache->buckets[(offset >> cache->entry_shift) * 0x9e3779b97f4a7c15ull >> cache->bucket_shift];
}

static struct cache_entry *find(const struct cache *cache, uint64_t offset)
{
    for (uint32_t i = *bucket_of(cache, offset); i; i = cache->entries[i - 1].next) {
        struct cache_entry *entry = &cache->entries[i - 1];
        if (entry->offset == offset && !entry->forgotten)
            return entry;
    }
    return NULL;
}

static void unlink_entry(struct cache *cache, struct cache_entry *entry)
{
    uint32_t index = (uint32_t)(entry - cache->entries) + 1;
    uint32_t *link = bucket_of(cache, entry->offset);
    while (*link != index)
        link = &cache->entries[*link - 1].next;
    *link = entry->next;
    cache->dirty -= entry->dirty;
    entry->in_use = entry->dirty = entry->loading = entry->forgotten = false;
}

static void link_entry(struct cache *cache, struct cache_entry *entry, uint64_t offset)
{
    uint32_t *bucket = bucket_of(cache, offset);
    entry->offset = offset;
    entry->next = *bucket;
    entry->in_use = entry->referenced = true;
    *bucket = (uint32_t)(entry - cache->entries) + 1;
}

/* The clock: entries used since the hand last passed get a second round. Two full rounds find any clean entry. */
static struct cache_entry *find_victim(struct cache *cache)
{
    for (uint64_t steps = 0; steps < 2ull * cache->touched; steps++) {
        struct cache_entry *entry = &cache->entries[cache->hand];
        cache->hand = (cache->hand + 1) % cache->touched;
        if (!entry->in_use)
            return entry;
        if (entry->dirty || entry->loading)
            continue;
        if (entry->referenced) {
            entry->referenced = false;
            continue;
        }
        unlink_entry(cache, entry);
        return entry;
    }
    return NULL;
}

static int take_entry(struct cache *cache, struct cache_entry **entry)
{
    bool is_new = cache->touched < cache->capacity;
    *entry = is_new ? &cache->entries[cache->touched++] : find_victim(cache);
    if (!*entry)
        return -EAGAIN;
    if (!(*entry)->data)
        (*entry)->data = block_alloc_buffer(cache->file, cache->entry_size);
    return (*entry)->data ? 0 : -ENOMEM;
}

uint8_t *cache_peek(struct cache *cache, uint64_t offset)
{
    struct cache_entry *entry = find(cache, offset);
    if (!entry || entry->loading)
        return NULL;
    entry->referenced = true;
    cache->hits++;
    return entry->data;
}

/* Every entry may be loading for somebody else: that ends, and then there is room. */
static bool wait_for_any_load(struct cache *cache)
{
    for (uint32_t i = 0; i < cache->touched; i++) {
        if (cache->entries[i].loading) {
            co_queue_wait_uncancellable(&cache->loads);
            return true;
        }
    }
    return false;
}

int cache_load(struct cache *cache, uint64_t offset, uint8_t **data)
{
    for (;;) {
        struct cache_entry *entry = find(cache, offset);
        if (entry && !entry->loading) {
            entry->referenced = true;
            cache->hits++;
            *data = entry->data;
            return 0;
        }
        if (entry) {
            co_queue_wait_uncancellable(&cache->loads);
            continue;
        }
        int result = take_entry(cache, &entry);
        if (result == -EAGAIN && wait_for_any_load(cache))
            continue;
        if (result)
            return result;
        link_entry(cache, entry, offset);
        entry->loading = true;
        cache->misses++;
        block_event(cache->file, cache->load_event);
        result = qcow2_read_file(cache->file, offset, entry->data, cache->entry_size);
        bool forgotten = entry->forgotten;
        entry->loading = false;
        if (result || forgotten)
            unlink_entry(cache, entry);
        co_queue_wake_all(&cache->loads);
        if (result)
            return result;
        if (forgotten)
            continue;
        *data = entry->data;
        return 0;
    }
}

int cache_create(struct cache *cache, uint64_t offset, uint8_t **data)
{
    cache_forget(cache, offset, cache->entry_size);
    struct cache_entry *entry;
    int result = take_entry(cache, &entry);
    if (result)
        return result;
    link_entry(cache, entry, offset);
    memset(entry->data, 0, cache->entry_size);
    entry->dirty = true;
    cache->dirty++;
    *data = entry->data;
    return 0;
}

void cache_mark_dirty(struct cache *cache, uint64_t offset)
{
    struct cache_entry *entry = find(cache, offset);
    assert(entry && !entry->loading);
    if (!entry->dirty) {
        entry->dirty = true;
        cache->dirty++;
    }
}

void cache_forget(struct cache *cache, uint64_t offset, uint64_t length)
{
    uint64_t begin = round_down(offset, cache->entry_size);
    for (uint64_t at = begin; at < offset + length; at += cache->entry_size) {
        struct cache_entry *entry = find(cache, at);
        if (!entry)
            continue;
        if (entry->loading)
            entry->forgotten = true;
        else
            unlink_entry(cache, entry);
    }
}

void cache_forget_all(struct cache *cache)
{
    for (uint32_t i = 0; i < cache->touched; i++) {
        struct cache_entry *entry = &cache->entries[i];
        if (entry->loading)
            entry->forgotten = true;
        else if (entry->in_use)
            unlink_entry(cache, entry);
    }
}

void cache_clean(struct cache *cache)
{
    for (uint32_t i = 0; i < cache->touched; i++) {
        struct cache_entry *entry = &cache->entries[i];
        if (entry->dirty || entry->loading)
            continue;
        if (entry->in_use && !entry->referenced)
            unlink_entry(cache, entry);
        entry->referenced = false;
        if (!entry->in_use) {
            free(entry->data);
            entry->data = NULL;
        }
    }
}

struct cache_numbers cache_tell(const struct cache *cache, const char *name)
{
    return (struct cache_numbers){.name = name,
                                  .hits = cache->hits,
                                  .misses = cache->misses,
                                  .bytes = (uint64_t)cache->touched * cache->entry_size,
                                  .limit = (uint64_t)cache->capacity * cache->entry_size,
                                  .dirty = (uint64_t)cache->dirty * cache->entry_size};
}

static int compare_offsets(const void *a, const void *b)
{
    const struct cache_entry *x = *(struct cache_entry *const *)a, *y = *(struct cache_entry *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int write_run(struct cache *cache, struct cache_entry **run, uint32_t count)
{
    struct iovec iov[WRITE_RUN_MAX];
    for (uint32_t i = 0; i < count; i++)
        iov[i] = (struct iovec){run[i]->data, cache->entry_size};
    block_event(cache->file, cache->write_event);
    int result =
        block_write(cache->file, run[0]->offset, (uint64_t)count * cache->entry_size, buffers_of(iov, count), 0);
    for (uint32_t i = 0; !result && i < count; i++) {
        run[i]->dirty = false;
        cache->dirty--;
    }
    return result;
}

int cache_write(struct cache *cache)
{
    if (!cache->dirty)
        return 0;
    uint32_t count = 0;
    auto_free struct cache_entry **list = try_calloc(cache->dirty, sizeof(struct cache_entry *));
    if (!list)
        return -ENOMEM;
    for (uint32_t i = 0; i < cache->touched; i++) {
        if (cache->entries[i].in_use && cache->entries[i].dirty)
            list[count++] = &cache->entries[i];
    }
    qsort(list, count, sizeof *list, compare_offsets);
    for (uint32_t first = 0, length; first < count; first += length) {
        length = 1;
        while (first + length < count && length < WRITE_RUN_MAX &&
               list[first + length]->offset == list[first]->offset + (uint64_t)length * cache->entry_size)
            length++;
        int result = write_run(cache, list + first, length);
        if (result)
            return result;
    }
    return 0;
}
