/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup: the state of a node at the moment when the job was made, copied to another while the node is in use.
 *
 * A copy-before-write filter above the source keeps that state; the job has it copy what no write has made it copy.
 * Which clusters are to be copied is the filter's bitmap: all of them, those that the topmost image has (they are
 * looked for first), those of a user's bitmap, or (sync=none) only what is overwritten, until the user ends it.
 *
 * A user's bitmap goes on recording throughout. Beside it, `since` records from the start on: what the next incremental
 * backup needs. At the end the user's bitmap either becomes that, or stays as it is.
 */
#include "block/jobs/private.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "block/filters/copy_before_write.h"
#include "block/query.h"
#include "block/request.h"

#define CHUNK (1 * MiB)
#define RETRY_AFTER_NS 100000000ull

struct backup {
    struct node *source, *filter;
    struct edge *edge;   /* to the filter */
    struct edge *target; /* for flushes, and so that it keeps its size */
    enum mirror_sync_mode sync;
    enum bitmap_sync_mode bitmap_mode;
    struct dirty_bitmap *bitmap, *since;
    enum blockdev_on_error on_source_error, on_target_error;
    uint64_t most;
    uint32_t copy_flags;
    unsigned workers;
    bool discard_source;
    bool in_place; /* the filter stands above the source */
    bool good;
};

/* Running --------------------------------------------------------------------------------------------------------- */

static void on_progress(void *user, uint64_t bytes)
{
    struct job *job = user;
    job->progress += bytes;
}

static int copy_chunk(struct copier *copier, uint64_t offset, uint64_t length, bool *read_failed)
{
    struct backup *backup = copier->user;
    return cbw_copy(backup->edge, offset, length, read_failed);
}

/* sync=top: what the topmost image does not have is not part of the copy. */
static int leave_out_unallocated(struct job *job)
{
    struct backup *backup = job->state;
    uint64_t offset = 0, size = backup->source->size;
    while (offset < size) {
        uint64_t done, skipped;
        if (!job_pause_point(job))
            return -ECANCELED;
        int result = cbw_skip_unallocated(backup->edge, offset, size - offset, &done, &skipped);
        job->total -= skipped;
        if (result < 0 && job_io_error(job, backup->on_source_error, true, result) == BLOCK_ERROR_ACTION_REPORT)
            return result;
        if (result >= 0)
            offset += done;
        else if (!job->pauses)
            job_rest(job, RETRY_AFTER_NS);
    }
    return 0;
}

static int copy_all(struct job *job, struct error *err)
{
    struct backup *backup = job->state;
    struct dirty_bitmap *todo = cbw_todo(backup->filter);
    uint64_t cluster = cbw_cluster_size(backup->filter), cursor = 0, start, length;
    struct copier copier;
    copier_init(&copier, job);
    copier.copy = copy_chunk;
    copier.user = backup;
    copier.limit = MIN(backup->workers, copier.limit);
    copier.on_read_error = backup->on_source_error;
    copier.on_write_error = backup->on_target_error;
    while (!cbw_broken(backup->filter)) {
        if (dirty_bitmap_next_dirty(todo, cursor, UINT64_MAX, &start, &length)) {
            length = chunk_length(backup->edge, start, length, cluster, MAX(backup->most, cluster));
            if (!copier_start(&copier, start, length))
                break;
            cursor = start + length;
            continue;
        }
        copier_wait(&copier);
        copier_pause_after_failure(&copier);
        if (!dirty_bitmap_count(todo) || !job_pause_point(job))
            break;
        cursor = 0; /* what failed */
    }
    return copier_end(&copier, err);
}

static int wait_for_end(struct job *job)
{
    while (job_pause_point(job) && !job->leaving)
        job_rest(job, UINT64_MAX);
    return job->cancelled ? -ECANCELED : 0;
}

static int backup_run(struct job *job, struct error *err)
{
    struct backup *backup = job->state;
    /* Every cluster is copied once at most: where the target reads as zeroes, zeroes need not be written. */
    if (backup->sync != MIRROR_SYNC_MODE_NONE && reads_as_zero(backup->target))
        cbw_set_copying(backup->filter, backup->copy_flags | BLOCK_COPY_TARGET_IS_ZERO, backup->discard_source);
    int result = backup->sync == MIRROR_SYNC_MODE_TOP ? leave_out_unallocated(job) : 0;
    if (!result)
        result = backup->sync == MIRROR_SYNC_MODE_NONE ? wait_for_end(job) : copy_all(job, err);
    if (!result && cbw_broken(backup->filter)) {
        result = cbw_broken(backup->filter);
        fail(err, -result, "A write to the source went before its old content could be copied: %s", strerror(-result));
    }
    if (!result) {
        result = block_flush(backup->target);
        if (result)
            fail_errno(err, result, "Could not flush the target");
    }
    return result;
}

/* The end --------------------------------------------------------------------------------------------------------- */

static void backup_commit(struct job *job)
{
    ((struct backup *)job->state)->good = true;
}

/* What the user's bitmap says from now on. */
static void settle_bitmap(struct backup *backup)
{
    struct dirty_bitmap *bitmap = backup->bitmap;
    if (!bitmap)
        return;
    bool replaces = backup->bitmap_mode == BITMAP_SYNC_MODE_ALWAYS ||
                    (backup->bitmap_mode == BITMAP_SYNC_MODE_ON_SUCCESS && backup->good);
    if (replaces && bitmap->bits && backup->since->bits) {
        dirty_bitmap_clear(bitmap);
        dirty_bitmap_merge(bitmap, backup->since, NULL);
        if (!backup->good)
            dirty_bitmap_merge(bitmap, cbw_todo(backup->filter), NULL);
    }
    bitmap->busy--;
}

static void backup_clean(struct job *job)
{
    struct backup *backup = job->state;
    auto_error err = {0};
    if (!backup->filter)
        return;
    node_drain_begin(backup->filter);
    settle_bitmap(backup);
    dirty_bitmap_free(backup->since);
    cbw_set_progress(backup->filter, NULL, NULL);
    edge_detach(backup->edge);
    /* Not the source: an overlay, or the filter of another backup, may have come between the two. */
    if (backup->in_place && !node_replace(backup->filter, backup->filter->file->child, &err))
        fail(&job->error, EIO, "The filter could not be taken out again: %s", err.message);
    node_drain_end(backup->filter);
    edge_detach(backup->target);
    node_unref(backup->filter);
}

const struct job_driver backup_job_driver = {
    .type = JOB_TYPE_BACKUP,
    .is_block_job = true,
    .state_size = sizeof(struct backup),
    .run = backup_run,
    .commit = backup_commit,
    .clean = backup_clean,
};

/* Making ---------------------------------------------------------------------------------------------------------- */

static bool check_bitmap_options(const struct blockdev_backup *options, struct error *err)
{
    bool needs_bitmap = options->sync == MIRROR_SYNC_MODE_BITMAP || options->sync == MIRROR_SYNC_MODE_INCREMENTAL;
    if (needs_bitmap && !options->bitmap)
        return fail(err, EINVAL, "must provide a valid bitmap name for '%s' sync mode",
                    mirror_sync_mode_name(options->sync));
    if (options->sync == MIRROR_SYNC_MODE_BITMAP && !options->has_bitmap_mode)
        return fail(err, EINVAL, "Bitmap sync mode must be given when providing a bitmap");
    if (options->sync == MIRROR_SYNC_MODE_INCREMENTAL && options->has_bitmap_mode &&
        options->bitmap_mode != BITMAP_SYNC_MODE_ON_SUCCESS)
        return fail(err, EINVAL, "Bitmap sync mode must be '%s' when using sync mode 'incremental'",
                    bitmap_sync_mode_name(BITMAP_SYNC_MODE_ON_SUCCESS));
    if (!options->bitmap && options->has_bitmap_mode)
        return fail(err, EINVAL, "Cannot specify bitmap sync mode without a bitmap");
    if (options->bitmap && !needs_bitmap) {
        if (!options->has_bitmap_mode)
            return fail(err, EINVAL, "Bitmap sync mode must be given when providing a bitmap");
        if (options->sync == MIRROR_SYNC_MODE_NONE)
            return fail(err, EINVAL, "sync mode 'none' does not produce meaningful bitmap outputs");
        if (options->bitmap_mode == BITMAP_SYNC_MODE_NEVER)
            return fail(err, EINVAL, "Bitmap sync mode '%s' has no meaningful effect when combined with sync mode '%s'",
                        bitmap_sync_mode_name(options->bitmap_mode), mirror_sync_mode_name(options->sync));
    }
    return true;
}

static bool check_nodes(const struct backup *backup, struct node *target, const struct blockdev_backup *options,
                        struct error *err)
{
    if (backup->source == target)
        return fail(err, EINVAL, "Source and target cannot be the same");
    if (backup->source->size != target->size)
        return fail(err, EINVAL, "Source and target image have different sizes: %" PRIu64 " and %" PRIu64 " bytes",
                    backup->source->size, target->size);
    if (options->compress && !node_compresses(target))
        return fail(err, ENOTSUP, "Compression is not supported for this drive %s", target->name);
    return true;
}

static bool find_bitmap(struct backup *backup, const struct blockdev_backup *options, struct error *err)
{
    if (!options->bitmap)
        return true;
    struct dirty_bitmap *bitmap = dirty_bitmap_find(backup->source, options->bitmap);
    if (!bitmap)
        return fail(err, ENOENT, "Bitmap '%s' could not be found", options->bitmap);
    backup->bitmap_mode = options->has_bitmap_mode ? options->bitmap_mode : BITMAP_SYNC_MODE_ON_SUCCESS;
    unsigned wishes = backup->bitmap_mode == BITMAP_SYNC_MODE_NEVER ? DIRTY_BITMAP_NOT_BUSY | DIRTY_BITMAP_CONSISTENT
                                                                    : DIRTY_BITMAP_DEFAULT;
    if (!dirty_bitmap_check(bitmap, wishes, err))
        return false;
    backup->since = dirty_bitmap_new(backup->source, NULL, bitmap->granularity, err);
    if (!backup->since)
        return false;
    backup->since->recording = bitmap->recording;
    backup->bitmap = bitmap;
    bitmap->busy++;
    return true;
}

/* The filter, by the options that a user would give for it. */
static struct node *open_filter(struct backup *backup, struct node *target, const struct blockdev_backup *options,
                                struct error *err)
{
    auto_blockdev_options *filter = blockdev_options_new();
    struct blockdev_options_cbw *cbw = &filter->u.copy_before_write;
    filter->driver = BLOCKDEV_DRIVER_COPY_BEFORE_WRITE;
    filter->node_name = xstrdup(options->filter_node_name);
    filter->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    cbw->file = blockdev_ref_new();
    cbw->file->kind = BLOCKDEV_REF_KIND_REFERENCE;
    cbw->file->u.reference = xstrdup(backup->source->name);
    cbw->target = blockdev_ref_new();
    cbw->target->kind = BLOCKDEV_REF_KIND_REFERENCE;
    cbw->target->u.reference = xstrdup(target->name);
    cbw->on_cbw_error = options->on_cbw_error;
    cbw->min_cluster_size = options->x_perf ? options->x_perf->min_cluster_size : 0;
    return node_open(backup->source->graph, filter, err);
}

static bool insert_filter(struct job *job, struct node *target, const struct blockdev_backup *options,
                          struct error *err)
{
    struct backup *backup = job->state;
    backup->filter = open_filter(backup, target, options, err);
    if (!backup->filter)
        return false;
    bool uses_bitmap = options->sync == MIRROR_SYNC_MODE_BITMAP || options->sync == MIRROR_SYNC_MODE_INCREMENTAL;
    struct dirty_bitmap *todo = cbw_todo(backup->filter);
    if (uses_bitmap) {
        dirty_bitmap_clear(todo);
        if (!dirty_bitmap_merge(todo, backup->bitmap, err))
            return false;
    }
    backup->copy_flags = options->compress ? BLOCK_COPY_COMPRESS : 0;
    if (options->x_perf && options->x_perf->use_copy_range && !options->compress)
        backup->copy_flags |= BLOCK_COPY_OFFLOAD;
    backup->discard_source = options->discard_source;
    cbw_set_copying(backup->filter, backup->copy_flags, backup->discard_source);
    cbw_set_progress(backup->filter, on_progress, job);
    job->total = dirty_bitmap_count(todo);
    backup->target = job_use(job, "target", target, 0, JOB_SHARES_ALL_BUT_RESIZE, err);
    if (!backup->target || !node_replace(backup->source, backup->filter, err))
        return false;
    backup->in_place = true;
    backup->edge = job_use(job, "source", backup->filter, 0, JOB_SHARES_ALL_BUT_RESIZE, err);
    return backup->edge != NULL;
}

static bool set_up(struct job *job, struct graph *graph, const struct blockdev_backup *options, struct error *err)
{
    struct backup *backup = job->state;
    struct node *source = find_node(graph, options->device, err);
    struct node *target = source ? find_node(graph, options->target, err) : NULL;
    backup->source = source;
    /* Any number of backups may have one source; a job that moves it, or takes its place, wants it for itself. */
    if (!target || !check_nodes(backup, target, options, err) || !job_check_unclaimed(source, err) ||
        !job_claim(job, target, err))
        return false;
    backup->sync = options->sync;
    backup->on_source_error = options->on_source_error;
    backup->on_target_error = options->on_target_error;
    backup->workers = options->x_perf ? (unsigned)options->x_perf->max_workers : 64;
    backup->most = options->x_perf && options->x_perf->max_chunk ? (uint64_t)options->x_perf->max_chunk : CHUNK;
    /* The state that is copied, and what `since` does not record any more, are those of one moment. */
    node_drain_begin(source);
    bool ok = find_bitmap(backup, options, err) && insert_filter(job, target, options, err);
    node_drain_end(source);
    return ok;
}

/* A job that could not be made never took its place. */
static void take_down(struct job *job)
{
    struct backup *backup = job->state;
    if (backup->filter)
        return; /* clean() does it */
    if (backup->bitmap)
        backup->bitmap->busy--;
    dirty_bitmap_free(backup->since);
}

struct job *backup_job_new(struct job_set *set, struct graph *graph, const struct blockdev_backup *options,
                           struct job_transaction *transaction, struct error *err)
{
    if (!check_bitmap_options(options, err))
        return NULL;
    struct job *job = job_new(set, &backup_job_driver,
                              &(struct job_options){.id = options->job_id,
                                                    .manual_finalize = !options->auto_finalize,
                                                    .manual_dismiss = !options->auto_dismiss,
                                                    .speed = (uint64_t)options->speed,
                                                    .transaction = transaction},
                              err);
    if (!job)
        return NULL;
    if (!set_up(job, graph, options, err)) {
        take_down(job);
        job_drop(job);
        return NULL;
    }
    return job;
}
