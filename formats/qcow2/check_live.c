/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking, and repairing, an image while guests write to it.
 *
 * A check compares two things that it cannot look at in one moment: the references in tables, and the counts. While the
 * image is in use both move. What makes the comparison right all the same is a set of *touched* clusters: from the
 * moment the check begins, each cluster whose count changes, or a reference to which is given up, is entered there
 * (refcount.c, reftable.c, sync.c). Of the others it is known that
 *
 *   - the stored count is what it was at the beginning, and
 *   - so are the references: nobody gains one without raising the count first, and nobody loses one without queueing
 *     the cluster to be freed; both touch it.
 *
 * So whenever in between a table was read, what it says of untouched clusters is what it said at the beginning, and
 * the comparison is one of that moment. Touched clusters are left alone: they are neither reported nor repaired. Their
 * counts were changed by rules that hold; the next check looks at them.
 *
 * The beginning is a moment of rest: the caller has drained the node, and everything is synced, so that no cluster is
 * counted that is about to be named, and none is named that is about to be freed. Guests wait for that, not for the
 * walk. The walk holds the lock for one table at a time. Repairs are made under the lock under which the cluster was
 * found untouched. Everything the walk relies on was made durable at the beginning (a program that was killed may have
 * dropped references without a flush), and what was dropped since is touched: so a leaked cluster may be given to
 * somebody else at once. A count that is too low may be raised at any time. COPIED flags are put right in the cached
 * tables, after the counts, and leave by the next sync.
 *
 * What changes tables as a whole (internal snapshots, other refcount widths) begins the check anew: -EAGAIN. Refcount
 * structures that must be built anew want the image for themselves: -EUCLEAN, and the caller does that with the node at
 * rest.
 */
#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/vec.h"
#include "formats/qcow2/bitmap_store.h"
#include "formats/qcow2/claim.h"
#include "formats/qcow2/counts.h"
#include "formats/qcow2/entry.h"
#include "formats/qcow2/live.h"
#include "qmp/schema/types.h"

enum { CHUNK_BITS = 16, EMPTY_ENTRIES = 4096 /* that one step passes over */ };

enum stage { STAGE_ACTIVE, STAGE_SNAPSHOTS, STAGE_COUNTS, STAGE_FLAGS, STAGE_END };

struct live_check {
    struct check check;
    enum stage stage;
    uint64_t at; /* L1 entry, or refcount block */
    size_t snapshot;
    struct disk_table snapshot_l1; /* of `snapshot`; count 0: not loaded */
    bool restart, out_of_memory;
    uint8_t *buffer;         /* a cluster */
    vec(uint64_t *) touched; /* bitmaps of 1 << CHUNK_BITS clusters; NULL: none of them */
};

/* Touched clusters ------------------------------------------------------------------------------------------------- */

bool live_touched(const struct live_check *live, uint64_t index)
{
    uint64_t chunk = index >> CHUNK_BITS;
    if (chunk >= live->touched.count || !live->touched.items[chunk])
        return false;
    uint64_t bit = index & ((1u << CHUNK_BITS) - 1);
    return live->touched.items[chunk][bit / 64] >> (bit % 64) & 1;
}

void live_touch_slowly(struct live_check *live, uint64_t first, uint64_t count)
{
    for (uint64_t index = first; index < first + count && !live->out_of_memory; index++) {
        uint64_t chunk = index >> CHUNK_BITS, bit = index & ((1u << CHUNK_BITS) - 1);
        while (chunk >= live->touched.count)
            vec_push(&live->touched, NULL);
        if (!live->touched.items[chunk])
            live->touched.items[chunk] = try_calloc(1u << (CHUNK_BITS - 6), 8);
        live->out_of_memory |= !live->touched.items[chunk];
        if (!live->out_of_memory)
            live->touched.items[chunk][bit / 64] |= 1ull << (bit % 64);
    }
}

void live_restart(struct qcow2 *q)
{
    if (q->live)
        q->live->restart = true;
}

/* Clusters that are counted already though no table on disk names them: places of writes under way (none at rest), and
 * of bitmaps that could not be stored. */
static void touch_unnamed(struct qcow2 *q)
{
    const struct claim *claim;
    list_for_each (claim, &q->claims, link) {
        if (claim->kind == CLAIM_NEW_CLUSTERS)
            live_touch(q, claim->host, (claim->end - claim->begin) << q->cluster_bits);
        else if (claim->kind == CLAIM_COMPRESSED)
            live_touch(q, claim->host, claim->bytes);
    }
    const struct pending_free *pending;
    vec_for_each (pending, &q->frees)
        live_touch(q, pending->offset, pending->length);
    struct stored_bitmap **bitmap;
    vec_for_each (bitmap, &q->bitmaps) {
        const struct disk_table *table = &(*bitmap)->table;
        live_touch(q, table->offset, table->offset ? (uint64_t)table->count * 8 : 0);
        for (uint32_t i = 0; i < table->count; i++)
            live_touch(q, table->entries[i] & ENTRY_OFFSET, table->entries[i] & ENTRY_OFFSET ? 1 : 0);
    }
}

/* Life ------------------------------------------------------------------------------------------------------------- */

static void release(struct live_check *live)
{
    for (size_t i = 0; i < live->touched.count; i++)
        free(live->touched.items[i]);
    vec_free(&live->touched);
    counts_release(&live->check.counts);
    disk_table_release(&live->snapshot_l1);
    free(live->buffer);
    free(live);
}

/* Under the lock, at rest. */
static int begin(struct qcow2 *q, struct live_check *live)
{
    int result = q->writable ? qcow2_sync_locked(q) : 0;
    if (!result && live->check.repair)
        result = qcow2_barrier(q);
    if (result)
        return result;
    q->live = live;
    touch_unnamed(q);
    return check_count_fixed(&live->check);
}

static struct live_check *live_begin(struct node *node, uint32_t repair, struct image_check *found, struct error *err)
{
    struct qcow2 *q = node->state;
    if (q->live)
        return fail_null(err, EBUSY, "node '%s': it is being checked already", node->name);
    if (repair && !q->writable)
        return fail_null(err, EROFS, "node '%s': the image is open read-only: it cannot be repaired", node->name);
    check_begin_result(q, found);
    struct live_check *live = new (struct live_check);
    live->check = (struct check){.q = q, .live = live, .result = found, .repair = repair};
    live->buffer = block_alloc_buffer(q->file, q->cluster_size);
    co_mutex_lock(&q->lock);
    int result = live->buffer ? q->broken ? -EUCLEAN : begin(q, live) : -ENOMEM;
    if (result)
        q->live = NULL;
    co_mutex_unlock(&q->lock);
    if (!result)
        return live;
    release(live);
    fail_errno(err, result, "node '%s': the check could not begin", node->name);
    return NULL;
}

static void live_end(struct node *node, struct live_check *live)
{
    struct qcow2 *q = node->state;
    if (!node->inactive)
        q->live = NULL;
    release(live);
}

/* Stages, a step at a time, under the lock --------------------------------------------------------------------------
 */

static void next_stage(struct live_check *live)
{
    live->stage++;
    live->at = 0;
}

static int step_active(struct live_check *live)
{
    const struct disk_table *l1 = &live->check.q->l1;
    for (int passed = 0; live->at < l1->count; live->at++) {
        if (l1->entries[live->at]) {
            uint32_t index = (uint32_t)live->at++;
            return check_count_table(&live->check, l1->entries[index], index, -1, live->buffer);
        }
        if (passed++ == EMPTY_ENTRIES)
            return 0;
    }
    next_stage(live);
    return 0;
}

/* An L1 table that cannot be read is an error of the check, as in an image at rest. */
static void load_snapshot(struct live_check *live)
{
    struct qcow2 *q = live->check.q;
    const struct snapshot *snapshot = &q->snapshots.items[live->snapshot];
    auto_error err = {0};
    if (!snapshot->l1_size ||
        disk_table_load(&live->snapshot_l1, q->file, snapshot->l1_offset, snapshot->l1_size, "L1 table", &err))
        return;
    live->snapshot_l1 = (struct disk_table){0};
    check_report(&live->check, "snapshot '%s': %s", snapshot->name, err.message);
    live->check.result->check_errors++;
}

static int step_snapshots(struct live_check *live)
{
    struct qcow2 *q = live->check.q;
    if (live->snapshot >= q->snapshots.count) {
        next_stage(live);
        return 0;
    }
    if (!live->at && !live->snapshot_l1.entries)
        load_snapshot(live);
    struct disk_table *l1 = &live->snapshot_l1;
    while (live->at < l1->count) {
        uint32_t index = (uint32_t)live->at++;
        if (l1->entries[index])
            return check_count_table(&live->check, l1->entries[index], index, (int64_t)live->snapshot, live->buffer);
    }
    disk_table_release(l1);
    *l1 = (struct disk_table){0};
    live->snapshot++;
    live->at = 0;
    return 0;
}

static int step_counts(struct live_check *live)
{
    struct check *check = &live->check;
    struct qcow2 *q = check->q;
    if (check->result->check_errors)
        check->repair = 0; /* what could not be read was not counted: a repair would free it */
    uint64_t blocks = MAX((uint64_t)q->reftable.count, DIV_ROUND_UP(check->counts.end, 1ull << q->refblock_bits));
    for (int passed = 0; live->at < blocks; passed++) {
        uint64_t i = live->at++;
        bool empty = i >= q->reftable.count || !q->reftable.entries[i];
        if (!empty || counts_next(&check->counts, i << q->refblock_bits) < (i + 1) << q->refblock_bits)
            return check_compare_block(check, i);
        if (passed == EMPTY_ENTRIES)
            return 0;
    }
    q->free_hint = 0;
    next_stage(live);
    return check->must_rebuild && check->repair & CHECK_REPAIR_ERRORS ? -EUCLEAN : 0;
}

static int step_flags(struct live_check *live)
{
    struct qcow2 *q = live->check.q;
    for (int passed = 0; live->at < q->l1.count; passed++) {
        uint32_t index = (uint32_t)live->at++;
        if (q->l1.entries[index]) {
            int result = check_flags(&live->check, index);
            return result ? result : qcow2_relieve(q);
        }
        if (passed == EMPTY_ENTRIES)
            return 0;
    }
    next_stage(live);
    return 0;
}

static int finish(struct live_check *live)
{
    struct qcow2 *q = live->check.q;
    if (!live->check.repair)
        return 0;
    int result = qcow2_sync_locked(q);
    if (!result)
        result = refcounts_write(q);
    return result ? result : qcow2_barrier(q);
}

static int step_locked(struct live_check *live)
{
    struct qcow2 *q = live->check.q;
    if (live->restart)
        return -EAGAIN;
    if (live->out_of_memory)
        return -ENOMEM;
    if (q->broken)
        return -EUCLEAN; /* something was found by others */
    if (live->check.repair && !q->writable)
        return -EROFS;
    switch (live->stage) {
    case STAGE_ACTIVE: return step_active(live);
    case STAGE_SNAPSHOTS: return step_snapshots(live);
    case STAGE_COUNTS: return step_counts(live);
    case STAGE_FLAGS: return step_flags(live);
    case STAGE_END: return finish(live);
    }
    return 0;
}

static int live_step(struct node *node, struct live_check *live)
{
    if (node->inactive)
        return -ENODEV;
    struct qcow2 *q = node->state;
    co_mutex_lock(&q->lock);
    bool was_last = live->stage == STAGE_END;
    int result = step_locked(live);
    co_mutex_unlock(&q->lock);
    if (result)
        return result;
    return !was_last;
}

/* In the unit of a cluster: a step reads about one. */
static void live_progress(const struct node *node, const struct live_check *live, uint64_t *done, uint64_t *total)
{
    const struct qcow2 *q = node->state;
    uint64_t sizes[STAGE_END] = {
        [STAGE_ACTIVE] = q->l1.count, [STAGE_COUNTS] = q->reftable.count, [STAGE_FLAGS] = q->l1.count};
    uint64_t parts = 0;
    for (size_t i = 0; i < q->snapshots.count; i++) {
        parts += i == live->snapshot ? live->at : 0;
        sizes[STAGE_SNAPSHOTS] += q->snapshots.items[i].l1_size;
        if (live->stage == STAGE_SNAPSHOTS && i < live->snapshot)
            parts += q->snapshots.items[i].l1_size;
    }
    *done = *total = 0;
    for (int stage = 0; stage < STAGE_END; stage++) {
        *total += sizes[stage];
        if (stage < (int)live->stage)
            *done += sizes[stage];
        else if (stage == (int)live->stage)
            *done += MIN(stage == STAGE_SNAPSHOTS ? parts : live->at, sizes[stage]);
    }
    *done <<= q->cluster_bits;
    *total <<= q->cluster_bits;
}

const struct live_check_ops qcow2_live_check_ops = {
    .begin = live_begin,
    .step = live_step,
    .progress = live_progress,
    .end = live_end,
};
