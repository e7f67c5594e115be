/* SPDX-License-Identifier: Apache-2.0 */
/* img bench: how long an image takes for many requests of one kind. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/math.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "qmp/schema/types.h"

struct bench_options {
    const char *format, *cache, *count, *depth, *offset, *size, *step, *flush_interval, *pattern, *aio;
    bool native, write, no_drain, quiet, force_share, image_opts;
    struct texts objects;
};

static const struct tool_option bench_options[] = {
    OPTION_ROW_TEXT('c', "count", "N", struct bench_options, count, "requests in all (default: 75000)"),
    OPTION_ROW_TEXT('d', "depth", "N", struct bench_options, depth, "requests in flight (default: 64)"),
    OPTION_ROW_TEXT('o', "offset", "BYTES", struct bench_options, offset, "where the first one goes (default: 0)"),
    OPTION_ROW_TEXT('s', "buffer-size", "BYTES", struct bench_options, size, "size of a request (default: 4096)"),
    OPTION_ROW_TEXT('S', "step-size", "BYTES", struct bench_options, step,
                    "from one to the next (default: the size of a request)"),
    OPTION_ROW_FLAG('w', "write", struct bench_options, write, "write (default: read)"),
    OPTION_ROW_TEXT(0, "pattern", "BYTE", struct bench_options, pattern, "what is written (default: 0)"),
    OPTION_ROW_TEXT(0, "flush-interval", "N", struct bench_options, flush_interval,
                    "with -w: a flush after every N requests (default: none)"),
    OPTION_ROW_FLAG(0, "no-drain", struct bench_options, no_drain,
                    "do not wait for the requests in flight before a flush"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct bench_options, format, "format of the image (default: probed)"),
    OPTION_ROW_TEXT('t', "cache", "MODE", struct bench_options, cache, "cache mode (default: writeback)"),
    OPTION_ROW_TEXT('i', "aio", "MODE", struct bench_options, aio, "threads, native or io_uring"),
    OPTION_ROW_FLAG('n', "native", struct bench_options, native, "the same as --aio=native"),
    OPTION_ROW_FLAG('q', "quiet", struct bench_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG('U', "force-share", struct bench_options, force_share,
                    "open the image even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "image-opts", struct bench_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct bench_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

struct bench {
    struct edge *edge;
    uint64_t count, depth, size, step, flush_interval, pattern, offset;
    bool write, drain, writethrough;

    uint64_t started, in_flight, next_flush;
    bool flushing;
    struct co_queue changed; /* a request or a flush ended */
    int error;
};

/* Numbers ------------------------------------------------------------------------------------------------------------
 */

static bool number(const char *what, const char *text, uint64_t least, uint64_t most, uint64_t *value,
                   struct error *err)
{
    if (!text)
        return true;
    if (!img_size(what, text, value, err))
        return false;
    return (*value >= least && *value <= most) ||
           fail(err, EINVAL, "Invalid %s specified: '%s' (%" PRIu64 " to %" PRIu64 ")", what, text, least, most);
}

static bool read_numbers(const struct bench_options *options, struct bench *all, struct error *err)
{
    *all = (struct bench){.count = 75000, .depth = 64, .size = 4096, .write = options->write};
    all->drain = !options->no_drain;
    if (!number("request count", options->count, 0, INT32_MAX, &all->count, err) ||
        !number("queue depth", options->depth, 1, 65536, &all->depth, err) ||
        !number("offset", options->offset, 0, INT64_MAX, &all->offset, err) ||
        !number("buffer size", options->size, 1, 1 * GiB, &all->size, err) ||
        !number("step size", options->step, 0, INT64_MAX, &all->step, err) ||
        !number("pattern byte", options->pattern, 0, 255, &all->pattern, err) ||
        !number("flush interval", options->flush_interval, 0, INT32_MAX, &all->flush_interval, err))
        return false;
    if (!all->step)
        all->step = all->size;
    if (all->flush_interval && !all->write)
        return fail(err, EINVAL, "--flush-interval is only available in write tests");
    if (all->flush_interval && all->flush_interval < all->depth)
        return fail(err, EINVAL, "Flush interval can't be smaller than depth");
    return true;
}

/* Running ------------------------------------------------------------------------------------------------------------
 */

/* One coroutine of `depth`: the next offset, a request, and from time to time a flush for all. */
static bool next_request(struct bench *all, uint64_t *offset)
{
    while (all->flushing && all->drain && !all->error)
        co_queue_wait_uncancellable(&all->changed);
    if (all->error || all->started == all->count)
        return false;
    all->started++;
    *offset = all->offset;
    uint64_t end = all->edge->child->size - all->size;
    all->offset = all->step > end || all->offset > end - all->step ? 0 : all->offset + all->step;
    return true;
}

static void flush_now(struct bench *all)
{
    all->next_flush += all->flush_interval;
    all->flushing = true;
    while (all->drain && all->in_flight && !all->error)
        co_queue_wait_uncancellable(&all->changed);
    int result = all->error ? 0 : block_flush(all->edge);
    if (result < 0)
        all->error = result;
    all->flushing = false;
    co_queue_wake_all(&all->changed);
}

static void one_in_flight(void *arg)
{
    struct bench *all = arg;
    auto_free uint8_t *buffer = block_alloc_buffer(all->edge, all->size);
    uint64_t offset;
    if (!buffer)
        all->error = -ENOMEM;
    else
        memset(buffer, (int)all->pattern, all->size);
    while (next_request(all, &offset)) {
        all->in_flight++;
        int result = all->write ? block_write_buffer(all->edge, offset, buffer, all->size,
                                                     all->writethrough ? (uint32_t)REQUEST_FUA : 0)
                                : block_read_buffer(all->edge, offset, buffer, all->size);
        all->in_flight--;
        if (result < 0)
            all->error = result;
        co_queue_wake_all(&all->changed);
        if (all->flush_interval && all->started >= all->next_flush && !all->flushing)
            flush_now(all);
    }
}

static int run(struct tool *tool, struct bench *all, bool quiet)
{
    struct co_group group;
    if (!quiet) {
        printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
               " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
               all->count, all->write ? "write" : "read", all->size, all->depth, all->offset, all->step);
        if (all->flush_interval)
            printf("Sending flush every %" PRIu64 " requests\n", all->flush_interval);
        fflush(stdout);
    }
    co_group_init(&group);
    co_queue_init(&all->changed);
    all->next_flush = all->flush_interval;
    uint64_t start = loop_now_ns(tool->loop);
    for (uint64_t i = 0; i < MIN(all->depth, all->count); i++)
        co_spawn(tool->loop, &group, one_in_flight, all);
    co_group_wait(&group);
    uint64_t ns = loop_now_ns(tool->loop) - start;
    if (all->error) {
        log_error("Failed request: %s", strerror(-all->error));
        return 1;
    }
    if (!quiet)
        printf("Run completed in %.3f seconds.\n", (double)ns / 1e9);
    return 0;
}

static bool aio_mode(const struct bench_options *options, struct open_mode *mode, struct error *err)
{
    enum blockdev_aio_options aio = BLOCKDEV_AIO_OPTIONS_NATIVE;
    if (options->aio && !blockdev_aio_options_parse(options->aio, &aio))
        return fail(err, EINVAL, "Invalid aio option: %s (threads, native or io_uring)", options->aio);
    if (options->aio || options->native)
        mode->aio = (int)aio + 1;
    return true;
}

static int bench_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct bench_options *options = values;
    auto_error err = {0};
    struct bench all;
    struct open_mode mode = {.read_only = !options->write, .force_share = options->force_share, .unmap = true};
    bool writethrough = false;
    if (!read_numbers(options, &all, &err) || !aio_mode(options, &mode, &err) ||
        (options->cache && !tool_cache_mode(options->cache, &mode, &writethrough, &err)))
        return img_fail(&err, 1);
    all.writethrough = writethrough;
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (options->write ? BLOCK_PERM_WRITE : 0);
    all.edge = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode, perm, &err);
    if (!all.edge)
        return img_fail(&err, 1);
    int status = 1;
    if (!span_fits(all.offset, all.size, all.edge->child->size))
        log_error("Requests of %" PRIu64 " bytes from offset %" PRIu64 " do not fit into the image of %" PRIu64
                  " bytes",
                  all.size, all.offset, all.edge->child->size);
    else
        status = run(tool, &all, options->quiet);
    tool_close(all.edge);
    return status;
}

const struct img_command img_bench = {
    .name = "bench",
    .arguments = "FILE",
    .summary = "Time requests to an image",
    .details = "Requests begin again at offset 0 when they reach the end of the image.\n",
    .options = bench_options,
    .values_size = sizeof(struct bench_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = bench_run,
};
