/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking an image: walk everything that the header leads to, count the references to every cluster, and compare with
 * the refcounts (repair.c). A count too high is a leak, which costs space; a count too low, a table at an impossible
 * place or a wrong COPIED flag is a corruption, which can cost data.
 *
 * Every problem is reported where it is found and counted once. What an image claims is not believed: a table that is
 * named twice is walked once, so that a small forged image cannot keep the check busy for ever.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "formats/qcow2/counts.h"
#include "formats/qcow2/claim.h"
#include "formats/qcow2/entry.h"
#include "formats/qcow2/write_log.h"
#include "qmp/schema/types.h"

enum { REPORTS_MAX = 200 };

void check_report(struct check *check, const char *format, ...)
{
    if (check->reported++ >= REPORTS_MAX) {
        if (check->reported == REPORTS_MAX + 1)
            log_error("check: more problems are counted, but not shown");
        return;
    }
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    log_error("check: %s", text);
}

struct walk {
    struct check *check;
    bool report;
    bool active;           /* the active L1: its statistics and entries are checked too */
    bool spans_only;       /* of snapshots: not what their L1 tables refer to */
    uint64_t table_uses;   /* an L2 table may have been met so often already, by other L1 tables */
    uint64_t next_in_file; /* where the next cluster of this L2 table would be without fragmentation; 0: anywhere */
};

static void problem(struct walk *walk, const char *format, ...) PRINTF_LIKE(2, 3);
static void problem(struct walk *walk, const char *format, ...)
{
    if (!walk->report)
        return;
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    check_report(walk->check, "%s", text);
    walk->check->result->corruptions++;
}

/* While the image is in use: what has moved since the check began says nothing. */
static bool is_moving(const struct walk *walk, uint64_t offset)
{
    return walk->check->live && live_touched(walk->check->live, cluster_index(walk->check->q, offset));
}

/* Counts a span; says so when it does not lie inside the file. */
static int count_span(struct walk *walk, uint64_t offset, uint64_t length, const char *what)
{
    struct qcow2 *q = walk->check->q;
    if (!length)
        return 0;
    int result = counts_add(&walk->check->counts, cluster_index(q, offset), cluster_index(q, offset + length - 1));
    if (result != -ERANGE)
        return result;
    if (!is_moving(walk, offset + length - 1)) /* else it was added behind what was the end */
        problem(walk, "%s at 0x%" PRIx64 " (0x%" PRIx64 " bytes) reaches behind the end of the file", what, offset,
                length);
    return 0;
}

static void count_statistics(struct walk *walk, const struct mapping *m)
{
    struct image_check *result = walk->check->result;
    if (!walk->active || !walk->report || (!m->compressed && !m->has_host))
        return;
    result->allocated_clusters++;
    result->compressed_clusters += m->compressed;
    if (m->compressed || (walk->next_in_file && m->host != walk->next_in_file))
        result->fragmented_clusters++;
    if (!m->compressed)
        walk->next_in_file = m->host + walk->check->q->cluster_size;
}

static int count_entry(struct walk *walk, struct l2_entry entry, uint64_t guest)
{
    struct qcow2 *q = walk->check->q;
    struct mapping m;
    const char *wrong = mapping_decode(q, entry, guest, &m);
    if (wrong) {
        problem(walk, "the L2 entry of guest offset 0x%" PRIx64 " (0x%016" PRIx64 ") means %s", guest, entry.descriptor,
                wrong);
        return 0;
    }
    if (m.compressed && m.copied)
        problem(walk, "the compressed cluster of guest offset 0x%" PRIx64 " has the COPIED flag", guest);
    if (!m.compressed && entry.descriptor & (q->extended_l2 ? L2_RESERVED | ENTRY_ZERO : L2_RESERVED))
        problem(walk, "the L2 entry of guest offset 0x%" PRIx64 " (0x%016" PRIx64 ") has reserved bits set", guest,
                entry.descriptor);
    count_statistics(walk, &m);
    if (m.compressed) {
        struct host_span span = compressed_span(q, entry.descriptor);
        return count_span(walk, span.offset, span.length, "a compressed cluster");
    }
    return m.has_host && !q->external_data ? count_span(walk, m.host, q->cluster_size, "a data cluster") : 0;
}

/* What could not be read is an error of the check, which goes on. Who counts to build refcounts anew must not: they
 * would lack what is named there. */
static int cannot_count(struct walk *walk, int result)
{
    walk->check->result->check_errors += walk->report;
    return walk->report ? 0 : result;
}

static int count_l2(struct walk *walk, uint64_t table, uint64_t guest, uint8_t *buffer)
{
    struct qcow2 *q = walk->check->q;
    int result = qcow2_read_file(q->file, table, buffer, q->cluster_size);
    if (result) {
        check_report(walk->check, "cannot read the L2 table at 0x%" PRIx64 ": %s", table, strerror(-result));
        return cannot_count(walk, result);
    }
    walk->next_in_file = 0;
    for (uint32_t i = 0; i < 1u << q->l2_bits && !result; i++)
        result = count_entry(walk, l2_get(q, buffer, i), guest + ((uint64_t)i << q->cluster_bits));
    return result;
}

/* An L1 entry, and its table if that has not been met. */
static int count_l1_entry(struct walk *walk, uint64_t entry, uint32_t index, uint8_t *buffer)
{
    struct qcow2 *q = walk->check->q;
    uint64_t table = entry & ENTRY_OFFSET;
    if (entry & L1_RESERVED)
        problem(walk, "L1 entry %" PRIu32 " (0x%016" PRIx64 ") has reserved bits set", index, entry);
    if (!table)
        return 0;
    if (in_cluster(q, table) || table >= q->file->child->size) {
        problem(walk, "L1 entry %" PRIu32 " names an L2 table at 0x%" PRIx64 ", which is not %s", index, table,
                in_cluster(q, table) ? "aligned to the cluster size" : "inside the file");
        return 0;
    }
    uint64_t met = counts_get(&walk->check->counts, cluster_index(q, table));
    int result = count_span(walk, table, q->cluster_size, "an L2 table");
    if (met <= walk->table_uses || is_moving(walk, table))
        return result ? result : count_l2(walk, table, (uint64_t)index * l2_span(q), buffer);
    problem(walk, "L1 entry %" PRIu32 " names an L2 table at 0x%" PRIx64 " that is something else already", index,
            table);
    return result;
}

static int count_l1(struct walk *walk, const uint64_t *entries, uint32_t count)
{
    struct qcow2 *q = walk->check->q;
    auto_free uint8_t *buffer = block_alloc_buffer(q->file, q->cluster_size);
    if (!buffer)
        return -ENOMEM;
    int result = 0;
    for (uint32_t i = 0; i < count && !result; i++)
        result = count_l1_entry(walk, entries[i], i, buffer);
    return result;
}

int check_count_table(struct check *check, uint64_t entry, uint32_t index, int64_t snapshot, uint8_t *buffer)
{
    struct walk walk = {.check = check, .report = true, .active = snapshot < 0, .table_uses = (uint64_t)(snapshot + 1)};
    return count_l1_entry(&walk, entry, index, buffer);
}

static int count_snapshots(struct walk *walk)
{
    struct qcow2 *q = walk->check->q;
    int result = count_span(walk, q->header.snapshot_offset, q->snapshot_table_bytes, "the snapshot table");
    walk->active = false;
    for (size_t i = 0; i < q->snapshots.count && !result; i++) {
        const struct snapshot *snapshot = &q->snapshots.items[i];
        if (!snapshot->l1_size)
            continue;
        uint64_t met = counts_get(&walk->check->counts, cluster_index(q, snapshot->l1_offset));
        result = count_span(walk, snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8, "the L1 table of a snapshot");
        if (met) {
            problem(walk, "the L1 table of snapshot '%s' at 0x%" PRIx64 " is something else already", snapshot->name,
                    snapshot->l1_offset);
            continue;
        }
        if (walk->spans_only)
            continue;
        struct disk_table l1;
        auto_error err = {0};
        if (!disk_table_load(&l1, q->file, snapshot->l1_offset, snapshot->l1_size, "L1 table", &err)) {
            check_report(walk->check, "snapshot '%s': %s", snapshot->name, err.message);
            result = cannot_count(walk, -EIO);
            continue;
        }
        walk->table_uses = i + 1;
        if (!result)
            result = count_l1(walk, l1.entries, l1.count);
        disk_table_release(&l1);
    }
    return result;
}

static int count_bitmap_span(void *arg, uint64_t offset, uint64_t length)
{
    return count_span(arg, offset, length, "a part of the persistent bitmaps");
}

static int count_bitmaps(struct walk *walk)
{
    auto_error err = {0};
    int result = bitmap_table_visit(walk->check->q, count_bitmap_span, walk, &err);
    if (result == -EINVAL)
        problem(walk, "%s", err.message);
    return result == -EINVAL ? 0 : result;
}

/* Refcount blocks must be at possible places, and each must be counted exactly once. */
static int count_refcount_structures(struct walk *walk)
{
    struct check *check = walk->check;
    struct qcow2 *q = check->q;
    int result = count_span(walk, q->reftable.offset, (uint64_t)q->reftable.count * 8, "the refcount table");
    for (uint32_t i = 0; i < q->reftable.count && !result; i++) {
        uint64_t block = q->reftable.entries[i];
        if (!block)
            continue;
        bool misplaced = in_cluster(q, block) || block >= q->file->child->size || block >= HOST_OFFSET_END;
        if (misplaced) {
            problem(walk, "refcount table entry %" PRIu32 " names a block at 0x%" PRIx64 ", which is not %s", i, block,
                    in_cluster(q, block) ? "aligned to the cluster size" : "inside the file");
            check->must_rebuild = true;
            continue;
        }
        result = count_span(walk, block, q->cluster_size, "a refcount block");
        if (counts_get(&check->counts, cluster_index(q, block)) != 1 && !is_moving(walk, block)) {
            problem(walk, "the refcount block at 0x%" PRIx64 " is something else already", block);
            check->must_rebuild = true;
        }
    }
    return result;
}

/* Changes of the write log that will be done again need their clusters. */
static int count_recovery(struct walk *walk)
{
    struct qcow2 *q = walk->check->q;
    int result = 0;
    for (size_t i = 0; i < q->recovery.count && !result; i++) {
        const struct log_change *change = &q->recovery.items[i];
        struct walk silent = {.check = walk->check};
        if (change->stays)
            continue;
        result = count_entry(&silent, change->entry, change->cluster << q->cluster_bits);
    }
    return result;
}

/* While the image is in use: the place that a write under way has been given, and that no table names yet. */
static struct host_span place_of(const struct qcow2 *q, const struct claim *claim)
{
    if (claim->kind == CLAIM_NEW_CLUSTERS)
        return (struct host_span){claim->host, (claim->end - claim->begin) << q->cluster_bits};
    return claim->kind == CLAIM_COMPRESSED ? (struct host_span){claim->host, claim->bytes} : (struct host_span){0, 0};
}

static int count_claims(struct walk *walk)
{
    struct qcow2 *q = walk->check->q;
    const struct claim *claim;
    int result = 0;
    list_for_each (claim, &q->claims, link) {
        struct host_span place = place_of(q, claim);
        result = count_span(walk, place.offset, place.length, "a write under way");
        if (result)
            return result;
    }
    return 0;
}

/* Of the file, with what is about to be written behind its end. */
static uint64_t clusters_of_file(const struct qcow2 *q)
{
    uint64_t end = q->file->child->size;
    const struct claim *claim;
    list_for_each (claim, &q->claims, link) {
        struct host_span place = place_of(q, claim);
        end = MAX(end, place.offset + place.length);
    }
    return DIV_ROUND_UP(end, q->cluster_size);
}

/* What the header names directly. */
static int count_heads(struct walk *walk)
{
    const struct qcow2 *q = walk->check->q;
    int result = count_span(walk, 0, q->cluster_size, "the header");
    if (!result)
        result = count_span(walk, q->header.crypt_offset, q->header.crypt_length, "the LUKS header");
    return result ? result : count_span(walk, q->l1.offset, (uint64_t)q->l1.count * 8, "the active L1 table");
}

int check_count(struct check *check, bool refcount_structures, bool report)
{
    struct qcow2 *q = check->q;
    counts_release(&check->counts);
    if (!counts_init(&check->counts, clusters_of_file(q)))
        return -ENOMEM;
    struct walk walk = {.check = check, .report = report, .active = true};
    int result = count_heads(&walk);
    if (!result)
        result = count_l1(&walk, q->l1.entries, q->l1.count);
    if (!result)
        result = count_snapshots(&walk);
    if (!result)
        result = count_recovery(&walk);
    if (!result)
        result = count_claims(&walk);
    if (!result)
        result = count_bitmaps(&walk);
    return result || !refcount_structures ? result : count_refcount_structures(&walk);
}

int check_count_fixed(struct check *check)
{
    struct qcow2 *q = check->q;
    counts_release(&check->counts);
    if (!counts_init(&check->counts, clusters_of_file(q)))
        return -ENOMEM;
    struct walk walk = {.check = check, .report = true, .spans_only = true};
    int result = count_heads(&walk);
    if (!result)
        result = count_snapshots(&walk);
    if (!result)
        result = count_bitmaps(&walk);
    return result ? result : count_refcount_structures(&walk);
}

/* Under the lock. */
static int check_and_repair(struct check *check)
{
    struct qcow2 *q = check->q;
    /* References that are gone must be gone for good before they are uncounted: also those that a killed program
     * dropped and never flushed. */
    int result = check->repair ? qcow2_barrier(q) : 0;
    if (!result)
        result = check_count(check, true, true);
    /* References that could not be read were not counted: a repair would free what they name. */
    if (check->result->check_errors)
        check->repair = 0;
    if (!result)
        result = check_compare(check);
    if (!result && check->must_rebuild && check->repair & CHECK_REPAIR_ERRORS)
        result = repair_rebuild(check);
    if (!result)
        result = check_copied_flags(check);
    if (!result && check->repair)
        result = qcow2_sync_locked(q);
    if (!result && check->repair)
        result = refcounts_write(q);
    return result ? result : check->repair ? qcow2_barrier(q) : 0;
}

/* A repair that left no error behind takes the marks of damage away. */
static int clear_marks(struct qcow2 *q)
{
    int result = 0;
    if (log_is_valid(q) && !q->log.active) {
        /* Found in a corrupt image: it speaks of what was there before the repair. */
        q->header.log_offset = 0;
        q->header.autoclear &= ~AUTOCLEAR_WRITE_LOG;
        result = header_store(q);
    }
    if (!result)
        result = header_set_incompatible(q, INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT, false);
    if (!result && q->node)
        q->node->corrupt = false;
    return result;
}

void check_begin_result(const struct qcow2 *q, struct image_check *result)
{
    result->has_leaks = result->has_leaks_fixed = result->has_corruptions = result->has_corruptions_fixed = true;
    result->has_image_end_offset = result->has_total_clusters = result->has_allocated_clusters = true;
    result->has_fragmented_clusters = result->has_compressed_clusters = true;
    result->total_clusters = (int64_t)DIV_ROUND_UP(q->size, q->cluster_size);
}

int qcow2_check_state(struct qcow2 *q, uint32_t repair, struct image_check *result, struct error *err)
{
    struct check check = {.q = q, .result = result, .repair = repair};
    if (repair && !q->writable)
        return fail(err, EROFS, "the image is open read-only: it cannot be repaired"), -EROFS;
    check_begin_result(q, result);
    co_mutex_lock(&q->lock);
    bool was_broken = q->broken;
    int status = 0;
    /* Changes that the corruption kept from the disk are lost: what is on disk is repaired. */
    if (was_broken && repair && !qcow2_reload(q, err))
        status = -EIO;
    if (was_broken && repair && !status)
        status = log_reset(q); /* what was noted is lost too */
    if (q->writable && !was_broken && !(q->header.incompatible & INCOMPATIBLE_DIRTY && repair))
        status = qcow2_sync_locked(q);
    if (repair)
        q->broken = false;
    if (!status)
        status = check_and_repair(&check);
    if (!status && repair && result->corruptions == 0 && result->check_errors == 0)
        status = clear_marks(q);
    else if (was_broken)
        q->broken = true;
    counts_release(&check.counts);
    co_mutex_unlock(&q->lock);
    if (status)
        fail_errno(err, status, "the check could not be done");
    return status;
}

int qcow2_check(struct node *node, uint32_t repair, struct image_check *result, struct error *err)
{
    return qcow2_check_state(node->state, repair, result, err);
}
