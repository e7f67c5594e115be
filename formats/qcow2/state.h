/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One open qcow2 image, and what the files of this folder offer each other. Specification: "Qcow2 Image File Format";
 * its numbers are in layout.h. A tour, in the order of a request:
 *
 *   driver.c     open, close, info: the table at its end is the summary        children.c  file, data file, backing
 * file header.c     parse, check and patch the header                             options.c   what the user asked for
 *   map.c        guest offset -> extent; a hit neither locks nor yields        entry.h     meaning of one L2 entry
 *   claim.c      which guest clusters are being changed right now
 *   write.c      prepare and commit of writes          zero_discard.c  zeroes and discards
 *   compress.c   codecs, on worker threads             compressed.c    reading and writing compressed clusters
 *   l2.c         L1 and L2 tables: find, allocate, unshare, grow
 *   refcount.c   counts of host clusters               alloc.c         finding free ones
 *   reftable.c   refcount blocks and growth of their table
 *   sync.c       THE ORDER of metadata writes; frees that wait for it
 *   overlap.c    the guard in front of metadata        cache.c         blocks in memory
 *   disk_table.c L1 and refcount table in memory
 *   snapshots.c  internal snapshots                    snapshot_table.c   their table
 *   bitmap_store.c  persistent dirty bitmaps            bitmap_table.c     where they are, for checks
 *   references.c counts of everything a table refers to; COPIED flags
 *   counts.c     recount of every reference            check.c, repair.c  compare and mend
 *   check_live.c the same while guests write           trim.c     cuts off what is free at the end of the file
 *   write_log.c  answered writes survive a kill         dirty_log.c  dirty bitmaps survive a crash
 *   amend.c      other options for an old image         measure.c
 *   create.c     new images      preallocate.c, resize.c
 *   encryption.c ciphers, and the LUKS header's place
 *
 * Concurrency. Coroutines of one loop. `lock` protects every change of metadata (L1, L2, refcounts, header) and all
 * writing of it; it is held across yields. A *claim* (claim.h) protects a span of guest clusters from the moment an
 * operation decides about it until its data and metadata are done. Order: claims before the lock, never wait for a
 * claim while holding the lock. Readers take neither: map() looks at memory between two yields, where nothing is ever
 * half changed.
 */
#ifndef FORMATS_QCOW2_STATE_H
#define FORMATS_QCOW2_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/co.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/vec.h"
#include "block/driver.h"
#include "block/request.h"
#include "formats/qcow2/cache.h"
#include "formats/qcow2/layout.h"

struct codec_cache;
struct live_check;
struct luks;
struct sector_cipher;
struct stored_bitmap;
struct log_change;
struct qcow2_create_options;

/* header.c: the header in host order, and the strings of its extensions. */
struct header {
    uint32_t version, cluster_bits, crypt_method, header_length, compression_type, refcount_order;
    uint64_t size, l1_offset, reftable_offset, snapshot_offset;
    uint32_t l1_size, reftable_clusters, snapshot_count;
    uint64_t incompatible, compatible, autoclear;
    char *backing_name, *backing_format, *data_file; /* NULL: none */
    bool has_bitmaps;
    uint32_t bitmap_count;
    uint64_t bitmap_directory_size, bitmap_directory_offset;
    uint64_t crypt_offset, crypt_length; /* of the LUKS header: bytes */
    uint64_t log_offset, log_size;       /* 0: none; see write_log.h */
    uint32_t log_region_bits;
};

/* disk_table.c: an array of big-endian 64-bit numbers on disk, in memory as a whole in host order. Changes are written
 * by 512-byte sectors. */
struct disk_table {
    uint64_t *entries;
    uint32_t count;
    uint64_t offset;   /* in the file */
    uint64_t *sectors; /* bitmap of those that were changed */
    bool is_dirty;
};

struct snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint64_t disk_size;                          /* of the guest's disk when it was taken */
    uint64_t vm_state_size, vm_clock_ns, icount; /* icount: UINT64_MAX when not recorded */
    uint32_t date_s, date_ns;
    char *id, *name;
    uint8_t *unknown; /* extra data behind what we know: kept */
    uint32_t unknown_size;
};

struct host_span {
    uint64_t offset, length;
};
vec_of(freed_spans, struct host_span);

/* Why a cluster becomes free: the options say which kinds are passed on to the file as discards. */
enum free_reason { FREE_REQUEST, FREE_SNAPSHOT, FREE_OTHER, FREE_CUT, FREE_REASONS };

/* References that will be dropped once nothing on stable storage uses them any more (sync.c). */
struct pending_free {
    uint64_t offset, length;
    enum free_reason reason;
};

enum overlap_type {
    OVERLAP_HEADER = 1 << 0,
    OVERLAP_ACTIVE_L1 = 1 << 1,
    OVERLAP_ACTIVE_L2 = 1 << 2,
    OVERLAP_REFTABLE = 1 << 3,
    OVERLAP_REFBLOCK = 1 << 4,
    OVERLAP_SNAPSHOT_TABLE = 1 << 5,
    OVERLAP_INACTIVE_L1 = 1 << 6,
    OVERLAP_INACTIVE_L2 = 1 << 7,
    OVERLAP_BITMAP_DIRECTORY = 1 << 8,
    OVERLAP_ENCRYPTION = 1 << 9, /* the LUKS header */
    OVERLAP_CONSTANT = OVERLAP_HEADER | OVERLAP_ACTIVE_L1 | OVERLAP_REFTABLE | OVERLAP_SNAPSHOT_TABLE |
                       OVERLAP_BITMAP_DIRECTORY | OVERLAP_ENCRYPTION,
    OVERLAP_CACHED = OVERLAP_CONSTANT | OVERLAP_ACTIVE_L2 | OVERLAP_REFBLOCK | OVERLAP_INACTIVE_L1,
    OVERLAP_ALL = OVERLAP_CACHED | OVERLAP_INACTIVE_L2,
};

/* A hash set of clusters that hold metadata, with their types (overlap.c). */
struct overlap_set {
    uint64_t *slots; /* (cluster index + 1) << 8 | types of tables; 0 = empty */
    uint32_t bits, used;
};

struct overlap_span {
    uint64_t offset, length;
    enum overlap_type type;
};

/* write_log.c: sectors of the log that are being filled, and how far they are written. */
struct write_log {
    bool wanted, active;
    bool for_bitmaps_only; /* writes alone are no reason to begin it */
    bool overflows;        /* something did not fit: only a sync helps */
    bool is_written;       /* some of this epoch is in the file */
    bool writing;
    uint32_t sector_size, sectors;
    uint32_t used, runs; /* sectors begun; runs in the last of them */
    uint32_t first_unwritten;
    uint64_t offset, epoch;
    uint64_t appended, written; /* changes so far */
    uint64_t clusters;          /* that this epoch speaks of */
    uint8_t *buffer, *bounce;
    struct co_queue waiters;
};

/* dirty_log.c: maps of regions. */
struct dirty_log {
    uint64_t *wanted, *durable; /* that shall be on disk; that are */
    uint64_t *recent;           /* written to since bitmaps were last stored */
    uint64_t count;             /* of durable ones */
    uint64_t stored_ns;
    bool writing;
    struct co_queue waiters;
};

struct qcow2 {
    struct node *node;        /* NULL while an image is being created */
    struct edge *file, *data; /* metadata file; where guest data is: the same without an external data file */
    struct header header;
    bool writable;
    bool is_new;           /* being created: nobody minds a crash, barriers are left out */
    bool broken;           /* a corruption was found and reported: no more changes */
    bool keeps_dirty_mark; /* changing references failed half way: the next opening must count anew */

    /* Geometry, fixed at open. */
    uint32_t cluster_bits, l2_bits, l2_entry_size; /* 1 << l2_bits entries of a table */
    uint32_t subclusters, subcluster_bits;         /* 1 of cluster size without extended L2 entries */
    uint32_t slice_bits;                           /* 1 << slice_bits bytes of an L2 table are cached together */
    uint32_t refblock_bits;                        /* 1 << refblock_bits counts in a refcount block */
    uint64_t cluster_size, refcount_max;
    bool extended_l2, external_data, raw_data;

    /* Options. */
    bool lazy_refcounts, discard_no_unref;
    bool pass_discard[FREE_REASONS];
    uint32_t overlap_types;
    struct loop_timer clean_timer; /* of the caches */
    uint64_t clean_interval_ns;

    /* Encryption. */
    struct luks *luks;            /* NULL: the image has no LUKS header */
    struct sector_cipher *cipher; /* NULL: not encrypted, or opened without a secret */

    /* Metadata in memory. */
    uint64_t size; /* of the guest's disk */
    struct disk_table l1, reftable;
    struct cache l2_cache, refcount_cache;
    vec(struct snapshot) snapshots;
    uint64_t snapshot_table_bytes;

    /* Persistent dirty bitmaps, in the order of the directory. */
    vec(struct stored_bitmap *) bitmaps;
    bool bitmaps_in_use; /* as the flags on disk say */
    bool bitmaps_moved;  /* the directory on disk must be replaced: entries came, went, or have tables elsewhere */

    struct write_log log;
    struct dirty_log dirty;
    vec(struct log_change) recovery; /* while the image is opened */

    /* Changing it. */
    struct co_mutex lock;
    struct list claims, spare_claims;
    vec_of(pending_frees, struct pending_free) frees;
    uint64_t free_hint;       /* cluster index: everything below is in use */
    uint64_t compressed_tail; /* host offset behind the last compressed cluster, inside a cluster with room; 0 = none */
    bool tail_was_freed;      /* since trim.c last looked; and when that was */
    uint64_t trimmed_ns;
    bool refblocks_shared;    /* two entries of the refcount table name the same block */
    uint64_t map_writes, map_flushed; /* L2 and L1 writes, and how many of them are behind a barrier */
    struct overlap_set overlap;       /* L2 tables and refcount blocks by cluster */
    vec(struct overlap_span) overlap_spans;

    struct live_check *live; /* a check that is under way while the image is in use (live.h), or NULL */

    struct codec_cache *codec; /* compressed clusters: what was inflated lately, and who reads what */
};

/* Geometry ----------------------------------------------------------------------------------------------------------
 */

static inline uint64_t cluster_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits;
}
static inline uint64_t cluster_start(const struct qcow2 *q, uint64_t offset)
{
    return round_down(offset, q->cluster_size);
}
static inline uint64_t cluster_end(const struct qcow2 *q, uint64_t offset)
{
    return round_up(offset, q->cluster_size);
}
static inline uint64_t in_cluster(const struct qcow2 *q, uint64_t offset)
{
    return offset & (q->cluster_size - 1);
}
static inline uint64_t subcluster_size(const struct qcow2 *q)
{
    return 1ull << q->subcluster_bits;
}
static inline uint64_t l1_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> (q->cluster_bits + q->l2_bits);
}
/* Guest bytes that one L2 table, or one slice of it, describes. */
static inline uint64_t l2_span(const struct qcow2 *q)
{
    return 1ull << (q->cluster_bits + q->l2_bits);
}
static inline uint64_t slice_span(const struct qcow2 *q)
{
    return (1ull << q->slice_bits) / q->l2_entry_size << q->cluster_bits;
}
static inline bool has_backing(const struct qcow2 *q)
{
    return q->node ? q->node->backing != NULL : q->header.backing_name != NULL; /* no node: it is being created */
}

static inline bool is_encrypted(const struct qcow2 *q)
{
    return unlikely(q->header.crypt_method != CRYPT_NONE);
}

/* A cluster of the write log: in use, though its refcount is 0. */
static inline bool log_holds(const struct qcow2 *q, uint64_t index)
{
    return q->header.log_offset && index >= cluster_index(q, q->header.log_offset) &&
           index < cluster_index(q, q->header.log_offset + q->header.log_size);
}

/* io.c: small helpers on the file ------------------------------------------------------------------------------------
 */

/* Like block_read_buffer(), but what lies behind the end of the file reads as zeroes. */
int qcow2_read_file(struct edge *file, uint64_t offset, void *buffer, size_t length);
/* Everything written so far, to the image and to its data file, is on stable storage. */
int qcow2_barrier(struct qcow2 *q);
/* A corruption that makes further writes dangerous: reports it, marks the image where that is possible, and refuses
 * changes from now on. Returns -EIO. A read-only image only reports. */
int qcow2_corrupt(struct qcow2 *q, uint64_t offset, uint64_t size, const char *format, ...) PRINTF_LIKE(4, 5);

/* header.c, header_write.c -------------------------------------------------------------------------------------------
 */
bool header_load(struct edge *file, struct header *header, struct error *err);
void header_release(struct header *header);
/* Patches the fixed fields in place (all of `header` but the strings), in one sector; unknown fields and extensions
 * stay as they are. Does not flush. */
int header_store(struct qcow2 *q);
/* Sets or clears incompatible feature bits with a barrier behind it. */
int header_set_incompatible(struct qcow2 *q, uint64_t bits, bool on);
/* Writes `now`, with its strings and bitmaps extension, in the place of the present header; other extensions are kept.
 * Durable; a power cut leaves the old header or the new one. q->header is the caller's to change. */
bool header_rewrite(struct qcow2 *q, const struct header *now, struct error *err);
/* A new image's first cluster, zero behind `used` bytes. */
bool header_format(const struct header *header, uint8_t *cluster, uint64_t *used, struct error *err);

/* disk_table.c */
bool disk_table_load(struct disk_table *table, struct edge *file, uint64_t offset, uint32_t count, const char *what,
                     struct error *err);
bool disk_table_init(struct disk_table *table, uint64_t offset, uint32_t count); /* zeroes, clean; false: no memory */
void disk_table_release(struct disk_table *table);
void disk_table_set(struct disk_table *table, uint32_t index, uint64_t value);
int disk_table_write(struct disk_table *table, struct edge *file); /* changed sectors */
int disk_table_write_all(const struct disk_table *table, struct edge *file,
                         uint64_t size); /* padded with zeroes to size */

/* snapshot_table.c, snapshots.c, bitmap_table.c */
bool snapshot_table_load(struct qcow2 *q, struct error *err);
void snapshot_table_release(struct qcow2 *q);
void snapshot_release(struct snapshot *snapshot);
/* Writes the table as memory has it to a new place and makes the header name it, durably; the old place is freed.
 * Everything that the table refers to must be written; the lock is held. */
int snapshot_table_store(struct qcow2 *q);
extern const struct snapshot_ops qcow2_snapshot_ops;
extern const struct bitmap_ops qcow2_bitmap_ops;
extern const struct amend_ops qcow2_amend_ops; /* amend.c */
/* Calls visit for every span that the persistent bitmaps occupy. 0, what visit returned, or -errno. YIELDS. */
int bitmap_table_visit(struct qcow2 *q, int (*visit)(void *arg, uint64_t offset, uint64_t length), void *arg,
                       struct error *err);
bool bitmaps_valid(const struct qcow2 *q);

/* children.c, options.c */
bool children_open(struct node *node, struct qcow2 *q, struct error *err);
bool options_apply(struct qcow2 *q, struct error *err);
struct blockdev_options_qcow2;
/* Caches of other sizes, to take the place of the present ones: made first, so that nothing can fail later. */
struct new_caches {
    bool wanted;
    uint32_t slice_bits;
    struct cache l2, refcount;
};
bool options_check_reopen(const struct qcow2 *q, const struct blockdev_options_qcow2 *now, struct new_caches *caches,
                          struct error *err);
/* Everything in the old caches must be on disk. */
void options_reopened(struct qcow2 *q, const struct blockdev_options_qcow2 *now, struct new_caches *caches);

/* io.c: opens the metadata of q->file, whose header is parsed; the heart of open, also used on new images. */
bool qcow2_load(struct qcow2 *q, struct error *err);
/* Forgets what memory knows better than the disk, as a crash would, and reads the tables again. */
bool qcow2_reload(struct qcow2 *q, struct error *err);
bool qcow2_set_geometry(struct qcow2 *q, struct error *err);
void qcow2_unload(struct qcow2 *q);
/* Writes what is pending, makes refcounts exact and clears the dirty bit. */
int qcow2_finish(struct qcow2 *q);

/* overlap.c */
void overlap_build(struct qcow2 *q);
bool overlap_load_inactive(struct qcow2 *q, struct error *err);
void overlap_release(struct qcow2 *q);
void overlap_add(struct qcow2 *q, enum overlap_type type, uint64_t offset);
void overlap_remove(struct qcow2 *q, enum overlap_type type, uint64_t offset);
/* 0 when the span may be written; else the corruption is reported and -EIO. `ignore`: types that are meant. */
int overlap_check(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t ignore);
int overlap_check_free(struct qcow2 *q, uint64_t offset, uint64_t length);
/* What lies there, whatever is guarded; NULL: nothing. */
const char *overlap_name(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t ignore);

/* sync.c: read its essay before touching any order. All YIELD. ------------------------------------------------------
 */
int qcow2_sync(struct qcow2 *q); /* takes the lock */
int qcow2_sync_locked(struct qcow2 *q);
/* A sync, and a barrier behind what it wrote. */
int qcow2_sync_durable(struct qcow2 *q);
/* The holder of the lock drops its references to a host span, durably safe: they go at the next sync. */
void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t length, enum free_reason reason);
/* Before the first change that lazy refcounts leave unordered: marks the image dirty. */
int qcow2_begin_changes(struct qcow2 *q);
/* A sync ahead of need, when much waits for one. At the end of an operation, under the lock. */
int qcow2_relieve(struct qcow2 *q);
/* cache_load() for holders of the lock, and for readers: makes room by a sync when nothing else does. */
int l2_load_locked(struct qcow2 *q, uint64_t slice_offset, uint8_t **slice);
int l2_load(struct qcow2 *q, uint64_t slice_offset, uint8_t **slice);

/* refcount.c, alloc.c, reftable.c: under the lock. All YIELD. -------------------------------------------------------
 */
int refcount_get(struct qcow2 *q, uint64_t index, uint64_t *count);
/* Adds `delta` to every cluster that the span touches. On failure nothing has changed. `freed` (may be NULL) collects
 * what went to 0. */
int refcount_add(struct qcow2 *q, uint64_t offset, uint64_t length, int delta, struct freed_spans *freed);
int refcount_set(struct qcow2 *q, uint64_t index, uint64_t count);
uint64_t refcount_read(const uint8_t *block, uint32_t order, uint64_t index);
void refcount_write(uint8_t *block, uint32_t order, uint64_t index, uint64_t count);

/* Loads the refcount block of a cluster; *block is NULL when there is none (every count is 0). */
int refblock_load(struct qcow2 *q, uint64_t index, uint8_t **block);
/* The same, made when it is missing: then it lies in the first of the clusters that it counts. */
int refblock_load_or_create(struct qcow2 *q, uint64_t index, uint8_t **block);
/* The same, but a new block may go into the free cluster number `place`, which another block counts; *used: it did. */
int refblock_load_or_create_at(struct qcow2 *q, uint64_t index, uint64_t place, bool *used, uint8_t **block);
/* Writes changed blocks, then the table that names them. */
int refcounts_write(struct qcow2 *q);

/* A run of up to `wanted` free clusters; gets at least one, refcount 1 each. */
int alloc_clusters(struct qcow2 *q, uint64_t wanted, uint64_t *offset, uint64_t *got);
/* Exactly `count` clusters in one piece. */
int alloc_contiguous(struct qcow2 *q, uint64_t count, uint64_t *offset);
/* Room for a compressed cluster, at any byte. */
int alloc_bytes(struct qcow2 *q, uint64_t size, uint64_t *offset);

/* references.c: under the lock. YIELD. */
/* Adds `delta` (1 or -1) to the count of every L2 table and cluster that an L1 table refers to. When 1 fails nothing
 * has changed. `freed` (may be NULL) collects what went to 0. What memory holds of these tables must be on disk. */
int references_count(struct qcow2 *q, const uint64_t *l1, uint32_t count, int delta, struct freed_spans *freed);
/* The COPIED flags of the active tables: all cleared, or as the counts say. Written by the next sync. */
int references_clear_copied(struct qcow2 *q);
int references_set_copied(struct qcow2 *q);
/* Removes the flags from tables that are not active, in place. */
int references_clean_tables(struct qcow2 *q, const uint64_t *l1, uint32_t count);

/* l2.c: under the lock. ---------------------------------------------------------------------------------------------
 */
/* Where the guest offset's entry stands: the slice's place in the file. *slice_offset 0: no L2 table. Checks what L1
 * says. Does not yield (-EIO after reporting a corruption may). */
int l2_locate(struct qcow2 *q, uint64_t offset, uint64_t *slice_offset, uint32_t *index);
/* The same for changing: grows nothing, allocates or unshares the L2 table. The slice is loaded. YIELDS. */
int l2_load_for_change(struct qcow2 *q, uint64_t offset, uint8_t **slice, uint64_t *slice_offset, uint32_t *index);
int l1_grow(struct qcow2 *q, uint64_t entries);

struct l2_entry {
    uint64_t descriptor, bitmap; /* bitmap: extended entries only */
};
static inline struct l2_entry l2_get(const struct qcow2 *q, const uint8_t *slice, uint32_t index)
{
    const uint8_t *at = slice + (size_t)index * q->l2_entry_size;
    return (struct l2_entry){load_be64(at), q->extended_l2 ? load_be64(at + 8) : 0};
}
static inline void l2_put(struct qcow2 *q, uint8_t *slice, uint32_t index, struct l2_entry entry)
{
    uint8_t *at = slice + (size_t)index * q->l2_entry_size;
    store_be64(at, entry.descriptor);
    if (q->extended_l2)
        store_be64(at + 8, entry.bitmap);
}

/* Driver functions, by file. ----------------------------------------------------------------------------------------
 */
int qcow2_map(struct node *node, uint64_t offset, uint64_t length, struct extent *extent);
int qcow2_prepare_write(struct node *node, uint64_t offset, uint64_t length, struct write_plan *plan);
int qcow2_commit_write(struct node *node, struct write_plan *plan, int result);
int qcow2_read_encoded(struct node *node, uint64_t offset, uint64_t length, const struct extent *extent,
                       struct buffers to);
int qcow2_write_compressed(struct node *node, uint64_t offset, uint64_t length, struct buffers from);
int qcow2_write_encoded(struct node *node, const struct write_plan *plan, uint64_t offset, uint64_t child_offset,
                        uint64_t length, struct buffers from, uint32_t flags);
int qcow2_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags);
int qcow2_discard(struct node *node, uint64_t offset, uint64_t length);
int qcow2_allocate(struct node *node, uint64_t offset, uint64_t length); /* preallocate.c */
bool qcow2_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact, struct error *err);
/* Reads whatever the guest has there, layer by layer; inside of the disk. */
int qcow2_read_guest(struct node *node, uint64_t offset, uint64_t length, struct buffers to);
/* Writes a span of whole subclusters from a buffer, with what commit needs; nothing is copied around it. */
int qcow2_write_whole(struct node *node, uint64_t offset, uint64_t length, const uint8_t *data);
bool qcow2_measure(const void *options, struct edge *source, struct image_measure *result, struct error *err);
bool qcow2_check_create_options(const struct qcow2_create_options *options, uint32_t version, struct error *err);
int qcow2_check(struct node *node, uint32_t repair, struct image_check *result, struct error *err);
int qcow2_check_state(struct qcow2 *q, uint32_t repair, struct image_check *result, struct error *err);
extern const struct create_ops qcow2_create_ops;

/* backing.c */
bool qcow2_change_backing(struct node *node, const char *name, const char *format, struct error *err);
bool qcow2_make_empty(struct node *node, struct error *err);

/* zero_discard.c on a state, without a node: spans of whole clusters. */
int qcow2_unmap_span(struct qcow2 *q, uint64_t offset, uint64_t length, bool full, enum free_reason reason);
int qcow2_zero_span(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t flags);

/* preallocate.c: maps every cluster of [from, to) that has none. */
bool qcow2_preallocate(struct qcow2 *q, uint64_t from, uint64_t to, enum preallocation mode, struct error *err);

/* compressed.c */
bool codec_cache_init(struct qcow2 *q);
void codec_cache_release(struct qcow2 *q);
/* The host span was freed and may be used for something else. */
void codec_cache_forget(struct qcow2 *q, uint64_t offset, uint64_t length);
/* Is somebody reading compressed data from the span? Then it must not be reused yet. */
bool codec_reads_overlap(const struct qcow2 *q, uint64_t offset, uint64_t length);

#endif
