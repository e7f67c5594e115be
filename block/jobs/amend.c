/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x-blockdev-amend: driver->amend as a job. The node is drained while its image changes: guests wait for as long as
 * that takes (key slots: a moment; other refcounts of a large image: longer).
 */
#include <string.h>
#include "base/alloc.h"
#include "block/driver.h"
#include "block/jobs/private.h"

struct amend {
    struct node *node;
    struct blockdev_amend_options *options;
    bool force;
};

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    struct job *job = user;
    job->progress = done;
    job->total = total;
}

static int amend_run(struct job *job, struct error *err)
{
    struct amend *amend = job->state;
    job->total = 1;
    node_drain_begin(amend->node);
    bool ok = amend->node->driver->amend->amend(amend->node, &amend->options->u, amend->force, on_progress, job, err);
    node_drain_end(amend->node);
    if (ok)
        job->progress = job->total;
    return ok ? 0 : -(err->code ? err->code : EIO);
}

static void amend_clean(struct job *job)
{
    struct amend *amend = job->state;
    blockdev_amend_options_free(amend->options);
    if (amend->node)
        node_unref(amend->node);
}

static const struct job_driver amend_driver = {
    .type = JOB_TYPE_AMEND,
    .state_size = sizeof(struct amend),
    .run = amend_run,
    .clean = amend_clean,
};

static bool check(const struct node *node, const struct blockdev_amend_options *options, struct error *err)
{
    const char *driver = blockdev_driver_name(options->driver);
    if (strcmp(node->driver->name, driver))
        return fail(err, EINVAL, "x-blockdev-amend doesn't support changing the block driver: '%s' is '%s'", node->name,
                    node->driver->name);
    /* The branch of the union is what the driver takes. */
    const struct schema_type *branch = blockdev_amend_options_type.branches[options->driver].type;
    if (!node->driver->amend || !branch || branch != node->driver->amend->options_type)
        return fail(err, ENOTSUP, "Driver '%s' does not support x-blockdev-amend", driver);
    return true;
}

struct job *amend_job_new(struct job_set *set, struct graph *graph, const struct q_x_blockdev_amend_arg *options,
                          struct error *err)
{
    struct node *node = find_node(graph, options->node_name, err);
    if (!node || !check(node, options->options, err))
        return NULL;
    struct job *job =
        job_new(set, &amend_driver, &(struct job_options){.id = options->job_id, .manual_dismiss = true}, err);
    if (!job)
        return NULL;
    struct amend *amend = job->state;
    node_ref(node);
    amend->node = node;
    amend->options = blockdev_amend_options_clone(options->options);
    amend->force = options->force;
    if (!job_claim(job, node, err)) {
        job_drop(job);
        return NULL;
    }
    return job;
}
