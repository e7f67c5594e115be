/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internal snapshots: a snapshot is a copy of the active L1 table, and one more reference to everything that it leads
 * to. What both share is copied when the guest writes to it (write.c, l2.c).
 *
 *   create   COPIED flags off -> counts up, copy of L1 -> table of snapshots that names the copy
 *   apply    counts up, new L1 without flags -> header names it, with the disk's size -> counts of the old one down
 *   delete   table without the snapshot -> counts down -> COPIED flags where one reference is left
 *
 * Every arrow is a barrier. References are counted before they exist and uncounted after they are gone (sync.c), and
 * the switch is one header sector. COPIED is clear as long as a count may be 2; in between, a flag may be clear though
 * the count is 1, which costs a copy and no data. Since other programs call even that an error, the image is marked
 * dirty around it, so that after a power cut whoever opens it for writing counts everything anew. (Version 2 has no
 * such mark: there a check may find flags that are clear without need.)
 *
 * Machine state, which a snapshot may have behind the disk's end, is kept with it and copied by apply; taking a
 * snapshot leaves it out: the emulator owns no image.
 */
#include "formats/qcow2/live.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "block/dirty_bitmap.h"

/* Under the lock until snapshots_end(). Everything that memory holds is on disk afterwards. */
static int begin(struct qcow2 *q)
{
    co_mutex_lock(&q->lock);
    live_restart(q);
    int result = q->broken ? -EIO : qcow2_sync_locked(q);
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    return result ? result : header_set_incompatible(q, INCOMPATIBLE_DIRTY, true);
}

/* Writes flags and counts; the mark goes when all went well, and stays for good when something did not. */
static int end(struct qcow2 *q, int result)
{
    if (!result)
        result = qcow2_sync_locked(q);
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    q->keeps_dirty_mark |= result != 0;
    if (!q->keeps_dirty_mark)
        result = header_set_incompatible(q, INCOMPATIBLE_DIRTY, false);
    co_mutex_unlock(&q->lock);
    return result;
}

static bool check_possible(const struct qcow2 *q, struct error *err)
{
    if (q->broken)
        return fail(err, EIO, "the image is corrupt: its snapshots cannot be changed");
    if (q->external_data)
        return fail(err, ENOTSUP, "an image with an external data file cannot have internal snapshots");
    return q->writable || fail(err, EROFS, "the image is open read-only");
}

static struct snapshot *find(struct qcow2 *q, const char *id)
{
    struct snapshot *s;
    vec_for_each (s, &q->snapshots) {
        if (strcmp(s->id, id) == 0)
            return s;
    }
    return NULL;
}

static void pass_freed(struct qcow2 *q, struct freed_spans *freed)
{
    const struct host_span *span;
    vec_for_each (span, freed) {
        cache_forget(&q->l2_cache, span->offset, span->length);
        codec_cache_forget(q, span->offset, span->length);
        uint64_t size = q->file->child->size;
        if (q->pass_discard[FREE_SNAPSHOT] && span->offset < size)
            (void)block_discard(q->file, span->offset, MIN(span->length, size - span->offset));
    }
    vec_free(freed);
}

static int drop_references(struct qcow2 *q, const uint64_t *l1, uint32_t count, uint64_t offset)
{
    struct freed_spans freed = {0};
    int result = references_count(q, l1, count, -1, &freed);
    if (!result && count)
        result = refcount_add(q, offset, (uint64_t)count * 8, -1, &freed);
    /* The counts are on disk before anything is given away. */
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = qcow2_barrier(q);
    if (result)
        vec_free(&freed);
    else
        pass_freed(q, &freed);
    return result;
}

/* A table of entries without flags, in a new place of `room` bytes. */
static int write_l1_copy(struct qcow2 *q, const uint64_t *entries, uint32_t count, uint32_t total, uint64_t *offset)
{
    *offset = 0;
    if (!total)
        return 0;
    struct disk_table copy;
    uint64_t room = cluster_end(q, (uint64_t)total * 8);
    int result = alloc_contiguous(q, room >> q->cluster_bits, offset);
    if (result)
        return result;
    if (disk_table_init(&copy, *offset, total)) {
        for (uint32_t i = 0; i < count; i++)
            copy.entries[i] = entries[i] & ENTRY_OFFSET;
        result = disk_table_write_all(&copy, q->file, room);
        disk_table_release(&copy);
    } else {
        result = -ENOMEM;
    }
    if (result) {
        (void)refcount_add(q, *offset, room, -1, NULL);
        *offset = 0;
    }
    return result;
}

/* Create ----------------------------------------------------------------------------------------------------------- */

static char *new_id(const struct qcow2 *q)
{
    uint64_t highest = 0;
    const struct snapshot *s;
    vec_for_each (s, &q->snapshots)
        highest = MAX(highest, (uint64_t)strtoul(s->id, NULL, 10));
    return xasprintf("%" PRIu64, highest + 1);
}

static int create_locked(struct qcow2 *q, struct snapshot *s)
{
    int result = references_clear_copied(q);
    if (!result)
        result = qcow2_sync_locked(q);
    if (!result)
        result = qcow2_barrier(q);
    if (!result)
        result = references_count(q, q->l1.entries, q->l1.count, 1, NULL);
    if (result)
        return result;
    result = write_l1_copy(q, q->l1.entries, q->l1.count, q->l1.count, &s->l1_offset);
    if (!result) {
        vec_push(&q->snapshots, *s);
        result = snapshot_table_store(q);
        if (result && !q->broken) {
            (void)vec_pop(&q->snapshots);
            q->header.snapshot_count = (uint32_t)q->snapshots.count;
            if (s->l1_size)
                (void)refcount_add(q, s->l1_offset, (uint64_t)s->l1_size * 8, -1, NULL);
        }
    }
    if (result && !q->broken)
        (void)references_count(q, q->l1.entries, q->l1.count, -1, NULL);
    return result;
}

static bool snapshot_create(struct node *node, const char *name, struct error *err)
{
    struct qcow2 *q = node->state;
    if (!check_possible(q, err))
        return false;
    if (strlen(name) > UINT16_MAX)
        return fail(err, ENAMETOOLONG, "the name of the snapshot has %zu bytes: it must not exceed %u", strlen(name),
                    UINT16_MAX);
    if (q->snapshots.count >= SNAPSHOT_COUNT_MAX)
        return fail(err, EFBIG, "the image has %zu snapshots: it cannot have more", q->snapshots.count);
    node_mark_written(node);
    uint64_t now = loop_wall_ns(node->loop);
    struct snapshot s = {.l1_size = q->l1.count,
                         .disk_size = q->size,
                         .icount = UINT64_MAX,
                         .date_s = (uint32_t)(now / 1000000000),
                         .date_ns = (uint32_t)(now % 1000000000),
                         .id = new_id(q),
                         .name = xstrdup(name)};
    int result = begin(q);
    size_t before = q->snapshots.count;
    if (!result)
        result = create_locked(q, &s);
    if (q->snapshots.count == before)
        snapshot_release(&s);
    /* Flags that cannot be set again leave the mark, like everything that is half done. */
    int flags = result && !q->broken ? references_set_copied(q) : 0;
    int ended = end(q, q->broken ? result : flags);
    if (!result)
        result = ended;
    if (result == -ERANGE)
        return fail(err, ERANGE, "refcounts of %u bits cannot count one more snapshot (see refcount_bits)",
                    1u << q->header.refcount_order);
    return !result || fail_errno(err, result, "cannot create the snapshot '%s'", name);
}

/* Apply ------------------------------------------------------------------------------------------------------------ */

static bool load_l1(struct qcow2 *q, const struct snapshot *s, struct disk_table *l1, struct error *err)
{
    if (s->disk_size > INT64_MAX || s->l1_size < DIV_ROUND_UP(s->disk_size, l2_span(q)))
        return fail(err, EINVAL, "the L1 table of snapshot '%s' has %" PRIu32 " entries: too few for %" PRIu64 " bytes",
                    s->name, s->l1_size, s->disk_size);
    return disk_table_load(l1, q->file, s->l1_offset, s->l1_size, "L1 table of the snapshot", err);
}

/* The header names the new table and the disk's size, in one sector. */
static int activate(struct qcow2 *q, uint64_t offset, uint32_t count, uint64_t size)
{
    int result = qcow2_barrier(q);
    if (result)
        return result;
    q->header.l1_offset = offset;
    q->header.l1_size = count;
    q->header.size = size;
    result = header_store(q);
    if (!result)
        result = qcow2_barrier(q);
    q->broken |= result != 0;
    return result;
}

static int apply_locked(struct qcow2 *q, const struct snapshot *s, const struct disk_table *l1)
{
    uint32_t count = MAX(l1->count, 1u);
    uint64_t offset = 0;
    int result = references_clean_tables(q, l1->entries, l1->count);
    if (!result)
        result = references_count(q, l1->entries, l1->count, 1, NULL);
    if (result)
        return result;
    struct disk_table table = {0};
    result = write_l1_copy(q, l1->entries, l1->count, count, &offset);
    if (!result && !disk_table_init(&table, offset, count))
        result = -ENOMEM;
    if (!result)
        result = refcounts_write(q);
    if (!result)
        result = activate(q, offset, count, s->disk_size);
    if (result) {
        disk_table_release(&table);
        if (!q->broken && offset)
            (void)refcount_add(q, offset, (uint64_t)count * 8, -1, NULL);
        if (!q->broken)
            (void)references_count(q, l1->entries, l1->count, -1, NULL);
        return result;
    }
    for (uint32_t i = 0; i < l1->count; i++)
        table.entries[i] = l1->entries[i] & ENTRY_OFFSET;
    struct disk_table old = q->l1;
    q->l1 = table;
    q->size = s->disk_size;
    cache_forget_all(&q->l2_cache);
    overlap_release(q);
    overlap_build(q);
    result = drop_references(q, old.entries, old.count, old.offset);
    disk_table_release(&old);
    return result;
}

static bool snapshot_apply(struct node *node, const char *id, struct error *err)
{
    struct qcow2 *q = node->state;
    const struct snapshot *s = find(q, id);
    if (!check_possible(q, err))
        return false;
    if (!s)
        return fail(err, ENOENT, "there is no snapshot with the ID '%s'", id);
    node_mark_written(node);
    int result = begin(q);
    struct disk_table l1 = {0};
    bool ok = !result && load_l1(q, s, &l1, err);
    if (ok)
        result = apply_locked(q, s, &l1);
    disk_table_release(&l1);
    if (!result) /* all of the disk may have changed */
        dirty_bitmaps_record(node, 0, q->size);
    if (!result && q->overlap_types & OVERLAP_INACTIVE_L2)
        (void)overlap_load_inactive(q, NULL);
    /* Whatever failed, counts or flags may be left behind: then the mark stays, and the next writable open makes them
     * anew. */
    result = end(q, result);
    if (node->size != q->size)
        node_set_size(node, q->size);
    if (!ok && !result)
        return false;
    return !result || fail_errno(err, result, "cannot apply the snapshot '%s'", s->name);
}

/* Delete ----------------------------------------------------------------------------------------------------------- */

static int remove_locked(struct qcow2 *q, size_t index)
{
    struct snapshot removed = q->snapshots.items[index];
    struct disk_table l1 = {0};
    auto_error err = {0};
    if (!disk_table_load(&l1, q->file, removed.l1_offset, removed.l1_size, "L1 table", &err))
        return -err.code;
    vec_remove(&q->snapshots, index);
    int result = snapshot_table_store(q);
    if (result) {
        if (!q->broken)
            vec_insert(&q->snapshots, index, removed);
        else
            snapshot_release(&removed);
        q->header.snapshot_count = (uint32_t)q->snapshots.count;
    } else {
        result = drop_references(q, l1.entries, l1.count, removed.l1_offset);
        snapshot_release(&removed);
    }
    disk_table_release(&l1);
    /* What the guard knew as tables of this snapshot is free now, or the active table's alone. */
    overlap_release(q);
    overlap_build(q);
    if (!result && q->overlap_types & OVERLAP_INACTIVE_L2 && !overlap_load_inactive(q, NULL))
        result = -EIO;
    return result ? result : references_set_copied(q);
}

static bool snapshot_remove(struct node *node, const char *id, struct error *err)
{
    struct qcow2 *q = node->state;
    struct snapshot *s = find(q, id);
    if (!check_possible(q, err))
        return false;
    if (!s)
        return fail(err, ENOENT, "there is no snapshot with the ID '%s'", id);
    node_mark_written(node);
    int result = begin(q);
    if (!result)
        result = remove_locked(q, (size_t)(s - q->snapshots.items));
    result = end(q, result);
    return !result || fail_errno(err, result, "cannot delete the snapshot with the ID '%s'", id);
}

/* List and load ---------------------------------------------------------------------------------------------------- */

static bool snapshot_list(struct node *node, struct internal_snapshot **snapshots, size_t *count, struct error *err)
{
    struct qcow2 *q = node->state;
    *count = q->snapshots.count;
    *snapshots = new_array(struct internal_snapshot, *count + 1);
    for (size_t i = 0; i < *count; i++) {
        const struct snapshot *s = &q->snapshots.items[i];
        (*snapshots)[i] = (struct internal_snapshot){.id = xstrdup(s->id),
                                                     .name = xstrdup(s->name),
                                                     .vm_state_size = s->vm_state_size,
                                                     .disk_size = s->disk_size,
                                                     .date_s = s->date_s,
                                                     .date_ns = s->date_ns,
                                                     .vm_clock_ns = s->vm_clock_ns,
                                                     .icount = s->icount};
    }
    return true;
}

static bool snapshot_load(struct node *node, const char *id, struct error *err)
{
    struct qcow2 *q = node->state;
    const struct snapshot *s = find(q, id);
    if (!s)
        return fail(err, ENOENT, "there is no snapshot with the ID '%s'", id);
    if (q->writable)
        return fail(err, EINVAL, "a snapshot can be loaded only into a read-only image");
    struct disk_table l1 = {0};
    if (!load_l1(q, s, &l1, err))
        return false;
    disk_table_release(&q->l1);
    q->l1 = l1;
    q->size = s->disk_size;
    overlap_release(q);
    overlap_build(q);
    node_set_size(node, q->size);
    return true;
}

const struct snapshot_ops qcow2_snapshot_ops = {
    .create = snapshot_create,
    .apply = snapshot_apply,
    .remove = snapshot_remove,
    .list = snapshot_list,
    .load = snapshot_load,
};
