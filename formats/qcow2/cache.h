/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache of metadata blocks (slices of L2 tables, refcount blocks) of one size, with a stated number of entries.
 *
 * A lookup that hits takes no lock and does not yield. There are no pins: a pointer into the cache is good until the
 * caller yields, after that it must be looked up again. Blocks are changed and written back by the holder of the
 * image's lock only, so that what is being written does not change underneath; loading a missing block needs no lock.
 *
 * The cache never writes on its own account: the order of metadata writes is what makes an image survive a crash, and
 * that order is known to sync.c alone. When every entry is dirty, loading fails with -EAGAIN and the caller sees to
 * it that something gets written.
 */
#ifndef FORMATS_QCOW2_CACHE_H
#define FORMATS_QCOW2_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/co.h"
#include "block/event.h"
#include "block/node.h"

struct cache_entry {
    uint64_t offset; /* in the file */
    uint8_t *data;   /* entry_size bytes, allocated at first use */
    uint32_t next;   /* index + 1 of the next entry in the bucket */
    bool in_use, dirty, loading;
    bool forgotten; /* while loading: what arrives is out of date */
    bool referenced;
};

struct cache {
    struct edge *file;
    uint32_t entry_size, entry_shift;
    uint32_t capacity, touched; /* entries[touched..capacity) have never been used */
    uint32_t hand;              /* of the clock */
    uint32_t dirty, bucket_shift;
    enum blkdebug_event load_event, write_event; /* what to tell of (block/event.h) */
    struct cache_entry *entries;
    uint32_t *buckets;     /* index + 1 */
    struct co_queue loads; /* who waits for a load to end */
    uint64_t hits, misses;
};

/* False when out of memory. At least two entries are made. */
bool cache_init(struct cache *cache, struct edge *file, uint32_t entry_size, uint64_t bytes);
void cache_destroy(struct cache *cache);

/* The block at `offset` (a multiple of entry_size), or NULL. Does not yield. */
uint8_t *cache_peek(struct cache *cache, uint64_t offset);
/* The same, read from the file if it must be. 0; -EAGAIN: only dirty entries, write some first; or -errno. YIELDS. */
int cache_load(struct cache *cache, uint64_t offset, uint8_t **data);
/* A block of zeroes that need not be read, dirty. -EAGAIN as above. YIELDS only while that very block is loading. */
int cache_create(struct cache *cache, uint64_t offset, uint8_t **data);
/* The block is in the cache and was changed. */
void cache_mark_dirty(struct cache *cache, uint64_t offset);
/* Writes all dirty blocks, in order of their place, neighbours together. YIELDS. */
int cache_write(struct cache *cache);
/* The span holds something else from now on: drops its blocks, dirty or not. */
void cache_forget(struct cache *cache, uint64_t offset, uint64_t length);
void cache_forget_all(struct cache *cache);
/* Gives back the memory of clean blocks that nobody looked at since the last call. Does not yield. */
void cache_clean(struct cache *cache);

struct cache_numbers;
struct cache_numbers cache_tell(const struct cache *cache, const char *name);

static inline bool cache_is_dirty(const struct cache *cache)
{
    return cache->dirty > 0;
}

#endif
