/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs: work on the block graph that takes a while and that a user can watch, pause, slow down, cancel and complete.
 * The states and their transitions are those of the ecosystem (qmp/schema/job.json, JobStatus):
 *
 *     created --> running <--> paused
 *                  |   ^
 *                  v   |
 *                 ready <--> standby            (mirror and active commit: the copy has caught up)
 *                  |
 *     running -----+--> waiting --> pending --> concluded --> null
 *     any of these -------> aborting ---------> concluded --> null
 *
 * A job is a coroutine (driver->run) on the graph's loop, an id, a pace (bytes a second), and a place in a transaction:
 * jobs of one transaction finalize together, and one that fails cancels the others. `waiting` is for the others of the
 * transaction, `pending` for the user who wants to finalize by hand.
 *
 * run() works in steps, calls job_pause_point() between them, and returns 0, or -errno with *err filled. prepare() may
 * still fail (last chance, with the whole transaction); then either commit() or abort(), then clean(). These three do
 * not fail. All of them YIELD. A job keeps its nodes by root edges of its own.
 */
#ifndef BLOCK_JOB_H
#define BLOCK_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include "base/co.h"
#include "base/error.h"
#include "base/list.h"
#include "qmp/schema/types.h"

struct job;
struct job_set; /* all jobs of a program, with the sink of their events */
struct job_transaction;
struct loop;
struct node;

struct job_driver {
    enum job_type type;
    bool is_block_job; /* listed by query-block-jobs, emits BLOCK_JOB_ events (create and amend do not) */
    size_t state_size; /* job->state, zeroed */
    int (*run)(struct job *job, struct error *err);
    /* Any of these may be NULL. */
    bool (*prepare)(struct job *job, struct error *err);
    void (*commit)(struct job *job);
    void (*abort)(struct job *job);
    void (*clean)(struct job *job); /* releases all that the state holds; also after a failed creation */
    /* job-complete of a ready job; NULL: the command is refused. */
    bool (*complete)(struct job *job, struct error *err);
    /* A gentle cancel of a ready job: true when run() will then come to a good end by itself. */
    bool (*cancel_gently)(struct job *job);
    bool (*change)(struct job *job, const struct block_job_change_options *options, struct error *err);
    void (*query)(struct job *job, struct block_job_info *info); /* what is special to this type */
    void (*describe)(struct job *job, struct job_info *info);    /* the same for query-jobs, until it is dismissed */
};

/* What the set tells its program. None of them yields. */
struct job_events {
    void (*status)(void *user, const struct job *job);
    /* BLOCK_JOB_READY, _COMPLETED, _CANCELLED, _PENDING */
    void (*ready)(void *user, const struct job *job);
    void (*completed)(void *user, const struct job *job);
    void (*cancelled)(void *user, const struct job *job);
    void (*pending)(void *user, const struct job *job);
    void (*error)(void *user, const struct job *job, bool is_read, enum block_error_action action);
    void *user;
};

struct job {
    const struct job_driver *driver;
    struct job_set *set;
    struct job_transaction *transaction;
    struct list link;             /* in the set, latest first */
    struct list transaction_link; /* likewise */
    char *id;
    enum job_status status;
    bool auto_finalize, auto_dismiss;
    uint64_t speed; /* bytes a second, 0: unlimited */
    uint64_t progress, total;
    enum block_device_io_status io_status;

    unsigned pauses; /* reasons to rest: the user's, and an error's */
    bool user_paused;
    bool cancelled; /* it will be undone; run() comes to an end as soon as it can */
    bool leaving;   /* a gentle cancel or job-complete: run() comes to a good end */
    bool ran;       /* run() has returned */
    bool finalizing;
    bool busy; /* between two waits */
    int result;
    struct error error; /* why it failed */

    struct co_queue wake; /* the job's own waits: woken by every change of what a user decides */
    uint64_t pace_ns, pace_bytes;
    struct claimed_node {
        struct node *node;
    } * claims;
    size_t n_claims;
    void *state;
};

struct job_options { /* what every job has; strings are copied */
    const char *id;
    bool manual_finalize, manual_dismiss;
    uint64_t speed;
    struct job_transaction *transaction; /* NULL: one of its own */
};

struct job_set *job_set_new(struct loop *loop, const struct job_events *events);
/* All jobs must be gone. NULL is allowed. */
void job_set_free(struct job_set *set);
void job_set_cancel_all(struct job_set *set); /* cancels, waits, dismisses. YIELDS */
struct job *job_find(const struct job_set *set, const char *id);
struct job *job_next(const struct job_set *set, const struct job *after); /* latest first; NULL starts and ends */
struct loop *job_set_loop(const struct job_set *set);

/* Grouped completion: give the same transaction to several jobs. A reference is the caller's. */
struct job_transaction *job_transaction_new(void);
void job_transaction_unref(struct job_transaction *transaction);

/* Life: a new job is `created`; it either starts, or is dropped (its clean() is called). */
struct job *job_new(struct job_set *set, const struct job_driver *driver, const struct job_options *options,
                    struct error *err);
void job_start(struct job *job);
void job_drop(struct job *job);

/* A node that belongs to a job may not be the source or target of another. Until the job has ended. */
bool job_claim(struct job *job, struct node *node, struct error *err);
/* For those who change the graph around a node without being a job. */
bool job_check_unclaimed(const struct node *node, struct error *err);

/* What users do; each refuses what the state forbids. `find` of job.c's callers: by id. */
bool job_user_pause(struct job *job, struct error *err);
bool job_user_resume(struct job *job, struct error *err);
bool job_user_cancel(struct job *job, bool force, struct error *err);
bool job_user_complete(struct job *job, struct error *err);
bool job_user_finalize(struct job *job, struct error *err); /* YIELDS */
bool job_user_dismiss(struct job *job, struct error *err);
bool job_user_set_speed(struct job *job, uint64_t speed, struct error *err);
bool job_user_change(struct job *job, const struct block_job_change_options *options, struct error *err);

/* What run() does -----------------------------------------------------------------------------------------------------
 */

/* Rests while somebody wants that. false: the job is cancelled, run() should return -ECANCELED. YIELDS. */
bool job_pause_point(struct job *job);
/* Waits until the pace allows more work, then counts `bytes` against it; pauses count. false as above. YIELDS. */
bool job_pace(struct job *job, uint64_t bytes);
/* Rests until something changes for the job, at most `duration_ns` (UINT64_MAX: as long as it takes). YIELDS. */
void job_rest(struct job *job, uint64_t duration_ns);
void job_kick(struct job *job); /* lets job_rest() return */
void job_become_ready(struct job *job);
static inline bool job_is_ready(const struct job *job)
{
    return job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY;
}
/* An I/O error under a policy: emits BLOCK_JOB_ERROR; with `stop` the job pauses at its next pause point. What to do
 * follows from the action: report: give up with the error; ignore, stop: try again (later). */
enum block_error_action job_io_error(struct job *job, enum blockdev_on_error policy, bool is_read, int error);

struct job_info *job_query(struct job *job);
struct block_job_info *job_query_block(struct job *job);

#endif
