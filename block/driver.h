/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a driver is. Two shapes:
 *
 * A *mover* (protocol, most filters) moves the bytes itself: read, write, zero, discard, flush, extents.
 *
 * A *mapper* (image format) only answers "where are the bytes?". block/mapper.c owns the loops that move data: it asks
 * map() piece by piece, reads from the child named, falls through to the backing node, fills zeroes, and for writes
 * asks prepare_write(), copies what the allocation must keep (copy on write), writes, and calls commit_write(). So
 * reading, block status, sparse conversion and copy offload all come from map(), for every format.
 *
 * All functions may yield and run in coroutines, several at once on the same node; open, close, reopen and resize run
 * with the node drained. Data functions return 0 or -errno. A request that arrives here is inside the node's size,
 * aligned to limits.request_alignment and allowed: drivers assume good input (block/request.c is the border), but never
 * trust what they read from disk. Two things to know: the last aligned block may reach past the end of a node whose
 * size is not aligned (reads give zeroes there), and a `struct buffers` may hold more than `length` bytes.
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "base/error.h"
#include "block/node.h"

struct image_check;
struct image_info_specific;
struct blockdev_options;
struct debug_ops;
struct open_mode;
struct schema_type;
struct zone_ops;

/* A place inside a scatter list: `skip` bytes into iov[0..count). Passed by value, so slicing costs nothing. */
struct buffers {
    const struct iovec *iov;
    unsigned count;
    size_t skip;
};

enum request_flags {
    REQUEST_FUA = 1 << 0,         /* on stable storage when the request completes */
    REQUEST_MAY_UNMAP = 1 << 1,   /* zero: may deallocate */
    REQUEST_NO_FALLBACK = 1 << 2, /* zero: -ENOTSUP rather than writing zero bytes */
    REQUEST_WRITE_UNCHANGED = 1 << 3,
    REQUEST_COMPRESSED = 1 << 4,  /* write: compress (mappers with write_compressed) */
    REQUEST_PREFETCH = 1 << 5,    /* read: buffers may be absent, data only goes to caches */
    REQUEST_SERIALISING = 1 << 6, /* waits for and holds off overlapping requests */
};

enum extent_kind {
    EXTENT_ZERO,    /* reads as zeroes, no bytes stored */
    EXTENT_DATA,    /* stored one to one at child_offset of child (NULL child: a mover's own storage) */
    EXTENT_BACKING, /* not in this layer: the backing node's bytes, zeroes beyond its end or without one */
    EXTENT_ENCODED, /* stored here, but not as it reads (compressed, encrypted): read_encoded() */
};

struct extent {
    enum extent_kind kind;
    uint64_t length;       /* bytes from the offset asked, 1 .. asked length */
    struct edge *child;    /* EXTENT_DATA of a mapper; EXTENT_ENCODED that has a byte for each byte (encrypted) */
    uint64_t child_offset; /* where it is in the child: bytes */
    uint64_t encoded;      /* EXTENT_ENCODED: the driver's own (a descriptor) */
    bool allocated; /* this layer decides the content (zero clusters too); false only for EXTENT_BACKING and holes of
                       movers */
    bool follow;    /* EXTENT_DATA with child: this layer only renames the bytes, so that block status asks the child
                       whether they are a hole (raw, filters, preallocated images) */
};

/* A write that a mapper has prepared. The mapper decides how much of the request it covers (`length`), where the data
 * goes, and what else must be written around it so that newly allocated space has its old content:
 *
 *      cow_before        data            cow_after
 *     |----------|---------------------|-----------|       of the guest's offsets; old bytes are read through map() of
 * this node ^child_offset - cow_before ...
 */
struct write_plan {
    uint64_t offset, length; /* guest bytes this plan covers; a prefix of what was asked */
    struct edge *child;
    uint64_t child_offset;          /* where `offset` goes */
    uint64_t cow_before, cow_after; /* bytes to copy from the old content, 0 = none */
    bool in_place;                  /* nothing to commit: commit_write is not called */
    bool encoded;                   /* what goes to the child is not what is written: by write_encoded() */
    bool fua_pending;               /* set by block/: the commit must be durable */
    struct list link;               /* the mapper's list of plans in flight */
    struct co_queue waiters;        /* the mapper's: who waits for this plan to end */
    uint64_t driver_data[6];
};

struct image_facts {       /* what `info` wants beyond size and names; all optional */
    uint64_t cluster_size; /* 0 = none */
    bool has_dirty_flag, dirty_flag;
    bool compressed, encrypted;
    char *backing_filename, *full_backing_filename, *backing_format; /* owned by the caller */
    struct image_info_specific *specific;                            /* schema type; owned by the caller */
};

enum check_repair { CHECK_REPAIR_LEAKS = 1, CHECK_REPAIR_ERRORS = 2 };
enum preallocation { PREALLOCATION_OFF, PREALLOCATION_METADATA, PREALLOCATION_FALLOC, PREALLOCATION_FULL };

/* How images are made. A protocol's create makes the file; a format's create writes into an open file child. `options`
 * is the driver's schema type of `-o` options (struct qcow2_create_options ...). */
struct create_ops {
    const struct schema_type *options_type; /* of `-o`, for parsing and help: &qcow2_create_options_type */
    bool (*create_file)(struct graph *graph, const char *filename, void *options, struct error *err); /* protocol */
    bool (*create_format)(struct graph *graph, struct edge *file, const char *filename, void *options,
                          struct error *err); /* format */
};

/* Internal snapshots. All YIELD; the node is drained. */
struct internal_snapshot {
    char *id, *name;
    uint64_t vm_state_size; /* bytes */
    uint64_t disk_size;
    uint32_t date_s, date_ns;
    uint64_t vm_clock_ns;
    uint64_t icount; /* UINT64_MAX: not recorded */
};
struct snapshot_ops {
    bool (*create)(struct node *node, const char *name, struct error *err);
    bool (*apply)(struct node *node, const char *id, struct error *err); /* by the snapshot's ID */
    bool (*remove)(struct node *node, const char *id, struct error *err);
    /* A list of *count entries, owned by the caller (each with its strings). */
    bool (*list)(struct node *node, struct internal_snapshot **snapshots, size_t *count, struct error *err);
    /* From now on the (read-only) node shows this snapshot. */
    bool (*load)(struct node *node, const char *id, struct error *err);
};

/* Persistent dirty bitmaps (block/dirty_bitmap.h). The driver creates node->bitmaps when it opens, marks them in use in
 * the image when the node becomes writable, and stores them when it closes. All YIELD. */
struct dirty_bitmap;
struct bitmap_ops {
    /* May a bitmap of this name and granularity become persistent here? */
    bool (*can_store)(struct node *node, const char *name, uint32_t granularity, struct error *err);
    /* Takes it out of the image, at once and durably. */
    bool (*remove)(struct node *node, struct dirty_bitmap *bitmap, struct error *err);
    bool (*store_all)(struct node *node, struct error *err); /* content and flags; as at close */
    /* A user added one, switched it, or changed its content: what a crash leaves must know. May be NULL. */
    bool (*changed)(struct node *node, struct error *err);
};

/* `amend`: changes of an image's options in place. `options` is of options_type; only what is present changes. */
struct amend_ops {
    const struct schema_type *options_type;
    bool (*amend)(struct node *node, void *options, bool force,
                  void (*progress)(void *user, uint64_t done, uint64_t total), void *user, struct error *err);
};

struct image_measure {
    uint64_t required, fully_allocated, bitmaps; /* bytes */
    bool has_bitmaps;
};

/* A check of a node that is in use, in steps between which guests go on. All but progress YIELD. */
struct live_check;
struct live_check_ops {
    /* The node is drained, only for this call. `found` and the check are filled until its end. err->code EUCLEAN: this
     * image must be checked at rest (check, below). */
    struct live_check *(*begin)(struct node *node, uint32_t repair, struct image_check *found, struct error *err);
    /* 1: there is more to do; 0: done; -EAGAIN: something changed, begin anew; -EUCLEAN: only a check at rest can go on;
     * or -errno. */
    int (*step)(struct node *node, struct live_check *check);
    void (*progress)(const struct node *node, const struct live_check *check, uint64_t *done, uint64_t *total);
    void (*end)(struct node *node, struct live_check *check);
};

/* A cache of metadata, in numbers for those who watch. */
enum { CACHES_MAX = 4 };
struct cache_numbers {
    const char *name;
    uint64_t hits, misses;
    uint64_t bytes, limit, dirty;
};

struct reopen_state; /* private to a driver between prepare and commit/abort */

enum driver_kind { DRIVER_PROTOCOL, DRIVER_FORMAT, DRIVER_FILTER };

struct block_driver {
    const char *name; /* the schema's driver name: "qcow2" */
    enum driver_kind kind;
    size_t instance_size;

    /* `node->options` is set; typed options are node->options->u.<driver>. Opens children with node_open_child(), sets
     * node->size, limits, flags. On failure it must leave nothing but children behind (state is freed by the caller).
     */
    bool (*open)(struct node *node, struct error *err);
    void (*close)(struct node *node); /* flushes metadata; children are still there */

    /* The program ends: whatever waits for something that may never come (a server that is gone) fails now, also an
     * open() that is under way. Does not yield. NULL: nothing waits like that. */
    void (*give_up)(struct node *node);

    /* Protocols: names that begin with one of these words and a colon are theirs (NULL-terminated; NULL: none). Such a
     * name becomes options of the driver. */
    const char *const *prefixes;
    bool (*parse_name)(const char *name, struct blockdev_options *options, struct error *err);
    /* In place of parse_name, where the name says of which images the node's children are, and they must be looked at: it
     * opens them as nodes of their own, to which the options refer, and hands them over as parts. Not for names that stand
     * in images: what they lead to could lead back. YIELDS. */
    bool (*open_parts)(struct graph *graph, const char *name, const struct open_mode *mode,
                       struct blockdev_options *options, struct node *parts[2], struct error *err);

    /* 0..100: how sure the driver is that an image beginning with these bytes is its format. */
    int (*probe)(const uint8_t *head, size_t size, const char *filename);

    /* Movers */
    int (*read)(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags);
    int (*write)(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags);
    int (*extents)(struct node *node, uint64_t offset, uint64_t length, struct extent *extent);

    /* Mappers. map() must not yield when the metadata it needs is cached. */
    int (*map)(struct node *node, uint64_t offset, uint64_t length, struct extent *extent);
    int (*read_encoded)(struct node *node, uint64_t offset, uint64_t length, const struct extent *extent,
                        struct buffers to);
    int (*prepare_write)(struct node *node, uint64_t offset, uint64_t length, struct write_plan *plan);
    /* Always called after a successful prepare that is not in_place; result is 0 when data (and copies) are written,
     * else -errno and the allocation is undone. Returns the final result of the request. */
    int (*commit_write)(struct node *node, struct write_plan *plan, int result);
    int (*write_compressed)(struct node *node, uint64_t offset, uint64_t length, struct buffers from);
    /* The data of a plan that says `encoded`, and of the copies around it: `offset` of the guest goes to `child_offset`
     * of plan->child. The buffers stay as they are. */
    int (*write_encoded)(struct node *node, const struct write_plan *plan, uint64_t offset, uint64_t child_offset,
                         uint64_t length, struct buffers from, uint32_t flags);

    /* Both shapes. NULL: the request path emulates zero by writing, ignores discard, and flush only goes to the
     * children. zero and discard get spans aligned to limits.zero_alignment / discard_alignment (or reaching the end).
     */
    int (*zero)(struct node *node, uint64_t offset, uint64_t length, uint32_t flags);
    int (*discard)(struct node *node, uint64_t offset, uint64_t length);
    int (*allocate)(struct node *node, uint64_t offset, uint64_t length); /* block_allocate(); NULL: -ENOTSUP */
    int (*flush)(
        struct node *node); /* its own caches, to the children; the children's flush follows in block/ for formats */
    bool flushes_children; /* flush() has seen to all children, and knows which of them may fail */
    int64_t (*copy_range)(struct node *from, uint64_t from_offset, struct node *to, uint64_t to_offset,
                          uint64_t length); /* protocols, same driver */

    const struct debug_ops *debug; /* block/event.h; NULL: events mean nothing to it */

    /* For drivers that hold requests back on purpose: while the node is quiesced they must not, because somebody waits
     * for all requests to end. Does not yield. NULL: nothing to do. */
    void (*quiesce)(struct node *node, bool quiesced);

    /* Reopen as a transaction. prepare checks and builds; commit cannot fail; abort undoes prepare. NULL: only generic
     * options can change. */
    bool (*reopen_prepare)(struct node *node, const struct blockdev_options *options, struct reopen_state **state,
                           struct error *err);
    void (*reopen_commit)(struct node *node, struct reopen_state *state);
    void (*reopen_abort)(struct node *node, struct reopen_state *state);

    /* Permissions of the node's own children follow from what its parents need (file locks, read-only switch). NULL:
     * nothing to do. */
    bool (*check_perm)(struct node *node, uint32_t perm, uint32_t shared, struct error *err);
    void (*set_perm)(struct node *node, uint32_t perm, uint32_t shared);

    /* A child comes or goes while the node is in use, and drained. Each fails without a change, or has the edge attached
     * (detached). NULL: the children are what they were at open. YIELD. */
    bool (*add_child)(struct node *node, struct node *child, struct error *err);
    bool (*remove_child)(struct node *node, struct edge *edge, struct error *err);

    /* Capability tables: NULL means "cannot", and the error says so. */
    const struct create_ops *create;
    bool (*resize)(struct node *node, uint64_t size, enum preallocation preallocation, bool exact, struct error *err);
    /* For what others may make larger, such as a volume under a full image: how large it is now, 0 or more bytes. NULL:
     * only we change it. Does not yield. */
    uint64_t (*current_size)(struct node *node);
    /* Fills the counters of `result`; `repair` is a set of enum check_repair. 0 or -errno when the check itself could
     * not be done. */
    int (*check)(struct node *node, uint32_t repair, struct image_check *result, struct error *err);
    const struct live_check_ops *live_check; /* NULL: only at rest */
    const struct snapshot_ops *snapshots;
    const struct bitmap_ops *bitmaps;
    const struct amend_ops *amend;
    const struct zone_ops *zones; /* protocols, block/zones.h: devices that may be zoned */
    /* What the image says about its backing file; NULL name: it has none. The node's own backing edge is not touched.
     * Durable when it returns. YIELDS. */
    bool (*change_backing)(struct node *node, const char *name, const char *format, struct error *err);
    /* Everything reads from the backing node again (after a commit). YIELDS. */
    bool (*make_empty)(struct node *node, struct error *err);
    /* How large a new image of this format would be: `options` is of create->options_type (with its size), `source` may
     * be NULL (an empty image of that size). YIELDS. */
    bool (*measure)(const void *options, struct edge *source, struct image_measure *result, struct error *err);
    bool (*info)(struct node *node, struct image_facts *facts, struct error *err);
    int64_t (*allocated_size)(struct node *node); /* bytes on the host, -errno */
    unsigned (*caches)(const struct node *node, struct cache_numbers caches[CACHES_MAX]); /* how many; does not yield */
};

#endif
