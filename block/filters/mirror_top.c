/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mirror_top. The source's dirty bitmap says what the target lacks: the request path sets bits when a write begins and
 * when it ends; a copy resets them before it reads. So whatever is written while a copy is in flight is dirty after it.
 *
 * Write-blocking: a guest's write holds its granules (as copies do), goes to the source, then to the target; granules
 * that were clean before are clean after it. When the target fails, they stay dirty, the guest does not notice, and the
 * job is told.
 */
#include "block/filters/mirror_top.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/border.h"
#include "block/dirty_bitmap.h"
#include "block/filters/filters.h"
#include "block/filters/ranges.h"
#include "qmp/schema/types.h"

struct mirror_top {
    struct edge *target;
    struct dirty_bitmap *dirty;
    struct list ranges; /* copies, and writes to both */
    bool write_blocking, retired, is_commit;
    int error;
    void (*kick)(void *user);
    void *user;
};

static struct mirror_top *top_of(const struct node *node)
{
    return node->state;
}

struct dirty_bitmap *mirror_top_dirty(struct node *node)
{
    return top_of(node)->dirty;
}

void mirror_top_set_write_blocking(struct node *node)
{
    top_of(node)->write_blocking = true;
}

bool mirror_top_is_write_blocking(const struct node *node)
{
    return top_of(node)->write_blocking;
}

void mirror_top_retire(struct node *node)
{
    top_of(node)->retired = true;
    if (top_of(node)->target)
        edge_apply_perm(top_of(node)->target, 0, BLOCK_PERM_ALL);
}

int mirror_top_flush_target(struct node *node)
{
    return block_flush(top_of(node)->target);
}

bool mirror_top_is_busy(const struct node *node)
{
    return !list_empty(&top_of(node)->ranges);
}

int mirror_top_take_error(struct node *node)
{
    int error = top_of(node)->error;
    top_of(node)->error = 0;
    return error;
}

void mirror_top_set_kick(struct node *node, void (*kick)(void *user), void *user)
{
    top_of(node)->kick = kick;
    top_of(node)->user = user;
}

/* Copies ---------------------------------------------------------------------------------------------------------- */

static void align_out(const struct node *node, uint64_t *offset, uint64_t *length)
{
    uint64_t granularity = top_of(node)->dirty->granularity;
    uint64_t end = MIN(round_up(*offset + *length, granularity), node->size);
    *offset = round_down(*offset, granularity);
    *length = end - *offset;
}

int mirror_top_copy(struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags, bool *read_failed)
{
    struct node *node = request_enter(edge);
    struct mirror_top *top = top_of(node);
    struct range range;
    align_out(node, &offset, &length);
    ranges_wait(&top->ranges, offset, length);
    range_begin(&top->ranges, &range, offset, length);
    dirty_bitmap_reset(top->dirty, offset, length);
    *read_failed = false;
    int result = block_copy_sides(node->file, offset, top->target, offset, length, flags, read_failed);
    if (result)
        dirty_bitmap_set(top->dirty, offset, length);
    range_end(&range);
    request_leave(node);
    return result;
}

/* Writes to both -------------------------------------------------------------------------------------------------- */

enum change { CHANGE_WRITE, CHANGE_ZERO, CHANGE_DISCARD };

struct write {
    enum change change;
    uint64_t offset, length;
    struct buffers from;
    uint32_t flags;
};

static int write_to(struct edge *edge, const struct write *write)
{
    switch (write->change) {
    case CHANGE_WRITE: return block_write(edge, write->offset, write->length, write->from, write->flags);
    case CHANGE_ZERO: return block_zero(edge, write->offset, write->length, write->flags);
    case CHANGE_DISCARD: return block_discard(edge, write->offset, write->length);
    }
    return -EINVAL;
}

static void target_failed(struct mirror_top *top, int result)
{
    if (!top->error)
        top->error = result;
    if (top->kick)
        top->kick(top->user);
}

static int write_both(struct node *node, const struct write *write)
{
    struct mirror_top *top = top_of(node);
    struct range range;
    uint64_t offset = write->offset, length = write->length;
    align_out(node, &offset, &length);
    ranges_wait(&top->ranges, offset, length);
    range_begin(&top->ranges, &range, offset, length);
    /* Whole granules become clean; of those at the ends the rest may be dirty already. */
    uint64_t granularity = top->dirty->granularity, end = offset + length;
    bool head_dirty = dirty_bitmap_get(top->dirty, offset), tail_dirty = dirty_bitmap_get(top->dirty, end - 1);
    bool head_partial = write->offset != offset, tail_partial = write->offset + write->length != end;
    int result = write_to(node->file, write);
    int copied = result ? 0 : write_to(top->target, write);
    if (!result && !copied) {
        uint64_t start = head_partial && head_dirty ? offset + granularity : offset;
        uint64_t stop = tail_partial && tail_dirty ? round_down(end - 1, granularity) : end;
        if (start < stop)
            dirty_bitmap_reset(top->dirty, start, stop - start);
    }
    if (copied)
        target_failed(top, copied);
    range_end(&range);
    return result;
}

static bool is_plain(const struct node *node)
{
    const struct mirror_top *top = top_of(node);
    return !top->write_blocking || top->retired;
}

static int top_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    if (is_plain(node))
        return filter_write(node, offset, length, from, flags);
    return write_both(node, &(struct write){CHANGE_WRITE, offset, length, from, flags});
}

static int top_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    if (is_plain(node))
        return filter_zero(node, offset, length, flags);
    return write_both(node, &(struct write){.change = CHANGE_ZERO, .offset = offset, .length = length, .flags = flags});
}

/* What a discard leaves behind is not the same in two places, unless it reads as zeroes: that is left to the copy. */
static int top_discard(struct node *node, uint64_t offset, uint64_t length)
{
    return filter_discard(node, offset, length);
}

/* The target is flushed when the job ends; in write-blocking mode it takes part in the guest's flushes. */
static int top_flush(struct node *node)
{
    struct mirror_top *top = top_of(node);
    if (is_plain(node))
        return 0;
    int result = block_flush(top->target);
    if (result)
        target_failed(top, result);
    return 0;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool top_open(struct node *node, struct error *err)
{
    list_init(&top_of(node)->ranges);
    return filter_open_file(node, node->options->u.raw.file, err);
}

static void top_close(struct node *node)
{
    dirty_bitmap_free(top_of(node)->dirty);
}

struct node *mirror_top_open(const struct mirror_top_setup *setup, struct error *err)
{
    struct node *node = node_open_filter(&mirror_top_driver, setup->name, setup->source, err);
    if (!node)
        return NULL;
    struct mirror_top *top = top_of(node);
    top->is_commit = setup->is_commit;
    top->dirty = dirty_bitmap_new(setup->source, NULL, setup->granularity, err);
    if (!top->dirty) {
        node_unref(node);
        return NULL;
    }
    return node;
}

bool mirror_top_set_target(struct node *node, struct node *target, uint32_t shared, struct error *err)
{
    top_of(node)->target = edge_attach(node, "target", target, BLOCK_PERM_WRITE, shared, err);
    return top_of(node)->target != NULL;
}

/* A mirror needs the source to be consistent, and sees writes that do not come through it: the bitmap is the source's.
 * In write-blocking mode they come a little later. */
static void needs_of_source(const struct node *node, uint32_t *perm, uint32_t *shared)
{
    if (top_of(node)->is_commit)
        *perm &= ~(uint32_t)BLOCK_PERM_CONSISTENT_READ;
    *perm &= ~(uint32_t)BLOCK_PERM_RESIZE;
    if (!list_empty(&node->parents))
        *shared &= ~(uint32_t)BLOCK_PERM_RESIZE;
}

static bool top_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    needs_of_source(node, &perm, &shared);
    return edge_check_perm(node->file, perm, shared, err);
}

static void top_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    if (!node->file)
        return;
    needs_of_source(node, &perm, &shared);
    edge_apply_perm(node->file, perm, shared);
    node->read_only = node->options_read_only || node->file->child->read_only;
}

const struct block_driver mirror_top_driver = {
    .name = "mirror_top",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct mirror_top),
    .open = top_open,
    .close = top_close,
    .read = filter_read,
    .write = top_write,
    .write_compressed = filter_write_compressed,
    .zero = top_zero,
    .discard = top_discard,
    .flush = top_flush,
    .check_perm = top_check_perm,
    .set_perm = top_set_perm,
};
