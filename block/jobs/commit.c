/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commit: what the images from `top` down to just above `base` hold is written into `base`; then whoever used `top`
 * uses `base`. While it is under way, everything above goes on reading the same (the images still shadow the base), but
 * the images in between do not make sense by themselves: a commit_top filter says that their consistency is not needed,
 * and permissions keep others from relying on it.
 *
 * When `top` is the topmost image, guests may write to it meanwhile: that is a mirror into the base (mirror.c).
 */
#include "block/jobs/private.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/filters/mirror_top.h"
#include "block/jobs/chain.h"
#include "block/request.h"

#define CHUNK (1 * MiB)

struct commit {
    struct node *top, *base, *filter;
    struct edge *top_edge, *base_edge;
    enum blockdev_on_error on_error;
    char *backing_file;
    bool masks_protocol, in_place, done;
    struct made_writable made_writable;
};

/* Running --------------------------------------------------------------------------------------------------------- */

static int copy_chunk(struct copier *copier, uint64_t offset, uint64_t length, bool *read_failed)
{
    struct commit *commit = copier->user;
    int result = block_copy_sides(commit->top_edge, offset, commit->base_edge, offset, length, 0, read_failed);
    if (!result)
        copier->job->progress += length;
    return result;
}

static bool grow_base(struct commit *commit, struct error *err)
{
    uint64_t size = commit->top->size;
    return commit->base->size >= size || node_resize(commit->base_edge, size, PREALLOCATION_OFF, false, err);
}

static int copy_part(struct copier *copier, struct edge *from, uint64_t offset, uint64_t length)
{
    while (length) {
        uint64_t chunk = chunk_length(from, offset, length, 1, CHUNK);
        if (!copier_start(copier, offset, chunk))
            return -ECANCELED;
        offset += chunk;
        length -= chunk;
    }
    return 0;
}

/* One walk over the chain. What failed is not kept anywhere: the next walk does everything again. */
static bool commit_pass(struct job *job, struct copier *copier)
{
    struct commit *commit = job->state;
    uint64_t offset = 0, size = commit->top->size;
    job->progress = 0;
    while (offset < size && job_pause_point(job) && !copier->result) {
        struct block_status status;
        int result = block_status_above(commit->top_edge, commit->base, offset, size - offset, 0, &status);
        if (result < 0) {
            copier->failed = true;
            if (job_io_error(job, commit->on_error, true, result) == BLOCK_ERROR_ACTION_REPORT)
                copier->result = result;
            break;
        }
        if (!status.allocated)
            job->progress += status.length;
        else if (copy_part(copier, commit->top_edge, offset, status.length))
            break;
        offset += status.length;
    }
    copier_wait(copier);
    return offset >= size && !copier->failed && !copier->result;
}

static int commit_run(struct job *job, struct error *err)
{
    struct commit *commit = job->state;
    struct copier copier;
    copier_init(&copier, job);
    copier.copy = copy_chunk;
    copier.user = commit;
    copier.on_read_error = copier.on_write_error = commit->on_error;
    job->total = commit->top->size;
    if (!grow_base(commit, err))
        return -(err->code ? err->code : EIO);
    while (!commit_pass(job, &copier) && !copier.result && job_pause_point(job))
        copier_pause_after_failure(&copier);
    int result = copier_end(&copier, err);
    if (!result) {
        result = block_flush(commit->base_edge);
        if (result)
            fail_errno(err, result, "Could not flush '%s'", commit->base->name);
    }
    return result;
}

/* The end --------------------------------------------------------------------------------------------------------- */

static void take_out(struct job *job, struct node *instead)
{
    struct commit *commit = job->state;
    auto_error err = {0};
    edge_detach(TAKE(commit->top_edge));
    edge_detach(TAKE(commit->base_edge));
    if (commit->in_place && !node_replace(commit->filter, instead, &err))
        fail(&job->error, EIO, "'%s' cannot take the place of '%s': %s", instead->name, commit->top->name, err.message);
    commit->in_place = false;
}

/* First the images above say so, then the graph is changed: a crash in between finds an image whose backing file has
 * all the data. */
static bool commit_prepare(struct job *job, struct error *err)
{
    struct commit *commit = job->state;
    struct edge *user;
    list_for_each (user, &commit->filter->parents, child_link) {
        if (user->parent && user == user->parent->backing &&
            !chain_rename_backing(user->parent, commit->base, commit->backing_file, commit->masks_protocol, err))
            return false;
    }
    return true;
}

static void commit_commit(struct job *job)
{
    struct commit *commit = job->state;
    node_drain_begin(commit->filter);
    take_out(job, commit->base);
    node_drain_end(commit->filter);
    commit->done = true;
}

static void commit_clean(struct job *job)
{
    struct commit *commit = job->state;
    if (commit->filter) {
        node_drain_begin(commit->filter);
        take_out(job, commit->top);
        node_drain_end(commit->filter);
        node_unref(commit->filter);
    }
    edge_detach(commit->base_edge);
    make_read_only_again(&commit->made_writable);
    free(commit->backing_file);
}

static const struct job_driver commit_driver = {
    .type = JOB_TYPE_COMMIT,
    .is_block_job = true,
    .state_size = sizeof(struct commit),
    .run = commit_run,
    .prepare = commit_prepare,
    .commit = commit_commit,
    .clean = commit_clean,
};

/* Making ---------------------------------------------------------------------------------------------------------- */

/* The node by its name, or by its file; `fallback` without either. */
static struct node *choose(struct graph *graph, struct node *device, const char *node_name, const char *filename,
                           const char *what, struct node *fallback, struct error *err)
{
    if (node_name && filename)
        return fail_null(err, EINVAL, "'%s-node' and '%s' are mutually exclusive", what, what);
    struct node *node = fallback;
    if (node_name)
        node = find_node(graph, node_name, err);
    else if (filename && !(node = chain_find_file(device, filename)))
        return fail_null(err, ENOENT, "Can't find '%s' in the backing chain", filename);
    if (node && !chain_has(device, node))
        return fail_null(err, EINVAL, "'%s' is not in this backing file chain", node->name);
    return node;
}

static bool claim_chain(struct job *job, struct node *top, struct node *base, struct error *err)
{
    for (struct node *node = chain_image(top); node; node = chain_image(node_backing(node))) {
        if (!job_claim(job, node, err))
            return false;
        if (node == base)
            return true;
    }
    return true;
}

static bool set_up(struct job *job, struct node *top, struct node *base, const struct q_block_commit_arg *options,
                   struct error *err)
{
    struct commit *commit = job->state;
    commit->top = top;
    commit->base = base;
    commit->on_error = options->on_error == BLOCKDEV_ON_ERROR_IGNORE ? BLOCKDEV_ON_ERROR_REPORT : options->on_error;
    commit->backing_file = xstrdup(options->backing_file);
    commit->masks_protocol = options->backing_mask_protocol;
    if (!claim_chain(job, top, base, err) || !make_writable(base, &commit->made_writable, err))
        return false;
    node_drain_begin(top);
    commit->filter = node_open_filter(&commit_top_driver, options->filter_node_name, top, err);
    if (commit->filter && node_replace(top, commit->filter, err))
        commit->in_place = true;
    node_drain_end(top);
    if (!commit->in_place)
        return false;
    commit->top_edge = job_use(job, "top", top, 0, BLOCK_PERM_ALL, err);
    if (!commit->top_edge)
        return false;
    commit->base_edge = job_use(job, "base", base, BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE,
                                BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED, err);
    return commit->base_edge != NULL;
}

static struct job *new_active(struct job_set *set, const struct job_options *common, struct node *top,
                              struct node *base, const struct q_block_commit_arg *options, struct error *err)
{
    if (options->backing_file)
        return fail_null(err, EINVAL, "'backing-file' specified, but 'top' is the active layer");
    const struct mirror_setup setup = {
        .source = top,
        .target = base,
        .base = base,
        .filter_name = options->filter_node_name,
        .sync = MIRROR_SYNC_MODE_TOP,
        .on_source_error = options->on_error,
        .on_target_error = options->on_error,
        .is_commit = true,
    };
    return mirror_new(set, common, &setup, err);
}

struct job *commit_job_new(struct job_set *set, struct graph *graph, const struct q_block_commit_arg *options,
                           struct error *err)
{
    struct node *device = find_node(graph, options->device, err);
    struct node *top =
        device ? choose(graph, device, options->top_node, options->top, "top", chain_image(device), err) : NULL;
    struct node *base =
        top ? choose(graph, device, options->base_node, options->base, "base", chain_bottom(top), err) : NULL;
    if (!base)
        return NULL;
    top = chain_image(top);
    base = chain_image(base);
    if (top == base)
        return fail_null(err, EINVAL, "cannot commit an image into itself");
    if (!chain_has(top, base))
        return fail_null(err, EINVAL, "'%s' is not below '%s'", base->name, top->name);
    const struct job_options common = {.id = options->job_id,
                                       .manual_finalize = !options->auto_finalize,
                                       .manual_dismiss = !options->auto_dismiss,
                                       .speed = (uint64_t)options->speed};
    if (top == chain_image(device))
        return new_active(set, &common, top, base, options, err);
    struct job *job = job_new(set, &commit_driver, &common, err);
    if (job && !set_up(job, top, base, options, err)) {
        job_drop(job);
        return NULL;
    }
    return job;
}
