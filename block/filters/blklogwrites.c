/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blklogwrites: keeps a log of all writes to its file, so that the state of the disk at every moment can be made again:
 * tools that replay such logs then ask whether a file system, or an image, would have survived a loss of power there.
 *
 * The log has the format of the Linux device mapper's log-writes target. All numbers are little endian; a sector is one
 * of log-sector-size bytes:
 *
 *     sector 0    magic (8)  version = 1 (8)  number of entries (8)  sector size (4)
 *     sector 1..  entry: sector (8)  number of sectors (8)  flags (8)  length of inline data (8)     one sector
 *                 the data that was written                                                         so many sectors
 *
 * An entry is made when the file has what it tells of, so the order of entries is one in which the disk can have
 * changed; overlapping writes take turns. Writes of zeroes are writes. A discard has no data, a flush neither. The
 * number of entries is written at flushes, now and then, and at the end, always behind the entries that it counts.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/iov.h"
#include "block/filters/filters.h"
#include "block/filters/ranges.h"
#include "qmp/schema/types.h"

#define LOG_MAGIC UINT64_C(0x6a736677736872)
#define LOG_VERSION 1

enum { ENTRY_FLUSH = 1 << 0, ENTRY_FUA = 1 << 1, ENTRY_DISCARD = 1 << 2, ENTRY_MARK = 1 << 3 };
enum { SUPER_BYTES = 28, ENTRY_BYTES = 32 };

struct log {
    struct edge *edge;
    uint32_t sector_size;
    uint64_t end; /* where the next entry goes, in bytes */
    uint64_t entries;
    uint64_t told_entries, interval; /* how many sector 0 speaks of; how far that may lag behind */
    bool begun;                      /* sector 0 is ours */
    bool changed;                    /* something was logged since the last flush was */
    struct co_mutex lock;            /* entries follow one another */
    struct list changes;             /* ranges of the file in flight */
};

static struct log *log_of(const struct node *node)
{
    return node->state;
}

/* The log --------------------------------------------------------------------------------------------------------- */

static int write_super(struct log *log)
{
    auto_free uint8_t *sector = block_alloc_buffer(log->edge, log->sector_size);
    if (!sector)
        return -ENOMEM;
    memset(sector, 0, log->sector_size);
    store_le64(sector, LOG_MAGIC);
    store_le64(sector + 8, LOG_VERSION);
    store_le64(sector + 16, log->entries);
    store_le32(sector + 24, log->sector_size);
    uint64_t told = log->entries;
    int result = block_write_buffer(log->edge, 0, sector, log->sector_size, 0);
    if (!result) {
        log->told_entries = told;
        log->begun = true;
    }
    return result;
}

struct entry {
    uint64_t offset, length; /* of the file, bytes; a discard's or a write's */
    uint64_t flags;
    const void *data; /* NULL: zeroes, where the flags do not say that there are no data */
};

/* The caller holds the lock. Nothing counts before log->entries does. */
static int append_locked(struct log *log, const struct entry *entry)
{
    uint32_t size = log->sector_size;
    uint64_t data_size = entry->flags & (ENTRY_DISCARD | ENTRY_FLUSH) ? 0 : round_up(entry->length, size);
    auto_free uint8_t *head = block_alloc_buffer(log->edge, size);
    int result = head ? 0 : -ENOMEM;
    if (!result && !log->begun)
        result = write_super(log); /* what an older log says of itself is over */
    if (result)
        return result;
    memset(head, 0, size);
    store_le64(head, entry->offset / size);
    store_le64(head + 8, DIV_ROUND_UP(entry->length, size));
    store_le64(head + 16, entry->flags);
    struct iovec iov[] = {{head, size}, {(void *)entry->data, entry->data ? data_size : 0}};
    result = block_write(log->edge, log->end, size + iov[1].iov_len, buffers_of(iov, 2), 0);
    if (!result && data_size && !entry->data)
        result = block_zero(log->edge, log->end + size, data_size, REQUEST_MAY_UNMAP);
    if (result)
        return result;
    log->end += size + data_size;
    log->entries++;
    log->changed = entry->flags != ENTRY_FLUSH;
    return log->entries - log->told_entries >= log->interval ? write_super(log) : 0;
}

static int append(struct node *node, const struct entry *entry)
{
    struct log *log = log_of(node);
    co_mutex_lock(&log->lock);
    int result = append_locked(log, entry);
    co_mutex_unlock(&log->lock);
    return result;
}

/* All that is counted is there, also after the host has lost power. */
static int tell_durably(struct log *log)
{
    int result = block_flush(log->edge);
    if (!result)
        result = write_super(log);
    return result ? result : block_flush(log->edge);
}

/* Requests -------------------------------------------------------------------------------------------------------- */

/* What is passed on of a request whose last sector reaches past the end of a disk that does not grow. */
static uint64_t inside(const struct node *node, uint64_t offset, uint64_t length)
{
    uint32_t perm, shared;
    node_cumulative_perm(node, &perm, &shared);
    return node->growable && (perm & BLOCK_PERM_RESIZE) ? length : MIN(length, node->size - offset);
}

static int log_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    uint64_t there = offset < node->size ? MIN(length, node->size - offset) : 0;
    int result = there ? filter_read(node, offset, there, to, flags) : 0;
    if (result >= 0 && there < length && !(flags & REQUEST_PREFETCH))
        iov_set(to.iov, (int)to.count, to.skip + there, 0, length - there);
    return result;
}

static int log_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct log *log = log_of(node);
    /* A guest may change its memory at any time: what the file gets and what the log says must be the same. */
    auto_free uint8_t *data = block_alloc_buffer(log->edge, length);
    if (!data)
        return -ENOMEM;
    iov_to_buffer(from.iov, (int)from.count, from.skip, data, length);
    struct iovec iov = {data, inside(node, offset, length)};
    struct range range;
    ranges_wait(&log->changes, offset, length);
    range_begin(&log->changes, &range, offset, length);
    int result = block_write(node->file, offset, iov.iov_len, buffers_of(&iov, 1), flags);
    if (!result)
        result = append(node, &(struct entry){offset, length, flags & REQUEST_FUA ? ENTRY_FUA : 0, data});
    range_end(&range);
    return result;
}

static int log_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct log *log = log_of(node);
    struct range range;
    ranges_wait(&log->changes, offset, length);
    range_begin(&log->changes, &range, offset, length);
    int result = block_zero(node->file, offset, inside(node, offset, length), flags);
    if (!result)
        result = append(node, &(struct entry){offset, length, flags & REQUEST_FUA ? ENTRY_FUA : 0, NULL});
    range_end(&range);
    return result;
}

static int log_discard(struct node *node, uint64_t offset, uint64_t length)
{
    struct log *log = log_of(node);
    struct range range;
    ranges_wait(&log->changes, offset, length);
    range_begin(&log->changes, &range, offset, length);
    int result = block_discard(node->file, offset, length);
    if (!result)
        result = append(node, &(struct entry){offset, length, ENTRY_DISCARD, NULL});
    range_end(&range);
    return result;
}

static int log_flush(struct node *node)
{
    struct log *log = log_of(node);
    int result = block_flush(node->file);
    if (result || !log->changed)
        return result;
    co_mutex_lock(&log->lock);
    result = append_locked(log, &(struct entry){.flags = ENTRY_FLUSH});
    if (!result)
        result = tell_durably(log);
    co_mutex_unlock(&log->lock);
    return result;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool check_sector_size(uint32_t size, struct error *err)
{
    return (is_power_of_two(size) && size >= ENTRY_BYTES && size < 1u << 24) ||
           fail(err, EINVAL, "Invalid log sector size %" PRIu32 ": it must be a power of two, from %d to 8 MiB", size,
                ENTRY_BYTES);
}

/* To the end of the last entry. The log was written by whoever: every step stays inside of it. */
static bool find_end(struct log *log, struct error *err)
{
    const char *name = log->edge->child->name;
    uint64_t size = log->edge->child->size;
    for (uint64_t i = 0; i < log->entries; i++) {
        uint8_t head[ENTRY_BYTES];
        int result = span_fits(log->end, log->sector_size, size)
                         ? block_read_buffer(log->edge, log->end, head, sizeof head)
                         : -ERANGE;
        if (result == -ERANGE)
            return fail(err, EINVAL, "The log '%s' ends after %" PRIu64 " of %" PRIu64 " entries", name, i,
                        log->entries);
        if (result)
            return fail_errno(err, -result, "Could not read entry %" PRIu64 " of the log '%s'", i, name);
        uint64_t sectors = load_le64(head + 8), flags = load_le64(head + 16), bytes;
        if (flags & ENTRY_DISCARD)
            sectors = 0;
        if (mul_overflows(sectors, log->sector_size, &bytes) || bytes > INT64_MAX)
            return fail(err, EINVAL, "Entry %" PRIu64 " of the log '%s' says that it has %" PRIu64 " sectors", i, name,
                        sectors);
        uint64_t inline_size = flags & ENTRY_MARK ? round_up(load_le64(head + 24) & UINT32_MAX, log->sector_size) : 0;
        log->end += log->sector_size + bytes + inline_size;
    }
    return true;
}

static bool load_log(struct log *log, struct error *err)
{
    uint8_t super[SUPER_BYTES];
    const char *name = log->edge->child->name;
    if (!log->edge->child->size)
        return true; /* an empty one */
    if (log->edge->child->size < sizeof super)
        return fail(err, EINVAL, "'%s' is too short for a log", name);
    int result = block_read_buffer(log->edge, 0, super, sizeof super);
    if (result)
        return fail_errno(err, -result, "Could not read the first sector of the log '%s'", name);
    if (load_le64(super) != LOG_MAGIC)
        return fail(err, EINVAL, "Invalid log superblock magic: '%s' is no log of writes", name);
    if (load_le64(super + 8) != LOG_VERSION)
        return fail(err, ENOTSUP, "Unsupported log version %" PRIu64 " of '%s'", load_le64(super + 8), name);
    log->sector_size = load_le32(super + 24);
    log->entries = log->told_entries = load_le64(super + 16);
    if (!check_sector_size(log->sector_size, err))
        return false;
    log->begun = true;
    log->end = log->sector_size;
    return find_end(log, err);
}

static bool log_open(struct node *node, struct error *err)
{
    const struct blockdev_options_blklogwrites *options = &node->options->u.blklogwrites;
    struct log *log = log_of(node);
    if (options->log_append && options->has_log_sector_size)
        return fail(err, EINVAL, "log-append and log-sector-size are mutually exclusive: the log says its sector size");
    if (!check_sector_size(options->log_sector_size, err) || !filter_open_file(node, options->file, err))
        return false;
    co_mutex_init(&log->lock);
    list_init(&log->changes);
    log->interval = options->log_super_update_interval;
    log->sector_size = options->log_sector_size;
    log->edge =
        node_open_child(node, "log", options->log, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE,
                        BLOCK_PERM_CONSISTENT_READ, err);
    if (!log->edge || (options->log_append && !load_log(log, err)))
        return false;
    if (!log->begun)
        log->end = log->sector_size;
    node->growable = node->file->child->growable;
    node->limits.request_alignment = log->sector_size;
    return true;
}

static void log_close(struct node *node)
{
    struct log *log = log_of(node);
    if (log->entries != log->told_entries)
        (void)tell_durably(log);
}

const struct block_driver blklogwrites_driver = {
    .name = "blklogwrites",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct log),
    .open = log_open,
    .close = log_close,
    .read = log_read,
    .write = log_write,
    .zero = log_zero,
    .discard = log_discard,
    .flush = log_flush,
    .flushes_children = true,
    .check_perm = node_pass_check_perm,
    .set_perm = node_pass_set_perm,
    .resize = filter_resize,
};
