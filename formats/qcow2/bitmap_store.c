/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Persistent dirty bitmaps: read when the image is opened, written when it is closed, and in between marked as in use.
 *
 *   header extension -> directory -> table of each bitmap -> clusters of bits
 *
 * While the image is writable its entries carry the IN_USE flag: whoever finds it on opening knows that the bits on
 * disk may miss writes, and calls the bitmap inconsistent, unless dirty_log.c can tell which those are.
 *
 * Order of storing: clusters of bits, new tables, refcounts -> changed table entries -> the flags in the directory, or
 * a new directory and the header sector that names it -> what nobody names any more is free. Every arrow is a barrier.
 * Clusters of bits are overwritten in place: until the flags change nobody trusts them, and for dirty_log.c both the
 * old and the new content of a sector are right.
 *
 * A bitmap that cannot be used (inconsistent, of unknown type, with unknown extra data) is kept as it is until somebody
 * removes it.
 */
#include "formats/qcow2/bitmap_store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/dirty_bitmap.h"
#include "formats/qcow2/write_log.h"
#include "qmp/schema/types.h"

/* One more than what other implementations read would be lost on them: bits of a bitmap, in bytes. */
#define BITMAP_BYTES_MAX (512 * MiB)

static uint64_t bytes_of_bits(const struct dirty_bitmap *bitmap)
{
    return DIV_ROUND_UP(dirty_bitmap_bits(bitmap), 8);
}

static uint64_t entries_needed(const struct qcow2 *q, const struct dirty_bitmap *bitmap)
{
    return DIV_ROUND_UP(bytes_of_bits(bitmap), q->cluster_size);
}

static void record_free(struct stored_bitmap *s)
{
    if (s->live)
        s->live->stored = NULL;
    disk_table_release(&s->table);
    free(s->saved);
    free(s->name);
    free(s->extra);
    free(s);
}

static bool is_usable(const struct stored_bitmap *s)
{
    return s->live && !s->live->inconsistent;
}

/* Reading ---------------------------------------------------------------------------------------------------------- */

static void unpack(uint64_t *words, uint64_t bits, uint64_t first_bit, const uint8_t *bytes, uint64_t size)
{
    for (uint64_t at = 0; at < size && first_bit + at * 8 < bits; at += 8) {
        uint64_t word = load_le64(bytes + at), left = bits - (first_bit + at * 8);
        words[(first_bit + at * 8) / 64] |= left < 64 ? word & ((1ull << left) - 1) : word;
    }
}

/* The bits on disk, or'ed into `words`. */
static int read_bits(struct qcow2 *q, const struct stored_bitmap *s, uint64_t *words, uint64_t bits)
{
    auto_free uint8_t *cluster = block_alloc_buffer(q->file, q->cluster_size);
    if (!cluster)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->table.count; i++) {
        uint64_t entry = s->table.entries[i], first = (uint64_t)i * q->cluster_size * 8;
        uint64_t host = entry & ENTRY_OFFSET;
        if (!host && !(entry & BITMAP_ALL_ONES))
            continue;
        if (entry & BITMAP_TABLE_RESERVED || in_cluster(q, host) || (host && entry & BITMAP_ALL_ONES))
            return -EINVAL;
        if (host) {
            int result = qcow2_read_file(q->file, host, cluster, q->cluster_size);
            if (result)
                return result;
            unpack(words, bits, first, cluster, q->cluster_size);
        } else {
            bitmap_set(words, first, MIN(bits - first, q->cluster_size * 8));
        }
    }
    return 0;
}

static bool load_live(struct qcow2 *q, struct stored_bitmap *s, struct error *err)
{
    struct dirty_bitmap *bitmap = s->live;
    if (entries_needed(q, bitmap) != s->table.count)
        return fail(err, EINVAL, "its table has %" PRIu32 " entries: %" PRIu64 " bytes of disk need %" PRIu64,
                    s->table.count, bitmap->size, entries_needed(q, bitmap));
    int result = read_bits(q, s, bitmap->bits, dirty_bitmap_bits(bitmap));
    if (result)
        return fail_errno(err, result, "cannot read its bits");
    bitmap->dirty_count = bitmap_count(bitmap->bits, 0, dirty_bitmap_bits(bitmap));
    return true;
}

static bool is_known(const struct stored_bitmap *s)
{
    return s->type == BITMAP_TYPE_DIRTY && (!s->extra_size || s->flags & BITMAP_EXTRA_COMPATIBLE) &&
           s->granularity_bits >= 9 && s->granularity_bits <= 31;
}

/* Makes the bitmap that users see. What is wrong with one is no reason to keep the image closed. */
static bool make_live(struct qcow2 *q, struct stored_bitmap *s, bool trusted, struct error *err)
{
    uint32_t granularity = s->granularity_bits <= 31 ? 1u << s->granularity_bits : 1u << 31;
    auto_error problem = {0};
    bool usable = is_known(s) && (!(s->flags & BITMAP_IN_USE) || trusted);
    if (usable) {
        s->live = dirty_bitmap_new(q->node, s->name, granularity, &problem);
        if (s->live && load_live(q, s, &problem)) {
            s->live->persistent = true;
            s->live->recording = s->flags & BITMAP_AUTO;
            s->live->read_only = q->node->read_only;
            s->live->stored = s;
            return true;
        }
        log_warning("bitmap '%s' of '%s' cannot be used: %s", s->name, q->node->name, problem.message);
        dirty_bitmap_free(s->live);
    }
    if (s->granularity_bits < 9)
        granularity = DIRTY_BITMAP_MIN_GRANULARITY;
    s->live = dirty_bitmap_new_inconsistent(q->node, s->name, granularity, err);
    if (s->live)
        s->live->stored = s;
    return s->live != NULL;
}

static bool check_name(const struct qcow2 *q, const uint8_t *name, uint32_t length, uint32_t number, struct error *err)
{
    if (!length || length > BITMAP_NAME_MAX || memchr(name, 0, length))
        return fail(err, EINVAL,
                    "the name of bitmap %" PRIu32 " has %" PRIu32 " bytes: it must have 1 to %u, none of them NUL",
                    number, length, BITMAP_NAME_MAX);
    struct stored_bitmap *const *other;
    vec_for_each (other, &q->bitmaps) {
        if (strlen((*other)->name) == length && !memcmp((*other)->name, name, length))
            return fail(err, EINVAL, "two bitmaps have the name '%s'", (*other)->name);
    }
    return true;
}

static bool load_entry(struct qcow2 *q, uint32_t number, const uint8_t *entry, struct error *err)
{
    uint32_t extra = load_be32(entry + BITMAP_EXTRA_SIZE), length = load_be16(entry + BITMAP_NAME_SIZE);
    const uint8_t *name = entry + BITMAP_FIXED + extra;
    uint64_t table = load_be64(entry + BITMAP_TABLE_OFFSET);
    uint32_t count = load_be32(entry + BITMAP_TABLE_SIZE);
    if (!check_name(q, name, length, number, err))
        return false;
    if (!table || in_cluster(q, table) || count > BITMAP_TABLE_ENTRIES_MAX ||
        !span_fits(table, (uint64_t)count * 8, q->file->child->size))
        return fail(err, EINVAL,
                    "the table of bitmap %" PRIu32 " (%" PRIu32 " entries at 0x%" PRIx64
                    ") is not aligned to the cluster size, too large, or not inside the file",
                    number, count, table);
    struct stored_bitmap *s = new (struct stored_bitmap);
    s->name = xstrndup((const char *)name, length);
    s->flags = load_be32(entry + BITMAP_FLAGS);
    s->type = entry[BITMAP_TYPE];
    s->granularity_bits = entry[BITMAP_GRANULARITY];
    s->extra_size = extra;
    s->extra = xmalloc(extra + 1);
    memcpy(s->extra, entry + BITMAP_FIXED, extra);
    if (!disk_table_load(&s->table, q->file, table, count, "bitmap table", err)) {
        record_free(s);
        return false;
    }
    vec_push(&q->bitmaps, s);
    return true;
}

static bool load_directory(struct qcow2 *q, struct error *err)
{
    uint64_t size = q->header.bitmap_directory_size, at = 0;
    auto_free uint8_t *directory = try_calloc(1, size);
    if (!directory)
        return fail(err, ENOMEM, "out of memory for the bitmap directory");
    int result = qcow2_read_file(q->file, q->header.bitmap_directory_offset, directory, size);
    if (result)
        return fail_errno(err, result, "cannot read the bitmap directory");
    for (uint32_t number = 0; number < q->header.bitmap_count; number++) {
        uint64_t left = size - at;
        if (left < BITMAP_FIXED || left - BITMAP_FIXED < (uint64_t)load_be32(directory + at + BITMAP_EXTRA_SIZE) +
                                                             load_be16(directory + at + BITMAP_NAME_SIZE))
            return fail(err, EINVAL, "entry %" PRIu32 " of the bitmap directory does not end inside the directory",
                        number);
        uint64_t length = BITMAP_FIXED + (uint64_t)load_be32(directory + at + BITMAP_EXTRA_SIZE) +
                          load_be16(directory + at + BITMAP_NAME_SIZE);
        if (!load_entry(q, number, directory + at, err))
            return false;
        at = MIN(round_up(at + length, 8), size);
    }
    return true;
}

bool bitmaps_load(struct qcow2 *q, bool trusted, struct error *err)
{
    if (!bitmaps_valid(q))
        return true;
    if (!load_directory(q, err))
        return false;
    if (q->node->metadata_only && q->node->read_only)
        return true; /* to be listed only */
    struct stored_bitmap **s;
    vec_for_each (s, &q->bitmaps) {
        if (!make_live(q, *s, trusted, err))
            return false;
    }
    return true;
}

void bitmaps_release(struct qcow2 *q)
{
    struct stored_bitmap **s;
    vec_for_each (s, &q->bitmaps)
        record_free(*s);
    vec_free(&q->bitmaps);
}

/* Directory -------------------------------------------------------------------------------------------------------- */

static uint64_t entry_size(const struct stored_bitmap *s)
{
    return round_up(BITMAP_FIXED + (uint64_t)s->extra_size + strlen(s->name), 8);
}

static void put_entry(const struct stored_bitmap *s, uint8_t *at)
{
    store_be64(at + BITMAP_TABLE_OFFSET, s->table.offset);
    store_be32(at + BITMAP_TABLE_SIZE, s->table.count);
    store_be32(at + BITMAP_FLAGS, s->flags);
    at[BITMAP_TYPE] = s->type;
    at[BITMAP_GRANULARITY] = s->granularity_bits;
    store_be16(at + BITMAP_NAME_SIZE, (uint16_t)strlen(s->name));
    store_be32(at + BITMAP_EXTRA_SIZE, s->extra_size);
    if (s->extra_size)
        memcpy(at + BITMAP_FIXED, s->extra, s->extra_size);
    memcpy(at + BITMAP_FIXED + s->extra_size, s->name, strlen(s->name));
}

static uint8_t *format_directory(struct qcow2 *q, uint64_t *size, uint64_t room)
{
    struct stored_bitmap **s;
    *size = 0;
    vec_for_each (s, &q->bitmaps)
        *size += entry_size(*s);
    if (*size > BITMAP_DIRECTORY_BYTES_MAX)
        return NULL;
    room = MAX(room, cluster_end(q, *size));
    uint8_t *directory = block_alloc_buffer(q->file, MAX(room, q->cluster_size));
    if (!directory)
        return NULL;
    memset(directory, 0, MAX(room, q->cluster_size));
    uint8_t *at = directory;
    vec_for_each (s, &q->bitmaps) {
        put_entry(*s, at);
        at += entry_size(*s);
    }
    return directory;
}

static int replace_directory(struct qcow2 *q);

/* Only flags have changed, or contents of equal length: each is inside one sector, and old ones are as good as new. A
 * directory with unused bytes behind its entries, which others may write, is replaced. */
static int patch_directory(struct qcow2 *q)
{
    uint64_t size;
    auto_free uint8_t *directory = format_directory(q, &size, 0);
    if (!directory)
        return -ENOMEM;
    if (size != q->header.bitmap_directory_size)
        return replace_directory(q);
    int result = overlap_check(q, q->header.bitmap_directory_offset, size, OVERLAP_BITMAP_DIRECTORY);
    if (!result)
        result = block_write_buffer(q->file, q->header.bitmap_directory_offset, directory, round_up(size, 8), 0);
    return result ? result : qcow2_barrier(q);
}

/* A new directory, and the header that names it. */
static int replace_directory(struct qcow2 *q)
{
    struct header now = q->header;
    uint64_t size = 0, offset = 0;
    int result = 0;
    if (q->bitmaps.count) {
        auto_free uint8_t *directory = format_directory(q, &size, 0);
        if (!directory)
            return -ENOMEM;
        result = alloc_contiguous(q, cluster_end(q, size) >> q->cluster_bits, &offset);
        if (!result)
            result = block_write_buffer(q->file, offset, directory, cluster_end(q, size), 0);
    }
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    if (result)
        return result;
    now.has_bitmaps = size > 0;
    now.bitmap_count = (uint32_t)q->bitmaps.count;
    now.bitmap_directory_offset = offset;
    now.bitmap_directory_size = size;
    now.autoclear = size ? now.autoclear | AUTOCLEAR_BITMAPS : now.autoclear & ~AUTOCLEAR_BITMAPS;
    auto_error err = {0};
    if (!header_rewrite(q, &now, &err)) {
        /* Written or not: the next open decides. */
        log_error("node '%s': %s", q->node->name, err.message);
        return err.code ? -err.code : -EIO;
    }
    if (q->header.has_bitmaps)
        qcow2_free_later(q, q->header.bitmap_directory_offset, cluster_end(q, q->header.bitmap_directory_size),
                         FREE_OTHER);
    q->header = now;
    q->bitmaps_moved = false;
    overlap_build(q);
    return 0;
}

static int write_directory(struct qcow2 *q)
{
    if (!q->bitmaps_moved && bitmaps_valid(q))
        return patch_directory(q);
    if (!q->bitmaps_moved && !q->bitmaps.count)
        return 0;
    return replace_directory(q);
}

/* Storing ---------------------------------------------------------------------------------------------------------- */

static void free_entry(struct qcow2 *q, uint64_t entry)
{
    if (entry & ENTRY_OFFSET)
        qcow2_free_later(q, entry & ENTRY_OFFSET, q->cluster_size, FREE_OTHER);
}

/* A table of another size goes to another place. */
static int resize_table(struct qcow2 *q, struct stored_bitmap *s, uint32_t count)
{
    struct disk_table table;
    if (!count)
        return -EINVAL; /* a disk without bytes */
    uint64_t room = cluster_end(q, (uint64_t)count * 8), offset;
    int result = alloc_contiguous(q, room >> q->cluster_bits, &offset);
    if (result)
        return result;
    if (!disk_table_init(&table, offset, count)) {
        (void)refcount_add(q, offset, room, -1, NULL);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count && i < s->table.count; i++)
        table.entries[i] = s->table.entries[i];
    for (uint32_t i = count; i < s->table.count; i++)
        free_entry(q, s->table.entries[i]);
    if (s->table.offset)
        qcow2_free_later(q, s->table.offset, (uint64_t)s->table.count * 8, FREE_OTHER);
    disk_table_release(&s->table);
    s->table = table;
    s->is_new_table = q->bitmaps_moved = true;
    free(TAKE(s->saved));
    return 0;
}

/* The bits of one cluster; true when they are all 0 or all 1 (in *ones). */
static bool pack(const uint64_t *words, uint64_t total, uint64_t first, uint64_t count, uint8_t *cluster, bool *ones)
{
    uint64_t there = MIN(count, total - first), and = UINT64_MAX, or = 0;
    memset(cluster, 0, count * 8);
    for (uint64_t i = 0; i < there; i++) {
        store_le64(cluster + i * 8, words[first + i]);
        and &= words[first + i];
        or |= words[first + i];
    }
    *ones = and == UINT64_MAX && there == count;
    return *ones || ! or ;
}

static int write_cluster(struct qcow2 *q, struct stored_bitmap *s, uint32_t index, uint8_t *cluster)
{
    const struct dirty_bitmap *bitmap = s->live;
    uint64_t words = BITMAP_WORDS(dirty_bitmap_bits(bitmap)), per_cluster = q->cluster_size / 8;
    uint64_t first = index * per_cluster, entry = s->table.entries[index];
    bool ones;
    bool plain = pack(bitmap->bits, words, first, per_cluster, cluster, &ones);
    if (plain) {
        uint64_t now = ones ? BITMAP_ALL_ONES : 0;
        if (entry != now) {
            free_entry(q, entry);
            disk_table_set(&s->table, index, now);
        }
        return 0;
    }
    uint64_t host = entry & ENTRY_OFFSET;
    int result = host ? overlap_check(q, host, q->cluster_size, 0) : alloc_contiguous(q, 1, &host);
    if (result)
        return result;
    if (entry != host)
        disk_table_set(&s->table, index, host);
    return block_write_buffer(q->file, host, cluster, q->cluster_size, 0);
}

/* Bits that changed since they were last stored. */
static int write_bits(struct qcow2 *q, struct stored_bitmap *s)
{
    const struct dirty_bitmap *bitmap = s->live;
    uint64_t words = BITMAP_WORDS(dirty_bitmap_bits(bitmap)), per_cluster = q->cluster_size / 8;
    uint64_t *copy = try_calloc(MAX(words, 1ull), 8);
    auto_free uint8_t *cluster = block_alloc_buffer(q->file, q->cluster_size);
    int result = copy && cluster ? 0 : -ENOMEM;
    if (s->saved_words != words)
        free(TAKE(s->saved)); /* the disk has another size now */
    if (!result)
        memcpy(copy, bitmap->bits, words * 8); /* what is set while we write is for the next time */
    for (uint32_t i = 0; i < s->table.count && !result; i++) {
        uint64_t first = i * per_cluster, there = MIN(per_cluster, words - first);
        if (!s->saved || memcmp(s->saved + first, bitmap->bits + first, there * 8))
            result = write_cluster(q, s, i, cluster);
    }
    if (result) {
        free(copy);
        free(TAKE(s->saved));
        return result;
    }
    free(s->saved);
    s->saved = copy;
    s->saved_words = words;
    return 0;
}

static struct stored_bitmap *new_record(struct qcow2 *q, struct dirty_bitmap *bitmap)
{
    struct stored_bitmap *s = new (struct stored_bitmap);
    s->live = bitmap;
    s->name = xstrdup(bitmap->name);
    s->type = BITMAP_TYPE_DIRTY;
    s->granularity_bits = (uint8_t)lowest_bit(bitmap->granularity);
    bitmap->stored = s;
    vec_push(&q->bitmaps, s);
    q->bitmaps_moved = true;
    return s;
}

static int store_one(struct qcow2 *q, struct stored_bitmap *s, bool clean)
{
    uint64_t count = entries_needed(q, s->live);
    if (count * q->cluster_size > MAX(BITMAP_BYTES_MAX, q->cluster_size))
        return -EFBIG;
    int result = s->table.offset && count == s->table.count ? 0 : resize_table(q, s, (uint32_t)count);
    if (!result)
        result = write_bits(q, s);
    uint32_t kept = s->flags & ~(uint32_t)(BITMAP_IN_USE | BITMAP_AUTO);
    s->flags = kept | (clean ? 0 : BITMAP_IN_USE) | (s->live->recording ? BITMAP_AUTO : 0);
    return result;
}

static int write_tables(struct qcow2 *q)
{
    struct stored_bitmap **s;
    int result = 0;
    vec_for_each (s, &q->bitmaps) {
        struct disk_table *table = &(*s)->table;
        if ((*s)->is_new_table)
            result = disk_table_write_all(table, q->file, cluster_end(q, (uint64_t)table->count * 8));
        else
            result = disk_table_write(table, q->file);
        if (result)
            return result;
        if ((*s)->is_new_table) {
            (*s)->is_new_table = table->is_dirty = false;
            memset(table->sectors, 0, BITMAP_WORDS(DIV_ROUND_UP((size_t)MAX(table->count, 1u), 64)) * 8);
        }
    }
    return 0;
}

int bitmaps_store_locked(struct qcow2 *q, bool clean)
{
    if (q->broken)
        return -EIO;
    struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &q->node->bitmaps, link) {
        if (bitmap->persistent && !bitmap->inconsistent && !bitmap->stored)
            new_record(q, bitmap);
    }
    if (!q->bitmaps.count && !q->bitmaps_moved)
        return 0;
    int result = 0;
    for (size_t i = 0; i < q->bitmaps.count && !result; i++) {
        if (is_usable(q->bitmaps.items[i]))
            result = store_one(q, q->bitmaps.items[i], clean);
    }
    /* Bits, and the counts of their clusters, before tables; tables before the directory. */
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    if (!result)
        result = write_tables(q);
    if (!result)
        result = qcow2_barrier(q);
    if (!result)
        result = write_directory(q);
    q->bitmaps_in_use = !clean;
    return result;
}

bool bitmaps_store(struct qcow2 *q, bool clean, struct error *err)
{
    if (!q->node || q->node->metadata_only || !q->writable)
        return true;
    co_mutex_lock(&q->lock);
    int result = bitmaps_store_locked(q, clean);
    if (!result)
        result = qcow2_sync_locked(q); /* frees what was replaced */
    co_mutex_unlock(&q->lock);
    return !result || fail_errno(err, result, "cannot store the persistent bitmaps");
}

/* Before the first change of the disk: from now on others must not trust the bits on disk. */
bool bitmaps_begin_use(struct qcow2 *q, struct error *err)
{
    struct stored_bitmap **s;
    bool changes = false;
    vec_for_each (s, &q->bitmaps) {
        if (is_usable(*s) && !((*s)->flags & BITMAP_IN_USE)) {
            (*s)->flags |= BITMAP_IN_USE;
            changes = true;
        }
        if ((*s)->live)
            (*s)->live->read_only = false;
    }
    q->bitmaps_in_use = true;
    int result = changes ? patch_directory(q) : 0;
    return !result || fail_errno(err, result, "cannot mark the persistent bitmaps as in use");
}

void bitmaps_set_read_only(struct qcow2 *q)
{
    struct stored_bitmap **s;
    vec_for_each (s, &q->bitmaps) {
        if ((*s)->live)
            (*s)->live->read_only = true;
    }
}

/* Driver ----------------------------------------------------------------------------------------------------------- */

static bool bitmap_can_store(struct node *node, const char *name, uint32_t granularity, struct error *err)
{
    struct qcow2 *q = node->state;
    if (!q->writable || q->broken)
        return fail(err, EROFS, "node '%s' is read-only: it cannot store bitmap '%s'", node->name, name);
    if (q->header.version < 3)
        return fail(err, ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
    if (strlen(name) > BITMAP_NAME_MAX)
        return fail(err, ENAMETOOLONG, "the name of the bitmap has %zu bytes: it must not exceed %u", strlen(name),
                    BITMAP_NAME_MAX);
    if (granularity < DIRTY_BITMAP_MIN_GRANULARITY || granularity > DIRTY_BITMAP_MAX_GRANULARITY)
        return fail(err, EINVAL, "granularity %" PRIu32 ": a stored bitmap has one from %d to %u", granularity,
                    DIRTY_BITMAP_MIN_GRANULARITY, DIRTY_BITMAP_MAX_GRANULARITY);
    if (!q->size)
        return fail(err, EINVAL, "a disk of 0 bytes cannot have a persistent bitmap");
    if (DIV_ROUND_UP(DIV_ROUND_UP(q->size, granularity), 8) > BITMAP_BYTES_MAX)
        return fail(err, EFBIG,
                    "granularity %" PRIu32 " is too small for a disk of %" PRIu64
                    " bytes: the bitmap would be larger than %llu bytes",
                    granularity, q->size, BITMAP_BYTES_MAX);
    uint64_t count = 0, size = BITMAP_FIXED + strlen(name) + 8;
    const struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &node->bitmaps, link) {
        count += bitmap->persistent;
        size += bitmap->persistent ? BITMAP_FIXED + strlen(bitmap->name) + 8 : 0;
    }
    if (count >= BITMAP_COUNT_MAX || size > BITMAP_DIRECTORY_BYTES_MAX)
        return fail(err, EFBIG, "the image has %" PRIu64 " bitmaps: there is no room for more", count);
    return true;
}

static struct qcow2_bitmap_info *info_of(const struct stored_bitmap *s)
{
    struct qcow2_bitmap_info *info = qcow2_bitmap_info_new();
    uint32_t flags = s->flags;
    if (s->live && !s->live->inconsistent) /* what will be on disk */
        flags = (flags & ~(uint32_t)BITMAP_AUTO) | (s->live->recording ? BITMAP_AUTO : 0);
    info->name = xstrdup(s->name);
    info->granularity = s->granularity_bits < 32 ? 1u << s->granularity_bits : 0;
    info->flags = new_array(enum qcow2_bitmap_info_flags, 2);
    if (flags & BITMAP_IN_USE)
        info->flags[info->n_flags++] = QCOW2_BITMAP_INFO_FLAGS_IN_USE;
    if (flags & BITMAP_AUTO)
        info->flags[info->n_flags++] = QCOW2_BITMAP_INFO_FLAGS_AUTO;
    return info;
}

struct qcow2_bitmap_info **bitmaps_info(const struct qcow2 *q, size_t *count)
{
    *count = q->bitmaps.count;
    struct qcow2_bitmap_info **list = *count ? new_array(struct qcow2_bitmap_info *, *count) : NULL;
    for (size_t i = 0; i < *count; i++)
        list[i] = info_of(q->bitmaps.items[i]);
    return list;
}

uint64_t bitmaps_measure(const struct qcow2 *q, uint64_t cluster_size)
{
    uint64_t bytes = 0, directory = 0;
    const struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &q->node->bitmaps, link) {
        if (!bitmap->persistent || bitmap->inconsistent)
            continue;
        uint64_t clusters = DIV_ROUND_UP(bytes_of_bits(bitmap), cluster_size);
        bytes += clusters * cluster_size + round_up(clusters * 8, cluster_size);
        directory += round_up(BITMAP_FIXED + strlen(bitmap->name), 8);
    }
    return bytes + round_up(directory, cluster_size);
}

static void forget_clusters(struct qcow2 *q, const struct stored_bitmap *s)
{
    for (uint32_t i = 0; i < s->table.count; i++)
        free_entry(q, s->table.entries[i]);
    if (s->table.offset && s->table.count)
        qcow2_free_later(q, s->table.offset, (uint64_t)s->table.count * 8, FREE_OTHER);
}

static bool bitmap_remove(struct node *node, struct dirty_bitmap *bitmap, struct error *err)
{
    struct qcow2 *q = node->state;
    struct stored_bitmap *s = bitmap->stored;
    if (!s)
        return true;
    if (!q->writable || q->broken)
        return fail(err, EROFS, "node '%s' is read-only: bitmap '%s' cannot be removed from it", node->name, s->name);
    node_mark_written(node);
    co_mutex_lock(&q->lock);
    size_t index = 0;
    while (q->bitmaps.items[index] != s)
        index++;
    vec_remove(&q->bitmaps, index);
    bool was_moved = q->bitmaps_moved;
    q->bitmaps_moved = true;
    int result = s->is_new_table ? 0 : replace_directory(q);
    if (result) {
        vec_insert(&q->bitmaps, index, s);
        q->bitmaps_moved = was_moved;
    } else {
        forget_clusters(q, s);
        record_free(s);
        result = qcow2_sync_locked(q);
    }
    co_mutex_unlock(&q->lock);
    return !result || fail_errno(err, result, "cannot remove bitmap '%s'", bitmap->name);
}

static bool bitmap_store_all(struct node *node, struct error *err)
{
    return bitmaps_store(node->state, true, err);
}

/* Others lose such a change with a crash; with a log, the image knows at once. */
static bool bitmap_changed(struct node *node, struct error *err)
{
    struct qcow2 *q = node->state;
    int result = q->log.wanted || q->log.active ? dirty_log_checkpoint(q, true) : 0;
    return !result || fail_errno(err, result, "node '%s': cannot store its persistent bitmaps", node->name);
}

const struct bitmap_ops qcow2_bitmap_ops = {
    .can_store = bitmap_can_store,
    .remove = bitmap_remove,
    .store_all = bitmap_store_all,
    .changed = bitmap_changed,
};
