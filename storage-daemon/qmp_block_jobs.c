/* SPDX-License-Identifier: Apache-2.0 */
/* QMP commands that begin a job on nodes. */
#include <string.h>
#include "base/cleanup.h"
#include "block/jobs/jobs.h"
#include "block/node.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/action.h"
#include "storage-daemon/new_image.h"

static bool start(struct job *job)
{
    if (job)
        job_start(job);
    return job != NULL;
}

bool qmp_blockdev_backup(struct qmp_context *context, struct blockdev_backup *arg, struct error *err)
{
    return action_run(context->app, &action_backup, arg, err);
}

bool qmp_drive_backup(struct qmp_context *context, struct drive_backup *arg, struct error *err)
{
    return action_run(context->app, &action_drive_backup, arg, err);
}

bool qmp_blockdev_mirror(struct qmp_context *context, struct q_blockdev_mirror_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return start(mirror_job_new(daemon->jobs, daemon->graph, arg, err));
}

static struct q_blockdev_mirror_arg mirror_of(const struct drive_mirror *arg, struct node *target)
{
    return (struct q_blockdev_mirror_arg){
        .job_id = arg->job_id,
        .device = arg->device,
        .target = target->name,
        .replaces = arg->replaces,
        .sync = arg->sync,
        .speed = arg->speed,
        .granularity = arg->granularity,
        .buf_size = arg->buf_size,
        .on_source_error = arg->on_source_error,
        .on_target_error = arg->on_target_error,
        .copy_mode = arg->copy_mode,
        .auto_finalize = arg->auto_finalize,
        .auto_dismiss = arg->auto_dismiss,
    };
}

/* A copy of the topmost image stands on the same backing images. */
static bool give_backing(struct node *source, struct node *target, enum mirror_sync_mode sync, struct error *err)
{
    struct node *backing = sync == MIRROR_SYNC_MODE_TOP ? node_backing(source) : NULL;
    if (sync == MIRROR_SYNC_MODE_NONE)
        backing = source;
    return !backing || node_set_backing(target, backing, err);
}

bool qmp_drive_mirror(struct qmp_context *context, struct drive_mirror *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    struct node *source = daemon_find_node(daemon, arg->device, err);
    if (!source)
        return false;
    struct node *backing = arg->sync == MIRROR_SYNC_MODE_TOP ? node_backing(source) : NULL;
    const struct new_image image = {
        .filename = arg->target,
        .format = arg->format,
        .node_name = arg->node_name,
        .like = arg->sync == MIRROR_SYNC_MODE_NONE || !backing ? source : backing,
        .size = source->size,
        .exists = arg->mode == NEW_IMAGE_MODE_EXISTING,
        .is_overlay = backing || arg->sync == MIRROR_SYNC_MODE_NONE,
    };
    struct node *target = new_image_open(&image, err);
    if (!target)
        return false;
    struct q_blockdev_mirror_arg mirror = mirror_of(arg, target);
    bool ok = give_backing(source, target, arg->sync, err) &&
              start(mirror_job_new(daemon->jobs, daemon->graph, &mirror, err));
    node_unref(target);
    return ok;
}

bool qmp_block_commit(struct qmp_context *context, struct q_block_commit_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return start(commit_job_new(daemon->jobs, daemon->graph, arg, err));
}

bool qmp_block_stream(struct qmp_context *context, struct q_block_stream_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return start(stream_job_new(daemon->jobs, daemon->graph, arg, err));
}

bool qmp_blockdev_create(struct qmp_context *context, struct q_blockdev_create_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return start(create_job_new(daemon->jobs, daemon->graph, arg->job_id, arg->options, err));
}

bool qmp_x_blockdev_amend(struct qmp_context *context, struct q_x_blockdev_amend_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return start(amend_job_new(daemon->jobs, daemon->graph, arg, err));
}

bool qmp_blockdev_check(struct qmp_context *context, struct q_blockdev_check_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return start(check_job_new(daemon->jobs, daemon->graph, arg, err));
}
