/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs on block nodes. Each function makes a job from the schema's options of its command and does not start it
 * (job_start(), job_drop()); NULL and an error when that is not possible. All YIELD. The strings of the options need
 * not outlive the call.
 */
#ifndef BLOCK_JOBS_JOBS_H
#define BLOCK_JOBS_JOBS_H

#include "block/job.h"

struct graph;

struct job *backup_job_new(struct job_set *set, struct graph *graph, const struct blockdev_backup *options,
                           struct job_transaction *transaction, struct error *err);
struct job *mirror_job_new(struct job_set *set, struct graph *graph, const struct q_blockdev_mirror_arg *options,
                           struct error *err);
/* The topmost image becomes a mirror into the base, the others are moved while nobody writes to them. */
struct job *commit_job_new(struct job_set *set, struct graph *graph, const struct q_block_commit_arg *options,
                           struct error *err);
struct job *stream_job_new(struct job_set *set, struct graph *graph, const struct q_block_stream_arg *options,
                           struct error *err);
struct job *create_job_new(struct job_set *set, struct graph *graph, const char *id,
                           const struct blockdev_create_options *options, struct error *err);
struct job *amend_job_new(struct job_set *set, struct graph *graph, const struct q_x_blockdev_amend_arg *options,
                          struct error *err);
struct job *check_job_new(struct job_set *set, struct graph *graph, const struct q_blockdev_check_arg *options,
                          struct error *err);

#endif
