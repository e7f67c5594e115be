/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes: prepare says where the data goes, commit makes the L2 entries say so.
 *
 *   in place     the subclusters are allocated and nobody shares them: no lock, no metadata
 *   reuse        the clusters have places of their own in the file that are not valid yet: preallocated zero clusters,
 *                free subclusters, everything in an external data file
 *   new          anything else: unallocated, shared with a snapshot, compressed
 *
 * A plan always ends at a cluster's end or at the request's, and never reaches into another slice: so a request's plans
 * have disjoint claims, and a commit changes one slice at once.
 */
#include <inttypes.h>
#include <string.h>
#include "formats/qcow2/claim.h"
#include "formats/qcow2/entry.h"
#include "formats/qcow2/write_log.h"

static struct claim *claim_of(const struct write_plan *plan)
{
    return (struct claim *)(uintptr_t)plan->driver_data[0];
}

/* Bytes of a request from `offset` that lie in the cluster of `at`, as offsets inside that cluster. */
struct part {
    uint64_t from, to;
};
static struct part part_of(const struct qcow2 *q, uint64_t cluster, uint64_t offset, uint64_t end)
{
    uint64_t start = cluster << q->cluster_bits;
    return (struct part){offset > start ? offset - start : 0, MIN(end - start, q->cluster_size)};
}

static uint64_t slice_end(const struct qcow2 *q, uint64_t offset)
{
    return round_down(offset, slice_span(q)) + slice_span(q);
}

static int bad_entry(struct qcow2 *q, uint64_t guest, const char *problem)
{
    return qcow2_corrupt(q, UINT64_MAX, UINT64_MAX, "the L2 entry of guest offset 0x%" PRIx64 " means %s", guest,
                         problem);
}

/* A cluster that is written in place must at least be one that somebody counted. */
static bool is_counted(const struct qcow2 *q, uint64_t host)
{
    uint64_t index = cluster_index(q, host) >> q->refblock_bits;
    return q->external_data || q->header.incompatible & INCOMPATIBLE_DIRTY ||
           (index < q->reftable.count && q->reftable.entries[index]);
}

/* How many bytes from `offset` can go to one place as it is; 0: the first cluster cannot. */
static const char *find_in_place(const struct qcow2 *q, const uint8_t *slice, uint32_t index, uint64_t offset,
                                 uint64_t end, uint64_t *host, uint64_t *bytes)
{
    *bytes = 0;
    end = MIN(end, slice_end(q, offset));
    for (uint64_t cluster = cluster_index(q, offset); cluster << q->cluster_bits < end; cluster++, index++) {
        struct mapping m;
        const char *problem = mapping_decode(q, l2_get(q, slice, index), cluster << q->cluster_bits, &m);
        if (problem)
            return *bytes ? NULL : problem;
        struct part part = part_of(q, cluster, offset, end);
        if (!mapping_in_place(&m, touched_subclusters(q, part.from, part.to)))
            break;
        if (!is_counted(q, m.host))
            return *bytes ? NULL : "a cluster outside of everything that is counted";
        if (*bytes == 0)
            *host = m.host + part.from;
        else if (m.host != *host + *bytes)
            break;
        *bytes += part.to - part.from;
    }
    return NULL;
}

static void plan_at(struct qcow2 *q, struct write_plan *plan, struct claim *claim, uint64_t length, uint64_t host)
{
    plan->length = length;
    plan->child = q->data;
    plan->child_offset = host;
    plan->driver_data[0] = (uintptr_t)claim;
}

/* Allocating writes ------------------------------------------------------------------------------------------------
 */

/* Clusters of a claim that are treated alike, as found under the lock. */
struct batch {
    enum claim_kind kind;
    uint64_t clusters;
    uint64_t host; /* CLAIM_REUSE */
    struct mapping first, last;
};

static bool reusable(const struct qcow2 *q, const struct mapping *m)
{
    return q->external_data || (m->has_host && m->copied && !m->compressed);
}

/* The longest prefix of the claim that is all new, or all reusable in one piece. */
static const char *find_batch(const struct qcow2 *q, const uint8_t *slice, uint32_t index, const struct claim *claim,
                              uint64_t offset, uint64_t end, struct batch *batch)
{
    batch->clusters = 0;
    for (uint64_t cluster = claim->begin; cluster < claim->end; cluster++, index++) {
        struct mapping m;
        const char *problem = mapping_decode(q, l2_get(q, slice, index), cluster << q->cluster_bits, &m);
        if (problem)
            return batch->clusters ? NULL : problem;
        struct part part = part_of(q, cluster, offset, end);
        uint32_t touched = touched_subclusters(q, part.from, part.to);
        enum claim_kind kind = reusable(q, &m) ? CLAIM_REUSE : CLAIM_NEW_CLUSTERS;
        uint64_t host = q->external_data ? cluster << q->cluster_bits : m.host;
        if (kind == CLAIM_REUSE && !is_counted(q, host))
            return batch->clusters ? NULL : "a cluster outside of everything that is counted";
        if (batch->clusters == 0) {
            batch->kind = kind;
            batch->host = host;
            batch->first = m;
        } else if (kind != batch->kind || mapping_in_place(&m, touched) ||
                   (kind == CLAIM_REUSE && host != batch->host + (batch->clusters << q->cluster_bits))) {
            return NULL;
        }
        batch->last = m;
        batch->clusters++;
    }
    return NULL;
}

/* A new cluster replaces one whose content must move as a whole. Otherwise only the subclusters written become valid,
 * and what the others were they stay. */
static bool moves_as_whole(const struct mapping *m)
{
    return m->compressed || m->alloc;
}

/* Bytes in front of `from` in its cluster that must be copied so that the subcluster is whole. */
static uint64_t copy_before(const struct qcow2 *q, enum claim_kind kind, const struct mapping *m, uint64_t from)
{
    if (kind == CLAIM_NEW_CLUSTERS && moves_as_whole(m))
        return from;
    uint32_t bit = 1u << (from >> q->subcluster_bits);
    return kind == CLAIM_REUSE && m->alloc & bit ? 0 : from & (subcluster_size(q) - 1);
}

static uint64_t copy_after(const struct qcow2 *q, enum claim_kind kind, const struct mapping *m, uint64_t to)
{
    if (kind == CLAIM_NEW_CLUSTERS && moves_as_whole(m))
        return q->cluster_size - to;
    uint32_t bit = 1u << ((to - 1) >> q->subcluster_bits);
    return kind == CLAIM_REUSE && m->alloc & bit ? 0 : round_up(to, subcluster_size(q)) - to;
}

/* Under the lock and an exclusive claim, which shrinks to what the plan covers. */
static int allocate(struct qcow2 *q, struct claim *claim, uint64_t end, struct write_plan *plan)
{
    uint8_t *slice;
    uint64_t slice_offset;
    uint32_t index;
    struct batch batch;
    int result = l2_load_for_change(q, plan->offset, &slice, &slice_offset, &index);
    if (result)
        return result;
    const char *problem = find_batch(q, slice, index, claim, plan->offset, end, &batch);
    if (problem)
        return bad_entry(q, cluster_start(q, plan->offset), problem);
    uint64_t wanted = batch.clusters;
    if (batch.kind == CLAIM_NEW_CLUSTERS)
        result = alloc_clusters(q, wanted, &batch.host, &batch.clusters);
    else if (!q->external_data)
        result = overlap_check(q, batch.host, wanted << q->cluster_bits, 0);
    if (result)
        return result;
    if (batch.clusters < wanted) {
        /* The copy behind the data depends on the cluster that is the last one now: look at it again. */
        result = l2_load_for_change(q, plan->offset, &slice, &slice_offset, &index);
        if (result) {
            (void)refcount_add(q, batch.host, batch.clusters << q->cluster_bits, -1, NULL);
            return result;
        }
        uint32_t last = index + (uint32_t)batch.clusters - 1;
        (void)mapping_decode(q, l2_get(q, slice, last), (claim->begin + batch.clusters - 1) << q->cluster_bits,
                             &batch.last);
    }
    claim->end = claim->begin + batch.clusters;
    claim->kind = batch.kind;
    claim->host = batch.host;
    uint64_t covered = MIN(end, claim->end << q->cluster_bits) - plan->offset;
    plan_at(q, plan, claim, covered, batch.host + in_cluster(q, plan->offset));
    plan->cow_before = copy_before(q, batch.kind, &batch.first, in_cluster(q, plan->offset));
    uint64_t last_start = (claim->end - 1) << q->cluster_bits;
    plan->cow_after = copy_after(q, batch.kind, &batch.last, plan->offset + covered - last_start);
    return 0;
}

int qcow2_prepare_write(struct node *node, uint64_t offset, uint64_t length, struct write_plan *plan)
{
    struct qcow2 *q = node->state;
    if (q->broken)
        return -EIO;
    plan->encoded = is_encrypted(q);
    if (unlikely(plan->encoded && !q->cipher))
        return -EKEYREJECTED;
    uint64_t end = offset + length;
    int covered = dirty_log_cover(q, offset, length);
    if (unlikely(covered))
        return covered;
    plan->offset = offset;
    for (;;) {
        uint64_t slice_offset, host = 0, bytes = 0;
        uint32_t index;
        int result = l2_locate(q, offset, &slice_offset, &index);
        if (result)
            return result;
        uint8_t *slice = slice_offset ? cache_peek(&q->l2_cache, slice_offset) : NULL;
        if (slice_offset && !slice) {
            result = l2_load(q, slice_offset, &slice);
            if (result)
                return result;
            continue;
        }
        const char *problem = slice ? find_in_place(q, slice, index, offset, end, &host, &bytes) : NULL;
        if (problem)
            return bad_entry(q, cluster_start(q, offset), problem);
        bool in_place = bytes > 0;
        uint64_t begin = cluster_index(q, offset);
        uint64_t stop = in_place ? offset + bytes : MIN(end, slice_end(q, offset));
        uint64_t last = cluster_index(q, stop - 1) + 1;
        struct claim *other;
        while ((other = claim_conflict(q, begin, last, in_place)) && other->begin > begin)
            last = other->begin; /* as far as nobody else is at work */
        if (other) {
            claim_wait(other);
            continue;
        }
        stop = MIN(stop, last << q->cluster_bits);
        struct claim *claim = claim_take(q, begin, last, in_place ? CLAIM_IN_PLACE : CLAIM_OTHER);
        if (in_place) {
            plan_at(q, plan, claim, stop - offset, host);
            result = q->external_data ? 0 : overlap_check(q, host, stop - offset, 0);
        } else {
            co_mutex_lock(&q->lock);
            result = allocate(q, claim, stop, plan);
            co_mutex_unlock(&q->lock);
        }
        if (result)
            claim_release(q, claim);
        return result;
    }
}

/* Commit ----------------------------------------------------------------------------------------------------------- */

/* What the cluster's entry says once its data is there. */
static struct mapping mapping_after(const struct qcow2 *q, const struct claim *claim, uint64_t cluster,
                                    const struct mapping *old, uint32_t touched)
{
    struct mapping m = {
        .has_host = true, .copied = true, .host = claim->host + ((cluster - claim->begin) << q->cluster_bits)};
    if (claim->kind == CLAIM_NEW_CLUSTERS && moves_as_whole(old)) {
        m.alloc = all_subclusters(q);
    } else {
        m.alloc = old->alloc | touched;
        m.zero = old->zero & ~touched;
    }
    return m;
}

static int link_clusters(struct qcow2 *q, const struct write_plan *plan, const struct claim *claim)
{
    uint8_t *slice;
    uint64_t slice_offset;
    uint32_t index;
    int result = l2_load_for_change(q, plan->offset, &slice, &slice_offset, &index);
    if (result)
        return result;
    uint64_t end = plan->offset + plan->length;
    for (uint64_t cluster = claim->begin; cluster < claim->end; cluster++, index++) {
        struct l2_entry entry = l2_get(q, slice, index);
        struct mapping old;
        (void)mapping_decode(q, entry, cluster << q->cluster_bits, &old);
        struct part part = part_of(q, cluster, plan->offset, end);
        struct mapping m = mapping_after(q, claim, cluster, &old, touched_subclusters(q, part.from, part.to));
        if (claim->kind == CLAIM_NEW_CLUSTERS)
            mapping_free_later(q, entry, &old, FREE_OTHER);
        struct l2_entry now = mapping_encode(q, &m);
        l2_put(q, slice, index, now);
        log_note(q, cluster, now, 1, true);
    }
    cache_mark_dirty(&q->l2_cache, slice_offset);
    return 0;
}

static int commit_locked(struct qcow2 *q, struct write_plan *plan, struct claim *claim, int result, uint64_t *ticket)
{
    if (!result)
        result = link_clusters(q, plan, claim);
    if (result && claim->kind == CLAIM_NEW_CLUSTERS)
        (void)refcount_add(q, claim->host, (claim->end - claim->begin) << q->cluster_bits, -1, NULL);
    claim->kind = CLAIM_OTHER; /* named by a table now, or free again */
    if (!result)
        result = log_settle(q, ticket);
    return result ? result : qcow2_relieve(q);
}

int qcow2_commit_write(struct node *node, struct write_plan *plan, int result)
{
    struct qcow2 *q = node->state;
    struct claim *claim = claim_of(plan);
    if (!claim_is_shared(claim)) {
        uint64_t ticket = 0;
        co_mutex_lock(&q->lock);
        result = commit_locked(q, plan, claim, result, &ticket);
        co_mutex_unlock(&q->lock);
        if (!result)
            result = log_wait(q, ticket);
    }
    claim_release(q, claim);
    /* Durable data behind an entry that is not would be lost all the same: also for writes in place. */
    return !result && plan->fua_pending ? qcow2_sync_durable(q) : result;
}
