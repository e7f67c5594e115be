/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream: an overlay takes in what it reads from its backing images, down to `base`, and then stands on `base` alone
 * (or on nothing). A copy-on-read filter above the overlay keeps what guests read meanwhile. Pulling and guests' writes
 * exclude each other in the overlay's request path (block/pull.c), so nothing is overwritten.
 *
 * on-error=ignore goes on with the next part: then the overlay must keep its backing images, and the job fails at its
 * end.
 */
#include "block/jobs/private.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/driver.h"
#include "block/jobs/chain.h"
#include "block/query.h"
#include "block/request.h"

#define CHUNK (1 * MiB)

struct stream {
    struct node *top, *base, *filter;
    struct edge *edge; /* to the overlay */
    enum blockdev_on_error on_error;
    char *backing_file;
    bool masks_protocol, in_place;
    int ignored; /* the first error that was */
    struct made_writable made_writable;
};

/* Running --------------------------------------------------------------------------------------------------------- */

/* A chunk that fails is tried again on the spot, when the user has resumed the job. */
static int pull_chunk(struct copier *copier, uint64_t offset, uint64_t length, bool *read_failed)
{
    struct stream *stream = copier->user;
    struct job *job = copier->job;
    while (!job->cancelled) {
        int result = block_pull(stream->edge, stream->base, offset, length, read_failed);
        if (result >= 0)
            break;
        enum block_error_action action = job_io_error(job, stream->on_error, *read_failed, result);
        if (action == BLOCK_ERROR_ACTION_REPORT && !copier->result)
            copier->result = result;
        if (action == BLOCK_ERROR_ACTION_IGNORE && !stream->ignored)
            stream->ignored = result;
        if (action != BLOCK_ERROR_ACTION_STOP)
            break;
        while (job->pauses && !job->cancelled)
            co_queue_wait_uncancellable(&job->wake);
    }
    job->progress += length;
    return 0;
}

/* How much there is nothing to do for, or how much one chunk has. */
static uint64_t next_part(struct stream *stream, uint64_t offset, uint64_t size, bool *is_missing)
{
    struct block_status status;
    *is_missing = true;
    if (block_status(stream->edge, offset, size - offset, BLOCK_STATUS_TOP_ONLY, &status) < 0)
        return MIN(size - offset, CHUNK); /* the chunk will meet the error */
    *is_missing = !status.allocated;
    return *is_missing ? chunk_length(stream->edge, offset, status.length, 1, CHUNK) : status.length;
}

static int stream_run(struct job *job, struct error *err)
{
    struct stream *stream = job->state;
    struct copier copier;
    uint64_t offset = 0, size = stream->top->size;
    copier_init(&copier, job);
    copier.copy = pull_chunk;
    copier.user = stream;
    job->total = size;
    while (offset < size && job_pause_point(job) && !copier.result) {
        bool is_missing;
        uint64_t part = next_part(stream, offset, size, &is_missing);
        if (!is_missing)
            job->progress += part;
        else if (!copier_start(&copier, offset, part))
            break;
        offset += part;
    }
    int result = copier_end(&copier, err);
    if (!result)
        result = block_flush(stream->edge);
    if (!result && stream->ignored) {
        result = stream->ignored;
        fail(err, -result, "%s", strerror(-result));
    }
    return result;
}

/* The end --------------------------------------------------------------------------------------------------------- */

static void take_out(struct job *job)
{
    struct stream *stream = job->state;
    auto_error err = {0};
    edge_detach(TAKE(stream->edge));
    if (stream->in_place && !node_replace(stream->filter, stream->filter->file->child, &err))
        fail(&job->error, EIO, "The filter could not be taken out again: %s", err.message);
    stream->in_place = false;
    if (stream->filter)
        node_unref(TAKE(stream->filter));
}

/* The image has all the data: first it says so, then the graph is changed. */
static bool stream_prepare(struct job *job, struct error *err)
{
    struct stream *stream = job->state;
    if (!stream->top->backing || chain_image(node_backing(stream->top)) == stream->base)
        return true;
    node_drain_begin(stream->top);
    take_out(job);
    bool ok = chain_rename_backing(stream->top, stream->base, stream->base ? stream->backing_file : NULL,
                                   stream->masks_protocol, err) &&
              node_set_backing(stream->top, stream->base, err);
    node_drain_end(stream->top);
    return ok;
}

static void stream_clean(struct job *job)
{
    struct stream *stream = job->state;
    if (stream->filter) {
        node_drain_begin(stream->top);
        take_out(job);
        node_drain_end(stream->top);
    }
    if (stream->base)
        node_unref(stream->base);
    make_read_only_again(&stream->made_writable);
    free(stream->backing_file);
}

static const struct job_driver stream_driver = {
    .type = JOB_TYPE_STREAM,
    .is_block_job = true,
    .state_size = sizeof(struct stream),
    .run = stream_run,
    .prepare = stream_prepare,
    .clean = stream_clean,
};

/* Making ---------------------------------------------------------------------------------------------------------- */

/* NULL without an error: everything is taken in. */
static bool choose_base(struct graph *graph, struct node *top, const struct q_block_stream_arg *options,
                        struct node **base, struct error *err)
{
    *base = NULL;
    if (!!options->base + !!options->base_node + !!options->bottom > 1)
        return fail(err, EINVAL, "'base', 'base-node' and 'bottom' exclude each other");
    if (options->base) {
        *base = chain_find_file(top, options->base);
        if (!*base)
            return fail(err, ENOENT, "Can't find '%s' in the backing chain", options->base);
    } else if (options->base_node || options->bottom) {
        struct node *named = find_node(graph, options->base_node ? options->base_node : options->bottom, err);
        if (!named)
            return false;
        if (!chain_has(top, named) || (options->base_node && chain_image(named) == top))
            return fail(err, EINVAL, "Node '%s' is not a backing image of '%s'", named->name, top->name);
        *base = options->bottom ? node_backing(chain_image(named)) : chain_image(named);
    }
    if (*base == top)
        return fail(err, EINVAL, "Node '%s' is not a backing image of itself", top->name);
    if (!*base && options->backing_file)
        return fail(err, EINVAL, "backing file specified, but streaming the entire chain");
    return true;
}

static struct node *open_filter(struct stream *stream, const char *name, struct error *err)
{
    auto_blockdev_options *filter = blockdev_options_new();
    struct blockdev_options_cor *cor = &filter->u.copy_on_read;
    filter->driver = BLOCKDEV_DRIVER_COPY_ON_READ;
    filter->node_name = xstrdup(name);
    filter->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    cor->file = blockdev_ref_new();
    cor->file->kind = BLOCKDEV_REF_KIND_REFERENCE;
    cor->file->u.reference = xstrdup(stream->top->name);
    if (stream->base)
        cor->bottom = xstrdup(chain_overlay(stream->top, chain_image(stream->base))->name);
    return node_open(stream->top->graph, filter, err);
}

static bool set_up(struct job *job, struct node *top, struct node *base, const struct q_block_stream_arg *options,
                   struct error *err)
{
    struct stream *stream = job->state;
    stream->top = top;
    stream->base = base;
    if (base)
        node_ref(base);
    stream->on_error = options->on_error;
    stream->backing_file = xstrdup(options->backing_file);
    stream->masks_protocol = options->backing_mask_protocol;
    for (struct node *node = top; node && node != chain_image(base); node = chain_image(node_backing(node))) {
        if (!job_claim(job, node, err))
            return false;
    }
    if (!make_writable(top, &stream->made_writable, err))
        return false;
    node_drain_begin(top);
    stream->filter = open_filter(stream, options->filter_node_name, err);
    if (stream->filter && node_replace(top, stream->filter, err))
        stream->in_place = true;
    node_drain_end(top);
    if (!stream->in_place)
        return false;
    stream->edge = job_use(job, "stream", top, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED,
                           JOB_SHARES_ALL_BUT_RESIZE, err);
    return stream->edge != NULL;
}

struct job *stream_job_new(struct job_set *set, struct graph *graph, const struct q_block_stream_arg *options,
                           struct error *err)
{
    struct node *device = find_node(graph, options->device, err), *base;
    struct node *top = device ? chain_image(device) : NULL;
    if (!top || !choose_base(graph, top, options, &base, err))
        return NULL;
    struct job *job = job_new(set, &stream_driver,
                              &(struct job_options){.id = options->job_id,
                                                    .manual_finalize = !options->auto_finalize,
                                                    .manual_dismiss = !options->auto_dismiss,
                                                    .speed = (uint64_t)options->speed},
                              err);
    if (job && !set_up(job, top, base, options, err)) {
        job_drop(job);
        return NULL;
    }
    return job;
}
