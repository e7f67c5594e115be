/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps: which parts of a node were written since some moment. One bit stands for `granularity` bytes. The
 * request path sets bits twice: when a write, zero or discard *begins* to change the node (so that a bit is never late
 * for who stores it) and when it ends, well or badly (so that who cleared it meanwhile, and read what was there before,
 * looks again). A bitmap may say too much, never too little.
 *
 * Named bitmaps belong to users (block-dirty-bitmap-add, img bitmap) and may be persistent: then the node's driver
 * stores them (driver->bitmaps, qcow2's bitmaps extension) when the node is closed or becomes inactive, and loads them
 * when it is opened. Unnamed ones belong to jobs.
 *
 * States, as the ecosystem names them:
 *   recording     writes set bits
 *   disabled      frozen content
 *   busy          a job or export uses it: users may not change or remove it. It goes on recording; a backup that wants
 *                 to know what is written from its start on has an unnamed bitmap beside it.
 *   inconsistent  it was found in use in the image: the content cannot be trusted; it can only be removed
 *   read-only     of a read-only node; becomes writable with it
 *
 * Nothing here yields, except where it says so. All functions run on the node's loop.
 */
#ifndef BLOCK_DIRTY_BITMAP_H
#define BLOCK_DIRTY_BITMAP_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/list.h"

struct node;

enum { DIRTY_BITMAP_MIN_GRANULARITY = 512, DIRTY_BITMAP_MAX_NAME = 1023 };
#define DIRTY_BITMAP_MAX_GRANULARITY (1u << 31)

struct dirty_bitmap {
    struct list link; /* node->bitmaps, in order of creation */
    struct node *node;
    char *name;           /* NULL: a job's own */
    uint32_t granularity; /* bytes, a power of two */
    uint64_t size;        /* bytes of the node that it covers */
    uint64_t *bits;       /* dirty_bitmap_bits() of them; NULL when inconsistent */
    uint64_t dirty_count; /* set bits */
    bool recording, persistent, inconsistent, read_only;
    unsigned busy; /* users that hold it */
    void *stored;  /* the format driver's own record of it, NULL when it is not in the image yet */
};

/* Granularity 0: the default of the node (its cluster size, at least 4 KiB, at most 64 KiB). Fails for a name in use, a
 * bad granularity, or when memory is out. Does not store anything. */
struct dirty_bitmap *dirty_bitmap_new(struct node *node, const char *name, uint32_t granularity, struct error *err);
/* A bitmap that is known by name only: inconsistent, without bits. For drivers that find one in an image. */
struct dirty_bitmap *dirty_bitmap_new_inconsistent(struct node *node, const char *name, uint32_t granularity,
                                                   struct error *err);
void dirty_bitmap_free(struct dirty_bitmap *bitmap);
struct dirty_bitmap *dirty_bitmap_find(const struct node *node, const char *name); /* NULL: no such bitmap */

/* What a user may do with it just now; the error names the state that forbids it. */
enum dirty_bitmap_wish {
    DIRTY_BITMAP_ANY = 0,
    DIRTY_BITMAP_NOT_BUSY = 1,
    DIRTY_BITMAP_NOT_READ_ONLY = 2,
    DIRTY_BITMAP_CONSISTENT = 4,
    DIRTY_BITMAP_DEFAULT = 7,
    DIRTY_BITMAP_REMOVABLE = DIRTY_BITMAP_NOT_BUSY | DIRTY_BITMAP_NOT_READ_ONLY,
};
bool dirty_bitmap_check(const struct dirty_bitmap *bitmap, unsigned wishes, struct error *err);

static inline uint64_t dirty_bitmap_bits(const struct dirty_bitmap *bitmap)
{
    return bitmap->size / bitmap->granularity + (bitmap->size % bitmap->granularity != 0);
}

void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t length);   /* bytes, widened */
void dirty_bitmap_reset(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t length); /* only whole granules inside */
void dirty_bitmap_clear(struct dirty_bitmap *bitmap);
bool dirty_bitmap_get(const struct dirty_bitmap *bitmap, uint64_t offset);
uint64_t dirty_bitmap_count(const struct dirty_bitmap *bitmap); /* dirty bytes, the last granule cut at the size */
/* The next run of dirty (clean) bytes at or after `offset`, at most `limit` long; false: none. */
bool dirty_bitmap_next_dirty(const struct dirty_bitmap *bitmap, uint64_t offset, uint64_t limit, uint64_t *start,
                             uint64_t *length);
/* How long the state at `offset` (dirty or not) goes on, in bytes, at most `length`. For block status contexts. */
uint64_t dirty_bitmap_run(const struct dirty_bitmap *bitmap, uint64_t offset, uint64_t length, bool *dirty);
/* to |= from; different granularities are widened. Sizes must be equal. */
bool dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from, struct error *err);
/* The content that a command is about to change, so that a transaction can put it back. NULL when memory is out. */
uint64_t *dirty_bitmap_save(const struct dirty_bitmap *bitmap);
/* Takes the words over as they are: the node was drained since they were saved. */
void dirty_bitmap_restore(struct dirty_bitmap *bitmap, uint64_t *saved);
/* What is new is dirty. When memory for it is out, the bitmap becomes inconsistent. */
void dirty_bitmap_resize(struct dirty_bitmap *bitmap, uint64_t size);

/* The request path: bytes change now, in every recording bitmap of the node. The fast path is a node without any. */
void dirty_bitmaps_record_all(struct node *node, uint64_t offset, uint64_t length);
#define dirty_bitmaps_record(node, offset, length)                                                                     \
    do {                                                                                                               \
        if (unlikely(!list_empty(&(node)->bitmaps)))                                                                   \
            dirty_bitmaps_record_all(node, offset, length);                                                            \
    } while (0)
void dirty_bitmaps_resize(struct node *node); /* to the node's size */
void dirty_bitmaps_free(struct node *node);

#endif
