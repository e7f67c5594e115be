/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine of jobs. Which transitions there are, and what users may do in which state, are two tables; the
 * rest is who moves a job when:
 *
 *   - the user's commands set wishes (pauses, cancelled, leaving) and wake the job;
 *   - the job's coroutine looks at them at pause points, and moves to `waiting` or `aborting` when run() returns;
 *   - who finds that nothing of a transaction runs any more finalizes all of it (job_transaction.c).
 */
#include "block/job_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "block/node.h"

/* The tables ------------------------------------------------------------------------------------------------------ */

#define S(state) (1u << JOB_STATUS_##state)

static const unsigned may_follow[] = {
    [JOB_STATUS_UNDEFINED] = S(CREATED),
    [JOB_STATUS_CREATED] = S(RUNNING) | S(ABORTING) | S(NULL),
    [JOB_STATUS_RUNNING] = S(PAUSED) | S(READY) | S(WAITING) | S(ABORTING),
    [JOB_STATUS_PAUSED] = S(RUNNING),
    [JOB_STATUS_READY] = S(STANDBY) | S(WAITING) | S(ABORTING),
    [JOB_STATUS_STANDBY] = S(READY),
    [JOB_STATUS_WAITING] = S(PENDING) | S(ABORTING),
    [JOB_STATUS_PENDING] = S(CONCLUDED) | S(ABORTING),
    [JOB_STATUS_ABORTING] = S(CONCLUDED),
    [JOB_STATUS_CONCLUDED] = S(NULL),
    [JOB_STATUS_NULL] = 0,
};

#define S_ALIVE (S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY))

static const struct {
    const char *name;
    unsigned states;
} verbs[] = {
    [JOB_VERB_CANCEL] = {"cancel", S_ALIVE | S(WAITING) | S(PENDING)},
    [JOB_VERB_PAUSE] = {"pause", S_ALIVE},
    [JOB_VERB_RESUME] = {"resume", S_ALIVE},
    [JOB_VERB_SET_SPEED] = {"set-speed", S_ALIVE},
    [JOB_VERB_COMPLETE] = {"complete", S(READY) | S(STANDBY)},
    [JOB_VERB_FINALIZE] = {"finalize", S(PENDING)},
    [JOB_VERB_DISMISS] = {"dismiss", S(CONCLUDED)},
    [JOB_VERB_CHANGE] = {"change", S_ALIVE},
};

bool job_verb_check(const struct job *job, enum job_verb verb, struct error *err)
{
    if (verbs[verb].states & 1u << job->status)
        return true;
    return fail(err, EPERM, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
                job_status_name(job->status), verbs[verb].name);
}

/* Management tools act on what a job says about itself: a job that went a way that is not in the table must not go on.
 */
static void check_transition(const struct job *job, enum job_status status)
{
    if (may_follow[job->status] & 1u << status)
        return;
    log_error("job '%s': went from '%s' to '%s', which is a mistake of this program", job->id,
              job_status_name(job->status), job_status_name(status));
    abort();
}

void job_set_status(struct job *job, enum job_status status)
{
    check_transition(job, status);
    job->status = status;
    if (job->set->events.status)
        job->set->events.status(job->set->events.user, job);
}

/* The set --------------------------------------------------------------------------------------------------------- */

struct job_set *job_set_new(struct loop *loop, const struct job_events *events)
{
    struct job_set *set = new (struct job_set);
    set->loop = loop;
    if (events)
        set->events = *events;
    list_init(&set->jobs);
    return set;
}

void job_set_free(struct job_set *set)
{
    if (!set)
        return;
    assert(list_empty(&set->jobs));
    free(set);
}

struct loop *job_set_loop(const struct job_set *set)
{
    return set->loop;
}

struct job *job_find(const struct job_set *set, const char *id)
{
    struct job *job;
    list_for_each (job, &set->jobs, link) {
        if (!strcmp(job->id, id))
            return job;
    }
    return NULL;
}

struct job *job_next(const struct job_set *set, const struct job *after)
{
    const struct list *next = after ? after->link.next : set->jobs.next;
    return next == &set->jobs ? NULL : list_entry((struct list *)next, struct job, link);
}

/* Somebody who can be asked to end now; NULL when all that is left is ending already. */
static struct job *find_unconcluded(struct job_set *set)
{
    struct job *job;
    list_for_each (job, &set->jobs, link) {
        if (job->status == JOB_STATUS_CONCLUDED || job_verb_check(job, JOB_VERB_CANCEL, NULL))
            return job;
    }
    return NULL;
}

void job_set_cancel_all(struct job_set *set)
{
    while (!list_empty(&set->jobs)) {
        struct job *job = find_unconcluded(set);
        if (job && job->status == JOB_STATUS_CONCLUDED) {
            job_dismiss(job);
            continue;
        }
        if (job && job->status == JOB_STATUS_CREATED) {
            job_drop(job);
            continue;
        }
        if (job && !job->cancelled)
            job_user_cancel(job, true, NULL);
        if (!list_empty(&set->jobs))
            co_sleep_ns(1000000);
    }
}

/* Life ------------------------------------------------------------------------------------------------------------ */

static bool id_is_valid(const char *id)
{
    if (!*id || !((*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z')))
        return false;
    return strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == strlen(id);
}

struct job *job_new(struct job_set *set, const struct job_driver *driver, const struct job_options *options,
                    struct error *err)
{
    if (!options->id)
        return fail_null(err, EINVAL, "An explicit job ID is required for this node");
    if (!id_is_valid(options->id))
        return fail_null(err, EINVAL, "Invalid job ID '%s'", options->id);
    if (job_find(set, options->id))
        return fail_null(err, EEXIST, "Job ID '%s' already in use", options->id);
    struct job *job = new (struct job);
    job->driver = driver;
    job->set = set;
    job->id = xstrdup(options->id);
    job->auto_finalize = !options->manual_finalize;
    job->auto_dismiss = !options->manual_dismiss;
    job->speed = options->speed;
    job->state = xcalloc(1, driver->state_size ? driver->state_size : 1);
    co_queue_init(&job->wake);
    list_prepend(&set->jobs, &job->link);
    job_transaction_join(options->transaction, job);
    job_set_status(job, JOB_STATUS_CREATED);
    return job;
}

static void job_free(struct job *job)
{
    error_clear(&job->error);
    free(job->claims);
    free(job->state);
    free(job->id);
    free(job);
}

void job_release_claims(struct job *job)
{
    for (size_t i = 0; i < job->n_claims; i++) {
        assert(job->claims[i].node->job == job);
        job->claims[i].node->job = NULL;
        node_unref(job->claims[i].node);
    }
    job->n_claims = 0;
}

bool job_check_unclaimed(const struct node *node, struct error *err)
{
    return !node->job || fail(err, EBUSY, "Node '%s' is busy: block device is in use by block job: %s", node->name,
                              job_type_name(node->job->driver->type));
}

bool job_claim(struct job *job, struct node *node, struct error *err)
{
    if (node->job == job)
        return true;
    if (!job_check_unclaimed(node, err))
        return false;
    node->job = job;
    node_ref(node);
    job->claims = xrealloc_array(job->claims, job->n_claims + 1, sizeof *job->claims);
    job->claims[job->n_claims++].node = node;
    return true;
}

void job_dismiss(struct job *job)
{
    job_set_status(job, JOB_STATUS_NULL);
    list_remove(&job->link);
    job_transaction_leave(job);
    job_free(job);
}

void job_drop(struct job *job)
{
    assert(job->status == JOB_STATUS_CREATED);
    job->cancelled = true;
    job_set_status(job, JOB_STATUS_ABORTING);
    if (job->driver->abort)
        job->driver->abort(job);
    if (job->driver->clean)
        job->driver->clean(job);
    job_release_claims(job);
    job_set_status(job, JOB_STATUS_CONCLUDED);
    job_dismiss(job);
}

static void run_job(void *arg)
{
    struct job *job = arg;
    job->busy = true;
    job->result = job_pause_point(job) ? job->driver->run(job, &job->error) : -ECANCELED;
    if (job->result && !job->error.message && job->result != -ECANCELED)
        fail(&job->error, -job->result, "%s", strerror(-job->result));
    job->busy = false;
    job->ran = true;
    job_transaction_ran(job); /* the job may be gone after this */
}

void job_start(struct job *job)
{
    job_set_status(job, JOB_STATUS_RUNNING);
    co_spawn(job->set->loop, NULL, run_job, job);
}

/* Waiting --------------------------------------------------------------------------------------------------------- */

void job_kick(struct job *job)
{
    co_queue_wake_all(&job->wake);
}

void job_rest(struct job *job, uint64_t duration_ns)
{
    job->busy = false;
    if (duration_ns == UINT64_MAX)
        co_queue_wait_uncancellable(&job->wake);
    else
        co_queue_wait_ns(&job->wake, duration_ns);
    job->busy = true;
}

bool job_pause_point(struct job *job)
{
    if (job->pauses && !job->cancelled) {
        enum job_status before = job->status;
        job_set_status(job, before == JOB_STATUS_READY ? JOB_STATUS_STANDBY : JOB_STATUS_PAUSED);
        while (job->pauses && !job->cancelled)
            job_rest(job, UINT64_MAX);
        job_set_status(job, before);
    }
    return !job->cancelled;
}

/* When the bytes that were let through have been paid for, in time. */
static uint64_t pace_due_ns(const struct job *job)
{
    if (!job->speed)
        return 0;
    return job->pace_ns + (uint64_t)((__uint128_t)job->pace_bytes * 1000000000u / job->speed);
}

bool job_pace(struct job *job, uint64_t bytes)
{
    uint64_t now;
    while (true) {
        if (!job_pause_point(job))
            return false;
        now = loop_now_ns(job->set->loop);
        uint64_t due = pace_due_ns(job);
        if (due <= now)
            break;
        job_rest(job, due - now);
    }
    job->pace_ns = now;
    job->pace_bytes = bytes;
    return true;
}

void job_become_ready(struct job *job)
{
    job_set_status(job, JOB_STATUS_READY);
    if (job->driver->is_block_job && job->set->events.ready)
        job->set->events.ready(job->set->events.user, job);
}

/* Errors ---------------------------------------------------------------------------------------------------------- */

static enum block_error_action action_for(enum blockdev_on_error policy, int error)
{
    bool stops_without_space = policy == BLOCKDEV_ON_ERROR_ENOSPC || policy == BLOCKDEV_ON_ERROR_AUTO;
    if (policy == BLOCKDEV_ON_ERROR_STOP || (stops_without_space && error == ENOSPC))
        return BLOCK_ERROR_ACTION_STOP;
    return policy == BLOCKDEV_ON_ERROR_IGNORE ? BLOCK_ERROR_ACTION_IGNORE : BLOCK_ERROR_ACTION_REPORT;
}

enum block_error_action job_io_error(struct job *job, enum blockdev_on_error policy, bool is_read, int error)
{
    error = error < 0 ? -error : error;
    enum block_error_action action = action_for(policy, error);
    if (job->set->events.error)
        job->set->events.error(job->set->events.user, job, is_read, action);
    if (action == BLOCK_ERROR_ACTION_STOP) {
        if (!job->user_paused) { /* resumed by the user, like a pause of his own */
            job->user_paused = true;
            job->pauses++;
        }
        if (job->io_status == BLOCK_DEVICE_IO_STATUS_OK)
            job->io_status = error == ENOSPC ? BLOCK_DEVICE_IO_STATUS_NOSPACE : BLOCK_DEVICE_IO_STATUS_FAILED;
    }
    return action;
}

/* Commands -------------------------------------------------------------------------------------------------------- */

bool job_user_pause(struct job *job, struct error *err)
{
    if (!job_verb_check(job, JOB_VERB_PAUSE, err))
        return false;
    if (job->user_paused)
        return fail(err, EALREADY, "Job is already paused");
    job->user_paused = true;
    job->pauses++;
    job_kick(job);
    return true;
}

static void resume(struct job *job)
{
    job->io_status = BLOCK_DEVICE_IO_STATUS_OK;
    job->user_paused = false;
    job->pauses--;
    job_kick(job);
}

bool job_user_resume(struct job *job, struct error *err)
{
    if (!job->user_paused)
        return fail(err, EINVAL, "Can't resume a job that was not paused");
    if (!job_verb_check(job, JOB_VERB_RESUME, err))
        return false;
    resume(job);
    return true;
}

bool job_user_cancel(struct job *job, bool force, struct error *err)
{
    if (!job_verb_check(job, JOB_VERB_CANCEL, err))
        return false;
    if (job->finalizing)
        return fail(err, EBUSY, "Job '%s' is being finalized", job->id);
    bool is_gentle = !force && job_is_ready(job) && job->driver->cancel_gently && job->driver->cancel_gently(job);
    if (is_gentle)
        job->leaving = true;
    else
        job->cancelled = true;
    if (job->user_paused)
        resume(job);
    job_kick(job);
    if (job->cancelled && job->ran) /* waiting or pending: nobody else would notice */
        job_transaction_abort(job->transaction);
    return true;
}

bool job_user_complete(struct job *job, struct error *err)
{
    if (!job_verb_check(job, JOB_VERB_COMPLETE, err))
        return false;
    if (job->cancelled || job->leaving || !job->driver->complete)
        return fail(err, EBUSY, "The active block job '%s' cannot be completed", job->id);
    if (!job->driver->complete(job, err))
        return false;
    job_kick(job);
    return true;
}

bool job_user_finalize(struct job *job, struct error *err)
{
    if (!job_verb_check(job, JOB_VERB_FINALIZE, err))
        return false;
    if (job->finalizing)
        return fail(err, EBUSY, "Job '%s' is being finalized", job->id);
    job_transaction_finalize(job->transaction);
    return true;
}

bool job_user_dismiss(struct job *job, struct error *err)
{
    if (!job_verb_check(job, JOB_VERB_DISMISS, err))
        return false;
    job_dismiss(job);
    return true;
}

bool job_user_set_speed(struct job *job, uint64_t speed, struct error *err)
{
    if (!job_verb_check(job, JOB_VERB_SET_SPEED, err))
        return false;
    job->speed = speed;
    job_kick(job);
    return true;
}

bool job_user_change(struct job *job, const struct block_job_change_options *options, struct error *err)
{
    if (!job_verb_check(job, JOB_VERB_CHANGE, err))
        return false;
    if (!job->driver->change)
        return fail(err, ENOTSUP, "Job type does not support change");
    return job->driver->change(job, options, err);
}

/* Descriptions ---------------------------------------------------------------------------------------------------- */

static char *error_text(const struct job *job)
{
    if (job->error.message)
        return xstrdup(job->error.message);
    return job->cancelled && job->ran ? xstrdup("Operation canceled") : NULL;
}

struct job_info *job_query(struct job *job)
{
    struct job_info *info = job_info_new();
    info->id = xstrdup(job->id);
    info->type = job->driver->type;
    info->status = job->status;
    info->current_progress = (int64_t)job->progress;
    info->total_progress = (int64_t)job->total;
    info->error = error_text(job);
    if (job->driver->describe)
        job->driver->describe(job, info);
    return info;
}

struct block_job_info *job_query_block(struct job *job)
{
    struct block_job_info *info = block_job_info_new();
    info->type = job->driver->type;
    info->device = xstrdup(job->id);
    info->len = (int64_t)job->total;
    info->offset = (int64_t)job->progress;
    info->busy = job->busy;
    info->paused = job->user_paused;
    info->speed = (int64_t)job->speed;
    info->io_status = job->io_status;
    info->ready = job_is_ready(job);
    info->status = job->status;
    info->auto_finalize = job->auto_finalize;
    info->auto_dismiss = job->auto_dismiss;
    info->error = error_text(job);
    if (job->driver->query && job->status < JOB_STATUS_ABORTING)
        job->driver->query(job, info);
    return info;
}
