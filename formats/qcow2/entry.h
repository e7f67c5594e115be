/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The meaning of one L2 entry, in one shape for standard and extended entries: a standard cluster is a cluster with one
 * subcluster. What an entry from disk may not say is found here, before anybody acts on it.
 */
#ifndef FORMATS_QCOW2_ENTRY_H
#define FORMATS_QCOW2_ENTRY_H

#include "formats/qcow2/state.h"

struct mapping {
    bool has_host, copied, compressed;
    uint64_t host;        /* cluster; has_host */
    uint32_t alloc, zero; /* a bit each subcluster; neither: the backing file decides */
};

static inline uint32_t all_subclusters(const struct qcow2 *q)
{
    return q->extended_l2 ? UINT32_MAX : 1;
}

/* The subclusters that bytes [from, to) of a cluster touch; from < to. */
static inline uint32_t touched_subclusters(const struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t first = from >> q->subcluster_bits, end = ((to - 1) >> q->subcluster_bits) + 1;
    return (uint32_t)(((1ull << end) - 1) & ~((1ull << first) - 1));
}

/* NULL, or what is wrong with the entry of the guest cluster at `guest`. The zero flag is tested after the compressed
 * flag: in a compressed descriptor bit 0 is part of the offset. */
static inline const char *mapping_decode(const struct qcow2 *q, struct l2_entry entry, uint64_t guest,
                                         struct mapping *m)
{
    *m = (struct mapping){.copied = entry.descriptor & ENTRY_COPIED};
    if (entry.descriptor & ENTRY_COMPRESSED) {
        m->compressed = true;
        if (q->external_data)
            return "a compressed cluster in an image with an external data file";
        return entry.bitmap ? "a compressed cluster with subclusters" : NULL;
    }
    m->host = entry.descriptor & ENTRY_OFFSET;
    m->has_host = m->host || (q->external_data && m->copied);
    if (in_cluster(q, m->host))
        return "a data cluster that is not aligned to the cluster size";
    if (q->external_data && m->has_host && m->host != guest)
        return "a place in the external data file that is not the guest's own offset";
    if (q->extended_l2) {
        m->alloc = (uint32_t)entry.bitmap;
        m->zero = (uint32_t)(entry.bitmap >> 32);
        if (m->alloc & m->zero)
            return "a subcluster that is both allocated and zero";
        return m->alloc && !m->has_host ? "allocated subclusters without a place in the file" : NULL;
    }
    m->zero = entry.descriptor & ENTRY_ZERO;
    m->alloc = m->has_host && !m->zero;
    return m->zero && q->header.version < 3 ? "a zero cluster in a version 2 image" : NULL;
}

static inline struct l2_entry mapping_encode(const struct qcow2 *q, const struct mapping *m)
{
    struct l2_entry entry = {m->has_host ? m->host | (m->copied ? ENTRY_COPIED : 0) : 0, 0};
    if (q->extended_l2)
        entry.bitmap = (uint64_t)m->zero << 32 | m->alloc;
    else if (m->zero)
        entry.descriptor |= ENTRY_ZERO;
    return entry;
}

/* Writes over all of `touched` may go straight to the cluster. */
static inline bool mapping_in_place(const struct mapping *m, uint32_t touched)
{
    return m->has_host && m->copied && (m->alloc & touched) == touched;
}

/* Host bytes of a compressed cluster: from any byte to the end of a sector. */
static inline struct host_span compressed_span(const struct qcow2 *q, uint64_t descriptor)
{
    uint32_t size_bits = q->cluster_bits - 8, offset_bits = 62 - size_bits;
    uint64_t offset = descriptor & ((1ull << offset_bits) - 1) & (HOST_OFFSET_END - 1);
    uint64_t sectors = (descriptor >> offset_bits & ((1ull << size_bits) - 1)) + 1;
    return (struct host_span){offset, sectors * 512 - (offset & 511)};
}

/* False when the descriptor cannot say so. */
static inline bool compressed_describe(const struct qcow2 *q, uint64_t offset, uint64_t size, uint64_t *descriptor)
{
    uint32_t offset_bits = 62 - (q->cluster_bits - 8);
    if (offset >> offset_bits || offset >= HOST_OFFSET_END)
        return false;
    *descriptor = ENTRY_COMPRESSED | ((offset & 511) + size - 1) / 512 << offset_bits | offset;
    return true;
}

/* Drops what an entry refers to, at the next sync. Guest data in an external file is not counted. */
static inline void mapping_free_later(struct qcow2 *q, struct l2_entry entry, const struct mapping *m,
                                      enum free_reason reason)
{
    if (m->compressed) {
        struct host_span span = compressed_span(q, entry.descriptor);
        qcow2_free_later(q, span.offset, span.length, reason);
    } else if (m->has_host && !q->external_data) {
        qcow2_free_later(q, m->host, q->cluster_size, reason);
    }
}

#endif
