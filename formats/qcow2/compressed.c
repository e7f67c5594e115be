/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed clusters. Reading: the bytes come from the file, a worker thread inflates them, and the cluster is kept
 * for a while, since readers ask for less than a cluster at a time. Writing: a worker deflates, the result is packed
 * behind the last one; what does not shrink is written as a normal cluster.
 *
 * A cluster that is being read may be replaced meanwhile. Its bytes must not be reused before the read ends, or the
 * reader would inflate somebody else's data: so reads in flight are listed, and sync.c leaves what they read allocated.
 *
 * Encrypted images are not compressed: it would put their data into the file in clear.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "formats/qcow2/claim.h"
#include "formats/qcow2/compress.h"
#include "formats/qcow2/encryption.h"
#include "formats/qcow2/entry.h"
#include "formats/qcow2/state.h"
#include "formats/qcow2/write_log.h"

enum { SLOTS_MIN = 4, SLOTS_MAX = 64, CACHE_BYTES = 2 * 1024 * 1024 };

struct slot {
    uint64_t descriptor; /* 0 = empty */
    uint8_t *data;
    uint64_t last_use;
    bool loading, forgotten;
};

struct encoded_read {
    struct list link;
    struct host_span span;
};

struct codec_cache {
    uint32_t slot_count;
    struct slot slots[SLOTS_MAX];
    uint64_t clock;
    struct co_queue loads;
    struct list reads;                    /* of struct encoded_read */
    vec(struct codec_context *) contexts; /* at rest */
};

bool codec_cache_init(struct qcow2 *q)
{
    q->codec = new (struct codec_cache);
    q->codec->slot_count = (uint32_t)MIN(MAX(CACHE_BYTES >> q->cluster_bits, SLOTS_MIN), SLOTS_MAX);
    co_queue_init(&q->codec->loads);
    list_init(&q->codec->reads);
    return true;
}

void codec_cache_release(struct qcow2 *q)
{
    for (uint32_t i = 0; i < q->codec->slot_count; i++)
        free(q->codec->slots[i].data);
    while (q->codec->contexts.count)
        codec_context_free(vec_pop(&q->codec->contexts));
    vec_free(&q->codec->contexts);
    free(TAKE(q->codec));
}

void codec_cache_forget(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    for (uint32_t i = 0; i < q->codec->slot_count; i++) {
        struct slot *slot = &q->codec->slots[i];
        if (!slot->descriptor)
            continue;
        struct host_span span = compressed_span(q, slot->descriptor);
        if (!spans_overlap(span.offset, span.length, offset, length))
            continue;
        slot->forgotten = slot->loading;
        slot->descriptor = 0;
    }
}

bool codec_reads_overlap(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
    const struct encoded_read *read;
    list_for_each (read, &q->codec->reads, link) {
        if (spans_overlap(read->span.offset, read->span.length, offset, length))
            return true;
    }
    return false;
}

/* Work for a thread -------------------------------------------------------------------------------------------------
 */

struct codec_work {
    struct codec_context *context;
    const void *in;
    void *out;
    size_t in_size, out_size, made;
    bool ok;
};

static void decompress_work(void *arg)
{
    struct codec_work *work = arg;
    work->ok = codec_decompress(work->context, work->in, work->in_size, work->out, work->out_size);
}

static void compress_work(void *arg)
{
    struct codec_work *work = arg;
    work->made = codec_compress(work->context, work->in, work->in_size, work->out, work->out_size);
}

static int run_work(struct qcow2 *q, void (*fn)(void *), struct codec_work *work)
{
    struct codec_cache *codec = q->codec;
    work->context = codec->contexts.count ? vec_pop(&codec->contexts) : codec_context_new(q->header.compression_type);
    if (!work->context)
        return -ENOMEM;
    co_offload(fn, work);
    vec_push(&codec->contexts, work->context);
    return 0;
}

/* Reading -----------------------------------------------------------------------------------------------------------
 */

static int inflate_from_file(struct qcow2 *q, uint64_t descriptor, uint8_t *out)
{
    struct encoded_read read = {.span = compressed_span(q, descriptor)};
    if (read.span.offset >= q->file->child->size)
        return qcow2_corrupt(q, read.span.offset, read.span.length,
                             "a compressed cluster at 0x%" PRIx64 " lies behind the end of the file", read.span.offset);
    uint8_t *packed = block_alloc_buffer(q->file, round_up(read.span.length, 512));
    if (!packed)
        return -ENOMEM;
    list_append(&q->codec->reads, &read.link);
    block_event(q->file, BLKDEBUG_EVENT_READ_COMPRESSED);
    int result = qcow2_read_file(q->file, read.span.offset, packed, read.span.length);
    list_remove(&read.link);
    struct codec_work work = {.in = packed, .in_size = read.span.length, .out = out, .out_size = q->cluster_size};
    if (!result)
        result = run_work(q, decompress_work, &work);
    free(packed);
    return result ? result : work.ok ? 0 : -EIO;
}

/* A slot that has the cluster, or will have it when its loader is done; or one to load it into. */
static struct slot *find_slot(struct codec_cache *codec, uint64_t descriptor)
{
    struct slot *oldest = NULL;
    for (uint32_t i = 0; i < codec->slot_count; i++) {
        struct slot *slot = &codec->slots[i];
        if (slot->descriptor == descriptor)
            return slot;
        if (!slot->loading && (!oldest || slot->last_use < oldest->last_use))
            oldest = slot;
    }
    return oldest;
}

static int load_slot(struct qcow2 *q, struct slot *slot, uint64_t descriptor)
{
    if (!slot->data)
        slot->data = block_alloc_buffer(q->file, q->cluster_size);
    if (!slot->data)
        return -ENOMEM;
    slot->descriptor = descriptor;
    slot->loading = true;
    slot->forgotten = false;
    int result = inflate_from_file(q, descriptor, slot->data);
    slot->loading = false;
    if (result || slot->forgotten)
        slot->descriptor = 0;
    co_queue_wake_all(&q->codec->loads);
    return result;
}

/* Between map() and here the cluster may have been replaced, and its bytes reused: then the entry says so, for nothing
 * is reused before the entry is changed. From here on the list of reads protects them. */
static int is_current(struct qcow2 *q, uint64_t offset, uint64_t descriptor, bool *current)
{
    uint64_t slice_offset;
    uint32_t index;
    int result = l2_locate(q, offset, &slice_offset, &index);
    uint8_t *slice = slice_offset ? cache_peek(&q->l2_cache, slice_offset) : NULL;
    if (!result && slice_offset && !slice) {
        struct extent extent; /* loads the slice */
        result = qcow2_map(q->node, offset, 1, &extent);
        *current = !result && extent.kind == EXTENT_ENCODED && extent.encoded == descriptor;
        return result;
    }
    *current = slice && l2_get(q, slice, index).descriptor == descriptor;
    return result;
}

static int read_clipped(struct edge *child, uint64_t offset, uint64_t length, struct buffers to)
{
    uint64_t size = child->child->size;
    uint64_t there = offset < size ? MIN(length, size - offset) : 0;
    iov_set(to.iov, (int)to.count, to.skip + there, 0, length - there);
    block_event(child, BLKDEBUG_EVENT_READ_AIO);
    return there ? block_read(child, offset, there, to, 0) : 0;
}

int qcow2_read_guest(struct node *node, uint64_t offset, uint64_t length, struct buffers to)
{
    while (length) {
        struct extent extent;
        int result = qcow2_map(node, offset, length, &extent);
        if (!result && extent.kind == EXTENT_ENCODED)
            result = qcow2_read_encoded(node, offset, extent.length, &extent, to);
        else if (!result && extent.kind == EXTENT_DATA)
            result = read_clipped(extent.child, extent.child_offset, extent.length, to);
        else if (!result && extent.kind == EXTENT_BACKING && node->backing)
            result = read_clipped(node->backing, offset, extent.length, to);
        else if (!result)
            iov_set(to.iov, (int)to.count, to.skip, 0, extent.length);
        if (result)
            return result;
        offset += extent.length;
        length -= extent.length;
        to.skip += extent.length;
    }
    return 0;
}

int qcow2_read_encoded(struct node *node, uint64_t offset, uint64_t length, const struct extent *extent,
                       struct buffers to)
{
    struct qcow2 *q = node->state;
    if (extent->child)
        return encryption_read(q, offset, length, extent, to);
    for (;;) {
        bool current;
        int lookup = is_current(q, offset, extent->encoded, &current);
        if (lookup || !current)
            return lookup ? lookup : qcow2_read_guest(node, offset, length, to); /* this came too late: asks again */
        struct slot *slot = find_slot(q->codec, extent->encoded);
        if (!slot || (slot->descriptor == extent->encoded && slot->loading)) {
            co_queue_wait_uncancellable(&q->codec->loads);
            continue;
        }
        if (slot->descriptor != extent->encoded) {
            int result = load_slot(q, slot, extent->encoded);
            if (result)
                return result;
        }
        /* Forgotten while it was loading: still what the caller's map() meant. Nothing yields in between. */
        slot->last_use = ++q->codec->clock;
        iov_from_buffer(to.iov, (int)to.count, to.skip, slot->data + in_cluster(q, offset), length);
        return 0;
    }
}

/* Writing -----------------------------------------------------------------------------------------------------------
 */

static int link_compressed(struct qcow2 *q, uint64_t guest, uint64_t descriptor)
{
    uint8_t *slice;
    uint64_t slice_offset;
    uint32_t index;
    block_event(q->file, BLKDEBUG_EVENT_L2_UPDATE_COMPRESSED);
    int result = l2_load_for_change(q, guest, &slice, &slice_offset, &index);
    if (result)
        return result;
    struct l2_entry entry = l2_get(q, slice, index);
    struct mapping old;
    const char *problem = mapping_decode(q, entry, guest, &old);
    if (problem)
        return qcow2_corrupt(q, UINT64_MAX, UINT64_MAX, "the L2 entry of guest offset 0x%" PRIx64 " means %s", guest,
                             problem);
    mapping_free_later(q, entry, &old, FREE_OTHER);
    l2_put(q, slice, index, (struct l2_entry){descriptor, 0});
    log_note(q, cluster_index(q, guest), (struct l2_entry){descriptor, 0}, 1, false);
    cache_mark_dirty(&q->l2_cache, slice_offset);
    return 0;
}

/* Under a claim. */
static int store_compressed(struct qcow2 *q, struct claim *claim, uint64_t guest, const void *packed, size_t size)
{
    uint64_t host, descriptor = 0, ticket = 0;
    co_mutex_lock(&q->lock);
    int result = alloc_bytes(q, size, &host);
    if (!result && !compressed_describe(q, host, size, &descriptor))
        result = -EFBIG;
    if (!result) {
        claim->kind = CLAIM_COMPRESSED;
        claim->host = host;
        claim->bytes = size;
    }
    co_mutex_unlock(&q->lock);
    if (result)
        return result;
    block_event(q->file, BLKDEBUG_EVENT_WRITE_COMPRESSED);
    result = block_write_buffer(q->file, host, packed, size, 0);
    co_mutex_lock(&q->lock);
    claim->kind = CLAIM_OTHER;
    if (!result)
        result = link_compressed(q, guest, descriptor);
    if (result)
        (void)refcount_add(q, host, size, -1, NULL);
    else if (!(result = log_settle(q, &ticket)))
        result = qcow2_relieve(q); /* when this fails, the entry is there and its bytes stay counted */
    co_mutex_unlock(&q->lock);
    return result ? result : log_wait(q, ticket);
}

static int write_normal(struct node *node, uint64_t offset, uint64_t length, void *data)
{
    while (length) {
        struct write_plan plan = {0};
        int result = qcow2_prepare_write(node, offset, length, &plan);
        if (result)
            return result;
        assert(!plan.cow_before); /* whole clusters, or the disk's end */
        struct iovec iov = {data, plan.length + plan.cow_after};
        result = block_write(plan.child, plan.child_offset, iov.iov_len, buffers_of(&iov, 1), 0);
        result = qcow2_commit_write(node, &plan, result);
        if (result)
            return result;
        offset += plan.length;
        length -= plan.length;
        data = (char *)data + plan.length;
    }
    return 0;
}

/* `data` is a whole cluster, zero behind the end of the disk. */
static int write_one(struct node *node, uint64_t offset, uint64_t length, uint8_t *data, uint8_t *packed)
{
    struct qcow2 *q = node->state;
    struct codec_work work = {.in = data, .in_size = q->cluster_size, .out = packed, .out_size = q->cluster_size - 1};
    int result = run_work(q, compress_work, &work);
    if (result)
        return result;
    if (work.made == 0)
        return write_normal(node, offset, length, data);
    struct claim *claim = claim_exclusive(q, cluster_index(q, offset), cluster_index(q, offset) + 1);
    result = store_compressed(q, claim, offset, packed, work.made);
    claim_release(q, claim);
    return result;
}

int qcow2_write_compressed(struct node *node, uint64_t offset, uint64_t length, struct buffers from)
{
    struct qcow2 *q = node->state;
    if (q->external_data || is_encrypted(q))
        return -ENOTSUP;
    if (in_cluster(q, offset) || (in_cluster(q, length) && offset + length != q->size))
        return -EINVAL;
    int covered = dirty_log_cover(q, offset, length);
    if (covered)
        return covered;
    uint8_t *data = block_alloc_buffer(q->file, q->cluster_size);
    uint8_t *packed = block_alloc_buffer(q->file, q->cluster_size);
    int result = data && packed ? 0 : -ENOMEM;
    while (length && !result) {
        uint64_t part = MIN(length, q->cluster_size);
        iov_to_buffer(from.iov, (int)from.count, from.skip, data, part);
        memset(data + part, 0, q->cluster_size - part);
        result = write_one(node, offset, part, data, packed);
        offset += part;
        length -= part;
        from.skip += part;
    }
    free(data);
    free(packed);
    return result;
}
