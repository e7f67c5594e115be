/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How jobs end, together. Every job is in a transaction, most of them alone.
 *
 *   all of them ran well:  each becomes pending; when nobody wants to finalize by hand, or when somebody has:
 *                          prepare() of all, then commit(), clean(), concluded, one after the other
 *   one failed, was        the others are cancelled; when the last of them has come to rest:
 *   cancelled, or did      abort(), clean(), concluded, one after the other
 *   not prepare:
 *
 * Ending yields, so whoever begins it marks the jobs; a transaction ends once.
 */
#include "block/job_private.h"

#include <string.h>
#include "base/alloc.h"

struct job_transaction *job_transaction_new(void)
{
    struct job_transaction *transaction = new (struct job_transaction);
    transaction->references = 1;
    list_init(&transaction->jobs);
    return transaction;
}

void job_transaction_unref(struct job_transaction *transaction)
{
    if (transaction && --transaction->references == 0) {
        assert(list_empty(&transaction->jobs));
        free(transaction);
    }
}

void job_transaction_join(struct job_transaction *transaction, struct job *job)
{
    if (transaction)
        transaction->references++;
    job->transaction = transaction ? transaction : job_transaction_new();
    list_prepend(&job->transaction->jobs, &job->transaction_link);
}

void job_transaction_leave(struct job *job)
{
    if (!job->transaction)
        return;
    list_remove(&job->transaction_link);
    job_transaction_unref(job->transaction);
    job->transaction = NULL;
}

/* The end of one job ---------------------------------------------------------------------------------------------- */

static void tell_end(struct job *job)
{
    const struct job_events *events = &job->set->events;
    if (!job->driver->is_block_job)
        return;
    if (job->cancelled && events->cancelled)
        events->cancelled(events->user, job);
    else if (!job->cancelled && events->completed)
        events->completed(events->user, job);
}

static void conclude(struct job *job)
{
    if (job->driver->clean)
        job->driver->clean(job);
    job_release_claims(job);
    tell_end(job);
    job_transaction_leave(job);
    job_set_status(job, JOB_STATUS_CONCLUDED);
    if (job->auto_dismiss)
        job_dismiss(job);
}

static void end_badly(struct job *job)
{
    if (job->status != JOB_STATUS_ABORTING)
        job_set_status(job, JOB_STATUS_ABORTING);
    if (job->driver->abort)
        job->driver->abort(job);
    conclude(job);
}

static void end_well(struct job *job)
{
    if (job->driver->commit)
        job->driver->commit(job);
    conclude(job);
}

/* All of them ----------------------------------------------------------------------------------------------------- */

/* One after the other; each leaves the transaction when it has ended. */
static void end_all(struct job_transaction *transaction, void (*end)(struct job *job))
{
    transaction->references++;
    while (!list_empty(&transaction->jobs))
        end(list_first(&transaction->jobs, struct job, transaction_link));
    job_transaction_unref(transaction);
}

static bool nothing_runs(const struct job_transaction *transaction)
{
    struct job *job;
    list_for_each (job, &transaction->jobs, transaction_link) {
        if (!job->ran && job->status != JOB_STATUS_CREATED)
            return false;
    }
    return true;
}

void job_transaction_abort(struct job_transaction *transaction)
{
    transaction->aborting = true;
    struct job *job;
    list_for_each (job, &transaction->jobs, transaction_link) {
        if (job->ran && !job->result)
            job->cancelled = true; /* its work was good, and is undone */
        if (!job->ran && !job->cancelled) {
            job->cancelled = true;
            job_kick(job);
        }
    }
    if (!nothing_runs(transaction))
        return; /* the last one ends all */
    list_for_each (job, &transaction->jobs, transaction_link) {
        if (job->finalizing)
            return;
    }
    list_for_each (job, &transaction->jobs, transaction_link)
        job->finalizing = true;
    end_all(transaction, end_badly);
}

/* NULL, or the job that cannot. */
static struct job *prepare_all(struct job_transaction *transaction)
{
    struct job *job;
    list_for_each (job, &transaction->jobs, transaction_link) {
        if (job->driver->prepare && !job->driver->prepare(job, &job->error))
            return job;
    }
    return NULL;
}

void job_transaction_finalize(struct job_transaction *transaction)
{
    struct job *job;
    transaction->references++;
    list_for_each (job, &transaction->jobs, transaction_link)
        job->finalizing = true;
    struct job *failed = prepare_all(transaction);
    if (!failed) {
        end_all(transaction, end_well);
    } else {
        failed->result = -(failed->error.code ? failed->error.code : EIO);
        list_for_each (job, &transaction->jobs, transaction_link)
            job->cancelled |= job != failed;
        end_all(transaction, end_badly);
    }
    job_transaction_unref(transaction);
}

static void become_pending(struct job_transaction *transaction)
{
    bool by_hand = false;
    struct job *job;
    list_for_each (job, &transaction->jobs, transaction_link) {
        const struct job_events *events = &job->set->events;
        job_set_status(job, JOB_STATUS_PENDING);
        if (!job->auto_finalize && job->driver->is_block_job && events->pending)
            events->pending(events->user, job);
        by_hand |= !job->auto_finalize;
    }
    if (!by_hand)
        job_transaction_finalize(transaction);
}

void job_transaction_ran(struct job *job)
{
    struct job_transaction *transaction = job->transaction;
    bool is_good = !job->result && !job->cancelled;
    job_set_status(job, is_good ? JOB_STATUS_WAITING : JOB_STATUS_ABORTING);
    if (!is_good) {
        job_transaction_abort(transaction);
    } else if (nothing_runs(transaction)) {
        if (transaction->aborting)
            job_transaction_abort(transaction);
        else
            become_pending(transaction);
    }
}
