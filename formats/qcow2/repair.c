/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a check does with its counts: compare them with the refcounts and mend those; build the refcount structures
 * anew where they are missing or damaged; and put the COPIED flags right, which must say whether a count is exactly 1.
 *
 * Rebuilding never touches the old structures: new blocks and a new table are written behind everything in use, then
 * one header sector switches over.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "formats/qcow2/counts.h"
#include "formats/qcow2/entry.h"
#include "formats/qcow2/live.h"
#include "qmp/schema/types.h"

/* The block that counts `index`, or NULL when there is none that can be used. */
static int load_block(struct check *check, uint64_t index, uint8_t **block)
{
    struct qcow2 *q = check->q;
    uint64_t table_index = index >> q->refblock_bits;
    uint64_t offset = table_index < q->reftable.count ? q->reftable.entries[table_index] : 0;
    *block = NULL;
    if (!offset || in_cluster(q, offset))
        return 0;
    if (check->live && live_touched(check->live, cluster_index(q, offset)))
        return refblock_load(q, index, block); /* made meanwhile, perhaps not in the file yet */
    if (offset >= q->file->child->size || counts_get(&check->counts, cluster_index(q, offset)) != 1)
        return 0; /* it is something else, or the block of others too */
    int result = cache_load(&q->refcount_cache, offset, block);
    while (result == -EAGAIN && !(result = refcounts_write(q)))
        result = cache_load(&q->refcount_cache, offset, block);
    return result;
}

static bool may_fix(const struct check *check, bool leak)
{
    return check->repair & (leak ? CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS : CHECK_REPAIR_ERRORS);
}

/* One difference. Sets *fix when the stored count shall become the real one. */
static void judge(struct check *check, uint64_t index, uint64_t stored, uint64_t real, bool has_block, bool *fix)
{
    struct image_check *result = check->result;
    bool leak = stored > real;
    *fix = has_block && may_fix(check, leak) && real <= check->q->refcount_max && !check->must_rebuild;
    if (!has_block)
        check->must_rebuild = true;
    bool is_dirty = check->q->header.incompatible & INCOMPATIBLE_DIRTY && !check->live;
    if (!is_dirty || !check->repair) /* else it is expected */
        check_report(check, "%s cluster %" PRIu64 " at 0x%" PRIx64 ": refcount is %" PRIu64 ", references are %" PRIu64,
                     leak ? "leaked" : "damaged", index, index << check->q->cluster_bits, stored, real);
    int64_t *open = leak ? &result->leaks : &result->corruptions;
    int64_t *fixed = leak ? &result->leaks_fixed : &result->corruptions_fixed;
    ++*(*fix ? fixed : open);
}

int check_compare_block(struct check *check, uint64_t table_index)
{
    struct qcow2 *q = check->q;
    uint64_t per_block = 1ull << q->refblock_bits, first = table_index << q->refblock_bits;
    for (uint64_t i = 0; i < per_block; i++) {
        uint8_t *block;
        int result = load_block(check, first + i, &block);
        if (result)
            return result;
        if (!block && counts_next(&check->counts, first + i) >= first + per_block)
            return 0;
        uint64_t stored = block ? refcount_read(block, q->header.refcount_order, i) : 0;
        uint64_t real = counts_get(&check->counts, first + i);
        bool fix = false;
        if (stored != real && !(check->live && live_touched(check->live, first + i)))
            judge(check, first + i, stored, real, block != NULL, &fix);
        if (fix) {
            refcount_write(block, q->header.refcount_order, i, real);
            cache_mark_dirty(&q->refcount_cache, q->reftable.entries[table_index]);
        }
        if (real || (stored && !fix))
            check->result->image_end_offset = (int64_t)((first + i + 1) << q->cluster_bits);
    }
    return 0;
}

int check_compare(struct check *check)
{
    struct qcow2 *q = check->q;
    uint64_t needed = DIV_ROUND_UP(check->counts.end, 1ull << q->refblock_bits);
    uint64_t blocks = MAX((uint64_t)q->reftable.count, needed);
    for (uint64_t i = 0; i < blocks; i++) {
        bool empty = i >= q->reftable.count || !q->reftable.entries[i];
        if (empty && counts_next(&check->counts, i << q->refblock_bits) >= (i + 1) << q->refblock_bits)
            continue;
        int result = check_compare_block(check, i);
        if (result)
            return result;
    }
    q->free_hint = 0;
    return 0;
}

/* Rebuilding --------------------------------------------------------------------------------------------------------
 */

struct rebuild {
    uint64_t start;            /* first cluster of the new blocks, then the table */
    uint64_t blocks, clusters; /* of blocks; of the table */
    struct disk_table table;
};

/* Does the block of this index count anything, the new structures included? */
static bool block_is_needed(const struct check *check, const struct rebuild *r, uint64_t table_index)
{
    uint64_t first = table_index << check->q->refblock_bits, end = (table_index + 1) << check->q->refblock_bits;
    return counts_next(&check->counts, first) < end || (first < r->start + r->blocks + r->clusters && r->start < end);
}

/* Behind what must stay until the header has switched over: the old structures, which nobody counts, and the write log.
 */
static uint64_t end_of_old(const struct qcow2 *q)
{
    uint64_t end = MAX(q->reftable.offset + (uint64_t)q->reftable.count * 8, q->header.log_offset + q->header.log_size);
    for (uint32_t i = 0; i < q->reftable.count; i++) {
        uint64_t block = q->reftable.entries[i] & ~REFTABLE_RESERVED;
        if (block < q->file->child->size)
            end = MAX(end, block + q->cluster_size);
    }
    return DIV_ROUND_UP(end, q->cluster_size);
}

static int plan_rebuild(struct check *check, struct rebuild *r)
{
    struct qcow2 *q = check->q;
    uint64_t per_block = 1ull << q->refblock_bits, entries = 0;
    r->start = MAX(check->counts.end, end_of_old(q));
    for (;;) {
        uint64_t blocks = 0;
        entries = DIV_ROUND_UP(r->start + r->blocks + r->clusters + 1, per_block);
        uint64_t clusters = DIV_ROUND_UP(entries * 8, q->cluster_size);
        if (clusters > REFTABLE_BYTES_MAX / q->cluster_size)
            return -EFBIG;
        for (uint64_t i = 0; i < entries; i++)
            blocks += block_is_needed(check, r, i);
        if (blocks <= r->blocks && clusters <= r->clusters)
            break;
        r->blocks = MAX(r->blocks, blocks);
        r->clusters = MAX(r->clusters, clusters);
    }
    uint64_t table_offset = (r->start + r->blocks) << q->cluster_bits;
    uint32_t count = (uint32_t)((r->clusters << q->cluster_bits) / 8);
    return disk_table_init(&r->table, table_offset, count) ? 0 : -ENOMEM;
}

static bool fill_block(const struct check *check, const struct rebuild *r, uint64_t table_index, uint8_t *block)
{
    struct qcow2 *q = check->q;
    uint64_t first = table_index << q->refblock_bits;
    bool fits = true;
    memset(block, 0, q->cluster_size);
    for (uint64_t i = 0; i < 1ull << q->refblock_bits; i++) {
        uint64_t index = first + i, count = counts_get(&check->counts, index);
        if (index >= r->start && index < r->start + r->blocks + r->clusters)
            count = 1;
        fits &= count <= q->refcount_max;
        refcount_write(block, q->header.refcount_order, i, MIN(count, q->refcount_max));
    }
    return fits;
}

static int write_rebuilt(struct check *check, struct rebuild *r)
{
    struct qcow2 *q = check->q;
    auto_free uint8_t *block = block_alloc_buffer(q->file, q->cluster_size);
    if (!block)
        return -ENOMEM;
    uint64_t next = r->start;
    for (uint32_t i = 0; i < r->table.count; i++) {
        if (!block_is_needed(check, r, i))
            continue;
        if (!fill_block(check, r, i, block)) {
            check_report(check, "some clusters have more references than a refcount of %u bits can count",
                         1u << q->header.refcount_order);
            check->result->corruptions++;
        }
        r->table.entries[i] = next << q->cluster_bits;
        int result = block_write_buffer(q->file, next++ << q->cluster_bits, block, q->cluster_size, 0);
        if (result)
            return result;
    }
    /* A block planned and not needed in the end is counted and unused: a leak that cannot be, see plan_rebuild(). */
    assert(next <= r->start + r->blocks);
    int result = disk_table_write_all(&r->table, q->file, r->clusters << q->cluster_bits);
    return result ? result : qcow2_barrier(q);
}

int repair_rebuild(struct check *check)
{
    struct qcow2 *q = check->q;
    struct rebuild r = {0};
    struct image_check before = *check->result;
    int result = check_count(check, false, false);
    if (!result)
        result = plan_rebuild(check, &r);
    if (!result)
        result = write_rebuilt(check, &r);
    if (!result) {
        q->header.reftable_offset = r.table.offset;
        q->header.reftable_clusters = (uint32_t)r.clusters;
        result = header_store(q);
    }
    if (!result)
        result = qcow2_barrier(q);
    if (result) {
        disk_table_release(&r.table);
        return result;
    }
    cache_forget_all(&q->refcount_cache);
    disk_table_release(&q->reftable);
    q->reftable = r.table;
    q->refblocks_shared = false;
    overlap_release(q);
    overlap_build(q);
    /* Look again: what is still wrong could not be repaired by counts. */
    struct image_check *now = check->result;
    now->corruptions = now->leaks = now->check_errors = 0;
    now->allocated_clusters = now->compressed_clusters = now->fragmented_clusters = 0;
    check->must_rebuild = false;
    uint32_t repair = check->repair;
    check->repair = 0;
    result = check_count(check, true, true);
    if (!result)
        result = check_compare(check);
    check->repair = repair;
    now->corruptions_fixed = before.corruptions_fixed + MAX(before.corruptions - now->corruptions, 0);
    now->leaks_fixed = before.leaks_fixed + MAX(before.leaks - now->leaks, 0);
    return result;
}

/* Another width ---------------------------------------------------------------------------------------------------- */

static void set_width(struct qcow2 *q, uint32_t order)
{
    q->header.refcount_order = order;
    q->refblock_bits = q->cluster_bits + 3 - order;
    q->refcount_max = order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;
}

/* The header names the new table and its width; the old structures are not counted any more, and so free. */
static bool switch_width(struct check *check, struct rebuild *r, uint32_t order, struct error *err)
{
    struct qcow2 *q = check->q;
    struct header now = q->header;
    now.refcount_order = order;
    now.reftable_offset = r->table.offset;
    now.reftable_clusters = (uint32_t)r->clusters;
    if (!header_rewrite(q, &now, err))
        return false;
    q->header = now;
    cache_forget_all(&q->refcount_cache);
    disk_table_release(&q->reftable);
    q->reftable = r->table;
    q->free_hint = 0;
    overlap_release(q);
    overlap_build(q);
    return true;
}

bool repair_change_width(struct qcow2 *q, uint32_t order, void (*progress)(void *user, uint64_t done, uint64_t total),
                         void *user, struct error *err)
{
    struct image_check found = {0};
    struct check check = {.q = q, .result = &found};
    struct rebuild r = {0};
    uint32_t old_order = q->header.refcount_order;
    live_restart(q);
    int result = check_count(&check, false, true);
    bool ok = !result || fail_errno(err, result, "cannot count the references");
    if (ok && (found.corruptions || found.check_errors))
        ok = fail(err, EIO, "the image has errors: it must be repaired (check -r all) first");
    uint64_t most = 0;
    for (uint64_t i = counts_next(&check.counts, 0); ok && i < check.counts.end; i = counts_next(&check.counts, i + 1))
        most = MAX(most, counts_get(&check.counts, i));
    progress(user, 1, 3);
    set_width(q, order);
    if (ok && most > q->refcount_max)
        ok = fail(err, ERANGE, "a cluster has %" PRIu64 " references: refcounts of %u bits cannot count them", most,
                  1u << order);
    if (ok && ((result = plan_rebuild(&check, &r)) || (result = write_rebuilt(&check, &r))))
        ok = fail_errno(err, result, "cannot write the new refcounts");
    progress(user, 2, 3);
    ok = ok && switch_width(&check, &r, order, err);
    if (!ok) {
        set_width(q, old_order);
        disk_table_release(&r.table);
    }
    counts_release(&check.counts);
    return ok;
}

/* COPIED flags ------------------------------------------------------------------------------------------------------
 */

/* 1: the flag is wrong; 0: right; or -errno. */
static int flag_is_wrong(struct check *check, uint64_t entry, uint64_t host, const char *what)
{
    struct qcow2 *q = check->q;
    uint64_t index = cluster_index(q, host);
    uint8_t *block;
    int result = load_block(check, index, &block);
    if (result)
        return result;
    uint64_t in_block = index & ((1ull << q->refblock_bits) - 1);
    uint64_t count = block ? refcount_read(block, q->header.refcount_order, in_block) : 0;
    bool copied = entry & ENTRY_COPIED;
    if (copied == (count == 1))
        return 0;
    bool is_dirty = q->header.incompatible & INCOMPATIBLE_DIRTY && !check->live;
    if (!is_dirty || !check->repair)
        check_report(check, "the COPIED flag of %s 0x%016" PRIx64 " is %s, and the refcount is %" PRIu64, what, entry,
                     copied ? "set" : "clear", count);
    ++*(may_fix(check, false) ? &check->result->corruptions_fixed : &check->result->corruptions);
    return 1;
}

static int check_l2_flags(struct check *check, uint64_t table, uint64_t guest)
{
    struct qcow2 *q = check->q;
    uint32_t slice_entries = (1u << q->slice_bits) / q->l2_entry_size;
    for (uint32_t i = 0; i < 1u << q->l2_bits; i++) {
        uint8_t *slice;
        uint64_t slice_offset = table + ((uint64_t)(i / slice_entries) << q->slice_bits);
        int result = l2_load_locked(q, slice_offset, &slice);
        if (result)
            return result;
        struct l2_entry entry = l2_get(q, slice, i % slice_entries);
        struct mapping m;
        if (mapping_decode(q, entry, guest + ((uint64_t)i << q->cluster_bits), &m) || m.compressed || !m.has_host ||
            q->external_data)
            continue;
        result = flag_is_wrong(check, entry.descriptor, m.host, "L2 entry");
        if (result < 0)
            return result;
        if (result && may_fix(check, false)) {
            entry.descriptor ^= ENTRY_COPIED;
            /* Loading the refcount may have let the slice go. */
            result = l2_load_locked(q, slice_offset, &slice);
            if (result)
                return result;
            l2_put(q, slice, i % slice_entries, entry);
            cache_mark_dirty(&q->l2_cache, slice_offset);
        }
    }
    return 0;
}

int check_flags(struct check *check, uint32_t index)
{
    struct qcow2 *q = check->q;
    uint64_t entry = q->l1.entries[index], table = entry & ENTRY_OFFSET;
    if (!table || in_cluster(q, table) || table >= q->file->child->size)
        return 0;
    int result = flag_is_wrong(check, entry, table, "L1 entry");
    if (result > 0 && may_fix(check, false))
        disk_table_set(&q->l1, index, entry ^ ENTRY_COPIED);
    /* A table that is used several times was counted as such: its entries are looked at all the same. */
    if (result >= 0 && counts_get(&check->counts, cluster_index(q, table)) <= 1 + q->snapshots.count)
        result = check_l2_flags(check, table, (uint64_t)index * l2_span(q));
    return MIN(result, 0);
}

int check_copied_flags(struct check *check)
{
    int result = 0;
    for (uint32_t i = 0; i < check->q->l1.count && !result; i++)
        result = check_flags(check, i);
    return result;
}
