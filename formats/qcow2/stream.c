/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image in one go. What is stored is known before, so the place of everything is, too:
 *
 *   header | refcount table | refcount blocks | L1 table | L2 tables | data clusters, in the order of the disk
 *
 * Every cluster of the file is used once, so all refcounts are 1 up to the end. The number of refcount blocks depends
 * on the number of clusters and counts itself: a few rounds find it. L2 tables exist where something is stored.
 *
 * Nothing can be packed: the size of a packed cluster is not known before it is packed, and the tables stand in front.
 */
#include "formats/qcow2/stream.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "formats/qcow2/state.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

struct plan {
    const struct qcow2_stream *stream;
    struct header header;
    uint64_t cluster_size, l2_entries; /* of one table */
    uint64_t l2_tables, data_clusters, refcount_blocks;
    uint64_t l2_offset, data_offset, clusters; /* of the file */
    uint8_t *cluster;                          /* what is being made */
};

/* What is not named here changes the image in a way that this file does not know. */
static bool is_possible(const char *key, const struct json *value)
{
    static const char *const known[] = {"size",         "cluster_size", "refcount_bits", "lazy_refcounts",
                                        "backing_file", "backing_fmt",  "compat",        "compression_type"};
    const char *text = json_string(value);
    bool off = json_kind(value) == JSON_BOOL ? !json_boolean(value) : text && !strcmp(text, "off");
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (!strcmp(key, known[i]))
            return true;
    }
    return off;
}

bool qcow2_stream_check(const struct qcow2_create_options *o, struct error *err)
{
    auto_json *given = qcow2_create_options_to_json(o);
    for (struct json_member m = json_first(given); m.key; m = json_next(m)) {
        if (!is_possible(m.key, m.value))
            return fail(err, ENOTSUP, "%s is not possible in an image that is written as a stream", m.key);
    }
    if (o->compat == QCOW2_COMPAT_V2 || o->compat == QCOW2_COMPAT_0_10)
        return fail(err, ENOTSUP, "compat=0.10 is not possible in an image that is written as a stream");
    return qcow2_check_create_options(o, 3, err);
}

static uint64_t first_cluster(const struct plan *plan, const struct qcow2_stream_run *run)
{
    return run->offset / plan->cluster_size;
}

static uint64_t end_cluster(const struct plan *plan, const struct qcow2_stream_run *run)
{
    return DIV_ROUND_UP(run->offset + run->length, plan->cluster_size);
}

static void count_tables(struct plan *plan)
{
    uint64_t counted = 0; /* tables below this number were */
    for (size_t i = 0; i < plan->stream->count; i++) {
        const struct qcow2_stream_run *run = &plan->stream->runs[i];
        uint64_t first = first_cluster(plan, run), end = end_cluster(plan, run);
        uint64_t first_table = MAX(first / plan->l2_entries, counted);
        uint64_t end_table = DIV_ROUND_UP(end, plan->l2_entries);
        plan->l2_tables += end_table > first_table ? end_table - first_table : 0;
        counted = MAX(counted, end_table);
        plan->data_clusters += run->is_zero ? 0 : end - first;
    }
}

static bool lay_out(struct plan *plan, struct error *err)
{
    const struct qcow2_create_options *o = plan->stream->options;
    uint64_t cs = plan->cluster_size = o->cluster_size, size = round_up(plan->stream->size, 512);
    plan->l2_entries = cs / 8;
    uint64_t l1_size = MAX(DIV_ROUND_UP(DIV_ROUND_UP(size, cs), plan->l2_entries), (uint64_t)1);
    if (l1_size > L1_BYTES_MAX / 8)
        return fail(err, EFBIG, "a disk of %" PRIu64 " bytes is too large for clusters of %" PRIu64 " bytes", size, cs);
    count_tables(plan);
    uint64_t l1_clusters = DIV_ROUND_UP(l1_size * 8, cs), per_block = cs * 8 / (uint64_t)o->refcount_bits;
    uint64_t others = 1 + l1_clusters + plan->l2_tables + plan->data_clusters, table = 0, before;
    do {
        before = plan->refcount_blocks + table;
        plan->refcount_blocks = DIV_ROUND_UP(others + before, per_block);
        table = DIV_ROUND_UP(plan->refcount_blocks * 8, cs);
    } while (plan->refcount_blocks + table != before);
    uint64_t l1_offset = (1 + table + plan->refcount_blocks) * cs;
    plan->l2_offset = l1_offset + l1_clusters * cs;
    plan->data_offset = plan->l2_offset + plan->l2_tables * cs;
    plan->clusters = others + before;
    plan->header = (struct header){
        .version = 3,
        .cluster_bits = lowest_bit(cs),
        .refcount_order = lowest_bit((uint64_t)o->refcount_bits),
        .compression_type = o->compression_type == QCOW2_COMPRESSION_TYPE_ZSTD ? COMPRESSION_ZSTD : COMPRESSION_DEFLATE,
        .incompatible = o->compression_type == QCOW2_COMPRESSION_TYPE_ZSTD ? INCOMPATIBLE_COMPRESSION : 0,
        .compatible = o->lazy_refcounts ? COMPATIBLE_LAZY_REFCOUNTS : 0,
        .size = size,
        .l1_size = (uint32_t)l1_size,
        .l1_offset = l1_offset,
        .reftable_offset = cs,
        .reftable_clusters = (uint32_t)table,
        .backing_name = o->backing_file,
        .backing_format = o->backing_fmt,
    };
    if (table * cs > REFTABLE_BYTES_MAX)
        return fail(err, EFBIG, "the data is too much for clusters of %" PRIu64 " bytes", cs);
    return true;
}

/* Making ----------------------------------------------------------------------------------------------------------- */

static int put_cluster(struct plan *plan)
{
    int result = plan->stream->emit(plan->stream->user, plan->cluster, plan->cluster_size);
    memset(plan->cluster, 0, plan->cluster_size);
    return result;
}

/* A table of `count` entries, each the place of one of the clusters that stand one behind the other from `first` on. */
static int put_places(struct plan *plan, uint64_t count, uint64_t first)
{
    uint64_t per_cluster = plan->cluster_size / 8;
    int result = 0;
    for (uint64_t i = 0; i < count && !result; i++) {
        store_be64(plan->cluster + i % per_cluster * 8, first + i * plan->cluster_size);
        if (i % per_cluster == per_cluster - 1 || i == count - 1)
            result = put_cluster(plan);
    }
    return result;
}

static int put_refcounts(struct plan *plan)
{
    uint64_t per_block = plan->cluster_size * 8 >> plan->header.refcount_order, left = plan->clusters;
    int result = put_places(plan, plan->refcount_blocks, (1 + plan->header.reftable_clusters) * plan->cluster_size);
    for (uint64_t block = 0; block < plan->refcount_blocks && !result; block++) {
        uint64_t here = MIN(left, per_block);
        for (uint64_t i = 0; i < here; i++)
            refcount_write(plan->cluster, plan->header.refcount_order, i, 1);
        left -= here;
        result = put_cluster(plan);
    }
    return result;
}

/* Walks over the tables that exist; fn() gets each one's number. Tables are what runs have in common. */
struct table_walk {
    size_t run;
    uint64_t next; /* the least table that may come */
};

static bool next_table(const struct plan *plan, struct table_walk *walk, uint64_t *table)
{
    for (; walk->run < plan->stream->count; walk->run++) {
        const struct qcow2_stream_run *run = &plan->stream->runs[walk->run];
        *table = MAX(first_cluster(plan, run) / plan->l2_entries, walk->next);
        if (*table < DIV_ROUND_UP(end_cluster(plan, run), plan->l2_entries)) {
            walk->next = *table + 1;
            return true;
        }
    }
    return false;
}

static int put_l1(struct plan *plan)
{
    uint64_t per_cluster = plan->cluster_size / 8, table, place = plan->l2_offset, at = 0;
    uint64_t end = DIV_ROUND_UP(plan->header.l1_size, per_cluster); /* clusters */
    struct table_walk walk = {0};
    int result = 0;
    while (!result && next_table(plan, &walk, &table)) {
        for (; at < table / per_cluster && !result; at++)
            result = put_cluster(plan);
        store_be64(plan->cluster + table % per_cluster * 8, place | ENTRY_COPIED);
        place += plan->cluster_size;
    }
    for (; at < end && !result; at++)
        result = put_cluster(plan);
    return result;
}

static int put_l2(struct plan *plan)
{
    uint64_t current = UINT64_MAX, place = plan->data_offset;
    int result = 0;
    for (size_t i = 0; i < plan->stream->count; i++) {
        const struct qcow2_stream_run *run = &plan->stream->runs[i];
        for (uint64_t cluster = first_cluster(plan, run); cluster < end_cluster(plan, run) && !result; cluster++) {
            uint64_t table = cluster / plan->l2_entries;
            if (table != current && current != UINT64_MAX)
                result = put_cluster(plan);
            current = table;
            uint64_t entry = run->is_zero ? ENTRY_ZERO : place | ENTRY_COPIED;
            store_be64(plan->cluster + cluster % plan->l2_entries * 8, entry);
            place += run->is_zero ? 0 : plan->cluster_size;
        }
    }
    return current == UINT64_MAX || result ? result : put_cluster(plan);
}

bool qcow2_stream_head(const struct qcow2_stream *stream, struct error *err)
{
    struct plan plan = {.stream = stream};
    uint64_t used;
    if (!lay_out(&plan, err))
        return false;
    auto_free uint8_t *cluster = plan.cluster = try_calloc(1, plan.cluster_size);
    if (!cluster)
        return fail(err, ENOMEM, "out of memory for a cluster");
    if (!header_format(&plan.header, cluster, &used, err))
        return false;
    int result = put_cluster(&plan);
    if (!result)
        result = put_refcounts(&plan);
    if (!result)
        result = put_l1(&plan);
    if (!result)
        result = put_l2(&plan);
    return !result || fail_errno(err, result, "cannot write the image");
}
