/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preallocation: every cluster of a span gets its place in the file in advance.
 *
 * A place that was never written (behind the end of a file that grows) reads as zeroes and becomes data right away, so
 * that the first write to it changes no metadata. A place that was something else before becomes a zero cluster with a
 * place (version 3), or is overwritten with zeroes (version 2). With a backing file, extended entries give places whose
 * subclusters are all unallocated. In an encrypted image, zero bytes are not zeroes: all places are those of zero
 * clusters.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/create.h"
#include "formats/qcow2/claim.h"
#include "formats/qcow2/entry.h"

enum { ZERO_CHUNK = 1 << 20, SECTOR = 512 }; /* bytes of zeroes written at once */

struct placement {
    struct qcow2 *q;
    struct freed_spans places; /* given to data, for falloc and full */
    bool in_use;               /* by guests, whose requests cannot be waited for: nothing may drain */
};

static bool has_place(const struct qcow2 *q, const uint8_t *slice, uint32_t index, uint64_t guest)
{
    struct mapping m;
    const char *problem = mapping_decode(q, l2_get(q, slice, index), guest, &m);
    return problem || m.has_host || m.compressed;
}

static int write_zeroes(struct edge *file, uint64_t offset, uint64_t length)
{
    size_t size = MIN(length, (uint64_t)ZERO_CHUNK);
    auto_free void *zeroes = block_alloc_buffer(file, size);
    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, size);
    int result = 0;
    for (uint64_t done = 0; done < length && !result; done += size)
        result = block_write_buffer(file, offset + done, zeroes, MIN(length - done, (uint64_t)size), 0);
    return result;
}

/* The image ends behind its last cluster, written or not: an entry that names a place behind the end would be taken for
 * damage, so the file grows first. In use, the size that the file's node knows is no proof that it has grown: a write
 * that failed counts as if it had made the file longer, which it need not have done. The place is ours, so a sector is
 * written at its end. */
static int reach(struct placement *p, uint64_t end)
{
    struct qcow2 *q = p->q;
    auto_error err = {0};
    if (p->in_use)
        return write_zeroes(q->file, end - SECTOR, SECTOR);
    if (end <= q->file->child->size || node_resize(q->file, end, PREALLOCATION_OFF, false, &err))
        return 0;
    return -err.code;
}

/* Clusters for data, and whether they have never been written. */
static int find_place(struct placement *p, uint64_t count, uint64_t *host, uint64_t *placed, bool *is_fresh)
{
    struct qcow2 *q = p->q;
    int result = alloc_clusters(q, count, host, placed);
    if (result)
        return result;
    uint64_t length = *placed << q->cluster_bits;
    *is_fresh = q->file->child->growable && *host >= q->file->child->size;
    result = reach(p, *host + length);
    if (!result && !*is_fresh && q->header.version < 3)
        result = write_zeroes(q->file, *host, length);
    if (result)
        (void)refcount_add(q, *host, length, -1, NULL);
    else
        vec_push(&p->places, ((struct host_span){*host, length}));
    return result;
}

/* `count` clusters from `guest` have no place: gives them one. */
static int place_run(struct placement *p, uint64_t guest, uint64_t count, uint64_t *placed)
{
    struct qcow2 *q = p->q;
    uint64_t host = guest;
    bool is_fresh = true;
    *placed = count;
    int result = q->external_data ? 0 : find_place(p, count, &host, placed, &is_fresh);
    uint8_t *slice;
    uint64_t slice_offset;
    uint32_t index;
    if (!result)
        result = l2_load_for_change(q, guest, &slice, &slice_offset, &index);
    if (result)
        return result;
    for (uint64_t i = 0; i < *placed; i++) {
        struct mapping old, m = {.has_host = true, .copied = true, .host = host + (i << q->cluster_bits)};
        (void)mapping_decode(q, l2_get(q, slice, index + (uint32_t)i), guest + (i << q->cluster_bits), &old);
        bool as_data = (is_fresh && !is_encrypted(q)) || q->header.version < 3;
        uint32_t all = all_subclusters(q);
        if (has_backing(q) || old.zero)
            m.zero = old.zero; /* what it reads as stays */
        else if (as_data)
            m.alloc = all;
        else
            m.zero = all;
        l2_put(q, slice, index + (uint32_t)i, mapping_encode(q, &m));
    }
    cache_mark_dirty(&q->l2_cache, slice_offset);
    return qcow2_relieve(q);
}

/* One slice's part, under the lock. */
static int place_in_slice(struct placement *p, uint64_t from, uint64_t to)
{
    struct qcow2 *q = p->q;
    while (from < to) {
        uint8_t *slice;
        uint64_t slice_offset, count = 0;
        uint32_t index;
        int result = l2_load_for_change(q, from, &slice, &slice_offset, &index);
        if (result)
            return result;
        if (has_place(q, slice, index, from)) {
            from += q->cluster_size;
            continue;
        }
        while (from + (count << q->cluster_bits) < to &&
               !has_place(q, slice, index + (uint32_t)count, from + (count << q->cluster_bits)))
            count++;
        uint64_t placed;
        result = place_run(p, from, count, &placed);
        if (result)
            return result;
        from += placed << q->cluster_bits;
    }
    return 0;
}

/* The data's own room. */
static int fill_places(struct placement *p, enum preallocation mode)
{
    struct qcow2 *q = p->q;
    const struct host_span *place;
    vec_for_each (place, &p->places) {
        int result = mode == PREALLOCATION_FALLOC ? block_zero(q->file, place->offset, place->length, 0)
                     : mode == PREALLOCATION_FULL ? write_zeroes(q->file, place->offset, place->length)
                                                  : 0;
        if (result)
            return result;
    }
    return 0;
}

static bool preallocate(struct placement *p, uint64_t from, uint64_t to, enum preallocation mode, struct error *err)
{
    struct qcow2 *q = p->q;
    if (has_backing(q) && !q->extended_l2)
        return fail(err, EINVAL, "preallocation and a backing file go together only with extended_l2=on");
    if (is_encrypted(q) && q->header.version < 3)
        return fail(err, ENOTSUP, "preallocation of an encrypted image needs version 3 (compat=1.1)");
    int result = 0;
    for (uint64_t at = cluster_start(q, from); at < to && !result;) {
        uint64_t stop = MIN(cluster_end(q, to), round_down(at, slice_span(q)) + slice_span(q));
        co_mutex_lock(&q->lock);
        result = place_in_slice(p, at, stop);
        co_mutex_unlock(&q->lock);
        at = stop;
    }
    bool ok = !result || fail_errno(err, result, "cannot preallocate metadata");
    if (ok) {
        result = fill_places(p, mode);
        ok = !result || fail_errno(err, result, "cannot preallocate %" PRIu64 " bytes", to - from);
    }
    return ok;
}

bool qcow2_preallocate(struct qcow2 *q, uint64_t from, uint64_t to, enum preallocation mode, struct error *err)
{
    struct placement p = {.q = q};
    bool ok = mode == PREALLOCATION_OFF || from >= to || preallocate(&p, from, to, mode, err);
    vec_free(&p.places);
    return ok;
}

/* One slice's part, in use: nobody may write to the new places before their entries are on disk, since a write in place
 * is in no log. */
static int allocate_in_use(struct qcow2 *q, uint64_t from, uint64_t to)
{
    struct claim *claim = claim_exclusive(q, cluster_index(q, from), cluster_index(q, to - 1) + 1);
    auto_error err = {0};
    struct placement p = {.q = q, .in_use = true};
    int result = preallocate(&p, from, to, PREALLOCATION_FALLOC, &err) ? 0 : -err.code;
    int synced = qcow2_sync(q); /* also of the part that was done before a failure */
    result = result ? result : synced;
    vec_free(&p.places);
    claim_release(q, claim);
    return result;
}

int qcow2_allocate(struct node *node, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = node->state;
    uint64_t end = offset + length;
    int result = q->broken ? -EIO : 0;
    if (q->external_data || (has_backing(q) && !q->extended_l2))
        return -ENOTSUP;
    while (offset < end && !result) {
        uint64_t stop = MIN(end, round_down(offset, slice_span(q)) + slice_span(q));
        result = allocate_in_use(q, offset, stop);
        offset = stop;
    }
    return result;
}
