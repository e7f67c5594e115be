/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that an L1 table refers to, at once: internal snapshots count it once more, or once less, and the COPIED
 * flags follow.
 *
 * A cluster is counted once for every path from an L1 table: an L2 table that two L1 tables share has a count of 2, and
 * so has each of its clusters. COPIED says that the count is 1, and means something in active tables only.
 */
#include "formats/qcow2/state.h"

#include <inttypes.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "formats/qcow2/entry.h"

/* A walk that counts, up to `limit` spans: so a failed one can be taken back as far as it came. */
struct tally {
    struct qcow2 *q;
    int delta;
    uint64_t done, limit;
    struct freed_spans *freed;
    struct host_span run; /* neighbours are counted together */
};

static int tally_flush(struct tally *t)
{
    if (!t->run.length)
        return 0;
    int result = refcount_add(t->q, t->run.offset, t->run.length, t->delta, t->freed);
    if (!result)
        t->done++;
    t->run.length = 0;
    return result;
}

static int tally_add(struct tally *t, uint64_t offset, uint64_t length, bool joins)
{
    if (joins && t->run.length && t->run.offset + t->run.length == offset) {
        t->run.length += length;
        return 0;
    }
    int result = tally_flush(t);
    if (t->done == t->limit)
        return -ECANCELED;
    t->run = (struct host_span){offset, length};
    return !result && !joins ? tally_flush(t) : result;
}

static int tally_table(struct tally *t, uint64_t guest, const uint8_t *table)
{
    struct qcow2 *q = t->q;
    int result = 0;
    for (uint32_t i = 0; i < 1u << q->l2_bits && !result; i++) {
        struct l2_entry entry = l2_get(q, table, i);
        uint64_t at = guest + ((uint64_t)i << q->cluster_bits);
        struct mapping m;
        const char *problem = mapping_decode(q, entry, at, &m);
        if (problem)
            return qcow2_corrupt(q, UINT64_MAX, UINT64_MAX, "the L2 entry of guest offset 0x%" PRIx64 " means %s", at,
                                 problem);
        if (m.compressed) {
            struct host_span span = compressed_span(q, entry.descriptor);
            result = tally_add(t, span.offset, span.length, false);
        } else if (m.has_host && !q->external_data) {
            result = tally_add(t, m.host, q->cluster_size, true);
        }
    }
    return result;
}

static int bad_table(struct qcow2 *q, uint32_t index, uint64_t table)
{
    return qcow2_corrupt(q, table, q->cluster_size,
                         "L1 entry %" PRIu32 " names an L2 table at 0x%" PRIx64
                         ": it must begin at a multiple of %" PRIu64 ", inside the file",
                         index, table, q->cluster_size);
}

static int read_table(struct qcow2 *q, uint32_t index, uint64_t table, uint8_t *buffer)
{
    if (in_cluster(q, table) || table >= q->file->child->size)
        return bad_table(q, index, table);
    return qcow2_read_file(q->file, table, buffer, q->cluster_size);
}

static int tally_walk(struct tally *t, const uint64_t *l1, uint32_t count, uint8_t *buffer)
{
    struct qcow2 *q = t->q;
    int result = 0;
    for (uint32_t i = 0; i < count && !result; i++) {
        uint64_t table = l1[i] & ENTRY_OFFSET;
        if (!table)
            continue;
        result = read_table(q, i, table, buffer);
        if (!result)
            result = tally_table(t, i * l2_span(q), buffer);
        if (!result)
            result = tally_add(t, table, q->cluster_size, false);
    }
    return result ? result : tally_flush(t);
}

int references_count(struct qcow2 *q, const uint64_t *l1, uint32_t count, int delta, struct freed_spans *freed)
{
    auto_free uint8_t *buffer = block_alloc_buffer(q->file, q->cluster_size);
    if (!buffer)
        return -ENOMEM;
    struct tally t = {.q = q, .delta = delta, .limit = UINT64_MAX, .freed = freed};
    int result = tally_walk(&t, l1, count, buffer);
    if (result && t.done) {
        struct tally back = {.q = q, .delta = -delta, .limit = t.done};
        (void)tally_walk(&back, l1, count, buffer);
    }
    return result;
}

/* COPIED ----------------------------------------------------------------------------------------------------------- */

/* What the flag of an entry that names `host` should be. */
static int wanted_flag(struct qcow2 *q, uint64_t host, bool clear, uint64_t *flag)
{
    uint64_t count = 0;
    int result = clear ? 0 : refcount_get(q, cluster_index(q, host), &count);
    *flag = count == 1 ? ENTRY_COPIED : 0;
    return result;
}

static int flag_slice(struct qcow2 *q, uint64_t slice_offset, uint64_t guest, bool clear)
{
    uint32_t entries = (1u << q->slice_bits) / q->l2_entry_size;
    bool dirty = false;
    for (uint32_t i = 0; i < entries; i++) {
        uint8_t *slice;
        int result = l2_load_locked(q, slice_offset, &slice);
        if (result)
            return result;
        struct l2_entry entry = l2_get(q, slice, i);
        struct mapping m;
        if (mapping_decode(q, entry, guest + ((uint64_t)i << q->cluster_bits), &m) || m.compressed || !m.has_host ||
            q->external_data)
            continue;
        uint64_t flag;
        result = wanted_flag(q, m.host, clear, &flag);
        if (result)
            return result;
        if ((entry.descriptor & ENTRY_COPIED) == flag)
            continue;
        entry.descriptor ^= ENTRY_COPIED;
        result = l2_load_locked(q, slice_offset, &slice); /* reading a count may have let it go */
        if (result)
            return result;
        l2_put(q, slice, i, entry);
        cache_mark_dirty(&q->l2_cache, slice_offset);
        dirty = true;
    }
    return dirty ? qcow2_relieve(q) : 0;
}

static int flag_active(struct qcow2 *q, bool clear)
{
    for (uint32_t i = 0; i < q->l1.count; i++) {
        uint64_t table = q->l1.entries[i] & ENTRY_OFFSET, flag;
        if (!table)
            continue;
        if (in_cluster(q, table) || table >= q->file->child->size)
            return bad_table(q, i, table);
        int result = wanted_flag(q, table, clear, &flag);
        uint64_t span = slice_span(q), guest = i * l2_span(q);
        for (uint64_t at = 0; at < q->cluster_size && !result; at += 1ull << q->slice_bits, guest += span)
            result = flag_slice(q, table + at, guest, clear);
        if (result)
            return result;
        if ((q->l1.entries[i] & ENTRY_COPIED) != flag)
            disk_table_set(&q->l1, i, table | flag);
    }
    return 0;
}

int references_clear_copied(struct qcow2 *q)
{
    return flag_active(q, true);
}

int references_set_copied(struct qcow2 *q)
{
    return flag_active(q, false);
}

/* Flags mean nothing in these tables: they may change in place, in any order. */
int references_clean_tables(struct qcow2 *q, const uint64_t *l1, uint32_t count)
{
    auto_free uint8_t *buffer = block_alloc_buffer(q->file, q->cluster_size);
    if (!buffer)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t table = l1[i] & ENTRY_OFFSET;
        if (!table)
            continue;
        bool dirty = false;
        int result = read_table(q, i, table, buffer);
        for (uint32_t e = 0; e < 1u << q->l2_bits && !result; e++) {
            struct l2_entry entry = l2_get(q, buffer, e);
            if (entry.descriptor & ENTRY_COMPRESSED || !(entry.descriptor & ENTRY_COPIED))
                continue;
            entry.descriptor &= ~ENTRY_COPIED;
            l2_put(q, buffer, e, entry);
            dirty = true;
        }
        if (!result && dirty) {
            cache_forget(&q->l2_cache, table, q->cluster_size);
            result = block_write_buffer(q->file, table, buffer, q->cluster_size, 0);
        }
        if (result)
            return result;
    }
    return 0;
}
