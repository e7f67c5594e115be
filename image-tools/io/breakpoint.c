/* SPDX-License-Identifier: Apache-2.0 */
/* break, wait_break, remove_break, resume: requests that wait at an event, where a blkdebug node is below the image. */
#include <stdio.h>
#include "base/log.h"
#include "block/event.h"
#include "image-tools/io/io.h"

static struct node *debug_node(struct io *io, const char *what)
{
    struct node *node = node_find_debug(io->edge->child);
    if (!node)
        fprintf(stderr, "%s: Operation not supported: there is no blkdebug node below the image\n", what);
    return node;
}

static bool break_run(struct io *io, void *values, const struct texts *arguments)
{
    enum blkdebug_event event;
    struct node *node = debug_node(io, "Could not set breakpoint");
    if (!node)
        return false;
    if (!blkdebug_event_parse(arguments->items[0], &event)) {
        fprintf(stderr, "Could not set breakpoint: there is no event '%s'\n", arguments->items[0]);
        return false;
    }
    node->driver->debug->add_break(node, event, arguments->items[1]);
    return true;
}

static bool remove_break_run(struct io *io, void *values, const struct texts *arguments)
{
    struct node *node = debug_node(io, "Could not remove breakpoint");
    if (!node || node->driver->debug->remove_break(node, arguments->items[0]))
        return node != NULL;
    fprintf(stderr, "Could not remove breakpoint %s: No such file or directory\n", arguments->items[0]);
    return false;
}

static bool resume_run(struct io *io, void *values, const struct texts *arguments)
{
    struct node *node = debug_node(io, "Could not resume request");
    if (!node)
        return false;
    if (!node->driver->debug->resume(node, arguments->items[0])) {
        fprintf(stderr, "Could not resume request: No such file or directory\n");
        return false;
    }
    co_yield ();
    return true;
}

/* Waits for ever when no request comes by: that is a test's mistake, and its time limit tells. */
static bool wait_break_run(struct io *io, void *values, const struct texts *arguments)
{
    struct node *node = debug_node(io, "Could not wait for breakpoint");
    while (node && !node->driver->debug->is_waiting(node, arguments->items[0]))
        if (co_sleep_ns(1000000))
            return false;
    return node != NULL;
}

const struct io_command io_break = {
    .name = "break",
    .arguments = "EVENT TAG",
    .summary = "the next request that comes to this event of blkdebug waits there",
    .options = io_no_options,
    .min_arguments = 2,
    .max_arguments = 2,
    .needs_image = true,
    .run = break_run,
};

const struct io_command io_remove_break = {
    .name = "remove_break",
    .arguments = "TAG",
    .summary = "remove a breakpoint; who waits there goes on",
    .options = io_no_options,
    .min_arguments = 1,
    .max_arguments = 1,
    .needs_image = true,
    .run = remove_break_run,
};

const struct io_command io_resume = {
    .name = "resume",
    .arguments = "TAG",
    .summary = "let a request go on that waits at a breakpoint",
    .options = io_no_options,
    .min_arguments = 1,
    .max_arguments = 1,
    .needs_image = true,
    .run = resume_run,
};

const struct io_command io_wait_break = {
    .name = "wait_break",
    .arguments = "TAG",
    .summary = "wait until a request has come to a breakpoint",
    .options = io_no_options,
    .min_arguments = 1,
    .max_arguments = 1,
    .needs_image = true,
    .run = wait_break_run,
};
