/* SPDX-License-Identifier: Apache-2.0 */
/* What the jobs share: finding nodes, and copying with several requests in flight. */
#ifndef BLOCK_JOBS_PRIVATE_H
#define BLOCK_JOBS_PRIVATE_H

#include "block/jobs/jobs.h"
#include "block/node.h"

/* Copier --------------------------------------------------------------------------------------------------------------
 *
 * Keeps up to `limit` chunks in flight. A chunk that fails under the policies `ignore` and `stop` is left to be found
 * again (the job's bitmap still has it); the job's loop calls copier_wait() before it begins anew. */
struct copier {
    struct job *job;
    unsigned limit, in_flight;
    enum blockdev_on_error on_read_error, on_write_error;
    int (*copy)(struct copier *copier, uint64_t offset, uint64_t length, bool *read_failed);
    void *user;
    int result;  /* the first error that ends the job */
    bool failed; /* some chunk must be tried again */
    uint64_t bytes_in_flight, most_bytes;
};

void copier_init(struct copier *copier, struct job *job);
/* Waits for a free place and for the pace, then starts the chunk. false: the job is to end, copier_end() tells how.
 * YIELDS. */
bool copier_start(struct copier *copier, uint64_t offset, uint64_t length);
void copier_wait(struct copier *copier); /* until nothing is in flight. YIELDS */
/* After copier_wait(): a failure is not tried again at once. YIELDS. */
void copier_pause_after_failure(struct copier *copier);
/* Waits; 0, the error that ended it, or -ECANCELED. YIELDS. */
int copier_end(struct copier *copier, struct error *err);

/* The chunk at `offset`, at most `length` of it: a whole part that reads as zeroes, or as much data as goes well in one
 * request. Never more than asked, a multiple of `cluster` unless it ends where asked. YIELDS. */
uint64_t chunk_length(struct edge *source, uint64_t offset, uint64_t length, uint64_t cluster, uint64_t most);

/* Does the whole node read as zeroes, as far as that is known without reading? YIELDS. */
bool reads_as_zero(struct edge *edge);

/* Nodes ----------------------------------------------------------------------------------------------------------- */

struct node *find_node(struct graph *graph, const char *name, struct error *err);
/* A root edge of a job: nothing needed but what is said, and the size may not change. */
struct edge *job_use(struct job *job, const char *what, struct node *node, uint32_t perm, uint32_t shared,
                     struct error *err);
#define JOB_SHARES_ALL_BUT_RESIZE (BLOCK_PERM_ALL & ~(uint32_t)BLOCK_PERM_RESIZE)

/* reopen.c: nodes that are opened read-only and must be written by a job, with the files below them. */
struct made_writable {
    struct node *nodes[4]; /* the format node, its files; with references */
    unsigned count;
};
bool make_writable(struct node *node, struct made_writable *made, struct error *err);
/* Back again; errors are logged, since they harm nobody. */
void make_read_only_again(struct made_writable *made);
void stay_writable(struct made_writable *made);

/* mirror.c, for an active commit. */
struct mirror_setup {
    struct node *source, *target, *base; /* base: sync=top looks at what is above it */
    const char *replaces, *filter_name;
    enum mirror_sync_mode sync;
    enum mirror_copy_mode copy_mode;
    uint32_t granularity;
    uint64_t buffer;
    enum blockdev_on_error on_source_error, on_target_error;
    bool target_is_zero, is_commit;
};
struct job *mirror_new(struct job_set *set, const struct job_options *common, const struct mirror_setup *setup,
                       struct error *err);

#endif
