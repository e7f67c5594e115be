/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blockdev-check: checks an image, and repairs it, while the node is in use. Formats that can do so look at a table at
 * a time (driver->live_check) and guests wait for the beginning only, when everything under way is waited for. Where
 * the format has no such check, or finds damage that it can mend only alone (refcounts that must be built anew, an
 * image that refuses writes since a corruption was found), the node is at rest meanwhile: guests' requests wait, and
 * are not failed.
 *
 * What was found is in the job's description (query-jobs) from the beginning on, and stays there until the job is
 * dismissed. That something was found is no failure of the job.
 */
#include <string.h>
#include "base/alloc.h"
#include "block/driver.h"
#include "block/jobs/private.h"

enum { RESTARTS_MAX = 32 /* when the image is changed as a whole so often, it cannot be checked now */ };

struct check {
    struct node *node;
    struct edge *edge;
    uint32_t repair;
    uint64_t unit; /* bytes of metadata that a step looks at, about */
    struct image_check found;
    int64_t leaks_fixed, corruptions_fixed; /* by rounds that were given up */
    bool rested;
};

static void begin_round(struct check *check)
{
    check->leaks_fixed += check->found.leaks_fixed;
    check->corruptions_fixed += check->found.corruptions_fixed;
    check->found = (struct image_check){0};
}

static int at_rest(struct job *job, struct error *err)
{
    struct check *check = job->state;
    struct node *node = check->node;
    node_drain_begin(node);
    begin_round(check);
    check->rested = true;
    int result = node->driver->check(node, check->repair, &check->found, err);
    node_drain_end(node);
    return result;
}

static struct live_check *begin(struct check *check, struct error *err)
{
    struct node *node = check->node;
    node_drain_begin(node);
    begin_round(check);
    struct live_check *live = node->driver->live_check
                                  ? node->driver->live_check->begin(node, check->repair, &check->found, err)
                                  : fail_null(err, ENODEV, "node '%s' cannot be checked any more", node->name);
    node_drain_end(node);
    return live;
}

/* 0; -EAGAIN and -EUCLEAN as the driver says; -ECANCELED; or another error, which is not told yet. */
static int walk(struct job *job, struct live_check *live, const struct live_check_ops *ops)
{
    struct check *check = job->state;
    int result;
    do {
        ops->progress(check->node, live, &job->progress, &job->total);
        if (!job_pace(job, check->unit))
            return -ECANCELED;
        result = ops->step(check->node, live);
    } while (result > 0);
    return result;
}

static int while_in_use(struct job *job, struct error *err)
{
    struct check *check = job->state;
    const struct live_check_ops *ops = check->node->driver->live_check;
    for (int restarts = 0;; restarts++) {
        auto_error cause = {0};
        struct live_check *live = begin(check, &cause);
        int result = live ? walk(job, live, ops) : -cause.code;
        if (live)
            ops->end(check->node, live);
        if (result == -EUCLEAN)
            return at_rest(job, err);
        if (result == -EAGAIN && restarts < RESTARTS_MAX && job_pause_point(job))
            continue;
        if (!live)
            error_move(err, &cause);
        else if (result && result != -ECANCELED)
            fail_errno(err, result, "node '%s': the check came to no end", check->node->name);
        return result;
    }
}

static int check_run(struct job *job, struct error *err)
{
    struct check *check = job->state;
    job->total = 1;
    int result = check->node->driver->live_check ? while_in_use(job, err) : at_rest(job, err);
    if (!result)
        job->progress = job->total;
    return result;
}

static void check_describe(struct job *job, struct job_info *info)
{
    const struct check *check = job->state;
    const struct image_check *found = &check->found;
    struct block_check_info *told = info->check = block_check_info_new();
    told->check_errors = found->check_errors;
    told->leaks = found->leaks;
    told->corruptions = found->corruptions;
    told->leaks_fixed = found->leaks_fixed + check->leaks_fixed;
    told->corruptions_fixed = found->corruptions_fixed + check->corruptions_fixed;
    told->total_clusters = found->total_clusters;
    told->allocated_clusters = found->allocated_clusters;
    told->compressed_clusters = found->compressed_clusters;
    told->fragmented_clusters = found->fragmented_clusters;
    told->at_rest = check->rested;
}

static void check_clean(struct job *job)
{
    struct check *check = job->state;
    if (check->edge)
        edge_detach(check->edge);
    if (check->node)
        node_unref(check->node);
}

static const struct job_driver check_driver = {
    .type = JOB_TYPE_CHECK,
    .state_size = sizeof(struct check),
    .run = check_run,
    .clean = check_clean,
    .describe = check_describe,
};

static const uint32_t repairs[] = {
    [BLOCK_CHECK_REPAIR_NONE] = 0,
    [BLOCK_CHECK_REPAIR_LEAKS] = CHECK_REPAIR_LEAKS,
    [BLOCK_CHECK_REPAIR_ALL] = CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS,
};

struct job *check_job_new(struct job_set *set, struct graph *graph, const struct q_blockdev_check_arg *options,
                          struct error *err)
{
    struct node *node = find_node(graph, options->node_name, err);
    if (!node)
        return NULL;
    if (!node->driver->check) {
        fail(err, ENOTSUP, "node '%s': format '%s' has no metadata that could be checked", node->name,
             node->driver->name);
        return NULL;
    }
    const struct job_options common = {.id = options->job_id,
                                       .speed = options->speed,
                                       .manual_finalize = !options->auto_finalize,
                                       .manual_dismiss = !options->auto_dismiss};
    struct job *job = job_new(set, &check_driver, &common, err);
    if (!job)
        return NULL;
    struct check *check = job->state;
    node_ref(node);
    check->node = node;
    check->repair = repairs[options->repair];
    check->unit = MAX(node->limits.optimal_transfer, 4096u);
    uint32_t perm = check->repair ? BLOCK_PERM_WRITE_UNCHANGED : 0;
    check->edge = job_use(job, "checked node", node, perm, BLOCK_PERM_ALL, err);
    if (!check->edge || !job_claim(job, node, err)) {
        job_drop(job);
        return NULL;
    }
    return job;
}
