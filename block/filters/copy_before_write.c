/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy-before-write. Two bitmaps, a bit for each cluster:
 *
 *     todo     the target does not have the old content yet
 *     access   the old content may be read (all, or what `bitmap` marks; less what has been discarded)
 *
 * A write waits until none of its clusters is to do, copying what is, and until nobody reads their old content from the
 * disk; from that check to the moment the write goes down nothing yields. A bit of `todo` is never set again, so what
 * was copied once stays so. Copies in flight are kept in `copies`, reads of the disk's old content in `reads`.
 *
 * What is behind the end of the target when the last cluster is cut is neither read nor written.
 */
#include "block/filters/copy_before_write.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "block/border.h"
#include "block/dirty_bitmap.h"
#include "block/filters/filters.h"
#include "block/filters/ranges.h"
#include "block/query.h"
#include "qmp/schema/types.h"

#define LEAST_CLUSTER (64 * KiB)

struct cbw {
    struct edge *target;
    struct dirty_bitmap *todo, *access;
    uint64_t cluster_size;
    struct list copies, reads; /* of struct range */
    uint32_t copy_flags;
    bool discard_source;
    bool breaks_snapshot;
    uint64_t timeout_ns;
    int broken;
    struct co_group late; /* copies whose write has given up waiting */
    void (*progress)(void *user, uint64_t bytes);
    void *user;
};

static struct cbw *cbw_of(const struct node *node)
{
    return node->state;
}

bool node_is_copy_before_write(const struct node *node)
{
    return node->driver == &copy_before_write_driver;
}

struct dirty_bitmap *cbw_todo(struct node *node)
{
    return cbw_of(node)->todo;
}

uint64_t cbw_cluster_size(struct node *node)
{
    return cbw_of(node)->cluster_size;
}

int cbw_broken(struct node *node)
{
    return cbw_of(node)->broken;
}

void cbw_set_copying(struct node *node, uint32_t flags, bool discard)
{
    cbw_of(node)->copy_flags = flags;
    cbw_of(node)->discard_source = discard;
}

void cbw_set_progress(struct node *node, void (*progress)(void *user, uint64_t bytes), void *user)
{
    cbw_of(node)->progress = progress;
    cbw_of(node)->user = user;
}

/* Copying --------------------------------------------------------------------------------------------------------- */

static void not_to_do(struct cbw *cbw, uint64_t offset, uint64_t length)
{
    uint64_t before = dirty_bitmap_count(cbw->todo);
    dirty_bitmap_reset(cbw->todo, offset, length);
    if (cbw->progress)
        cbw->progress(cbw->user, before - dirty_bitmap_count(cbw->todo));
}

/* A run of clusters that are to do and that nobody is busy with. */
static int copy_run(struct node *node, uint64_t offset, uint64_t length, bool *read_failed)
{
    struct cbw *cbw = cbw_of(node);
    struct range range;
    range_begin(&cbw->copies, &range, offset, length);
    int result = block_copy_sides(node->file, offset, cbw->target, offset, length, cbw->copy_flags, read_failed);
    if (!result)
        not_to_do(cbw, offset, length);
    if (!result && cbw->discard_source)
        block_discard(node->file, offset, length);
    range_end(&range);
    return result;
}

static void align_out(const struct node *node, uint64_t *offset, uint64_t *length)
{
    uint64_t cluster = cbw_of(node)->cluster_size;
    uint64_t end = MIN(round_up(*offset + *length, cluster), node->size);
    *offset = round_down(*offset, cluster);
    *length = end - *offset;
}

/* All clusters of the span. When others copy some of them, what they achieve is looked at again. */
static int copy_span(struct node *node, uint64_t offset, uint64_t length, bool *read_failed)
{
    struct cbw *cbw = cbw_of(node);
    uint64_t start, run, end = offset + length;
    *read_failed = false;
    while (offset < end && dirty_bitmap_next_dirty(cbw->todo, offset, end - offset, &start, &run) && start < end) {
        run = MIN(run, end - start);
        if (cbw->broken)
            return cbw->broken;
        if (ranges_wait(&cbw->copies, start, run))
            continue;
        int result = copy_run(node, start, run, read_failed);
        if (result)
            return result;
        offset = start + run;
    }
    return 0;
}

int cbw_copy(struct edge *edge, uint64_t offset, uint64_t length, bool *read_failed)
{
    struct node *node = request_enter(edge);
    align_out(node, &offset, &length);
    int result = copy_span(node, offset, length, read_failed);
    request_leave(node);
    return result;
}

int cbw_skip_unallocated(struct edge *edge, uint64_t offset, uint64_t length, uint64_t *done, uint64_t *skipped)
{
    struct node *node = request_enter(edge);
    struct cbw *cbw = cbw_of(node);
    struct block_status status;
    int result = block_status(node->file, offset, length, BLOCK_STATUS_TOP_ONLY, &status);
    uint64_t before = dirty_bitmap_count(cbw->todo);
    if (!result && !status.allocated)
        dirty_bitmap_reset(cbw->todo, offset, status.length); /* whole clusters only */
    *skipped = before - dirty_bitmap_count(cbw->todo);
    *done = result ? length : status.length;
    request_leave(node);
    return result;
}

/* Writing --------------------------------------------------------------------------------------------------------- */

struct late_copy {
    struct node *node;
    uint64_t offset, length;
    int result;
    bool ended, abandoned;
    struct co_queue waiter;
};

static void run_late_copy(void *arg)
{
    struct late_copy *copy = arg;
    bool read_failed;
    copy->result = copy_span(copy->node, copy->offset, copy->length, &read_failed);
    copy->ended = true;
    request_leave(copy->node);
    if (copy->abandoned)
        free(copy);
    else
        co_queue_wake_all(&copy->waiter);
}

/* As copy_span(), but gives up when it takes too long. The copy itself goes on. */
static int copy_in_time(struct node *node, uint64_t offset, uint64_t length)
{
    struct cbw *cbw = cbw_of(node);
    bool read_failed;
    uint64_t start, run;
    if (!cbw->timeout_ns || !dirty_bitmap_next_dirty(cbw->todo, offset, length, &start, &run) ||
        start >= offset + length)
        return copy_span(node, offset, length, &read_failed);
    struct late_copy *copy = new (struct late_copy);
    *copy = (struct late_copy){.node = node, .offset = offset, .length = length};
    co_queue_init(&copy->waiter);
    node->in_flight++; /* the copy's own, it may outlive the write */
    co_spawn(node->loop, &cbw->late, run_late_copy, copy);
    uint64_t deadline = loop_now_ns(node->loop) + cbw->timeout_ns;
    while (!copy->ended && loop_now_ns(node->loop) < deadline)
        co_queue_wait_ns(&copy->waiter, deadline - loop_now_ns(node->loop));
    int result = copy->ended ? copy->result : -ETIMEDOUT;
    if (copy->ended)
        free(copy);
    else
        copy->abandoned = true;
    return result;
}

/* When it returns 0, the caller must change the disk before it yields. */
static int before_write(struct node *node, uint64_t offset, uint64_t length)
{
    struct cbw *cbw = cbw_of(node);
    if (offset >= node->size)
        return 0;
    length = MIN(length, node->size - offset);
    align_out(node, &offset, &length);
    while (!cbw->broken) {
        int result = copy_in_time(node, offset, length);
        if (result && cbw->breaks_snapshot) {
            if (!cbw->broken)
                cbw->broken = result;
            break;
        }
        if (result)
            return result;
        if (!ranges_wait(&cbw->reads, offset, length))
            break; /* else: time has passed, but nothing becomes "to do" again */
    }
    return 0;
}

static int cbw_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    int result = before_write(node, offset, length);
    return result ? result : filter_write(node, offset, length, from, flags);
}

static int cbw_write_compressed(struct node *node, uint64_t offset, uint64_t length, struct buffers from)
{
    int result = before_write(node, offset, length);
    return result ? result : filter_write_compressed(node, offset, length, from);
}

static int cbw_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    int result = before_write(node, offset, length);
    return result ? result : filter_zero(node, offset, length, flags);
}

static int cbw_discard(struct node *node, uint64_t offset, uint64_t length)
{
    int result = before_write(node, offset, length);
    return result ? result : filter_discard(node, offset, length);
}

/* The target is flushed by who needs it, not by the guest. */
static int cbw_flush(struct node *node)
{
    return 0;
}

/* The old state --------------------------------------------------------------------------------------------------- */

/* The part of a span, from its beginning, that lies in one place; and whether that is the target. */
static int snapshot_part(struct node *node, uint64_t offset, uint64_t *length, bool *in_target)
{
    struct cbw *cbw = cbw_of(node);
    bool accessible, to_do;
    if (cbw->broken)
        return -EACCES;
    uint64_t run = dirty_bitmap_run(cbw->access, offset, *length, &accessible);
    if (!accessible)
        return -EACCES;
    *length = dirty_bitmap_run(cbw->todo, offset, run, &to_do);
    *in_target = !to_do;
    return 0;
}

int cbw_snapshot_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to)
{
    struct cbw *cbw = cbw_of(node);
    while (length) {
        uint64_t part = length;
        bool in_target;
        int result = snapshot_part(node, offset, &part, &in_target);
        if (result)
            return result;
        if (in_target) {
            result = block_read(cbw->target, offset, part, to, 0);
        } else {
            struct range range;
            range_begin(&cbw->reads, &range, offset, part);
            result = block_read(node->file, offset, part, to, 0);
            range_end(&range);
        }
        if (result < 0)
            return result;
        offset += part;
        length -= part;
        to.skip += part;
    }
    return 0;
}

int cbw_snapshot_extent(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    bool in_target;
    int result = snapshot_part(node, offset, &length, &in_target);
    if (result)
        return result;
    *extent = (struct extent){.kind = EXTENT_DATA,
                              .length = length,
                              .child = in_target ? cbw_of(node)->target : node->file,
                              .child_offset = offset,
                              .allocated = true,
                              .follow = true};
    return 0;
}

int cbw_snapshot_discard(struct node *node, uint64_t offset, uint64_t length)
{
    struct cbw *cbw = cbw_of(node);
    uint64_t end = offset + length == node->size ? node->size : round_down(offset + length, cbw->cluster_size);
    offset = round_up(offset, cbw->cluster_size);
    if (offset >= end)
        return 0;
    ranges_wait(&cbw->copies, offset, end - offset);
    dirty_bitmap_reset(cbw->access, offset, end - offset);
    not_to_do(cbw, offset, end - offset);
    return block_discard(cbw->target, offset, end - offset);
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool choose_cluster_size(struct node *node, uint64_t least, struct error *err)
{
    struct cbw *cbw = cbw_of(node);
    if (least && !is_power_of_two(least))
        return fail(err, EINVAL, "min-cluster-size needs to be a power of 2, found %" PRIu64, least);
    if (least > 1 * GiB)
        return fail(err, EINVAL, "min-cluster-size must not exceed 1 GiB, found %" PRIu64, least);
    uint64_t target = node_cluster_size(cbw->target->child);
    cbw->cluster_size = MAX(MAX(LEAST_CLUSTER, least), target);
    return true;
}

static bool make_bitmaps(struct node *node, const struct block_dirty_bitmap *name, struct error *err)
{
    struct cbw *cbw = cbw_of(node);
    cbw->todo = dirty_bitmap_new(node, NULL, (uint32_t)cbw->cluster_size, err);
    cbw->access = cbw->todo ? dirty_bitmap_new(node, NULL, (uint32_t)cbw->cluster_size, err) : NULL;
    if (!cbw->access)
        return false;
    cbw->todo->recording = cbw->access->recording = false;
    if (!name) {
        dirty_bitmap_set(cbw->todo, 0, node->size);
        dirty_bitmap_set(cbw->access, 0, node->size);
        return true;
    }
    struct node *holder = graph_find(node->graph, name->node);
    if (!holder)
        return fail(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", name->node, name->node);
    struct dirty_bitmap *bitmap = dirty_bitmap_find(holder, name->name);
    if (!bitmap)
        return fail(err, ENOENT, "Dirty bitmap '%s' not found", name->name);
    return dirty_bitmap_check(bitmap, DIRTY_BITMAP_CONSISTENT, err) && dirty_bitmap_merge(cbw->todo, bitmap, err) &&
           dirty_bitmap_merge(cbw->access, bitmap, err);
}

/* The copy may be an overlay of the disk: it keeps its own view of it, for that is what the filter is for. */
static void guard_chain(struct node *node, const struct node *disk)
{
    while (node && node != disk && node_is_below(node, disk)) {
        if (node->backing)
            node->backing->guarded = true;
        node = node->backing ? node->backing->child : node->file ? node->file->child : NULL;
    }
}

static bool cbw_open(struct node *node, struct error *err)
{
    const struct blockdev_options_cbw *options = &node->options->u.copy_before_write;
    struct cbw *cbw = cbw_of(node);
    list_init(&cbw->copies);
    list_init(&cbw->reads);
    co_group_init(&cbw->late);
    cbw->timeout_ns = (uint64_t)options->cbw_timeout * 1000000000u;
    cbw->breaks_snapshot = options->on_cbw_error == ON_CBW_ERROR_BREAK_SNAPSHOT;
    if (!filter_open_file(node, options->file, err))
        return false;
    struct node *target = options->target->kind == BLOCKDEV_REF_KIND_REFERENCE
                              ? graph_find(node->graph, options->target->u.reference)
                              : NULL;
    if (target)
        guard_chain(target, node->file->child);
    cbw->target = node_open_child(node, "target", options->target, BLOCK_PERM_WRITE,
                                  BLOCK_PERM_ALL & ~(uint32_t)(BLOCK_PERM_RESIZE | BLOCK_PERM_WRITE), err);
    if (!cbw->target)
        return false;
    if (cbw->target->child->size < node->size)
        return fail(err, EINVAL, "The target '%s' has %" PRIu64 " bytes, which is less than the %" PRIu64 " of '%s'",
                    cbw->target->child->name, cbw->target->child->size, node->size, node->file->child->name);
    return choose_cluster_size(node, options->min_cluster_size, err) && make_bitmaps(node, options->bitmap, err);
}

static void cbw_close(struct node *node)
{
    co_group_wait(&cbw_of(node)->late);
}

/* Who writes must come through here; and for copying, the disk must be consistent. */
static void needs_of_disk(const struct node *node, uint32_t *perm, uint32_t *shared)
{
    if (!list_empty(&node->parents)) {
        *perm |= BLOCK_PERM_CONSISTENT_READ;
        *shared &= ~(uint32_t)(BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
        if (cbw_of(node)->discard_source)
            *perm |= BLOCK_PERM_WRITE;
    }
    *perm &= ~(uint32_t)BLOCK_PERM_RESIZE; /* the bitmaps have the size that the disk has now */
}

static bool cbw_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    needs_of_disk(node, &perm, &shared);
    return edge_check_perm(node->file, perm, shared, err);
}

static void cbw_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    if (!node->file)
        return;
    needs_of_disk(node, &perm, &shared);
    edge_apply_perm(node->file, perm, shared);
    node->read_only = node->options_read_only || node->file->child->read_only;
}

const struct block_driver copy_before_write_driver = {
    .name = "copy-before-write",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct cbw),
    .open = cbw_open,
    .close = cbw_close,
    .read = filter_read,
    .write = cbw_write,
    .write_compressed = cbw_write_compressed,
    .zero = cbw_zero,
    .discard = cbw_discard,
    .flush = cbw_flush,
    .check_perm = cbw_check_perm,
    .set_perm = cbw_set_perm,
};
