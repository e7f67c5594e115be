/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mirror: a copy of a node that is kept up to date until it can take the node's place. An active commit is a mirror
 * into the base of the chain.
 *
 *     first    mark what must be copied (everything, what the topmost images have, nothing)
 *     then     copy what is marked; writes mark anew; the first time that nothing is marked: ready
 *     at last  (job-complete, or a gentle cancel) drain, and nothing is marked: from here on writes go to both sides,
 * so that source and target stay the same however long the user takes to finalize commit   the target takes the place
 * of the source, or of the node that `replaces` names
 */
#include "block/jobs/private.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/create.h"
#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "block/filters/mirror_top.h"
#include "block/query.h"
#include "block/request.h"

#define CHUNK (1 * MiB)
#define LEAST_GRANULARITY (64 * KiB)
#define IDLE_NS 100000000ull

struct mirror {
    struct node *source, *target, *base, *filter, *replaces;
    struct edge *edge;        /* to the filter */
    struct edge *source_edge; /* to look at what the source has */
    struct edge *target_edge;
    enum mirror_sync_mode sync;
    enum blockdev_on_error on_source_error, on_target_error;
    uint64_t buffer;
    uint32_t granularity;
    bool is_commit, target_is_zero;
    bool completing; /* the target is to take the place */
    bool in_place, drained, replaced;
    struct made_writable made_writable; /* the base */
};

/* Marking --------------------------------------------------------------------------------------------------------- */

static bool must_copy(const struct mirror *mirror, const struct block_status *status)
{
    if (mirror->sync == MIRROR_SYNC_MODE_TOP)
        return status->allocated;
    return !(status->zero && mirror->target_is_zero);
}

static int status_of(struct mirror *mirror, uint64_t offset, struct block_status *status)
{
    uint64_t length = mirror->source->size - offset;
    if (mirror->sync == MIRROR_SYNC_MODE_TOP && mirror->base)
        return block_status_above(mirror->source_edge, mirror->base, offset, length, 0, status);
    uint32_t flags = mirror->sync == MIRROR_SYNC_MODE_TOP ? BLOCK_STATUS_TOP_ONLY : BLOCK_STATUS_PRECISE;
    return block_status(mirror->source_edge, offset, length, flags, status);
}

static int mark_all(struct job *job)
{
    struct mirror *mirror = job->state;
    struct dirty_bitmap *dirty = mirror_top_dirty(mirror->filter);
    uint64_t offset = 0;
    if (mirror->sync == MIRROR_SYNC_MODE_FULL && !mirror->target_is_zero) {
        dirty_bitmap_set(dirty, 0, mirror->source->size);
        return 0;
    }
    while (mirror->sync != MIRROR_SYNC_MODE_NONE && offset < mirror->source->size) {
        struct block_status status;
        if (!job_pause_point(job))
            return -ECANCELED;
        int result = status_of(mirror, offset, &status);
        if (result < 0) {
            if (job_io_error(job, mirror->on_source_error, true, result) == BLOCK_ERROR_ACTION_REPORT)
                return result;
            if (!job->pauses)
                job_rest(job, IDLE_NS);
            continue;
        }
        if (must_copy(mirror, &status))
            dirty_bitmap_set(dirty, offset, status.length);
        offset += status.length;
    }
    return 0;
}

/* Copying --------------------------------------------------------------------------------------------------------- */

static int copy_chunk(struct copier *copier, uint64_t offset, uint64_t length, bool *read_failed)
{
    struct mirror *mirror = copier->user;
    int result = mirror_top_copy(mirror->edge, offset, length, 0, read_failed);
    if (!result)
        copier->job->progress += length;
    return result;
}

static void count_rest(struct job *job, const struct copier *copier)
{
    struct mirror *mirror = job->state;
    job->total = job->progress + dirty_bitmap_count(mirror_top_dirty(mirror->filter)) + copier->bytes_in_flight;
}

static void take_guest_error(struct job *job, struct copier *copier)
{
    struct mirror *mirror = job->state;
    int error = mirror_top_take_error(mirror->filter);
    if (error && job_io_error(job, mirror->on_target_error, false, error) == BLOCK_ERROR_ACTION_REPORT &&
        !copier->result)
        copier->result = error;
}

/* Nothing is marked and nothing in flight, at a moment when no guest's request is. From here on writes go to both. */
static bool converge(struct job *job)
{
    struct mirror *mirror = job->state;
    node_drain_begin(mirror->filter);
    bool done = !dirty_bitmap_count(mirror_top_dirty(mirror->filter)) && !mirror_top_is_busy(mirror->filter);
    if (done)
        mirror_top_set_write_blocking(mirror->filter);
    node_drain_end(mirror->filter);
    return done;
}

/* All is copied for now. Returns true when the job has done its work. */
static bool caught_up(struct job *job, struct copier *copier)
{
    struct mirror *mirror = job->state;
    if (!job_is_ready(job)) {
        int result = block_flush(mirror->target_edge);
        if (result) {
            copier->failed = true;
            if (job_io_error(job, mirror->on_target_error, false, result) == BLOCK_ERROR_ACTION_REPORT)
                copier->result = result;
            return false;
        }
        job_become_ready(job);
        return false;
    }
    if (mirror->completing || job->leaving)
        return converge(job);
    if (!dirty_bitmap_count(mirror_top_dirty(mirror->filter)))
        job_rest(job, IDLE_NS);
    return false;
}

static int keep_copying(struct job *job, struct error *err)
{
    struct mirror *mirror = job->state;
    struct dirty_bitmap *dirty = mirror_top_dirty(mirror->filter);
    uint64_t cursor = 0, start, length;
    struct copier copier;
    copier_init(&copier, job);
    copier.copy = copy_chunk;
    copier.user = mirror;
    copier.most_bytes = mirror->buffer;
    copier.on_read_error = mirror->on_source_error;
    copier.on_write_error = mirror->on_target_error;
    while (!copier.result && job_pause_point(job)) {
        take_guest_error(job, &copier);
        count_rest(job, &copier);
        if (!copier.failed && dirty_bitmap_next_dirty(dirty, cursor, UINT64_MAX, &start, &length)) {
            length = chunk_length(mirror->source_edge, start, length, mirror->granularity,
                                  MAX(CHUNK, (uint64_t)mirror->granularity));
            if (!copier_start(&copier, start, length))
                break;
            dirty_bitmap_reset(dirty, start, length); /* the chunk's from now on; it has not run yet */
            cursor = start + length;
        } else if (cursor && !copier.failed) {
            cursor = 0;
        } else if (copier.in_flight) {
            job_rest(job, UINT64_MAX);
        } else {
            copier_pause_after_failure(&copier);
            if (!dirty_bitmap_count(dirty) && !copier.result && caught_up(job, &copier))
                break;
        }
    }
    return copier_end(&copier, err);
}

static int mirror_run(struct job *job, struct error *err)
{
    struct mirror *mirror = job->state;
    if (mirror->sync == MIRROR_SYNC_MODE_FULL && !mirror->target_is_zero)
        mirror->target_is_zero = reads_as_zero(mirror->target_edge);
    int result = mark_all(job);
    if (result)
        return result;
    return keep_copying(job, err);
}

static void on_kick(void *user)
{
    job_kick(user);
}

/* The end --------------------------------------------------------------------------------------------------------- */

static void end_drain(struct mirror *mirror)
{
    if (mirror->drained)
        node_drain_end(mirror->filter);
    mirror->drained = false;
}

static bool mirror_prepare(struct job *job, struct error *err)
{
    struct mirror *mirror = job->state;
    node_drain_begin(mirror->filter);
    mirror->drained = true;
    int result = mirror_top_take_error(mirror->filter);
    if (result || dirty_bitmap_count(mirror_top_dirty(mirror->filter)))
        return fail_errno(err, result ? result : EIO, "A write did not reach the target before the job was finalized");
    result = mirror_top_flush_target(mirror->filter);
    if (result)
        return fail_errno(err, result, "Could not flush the target");
    return true;
}

/* The filter's users go on with the source; those of the node that is replaced, with the target. */
static void mirror_commit(struct job *job)
{
    struct mirror *mirror = job->state;
    auto_error err = {0};
    if (!mirror->completing)
        return;
    mirror_top_retire(mirror->filter);
    struct node *from = mirror->replaces == mirror->source ? mirror->filter : mirror->replaces;
    edge_detach(TAKE(mirror->edge));
    edge_detach(TAKE(mirror->source_edge));
    if (node_replace(from, mirror->target, &err))
        mirror->replaced = true;
    else
        fail(&job->error, EPERM, "'%s' cannot take the place of '%s': %s", mirror->target->name, mirror->replaces->name,
             err.message);
}

static void mirror_clean(struct job *job)
{
    struct mirror *mirror = job->state;
    auto_error err = {0};
    edge_detach(mirror->edge);
    if (mirror->filter) {
        if (!mirror->drained)
            node_drain_begin(mirror->filter);
        mirror->drained = true;
        mirror_top_retire(mirror->filter);
        edge_detach(mirror->source_edge);
        bool is_used = mirror->in_place && !list_empty(&mirror->filter->parents);
        if (is_used && !node_replace(mirror->filter, mirror->filter->file->child, &err))
            fail(&job->error, EIO, "The filter could not be taken out again: %s", err.message);
        end_drain(mirror);
    }
    edge_detach(mirror->target_edge);
    if (mirror->filter)
        node_unref(mirror->filter);
    if (mirror->replaced)
        stay_writable(&mirror->made_writable);
    else
        make_read_only_again(&mirror->made_writable);
    if (mirror->replaces)
        node_unref(mirror->replaces);
}

/* Commands -------------------------------------------------------------------------------------------------------- */

static bool mirror_complete(struct job *job, struct error *err)
{
    ((struct mirror *)job->state)->completing = true;
    return true;
}

static bool mirror_cancel_gently(struct job *job)
{
    return true;
}

static bool mirror_change(struct job *job, const struct block_job_change_options *options, struct error *err)
{
    struct mirror *mirror = job->state;
    if (options->u.mirror.copy_mode == MIRROR_COPY_MODE_BACKGROUND) {
        if (!mirror_top_is_write_blocking(mirror->filter))
            return true;
        return fail(err, ENOTSUP, "Cannot switch from copy-mode 'write-blocking' to 'background'");
    }
    mirror_top_set_write_blocking(mirror->filter);
    return true;
}

static void mirror_query(struct job *job, struct block_job_info *info)
{
    struct mirror *mirror = job->state;
    if (mirror->is_commit || !mirror->filter)
        return;
    info->u.mirror.actively_synced = job_is_ready(job) && mirror_top_is_write_blocking(mirror->filter) &&
                                     !dirty_bitmap_count(mirror_top_dirty(mirror->filter)) &&
                                     !mirror_top_is_busy(mirror->filter);
}

#define MIRROR_FUNCTIONS                                                                                               \
    .is_block_job = true, .state_size = sizeof(struct mirror), .run = mirror_run, .prepare = mirror_prepare,           \
    .commit = mirror_commit, .clean = mirror_clean, .complete = mirror_complete,                                       \
    .cancel_gently = mirror_cancel_gently, .query = mirror_query

static const struct job_driver mirror_driver = {.type = JOB_TYPE_MIRROR, MIRROR_FUNCTIONS, .change = mirror_change};
static const struct job_driver active_commit_driver = {.type = JOB_TYPE_COMMIT, MIRROR_FUNCTIONS};

/* Making ---------------------------------------------------------------------------------------------------------- */

static bool choose_granularity(struct mirror *mirror, uint32_t wanted, struct error *err)
{
    uint64_t cluster = node_cluster_size(mirror->target);
    if (wanted && (wanted < 512 || wanted > 64 * MiB))
        return fail(err, EINVAL, "Parameter 'granularity' expects a value in range [512B, 64MB]");
    if (wanted && !is_power_of_two(wanted))
        return fail(err, EINVAL, "Parameter 'granularity' expects a power of 2");
    mirror->granularity = wanted ? wanted : (uint32_t)MAX(cluster, LEAST_GRANULARITY);
    return true;
}

/* A commit's base takes the size of what is committed. The filter is in place by now, so nobody relies on the layers in
 * between; no target yet, so nobody insists on the size. */
static bool grow_base(struct node *base, uint64_t size, struct error *err)
{
    if (base->size >= size)
        return true;
    struct edge *edge = edge_attach(NULL, "commit", base, BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, BLOCK_PERM_ALL, err);
    bool ok = edge && node_resize(edge, size, PREALLOCATION_OFF, false, err);
    if (edge)
        edge_detach(edge);
    return ok;
}

static bool set_up(struct job *job, const struct mirror_setup *setup, struct error *err)
{
    struct mirror *mirror = job->state;
    mirror->source = setup->source;
    mirror->target = setup->target;
    mirror->base = setup->base;
    mirror->sync = setup->sync;
    mirror->on_source_error = setup->on_source_error;
    mirror->on_target_error = setup->on_target_error;
    mirror->is_commit = setup->is_commit;
    mirror->target_is_zero = setup->target_is_zero;
    mirror->buffer = setup->buffer ? MAX(setup->buffer, CHUNK) : 16 * MiB;
    struct node *replaces = setup->replaces ? find_node(setup->source->graph, setup->replaces, err) : setup->source;
    if (!replaces)
        return false;
    mirror->replaces = replaces;
    node_ref(replaces);
    if (!choose_granularity(mirror, setup->granularity, err) || !job_claim(job, setup->source, err) ||
        !job_claim(job, setup->target, err) || !job_claim(job, replaces, err))
        return false;
    if (setup->is_commit && !make_writable(setup->target, &mirror->made_writable, err))
        return false;
    const struct mirror_top_setup top = {
        .name = setup->filter_name,
        .source = setup->source,
        .granularity = mirror->granularity,
        .is_commit = setup->is_commit,
    };
    node_drain_begin(setup->source);
    mirror->filter = mirror_top_open(&top, err);
    if (mirror->filter && node_replace(setup->source, mirror->filter, err))
        mirror->in_place = true;
    bool has_target = mirror->in_place && (!setup->is_commit || grow_base(setup->target, setup->source->size, err)) &&
                      mirror_top_set_target(mirror->filter, setup->target, JOB_SHARES_ALL_BUT_RESIZE, err);
    node_drain_end(setup->source);
    if (!has_target)
        return false;
    if (setup->copy_mode == MIRROR_COPY_MODE_WRITE_BLOCKING)
        mirror_top_set_write_blocking(mirror->filter);
    mirror_top_set_kick(mirror->filter, on_kick, job);
    mirror->edge = job_use(job, "source", mirror->filter, 0, JOB_SHARES_ALL_BUT_RESIZE, err);
    mirror->source_edge =
        mirror->edge ? job_use(job, "source", mirror->source, 0, JOB_SHARES_ALL_BUT_RESIZE, err) : NULL;
    mirror->target_edge =
        mirror->source_edge ? job_use(job, "target", mirror->target, 0, JOB_SHARES_ALL_BUT_RESIZE, err) : NULL;
    return mirror->target_edge != NULL;
}

struct job *mirror_new(struct job_set *set, const struct job_options *common, const struct mirror_setup *setup,
                       struct error *err)
{
    struct job *job = job_new(set, setup->is_commit ? &active_commit_driver : &mirror_driver, common, err);
    if (job && !set_up(job, setup, err)) {
        job_drop(job);
        return NULL;
    }
    return job;
}

static bool check_mirror(const struct q_blockdev_mirror_arg *options, const struct node *source,
                         const struct node *target, struct error *err)
{
    if (options->sync == MIRROR_SYNC_MODE_INCREMENTAL || options->sync == MIRROR_SYNC_MODE_BITMAP)
        return fail(err, ENOTSUP, "Sync mode '%s' not supported", mirror_sync_mode_name(options->sync));
    if (source == target)
        return fail(err, EINVAL, "Can't mirror node into itself");
    if (source->size != target->size)
        return fail(err, EINVAL, "Source and target image have different sizes: %" PRIu64 " and %" PRIu64 " bytes",
                    source->size, target->size);
    return true;
}

struct job *mirror_job_new(struct job_set *set, struct graph *graph, const struct q_blockdev_mirror_arg *options,
                           struct error *err)
{
    struct node *source = find_node(graph, options->device, err);
    struct node *target = source ? find_node(graph, options->target, err) : NULL;
    if (!target || !check_mirror(options, source, target, err))
        return NULL;
    bool has_backing = node_backing(source) != NULL;
    const struct mirror_setup setup = {
        .source = source,
        .target = target,
        .replaces = options->replaces,
        .filter_name = options->filter_node_name,
        .sync = options->sync == MIRROR_SYNC_MODE_TOP && !has_backing ? MIRROR_SYNC_MODE_FULL : options->sync,
        .copy_mode = options->copy_mode,
        .granularity = options->granularity,
        .buffer = (uint64_t)options->buf_size,
        .on_source_error = options->on_source_error,
        .on_target_error = options->on_target_error,
        .target_is_zero = options->target_is_zero,
    };
    return mirror_new(set,
                      &(struct job_options){.id = options->job_id,
                                            .manual_finalize = !options->auto_finalize,
                                            .manual_dismiss = !options->auto_dismiss,
                                            .speed = (uint64_t)options->speed},
                      &setup, err);
}
