/* SPDX-License-Identifier: Apache-2.0 */
/* QMP commands on jobs that exist, in both spellings, and the events of jobs. */
#include "base/alloc.h"
#include "block/job.h"
#include "qmp/schema/commands.h"
#include "qmp/schema/events.h"
#include "qmp/server.h"
#include "storage-daemon/daemon.h"

/* Events ---------------------------------------------------------------------------------------------------------- */

static struct qmp_events *sink_of(void *user)
{
    struct daemon *daemon = user;
    return daemon->qmp ? qmp_server_events(daemon->qmp) : NULL;
}

static void on_status(void *user, const struct job *job)
{
    struct qmp_events *events = sink_of(user);
    if (events)
        qmp_event_job_status_change(events, job->id, job->status);
}

static void on_ready(void *user, const struct job *job)
{
    struct qmp_events *events = sink_of(user);
    if (events)
        qmp_event_block_job_ready(events, job->driver->type, job->id, (int64_t)job->total, (int64_t)job->progress,
                                  (int64_t)job->speed);
}

static void on_completed(void *user, const struct job *job)
{
    struct qmp_events *events = sink_of(user);
    if (events)
        qmp_event_block_job_completed(events, job->driver->type, job->id, (int64_t)job->total, (int64_t)job->progress,
                                      (int64_t)job->speed, job->error.message);
}

static void on_cancelled(void *user, const struct job *job)
{
    struct qmp_events *events = sink_of(user);
    if (events)
        qmp_event_block_job_cancelled(events, job->driver->type, job->id, (int64_t)job->total, (int64_t)job->progress,
                                      (int64_t)job->speed);
}

static void on_pending(void *user, const struct job *job)
{
    struct qmp_events *events = sink_of(user);
    if (events)
        qmp_event_block_job_pending(events, job->driver->type, job->id);
}

static void on_error(void *user, const struct job *job, bool is_read, enum block_error_action action)
{
    struct qmp_events *events = sink_of(user);
    if (events)
        qmp_event_block_job_error(events, job->id, is_read ? IO_OPERATION_TYPE_READ : IO_OPERATION_TYPE_WRITE, action);
}

struct job_set *daemon_new_jobs(struct daemon *daemon)
{
    const struct job_events events = {
        .status = on_status,
        .ready = on_ready,
        .completed = on_completed,
        .cancelled = on_cancelled,
        .pending = on_pending,
        .error = on_error,
        .user = daemon,
    };
    return job_set_new(daemon->loop, &events);
}

/* Finding --------------------------------------------------------------------------------------------------------- */

static struct job *find_job(struct qmp_context *context, const char *id, struct error *err)
{
    struct daemon *daemon = context->app;
    struct job *job = job_find(daemon->jobs, id);
    return job ? job : fail_null(err, ENOENT, "Job not found");
}

static struct job *find_block_job(struct qmp_context *context, const char *id, struct error *err)
{
    struct daemon *daemon = context->app;
    struct job *job = job_find(daemon->jobs, id);
    if (job && job->driver->is_block_job)
        return job;
    fail_class(err, "DeviceNotActive", "Block job '%s' not found", id);
    return NULL;
}

/* The present spelling -------------------------------------------------------------------------------------------- */

bool qmp_job_pause(struct qmp_context *context, struct q_job_pause_arg *arg, struct error *err)
{
    struct job *job = find_job(context, arg->id, err);
    return job && job_user_pause(job, err);
}

bool qmp_job_resume(struct qmp_context *context, struct q_job_resume_arg *arg, struct error *err)
{
    struct job *job = find_job(context, arg->id, err);
    return job && job_user_resume(job, err);
}

bool qmp_job_cancel(struct qmp_context *context, struct q_job_cancel_arg *arg, struct error *err)
{
    struct job *job = find_job(context, arg->id, err);
    return job && job_user_cancel(job, true, err);
}

bool qmp_job_complete(struct qmp_context *context, struct q_job_complete_arg *arg, struct error *err)
{
    struct job *job = find_job(context, arg->id, err);
    return job && job_user_complete(job, err);
}

bool qmp_job_finalize(struct qmp_context *context, struct q_job_finalize_arg *arg, struct error *err)
{
    struct job *job = find_job(context, arg->id, err);
    return job && job_user_finalize(job, err);
}

bool qmp_job_dismiss(struct qmp_context *context, struct q_job_dismiss_arg *arg, struct error *err)
{
    struct job *job = find_job(context, arg->id, err);
    return job && job_user_dismiss(job, err);
}

bool qmp_query_jobs(struct qmp_context *context, struct job_info_list **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    struct job_info_list *list = job_info_list_new();
    for (struct job *job = job_next(daemon->jobs, NULL); job; job = job_next(daemon->jobs, job))
        job_info_list_append(list, job_query(job));
    *ret = list;
    return true;
}

/* The older spelling ---------------------------------------------------------------------------------------------- */

bool qmp_block_job_pause(struct qmp_context *context, struct q_block_job_pause_arg *arg, struct error *err)
{
    struct job *job = find_block_job(context, arg->device, err);
    return job && job_user_pause(job, err);
}

bool qmp_block_job_resume(struct qmp_context *context, struct q_block_job_resume_arg *arg, struct error *err)
{
    struct job *job = find_block_job(context, arg->device, err);
    return job && job_user_resume(job, err);
}

bool qmp_block_job_cancel(struct qmp_context *context, struct q_block_job_cancel_arg *arg, struct error *err)
{
    struct job *job = find_block_job(context, arg->device, err);
    if (!job)
        return false;
    if (job->user_paused && !arg->force)
        return fail(err, EBUSY, "The block job for device '%s' is currently paused", arg->device);
    return job_user_cancel(job, arg->force, err);
}

bool qmp_block_job_complete(struct qmp_context *context, struct q_block_job_complete_arg *arg, struct error *err)
{
    struct job *job = find_block_job(context, arg->device, err);
    return job && job_user_complete(job, err);
}

bool qmp_block_job_finalize(struct qmp_context *context, struct q_block_job_finalize_arg *arg, struct error *err)
{
    struct job *job = find_block_job(context, arg->id, err);
    return job && job_user_finalize(job, err);
}

bool qmp_block_job_dismiss(struct qmp_context *context, struct q_block_job_dismiss_arg *arg, struct error *err)
{
    struct job *job = find_block_job(context, arg->id, err);
    return job && job_user_dismiss(job, err);
}

bool qmp_block_job_set_speed(struct qmp_context *context, struct q_block_job_set_speed_arg *arg, struct error *err)
{
    struct job *job = find_block_job(context, arg->device, err);
    return job && job_user_set_speed(job, (uint64_t)arg->speed, err);
}

bool qmp_block_job_change(struct qmp_context *context, struct block_job_change_options *arg, struct error *err)
{
    struct job *job = find_job(context, arg->id, err);
    if (!job)
        return false;
    if (job->driver->type != arg->type)
        return fail(err, EINVAL, "Job '%s' is '%s' job while user requested change of '%s' job", job->id,
                    job_type_name(job->driver->type), job_type_name(arg->type));
    return job_user_change(job, arg, err);
}

bool qmp_query_block_jobs(struct qmp_context *context, struct block_job_info_list **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    struct block_job_info_list *list = block_job_info_list_new();
    for (struct job *job = job_next(daemon->jobs, NULL); job; job = job_next(daemon->jobs, job)) {
        if (job->driver->is_block_job)
            block_job_info_list_append(list, job_query_block(job));
    }
    *ret = list;
    return true;
}
