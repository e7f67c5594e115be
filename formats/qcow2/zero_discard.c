/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zeroes and discards change entries, not data. Both take an exclusive claim, slice by slice, so that they wait for
 * writes in flight (a write that is still filling a cluster must not see it freed, and given to somebody else).
 *
 *   before                    zero                              discard
 *   unallocated               zero (nothing without backing)    the same
 *   zero                      as it is                          its place is freed
 *   data, ours alone          zero, keeps its place;            zero, its place is freed (discard-no-unref: keeps it)
 *                             may-unmap: its place is freed
 *   data shared, compressed   zero, reference dropped           the same
 *
 * Version 2 has no zero clusters: zeroes are refused (block/ writes them), and a discard unmaps only where no backing
 * file could shine through. With a raw external data file the file itself must read as the guest does, so zeroes are
 * made there.
 *
 * Where parts of a place that stays are given up, holes are made there (punch()).
 */
#include <inttypes.h>
#include "formats/qcow2/claim.h"
#include "formats/qcow2/edges.h"
#include "formats/qcow2/entry.h"
#include "formats/qcow2/write_log.h"

enum unmap_mode {
    UNMAP_ZERO,    /* reads as zeroes afterwards */
    UNMAP_DISCARD, /* may read as zeroes; no room shall be kept */
    UNMAP_FULLY,   /* no entry is left: the end of the disk is cut off */
};

struct change {
    enum unmap_mode mode;
    enum free_reason reason;
    bool may_unmap;
    struct freed_spans punch; /* discard-no-unref: kept places whose bytes may go */
};

/* What shows where this image has nothing. */
static bool backing_shows(const struct qcow2 *q, uint64_t guest)
{
    return has_backing(q) && guest < q->node->backing->child->size;
}

static void zero_all(struct qcow2 *q, struct mapping *m, bool keep_place)
{
    bool has_host = m->has_host && keep_place;
    *m = (struct mapping){.has_host = has_host, .copied = has_host, .host = m->host, .zero = all_subclusters(q)};
}

static bool zero_cluster(struct qcow2 *q, struct mapping *m, uint64_t guest, const struct change *change)
{
    if (q->header.version < 3) {
        bool nothing = !m->has_host && !m->compressed;
        if (backing_shows(q, guest) || (!nothing && !change->may_unmap))
            return false;
        *m = (struct mapping){0};
        return true;
    }
    if (!m->has_host && !m->compressed && !m->zero && !has_backing(q))
        return true; /* reads as zeroes as it is */
    bool keeps = m->has_host && m->copied && (!change->may_unmap || q->discard_no_unref || q->external_data);
    zero_all(q, m, keeps);
    return true;
}

static bool discard_cluster(struct qcow2 *q, struct mapping *m, uint64_t guest, struct change *change)
{
    if (!m->has_host && !m->compressed && (m->zero == all_subclusters(q) || !backing_shows(q, guest)))
        return true;
    if (q->header.version < 3) {
        if (!backing_shows(q, guest))
            *m = (struct mapping){0};
        return true;
    }
    bool keeps = q->discard_no_unref && m->has_host && m->copied && !q->external_data;
    if (keeps || (q->external_data && m->has_host))
        vec_push(&change->punch, ((struct host_span){m->host, q->cluster_size}));
    zero_all(q, m, keeps);
    return true;
}

/* A part of a cluster is given up: its bytes in the file may go, if they are ours alone. With the last of them goes the
 * place. */
static void discard_subclusters(struct qcow2 *q, struct mapping *m, uint32_t touched, struct change *change)
{
    if (!m->has_host)
        return;
    if (!(m->alloc & ~touched) && !q->discard_no_unref && !q->external_data) {
        m->has_host = m->copied = false;
        m->host = 0;
        return;
    }
    for (uint32_t bit = 0; m->copied && bit < q->subclusters; bit++) {
        if (touched & m->alloc & (1u << bit))
            vec_push(&change->punch,
                     ((struct host_span){m->host + (uint64_t)bit * subcluster_size(q), subcluster_size(q)}));
    }
}

/* The new state of one cluster. False: this cannot be said by metadata. */
static bool change_cluster(struct qcow2 *q, struct mapping *m, uint64_t guest, uint32_t touched, struct change *change)
{
    if (touched != all_subclusters(q)) {
        /* Other subclusters keep what they have, shared or not: only the bits of this entry change. */
        if (m->compressed || change->mode == UNMAP_FULLY)
            return change->mode == UNMAP_DISCARD;
        if (change->mode == UNMAP_DISCARD)
            discard_subclusters(q, m, touched, change);
        m->alloc &= ~touched;
        m->zero |= touched;
        return true;
    }
    switch (change->mode) {
    case UNMAP_ZERO: return zero_cluster(q, m, guest, change);
    case UNMAP_DISCARD: return discard_cluster(q, m, guest, change);
    case UNMAP_FULLY: *m = (struct mapping){0}; return true;
    }
    return false;
}

static int change_entry(struct qcow2 *q, uint8_t *slice, uint32_t index, uint64_t guest, uint32_t touched,
                        struct change *change, bool *dirty)
{
    struct l2_entry entry = l2_get(q, slice, index);
    struct mapping old, m;
    const char *problem = mapping_decode(q, entry, guest, &old);
    if (problem)
        return qcow2_corrupt(q, UINT64_MAX, UINT64_MAX, "the L2 entry of guest offset 0x%" PRIx64 " means %s", guest,
                             problem);
    m = old;
    if (!change_cluster(q, &m, guest, touched, change))
        return -ENOTSUP;
    if (m.compressed)
        return 0; /* nothing changed: a compressed cluster cannot be the result */
    struct l2_entry changed = mapping_encode(q, &m);
    if (changed.descriptor == entry.descriptor && changed.bitmap == entry.bitmap)
        return 0;
    if (!m.has_host)
        mapping_free_later(q, entry, &old, change->reason);
    l2_put(q, slice, index, changed);
    log_note(q, cluster_index(q, guest), changed, 1, m.has_host);
    *dirty = true;
    return 0;
}

/* One span inside a slice, under the lock and a claim. */
static int change_slice(struct qcow2 *q, uint64_t offset, uint64_t end, struct change *change)
{
    uint64_t slice_offset;
    uint32_t index;
    uint8_t *slice;
    int result = l2_locate(q, offset, &slice_offset, &index);
    if (result)
        return result;
    if (!slice_offset && (change->mode == UNMAP_FULLY || !backing_shows(q, offset)))
        return 0;
    if (!slice_offset && q->header.version < 3)
        return change->mode == UNMAP_DISCARD ? 0 : -ENOTSUP;
    result = l2_load_for_change(q, offset, &slice, &slice_offset, &index);
    bool dirty = false;
    for (uint64_t guest = cluster_start(q, offset); !result && guest < end; guest += q->cluster_size, index++) {
        uint64_t from = offset > guest ? offset - guest : 0, to = MIN(end - guest, q->cluster_size);
        /* The last cluster of the disk may reach beyond its end: then it is touched as a whole. */
        if (guest + to == q->size)
            to = q->cluster_size;
        result = change_entry(q, slice, index, guest, touched_subclusters(q, from, to), change, &dirty);
    }
    if (dirty)
        cache_mark_dirty(&q->l2_cache, slice_offset);
    return result;
}

/* Holes in places that stay. Until it is durable that nothing is read from them, a power cut may show the holes: to a
 * guest that is zeroes, as the discard allows, but not where they are decrypted. */
static void punch(struct qcow2 *q, const struct freed_spans *spans)
{
    if (!q->pass_discard[FREE_REQUEST] || !spans->count)
        return;
    if (is_encrypted(q) && (qcow2_sync(q) || order_barrier(q, EDGE_UNREAD_BEFORE_HOLE)))
        return;
    const struct host_span *span;
    vec_for_each (span, spans) {
        uint64_t size = q->data->child->size;
        if (span->offset < size)
            (void)block_discard(q->data, span->offset, MIN(span->length, size - span->offset));
    }
}

static int change_span(struct qcow2 *q, uint64_t offset, uint64_t length, struct change *change)
{
    uint64_t end = offset + length;
    int result = 0;
    while (offset < end && !result) {
        if (q->broken)
            return -EIO;
        uint64_t stop = MIN(end, round_down(offset, slice_span(q)) + slice_span(q));
        struct claim *claim = claim_exclusive(q, cluster_index(q, offset), cluster_index(q, stop - 1) + 1);
        co_mutex_lock(&q->lock);
        uint64_t ticket = 0;
        result = change_slice(q, offset, stop, change);
        if (!result)
            result = log_settle(q, &ticket);
        if (!result)
            result = qcow2_relieve(q);
        co_mutex_unlock(&q->lock);
        if (!result)
            result = log_wait(q, ticket);
        /* The claim keeps writers away while holes are made in places that stay. */
        punch(q, &change->punch);
        vec_free(&change->punch);
        claim_release(q, claim);
        offset = stop;
    }
    return result;
}

int qcow2_unmap_span(struct qcow2 *q, uint64_t offset, uint64_t length, bool full, enum free_reason reason)
{
    struct change change = {.mode = full ? UNMAP_FULLY : UNMAP_DISCARD, .reason = reason};
    return change_span(q, offset, length, &change);
}

int qcow2_zero_span(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct change change = {.mode = UNMAP_ZERO, .reason = FREE_REQUEST, .may_unmap = flags & REQUEST_MAY_UNMAP};
    return change_span(q, offset, length, &change);
}

/* The data file is what is read by others: it gets the zeroes. No write may be under way there meanwhile. */
static int zero_raw_data(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct claim *claim = claim_exclusive(q, cluster_index(q, offset), cluster_index(q, offset + length - 1) + 1);
    int result = block_zero(q->data, offset, length, flags & ~(uint32_t)REQUEST_NO_FALLBACK);
    claim_release(q, claim);
    return result;
}

int qcow2_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct qcow2 *q = node->state;
    int result = dirty_log_cover(q, offset, length);
    if (result)
        return result;
    result = q->raw_data ? zero_raw_data(q, offset, length, flags) : qcow2_zero_span(q, offset, length, flags);
    return !result && flags & REQUEST_FUA ? qcow2_sync_durable(q) : result;
}

int qcow2_discard(struct node *node, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = node->state;
    uint64_t unit = subcluster_size(q); /* the whole cluster without subclusters */
    uint64_t end = offset + length == q->size ? offset + length : round_down(offset + length, unit);
    offset = round_up(offset, unit);
    if (offset >= end)
        return 0;
    int covered = dirty_log_cover(q, offset, end - offset);
    if (covered)
        return covered;
    if (q->raw_data)
        return q->pass_discard[FREE_REQUEST] ? zero_raw_data(q, offset, end - offset, REQUEST_MAY_UNMAP) : 0;
    return qcow2_unmap_span(q, offset, end - offset, false, FREE_REQUEST);
}
