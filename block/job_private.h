/* SPDX-License-Identifier: Apache-2.0 */
/* What job.c and job_transaction.c share. */
#ifndef BLOCK_JOB_PRIVATE_H
#define BLOCK_JOB_PRIVATE_H

#include "block/job.h"

struct job_set {
    struct loop *loop;
    struct job_events events;
    struct list jobs;
};

struct job_transaction {
    struct list jobs; /* by transaction_link, latest first */
    size_t references;
    bool aborting;
};

enum job_verb {
    JOB_VERB_CANCEL,
    JOB_VERB_PAUSE,
    JOB_VERB_RESUME,
    JOB_VERB_SET_SPEED,
    JOB_VERB_COMPLETE,
    JOB_VERB_FINALIZE,
    JOB_VERB_DISMISS,
    JOB_VERB_CHANGE
};

bool job_verb_check(const struct job *job, enum job_verb verb, struct error *err);
void job_set_status(struct job *job, enum job_status status);
void job_release_claims(struct job *job);
void job_dismiss(struct job *job); /* a concluded one; it is gone then */

/* job_transaction.c. `transaction` NULL: one of the job's own. */
void job_transaction_join(struct job_transaction *transaction, struct job *job);
void job_transaction_leave(struct job *job);
/* run() of the job has returned. YIELDS; the job may be gone afterwards. */
void job_transaction_ran(struct job *job);
/* All of them are pending. YIELDS. */
void job_transaction_finalize(struct job_transaction *transaction);
/* Cancels all, and ends them when nothing runs. YIELDS. */
void job_transaction_abort(struct job_transaction *transaction);

#endif
