/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest offset to extent. When the slice of the L2 table is cached, nothing here yields or locks: L1 is in memory, the
 * cache is a hash table, and metadata in memory is never half changed between two yields.
 */
#include <inttypes.h>
#include "formats/qcow2/entry.h"
#include "formats/qcow2/state.h"

static enum extent_kind kind_of(const struct mapping *m, uint32_t bit)
{
    if (m->compressed)
        return EXTENT_ENCODED;
    if (m->zero & bit)
        return EXTENT_ZERO;
    return m->alloc & bit ? EXTENT_DATA : EXTENT_BACKING;
}

/* What stands at `offset`, to the end of its run of equal subclusters. */
static void extent_of(const struct qcow2 *q, const struct mapping *m, uint64_t descriptor, uint64_t offset,
                      struct extent *extent)
{
    uint64_t inside = in_cluster(q, offset);
    uint32_t subcluster = (uint32_t)(inside >> q->subcluster_bits);
    enum extent_kind kind = kind_of(m, 1u << subcluster);
    uint32_t end = subcluster + 1;
    while (end < q->subclusters && kind_of(m, 1u << end) == kind)
        end++;
    bool has_place = m->has_host && (kind == EXTENT_DATA || kind == EXTENT_ZERO);
    *extent = (struct extent){.kind = kind,
                              .length = ((uint64_t)end << q->subcluster_bits) - inside,
                              .child = has_place ? q->data : NULL,
                              .child_offset = has_place ? m->host + inside : 0,
                              .encoded = kind == EXTENT_ENCODED ? descriptor : 0,
                              .allocated = kind != EXTENT_BACKING};
    if (kind == EXTENT_ENCODED)
        extent->length = q->cluster_size - inside;
    else if (kind == EXTENT_DATA && is_encrypted(q))
        extent->kind = EXTENT_ENCODED;
}

static bool extent_goes_on(const struct extent *extent, const struct extent *next)
{
    return extent->kind == next->kind && (extent->kind != EXTENT_ENCODED || extent->child) &&
           extent->child == next->child &&
           (!extent->child || extent->child_offset + extent->length == next->child_offset);
}

static int bad_entry(struct qcow2 *q, uint64_t offset, struct l2_entry entry, const char *problem)
{
    return qcow2_corrupt(q, UINT64_MAX, UINT64_MAX,
                         "the L2 entry of guest offset 0x%" PRIx64 " is 0x%016" PRIx64 ", which means %s",
                         cluster_start(q, offset), entry.descriptor, problem);
}

/* Collects what follows `offset` in a slice that is in memory. Stops in front of a bad entry. */
static int map_slice(struct qcow2 *q, const uint8_t *slice, uint32_t index, uint64_t offset, uint64_t length,
                     struct extent *extent)
{
    uint32_t entries = (1u << q->slice_bits) / q->l2_entry_size;
    uint64_t done = 0;
    for (; done < length && index < entries; index++) {
        struct l2_entry entry = l2_get(q, slice, index);
        struct mapping m;
        const char *problem = mapping_decode(q, entry, cluster_start(q, offset + done), &m);
        if (unlikely(problem != NULL))
            return done ? 0 : bad_entry(q, offset, entry, problem);
        uint64_t cluster_left = q->cluster_size - in_cluster(q, offset + done);
        while (cluster_left && done < length) {
            struct extent next;
            extent_of(q, &m, entry.descriptor, offset + done, &next);
            if (done && !extent_goes_on(extent, &next))
                return 0;
            if (!done)
                *extent = next;
            else
                extent->length += next.length;
            done += next.length;
            cluster_left -= next.length;
        }
    }
    return 0;
}

/* No L2 table: the whole span of this one, and of those that follow and have none either. */
static void map_no_table(struct qcow2 *q, uint64_t offset, uint64_t length, struct extent *extent)
{
    uint64_t end = round_down(offset, l2_span(q)) + l2_span(q);
    for (uint64_t l1 = l1_index(q, offset) + 1; end < offset + length; l1++, end += l2_span(q)) {
        if (l1 < q->l1.count && q->l1.entries[l1] & ENTRY_OFFSET)
            break;
    }
    *extent = (struct extent){.kind = EXTENT_BACKING, .length = end - offset};
}

int qcow2_map(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct qcow2 *q = node->state;
    for (;;) {
        uint64_t slice_offset;
        uint32_t index;
        int result = l2_locate(q, offset, &slice_offset, &index);
        if (unlikely(result))
            return result;
        if (!slice_offset) {
            map_no_table(q, offset, length, extent);
            break;
        }
        uint8_t *slice = cache_peek(&q->l2_cache, slice_offset);
        if (unlikely(!slice)) {
            /* While it was loading, L1 may have come to name another table. */
            uint64_t before = slice_offset;
            result = l2_load(q, slice_offset, &slice);
            uint64_t now = 0;
            if (!result)
                result = l2_locate(q, offset, &now, &index);
            if (result)
                return result;
            if (now != before)
                continue;
        }
        result = map_slice(q, slice, index, offset, length, extent);
        if (result)
            return result;
        break;
    }
    extent->length = MIN(extent->length, length);
    return 0;
}
