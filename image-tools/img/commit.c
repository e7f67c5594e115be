/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img commit: writes what an image has of its own into its backing file, or into a deeper one (-b), and empties it.
 *
 * The copy is the daemon's commit job, with nobody but us to watch it. The order is what makes a power cut harmless:
 * the base has all the data, durably, before the image gives its clusters back; until then a reader of the image sees
 * what it saw before, since the image still shadows the base.
 *
 * With -b the images in between do not make sense any more, and the image would show their data where it was emptied:
 * it keeps what it has.
 */
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/jobs/chain.h"
#include "block/jobs/jobs.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "image-tools/img/progress.h"

#define PROGRESS_NS 50000000u

struct commit_options {
    const char *format, *cache, *base;
    uint64_t rate;
    bool keep, progress, quiet, image_opts;
    struct texts objects;
};

static const struct tool_option commit_options[] = {
    OPTION_ROW_TEXT('f', "format", "FMT", struct commit_options, format, "format of the image (default: probed)"),
    OPTION_ROW_TEXT('t', "cache", "MODE", struct commit_options, cache, "cache mode (default: writeback)"),
    OPTION_ROW_FLAG('d', "drop", struct commit_options, keep, "do not empty the image: it will be deleted anyway"),
    OPTION_ROW_TEXT('b', "base", "FILE", struct commit_options, base,
                    "write into this image of the backing chain (default: the next one); implies -d"),
    OPTION_ROW_SIZE('r', "rate", "RATE", struct commit_options, rate, "at most so many bytes a second"),
    OPTION_ROW_FLAG('p', "progress", struct commit_options, progress, "show progress (default on a terminal)"),
    OPTION_ROW_FLAG('q', "quiet", struct commit_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG(0, "image-opts", struct commit_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct commit_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

/* The image that takes the data. */
static struct node *find_base(struct node *top, const struct commit_options *options, const char *name,
                              struct error *err)
{
    struct node *next = chain_image(node_backing(top));
    if (!next && !options->base)
        return fail_null(err, EINVAL, "Image does not have a backing file");
    struct node *base = next && options->base ? chain_find_file(next, options->base) : next;
    if (!base)
        return fail_null(err, ENOENT, "Did not find '%s' in the backing chain of '%s'", options->base, name);
    return base;
}

/* The job ------------------------------------------------------------------------------------------------------------
 */

static void on_status(void *user, const struct job *job)
{
    co_queue_wake_all(user);
}

/* Until it has concluded. As soon as both sides are the same, nothing more is to come: nobody writes. */
static void watch(struct job *job, struct co_queue *changed, struct progress *progress)
{
    bool asked = false;
    while (job->status != JOB_STATUS_CONCLUDED) {
        if (job->status == JOB_STATUS_READY && !asked)
            asked = job_user_complete(job, NULL);
        co_queue_wait_ns(changed, PROGRESS_NS);
        progress_set(progress, job->progress, job->total);
    }
}

static bool run_job(struct job_set *set, struct co_queue *changed, struct node *top, struct node *base,
                    const struct commit_options *options, struct progress *progress, struct error *err)
{
    struct q_block_commit_arg arg = {
        .job_id = "commit",
        .device = top->name,
        .base_node = base->name,
        .speed = (int64_t)MIN(options->rate, (uint64_t)INT64_MAX),
        .on_error = BLOCKDEV_ON_ERROR_REPORT,
        .auto_finalize = true,
    };
    struct job *job = commit_job_new(set, top->graph, &arg, err);
    if (!job)
        return false;
    job_start(job);
    watch(job, changed, progress);
    bool ok =
        !job->result || fail(err, -job->result, "%s", job->error.message ? job->error.message : strerror(-job->result));
    return job_user_dismiss(job, ok ? err : NULL) && ok;
}

static bool copy_down(struct tool *tool, struct node *top, struct node *base, const struct commit_options *options,
                      struct error *err)
{
    struct co_queue changed;
    struct progress progress = {0};
    co_queue_init(&changed);
    const struct job_events events = {.status = on_status, .user = &changed};
    struct job_set *set = job_set_new(tool->loop, &events);
    progress_start(&progress, tool->loop, options->progress && !options->quiet, !options->quiet);
    bool ok = run_job(set, &changed, top, base, options, &progress, err);
    progress_end(&progress, ok);
    job_set_free(set);
    return ok;
}

/* Emptying -------------------------------------------------------------------------------------------------------- */

static bool make_empty(struct node *top, struct error *err)
{
    struct edge *edge =
        edge_attach(NULL, log_program(), top, BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, BLOCK_PERM_ALL, err);
    if (!edge)
        return false;
    node_drain_begin(top);
    bool ok = top->driver->make_empty(top, err);
    node_drain_end(top);
    int result = ok ? block_flush(edge) : 0;
    edge_detach(edge);
    if (result)
        ok = fail_errno(err, result, "Could not flush the image");
    return ok || fail_prefix(err, "Could not empty the image, which is committed: ");
}

static bool commit_image(struct tool *tool, struct edge *image, const struct commit_options *options, const char *name,
                         struct error *err)
{
    struct node *top = chain_image(image->child);
    struct node *base = find_base(top, options, name, err);
    bool empties = !options->keep && !options->base;
    if (!base)
        return false;
    if (empties && !top->driver->make_empty)
        return fail(err, ENOTSUP, "an image of format '%s' cannot be emptied; -d leaves it as it is",
                    top->driver->name);
    node_ref(top); /* the job gives its place, and so our edge, to the base */
    bool ok = copy_down(tool, top, base, options, err) && (!empties || make_empty(top, err));
    node_unref(top);
    return ok;
}

static int commit_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct commit_options *options = values;
    auto_error err = {0};
    bool writethrough;
    struct open_mode mode = {.unmap = true};
    if (options->cache && !tool_cache_mode(options->cache, &mode, &writethrough, &err))
        return img_fail(&err, 1);
    struct edge *image = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode,
                                   BLOCK_PERM_CONSISTENT_READ, &err);
    if (!image)
        return img_fail(&err, 1);
    bool ok = commit_image(tool, image, options, arguments->items[0], &err);
    tool_close(image);
    if (!ok)
        return img_fail(&err, 1);
    if (!options->quiet)
        printf("Image committed.\n");
    return 0;
}

const struct img_command img_commit = {
    .name = "commit",
    .arguments = "FILE",
    .summary = "Write what an image has of its own into its backing file",
    .details = "The backing file grows to the size of FILE where it is smaller. With -b, the images between FILE and\n"
               "the base are of no use afterwards.\n",
    .options = commit_options,
    .values_size = sizeof(struct commit_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = commit_run,
};
