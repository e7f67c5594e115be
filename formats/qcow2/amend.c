/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Amending: options of an image change in place. Each step ends with one header sector, written behind a barrier, so a
 * power cut leaves an image with some of the steps done, each of them whole:
 *
 *   version 3        a snapshot table with the extra data that version 3 asks for, then the header
 *   refcount_bits    new refcount blocks and a new table behind everything in use, then the header (repair.c)
 *   names, flags     the header
 *   version 2        zero clusters become nothing or clusters of zeroes, then the header
 *   size             resize.c
 *   key slots        crypto/luks_amend.c: the LUKS header alone, in an order of its own
 *
 * They run in this order, so that what a step needs is there.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "formats/qcow2/counts.h"
#include "formats/qcow2/encryption.h"
#include "formats/qcow2/entry.h"
#include "qmp/schema/types.h"

struct amendment {
    struct qcow2 *q;
    const struct qcow2_amend_options *o;
    bool wants_v2, wants_v3;
    bool force;
    void (*report)(void *user, uint64_t done, uint64_t total);
    void *user;
    unsigned step, steps;
};

enum { STEP_UNITS = 1000 };

static void report(struct amendment *a, uint64_t done, uint64_t total)
{
    uint64_t part = total ? (uint64_t)((unsigned __int128)done * STEP_UNITS / total) : STEP_UNITS;
    if (a->report)
        a->report(a->user, (uint64_t)a->step * STEP_UNITS + part, (uint64_t)a->steps * STEP_UNITS);
}

static void step_done(struct amendment *a)
{
    a->step++;
    report(a, 0, 1);
}

static uint32_t version_after(const struct amendment *a)
{
    return a->wants_v2 ? 2 : a->wants_v3 ? 3 : a->q->header.version;
}

/* What cannot be is refused before anything changes. */
static bool check_amendment(struct amendment *a, struct error *err)
{
    const struct qcow2 *q = a->q;
    const struct qcow2_amend_options *o = a->o;
    if (q->broken || !q->writable)
        return fail(err, q->broken ? EIO : EROFS, "the image is %s: it cannot be amended",
                    q->broken ? "corrupt" : "open read-only");
    if (o->has_refcount_bits && !is_power_of_two((uint64_t)o->refcount_bits))
        return fail(err, EINVAL, "refcount_bits is %" PRId64 ": it must be 1, 2, 4, 8, 16, 32 or 64", o->refcount_bits);
    if (o->data_file && !q->external_data)
        return fail(err, EINVAL, "data-file cannot be set on an image that keeps its data in itself");
    if (o->has_data_file_raw && o->data_file_raw && !q->raw_data)
        return fail(err, EINVAL,
                    "data-file-raw cannot be set on existing images: the data file may not read as the disk does");
    if (o->backing_fmt && !(o->backing_file ? *o->backing_file : q->header.backing_name != NULL))
        return fail(err, EINVAL, "backing_fmt was given, and the image has no backing file");
    if (!encryption_check_amend(q, o->encrypt, err))
        return false;
    uint64_t bits = o->has_refcount_bits ? (uint64_t)o->refcount_bits : 1ull << q->header.refcount_order;
    bool lazy = o->has_lazy_refcounts ? o->lazy_refcounts : q->header.compatible & COMPATIBLE_LAZY_REFCOUNTS;
    const char *newer = version_after(a) >= 3             ? NULL
                        : bits != 16                      ? "refcounts that are not of 16 bits"
                        : o->has_lazy_refcounts && lazy   ? "lazy_refcounts=on"
                        : q->external_data                ? "an external data file"
                        : q->extended_l2                  ? "extended L2 entries"
                        : q->header.compression_type      ? "compression_type=zstd"
                        : a->wants_v2 && q->bitmaps.count ? "persistent bitmaps"
                                                          : NULL;
    return !newer || fail(err, ENOTSUP, "compat=0.10 (version 2) has no %s", newer);
}

static bool rewrite(struct qcow2 *q, const struct header *now, struct error *err)
{
    int result = qcow2_sync_durable(q);
    if (result)
        return fail_errno(err, result, "cannot write the image's metadata");
    if (!header_rewrite(q, now, err))
        return false;
    q->header = *now;
    return true;
}

/* Version 3 -------------------------------------------------------------------------------------------------------- */

static bool upgrade(struct amendment *a, struct error *err)
{
    struct qcow2 *q = a->q;
    if (q->header.version >= 3)
        return true;
    co_mutex_lock(&q->lock);
    int result = q->snapshots.count ? snapshot_table_store(q) : 0;
    co_mutex_unlock(&q->lock);
    if (result)
        return fail_errno(err, result, "cannot write the snapshot table");
    struct header now = q->header;
    now.version = 3;
    now.header_length = HEADER_NEW_LENGTH;
    now.incompatible = now.compatible = now.autoclear = 0;
    return rewrite(q, &now, err);
}

/* Refcounts -------------------------------------------------------------------------------------------------------- */

static void on_block(void *user, uint64_t done, uint64_t total)
{
    report(user, done, total);
}

static bool change_refcounts(struct amendment *a, struct error *err)
{
    struct qcow2 *q = a->q;
    uint32_t order = lowest_bit((uint64_t)a->o->refcount_bits);
    if (order == q->header.refcount_order)
        return true;
    int result = qcow2_finish(q); /* exact counts, and no dirty mark */
    if (result)
        return fail_errno(err, result, "cannot write the image's metadata");
    co_mutex_lock(&q->lock);
    bool ok = repair_change_width(q, order, on_block, a, err);
    co_mutex_unlock(&q->lock);
    return ok;
}

/* Names and flags -------------------------------------------------------------------------------------------------- */

static bool change_flags(struct amendment *a, struct error *err)
{
    struct qcow2 *q = a->q;
    const struct qcow2_amend_options *o = a->o;
    struct header now = q->header;
    if (o->has_lazy_refcounts) {
        int result = o->lazy_refcounts ? 0 : qcow2_finish(q);
        if (result)
            return fail_errno(err, result, "cannot write the refcounts");
        now = q->header;
        now.compatible = o->lazy_refcounts ? now.compatible | COMPATIBLE_LAZY_REFCOUNTS
                                           : now.compatible & ~COMPATIBLE_LAZY_REFCOUNTS;
    }
    if (o->has_data_file_raw && !o->data_file_raw)
        now.autoclear &= ~AUTOCLEAR_RAW_DATA;
    if (o->data_file)
        now.data_file = *o->data_file ? o->data_file : NULL;
    char *old_name = q->header.data_file;
    if (!rewrite(q, &now, err))
        return false;
    if (o->data_file) {
        q->header.data_file = xstrdup(now.data_file);
        free(old_name);
    }
    q->raw_data = q->header.autoclear & AUTOCLEAR_RAW_DATA;
    if (o->has_lazy_refcounts)
        q->lazy_refcounts = o->lazy_refcounts;
    return true;
}

static bool change_backing(struct amendment *a, struct error *err)
{
    const struct header *h = &a->q->header;
    const char *name = a->o->backing_file ? a->o->backing_file : h->backing_name;
    const char *format = a->o->backing_fmt ? a->o->backing_fmt : a->o->backing_file ? NULL : h->backing_format;
    auto_free char *copy = name && *name ? xstrdup(name) : NULL;
    auto_free char *format_copy = xstrdup(format);
    return qcow2_change_backing(a->q->node, copy, format_copy, err);
}

/* Version 2 -------------------------------------------------------------------------------------------------------- */

static int has_zero_entries(struct qcow2 *q, const struct snapshot *s, uint8_t *buffer, bool *found)
{
    struct disk_table l1;
    *found = false;
    if (!disk_table_load(&l1, q->file, s->l1_offset, s->l1_size, "L1 table", NULL))
        return -EIO;
    int result = 0;
    for (uint32_t i = 0; i < l1.count && !result && !*found; i++) {
        uint64_t table = l1.entries[i] & ENTRY_OFFSET;
        if (!table)
            continue;
        result = in_cluster(q, table) ? -EIO : qcow2_read_file(q->file, table, buffer, q->cluster_size);
        for (uint32_t e = 0; e < 1u << q->l2_bits && !result && !*found; e++) {
            uint64_t entry = l2_get(q, buffer, e).descriptor;
            *found = !(entry & ENTRY_COMPRESSED) && entry & ENTRY_ZERO;
        }
    }
    disk_table_release(&l1);
    return result;
}

static bool check_snapshots(struct qcow2 *q, struct error *err)
{
    auto_free uint8_t *buffer = block_alloc_buffer(q->file, q->cluster_size);
    if (!buffer)
        return fail(err, ENOMEM, "out of memory for an L2 table");
    const struct snapshot *s;
    vec_for_each (s, &q->snapshots) {
        bool found;
        int result = has_zero_entries(q, s, buffer, &found);
        if (result)
            return fail_errno(err, result, "cannot read the tables of snapshot '%s'", s->name);
        if (found)
            return fail(err, ENOTSUP,
                        "compat=0.10 (version 2) has no zero clusters, and snapshot '%s' has some: delete it", s->name);
    }
    return true;
}

/* One zero cluster of the active disk: nothing where nothing else would show, else a cluster full of zeroes. */
static int expand(struct qcow2 *q, uint64_t guest, uint64_t length, const uint8_t *zeroes)
{
    bool shows = has_backing(q) && guest < q->node->backing->child->size;
    return shows ? qcow2_write_whole(q->node, guest, length, zeroes)
                 : qcow2_unmap_span(q, guest, length, true, FREE_OTHER);
}

static int expand_zeroes(struct amendment *a)
{
    struct qcow2 *q = a->q;
    uint64_t end = cluster_end(q, q->size);
    auto_free uint8_t *zeroes = block_alloc_buffer(q->file, q->cluster_size);
    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, q->cluster_size);
    for (uint64_t at = 0; at < end;) {
        struct extent extent;
        int result = qcow2_map(q->node, at, end - at, &extent);
        if (result)
            return result;
        uint64_t length = extent.length;
        if (extent.kind == EXTENT_ZERO) {
            length = MIN(length, q->cluster_size);
            result = expand(q, at, length, zeroes);
        }
        if (result)
            return result;
        at += length;
        report(a, at, end);
    }
    return 0;
}

static bool downgrade(struct amendment *a, struct error *err)
{
    struct qcow2 *q = a->q;
    if (q->header.version < 3)
        return true;
    if (!check_snapshots(q, err))
        return false;
    int result = expand_zeroes(a);
    q->lazy_refcounts = false;
    if (!result)
        result = qcow2_finish(q);
    if (!result)
        result = qcow2_barrier(q);
    if (result)
        return fail_errno(err, result, "cannot replace the zero clusters, which version 2 does not have");
    struct header now = q->header;
    now.version = 2;
    now.header_length = HEADER_V2_LENGTH;
    now.incompatible = now.compatible = now.autoclear = 0;
    return rewrite(q, &now, err);
}

/* All ------------------------------------------------------------------------------------------------------------- */

static bool run_step(struct amendment *a, bool wanted, bool (*step)(struct amendment *a, struct error *err),
                     struct error *err)
{
    if (!wanted)
        return true;
    if (!step(a, err))
        return false;
    step_done(a);
    return true;
}

static bool change_size(struct amendment *a, struct error *err)
{
    return qcow2_resize(a->q->node, a->o->size, PREALLOCATION_OFF, true, err);
}

static bool change_slots(struct amendment *a, struct error *err)
{
    return encryption_amend(a->q, a->o->encrypt, a->force, err);
}

static bool qcow2_amend(struct node *node, void *options, bool force,
                        void (*progress)(void *user, uint64_t done, uint64_t total), void *user, struct error *err)
{
    const struct qcow2_amend_options *o = options;
    struct amendment a = {.q = node->state, .o = o, .force = force, .report = progress, .user = user};
    a.wants_v2 = o->has_compat && (o->compat == QCOW2_COMPAT_V2 || o->compat == QCOW2_COMPAT_0_10);
    a.wants_v3 = o->has_compat && !a.wants_v2;
    if (!check_amendment(&a, err))
        return false;
    bool flags = o->has_lazy_refcounts || o->has_data_file_raw || o->data_file;
    bool backing = o->backing_file || o->backing_fmt;
    bool slots = o->encrypt != NULL;
    a.steps = a.wants_v3 + o->has_refcount_bits + flags + backing + a.wants_v2 + o->has_size + slots;
    node_mark_written(node);
    return run_step(&a, a.wants_v3, upgrade, err) && run_step(&a, o->has_refcount_bits, change_refcounts, err) &&
           run_step(&a, flags, change_flags, err) && run_step(&a, backing, change_backing, err) &&
           run_step(&a, a.wants_v2, downgrade, err) && run_step(&a, o->has_size, change_size, err) &&
           run_step(&a, slots, change_slots, err);
}

const struct amend_ops qcow2_amend_ops = {.options_type = &qcow2_amend_options_type, .amend = qcow2_amend};
