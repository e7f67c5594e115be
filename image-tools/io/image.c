/* SPDX-License-Identifier: Apache-2.0 */
/* Commands on the image as a whole: flush, discard, length, truncate, map, alloc, info. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "block/create.h"
#include "block/query.h"
#include "image-tools/io/io.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

static bool flush_run(struct io *io, void *values, const struct texts *arguments)
{
    int result = block_flush(io->edge);
    if (result < 0)
        io_failed("flush", result);
    return result >= 0;
}

/* discard --------------------------------------------------------------------------------------------------------- */

struct discard_options {
    bool machine_readable, quiet;
};

static const struct tool_option discard_options[] = {
    OPTION_ROW_FLAG('C', NULL, struct discard_options, machine_readable, "report in a form for programs"),
    OPTION_ROW_FLAG('q', NULL, struct discard_options, quiet, "do not report what was done"),
    OPTIONS_END,
};

struct discard {
    struct io *io;
    struct discard_options options;
    uint64_t offset, length;
    const char *verb;
};

static bool discard_now(const struct discard *discard)
{
    struct io *io = discard->io;
    struct io_timing timing = {.start_ns = loop_now_ns(io->tool->loop)};
    int result = block_discard(io->edge, discard->offset, discard->length);
    timing.end_ns = loop_now_ns(io->tool->loop);
    if (result < 0)
        io_failed(discard->verb, result);
    else if (!discard->options.quiet)
        io_report("discard", &timing, discard->offset, discard->length, discard->length,
                  discard->options.machine_readable);
    return result >= 0;
}

static bool read_discard(struct discard *discard, struct io *io, const struct discard_options *options,
                         const struct texts *arguments)
{
    discard->io = io;
    discard->options = *options;
    return io_number(arguments->items[0], &discard->offset) && io_number(arguments->items[1], &discard->length);
}

static bool discard_run(struct io *io, void *values, const struct texts *arguments)
{
    struct discard discard = {.verb = "discard"};
    return read_discard(&discard, io, values, arguments) && discard_now(&discard);
}

static void async_discard(void *arg)
{
    struct discard *discard = arg;
    if (!discard_now(discard))
        discard->io->request_failed = true;
    fflush(stdout);
    free(discard);
}

static bool aio_discard_run(struct io *io, void *values, const struct texts *arguments)
{
    auto_free struct discard *discard = new (struct discard);
    discard->verb = "aio_discard";
    if (!read_discard(discard, io, values, arguments))
        return false;
    co_spawn(io->tool->loop, &io->requests, async_discard, TAKE(discard));
    return true;
}

/* Size ------------------------------------------------------------------------------------------------------------ */

static bool length_run(struct io *io, void *values, const struct texts *arguments)
{
    char text[IO_SIZE_MAX];
    printf("%s\n", io_format_size(text, (double)io->edge->child->size));
    return true;
}

struct truncate_options {
    const char *preallocation;
};

static const struct tool_option truncate_options[] = {
    OPTION_ROW_TEXT('m', NULL, "MODE", struct truncate_options, preallocation,
                    "allocate the new space: off, metadata, falloc or full"),
    OPTIONS_END,
};

static bool truncate_run(struct io *io, void *values, const struct texts *arguments)
{
    const struct truncate_options *options = values;
    enum prealloc_mode mode = PREALLOC_MODE_OFF;
    auto_error err = {0};
    uint64_t size;
    if (!io_number(arguments->items[0], &size))
        return false;
    if (options->preallocation && !prealloc_mode_parse(options->preallocation, &mode)) {
        log_error("Invalid preallocation mode '%s' (off, metadata, falloc or full)", options->preallocation);
        return false;
    }
    if (node_resize(io->edge, size, (enum preallocation)mode, true, &err))
        return true;
    log_failure(&err);
    return false;
}

/* Allocation of the top layer ------------------------------------------------------------------------------------- */

/* As many bytes from `offset` as share one answer. */
static bool allocation(struct io *io, uint64_t offset, uint64_t length, bool *allocated, uint64_t *run)
{
    *run = 0;
    while (*run < length) {
        struct block_status status;
        int result = block_status(io->edge, offset + *run, length - *run, BLOCK_STATUS_TOP_ONLY, &status);
        if (result < 0) {
            io_failed("reading the map", result);
            return false;
        }
        if (*run && status.allocated != *allocated)
            break;
        *allocated = status.allocated;
        *run += status.length;
    }
    return true;
}

static bool alloc_run(struct io *io, void *values, const struct texts *arguments)
{
    uint64_t offset, length = 512, sum = 0, run;
    if (!io_number(arguments->items[0], &offset) || (arguments->count > 1 && !io_number(arguments->items[1], &length)))
        return false;
    uint64_t size = io->edge->child->size;
    uint64_t there = offset < size ? MIN(length, size - offset) : 0;
    for (uint64_t at = 0; at < there; at += run) {
        bool allocated;
        if (!allocation(io, offset + at, there - at, &allocated, &run))
            return false;
        sum += allocated ? run : 0;
    }
    char text[IO_SIZE_MAX];
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, length, io_format_size(text, (double)offset));
    return true;
}

static bool map_run(struct io *io, void *values, const struct texts *arguments)
{
    uint64_t size = io->edge->child->size, run;
    for (uint64_t at = 0; at < size; at += run) {
        bool allocated;
        if (!allocation(io, at, size - at, &allocated, &run))
            return false;
        char length_text[IO_SIZE_MAX], offset_text[IO_SIZE_MAX];
        printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n",
               io_format_size(length_text, (double)run), run, allocated ? "   " : "not",
               io_format_size(offset_text, (double)at), at);
    }
    return true;
}

/* info ------------------------------------------------------------------------------------------------------------ */

static bool info_run(struct io *io, void *values, const struct texts *arguments)
{
    auto_error err = {0};
    struct image_info *info = node_query_image(io->edge->child, false, &err);
    if (!info) {
        log_failure(&err);
        return false;
    }
    char text[IO_SIZE_MAX];
    printf("format name: %s\ncluster size: %s\n", info->format, io_format_size(text, (double)info->cluster_size));
    if (info->format_specific) {
        auto_json *json = image_info_specific_to_json(info->format_specific);
        printf("Format specific information:\n");
        tool_print_members(json_get(json, "data"), 4);
    }
    image_info_free(info);
    return true;
}

/* Rows ------------------------------------------------------------------------------------------------------------ */

const struct io_command io_flush = {
    .name = "flush",
    .alias = "f",
    .arguments = "",
    .summary = "put everything written on stable storage",
    .options = io_no_options,
    .needs_image = true,
    .run = flush_run,
};

const struct io_command io_discard = {
    .name = "discard",
    .alias = "d",
    .arguments = "OFFSET LENGTH",
    .summary = "say that data is not needed any more",
    .options = discard_options,
    .values_size = sizeof(struct discard_options),
    .min_arguments = 2,
    .max_arguments = 2,
    .needs_image = true,
    .writes = true,
    .run = discard_run,
};

const struct io_command io_aio_discard = {
    .name = "aio_discard",
    .arguments = "OFFSET LENGTH",
    .summary = "start to discard",
    .details = "aio_flush waits for it, and fails if it has failed.\n",
    .options = discard_options,
    .values_size = sizeof(struct discard_options),
    .min_arguments = 2,
    .max_arguments = 2,
    .needs_image = true,
    .writes = true,
    .run = aio_discard_run,
};

const struct io_command io_length = {
    .name = "length",
    .alias = "l",
    .arguments = "",
    .summary = "print the size of the image",
    .options = io_no_options,
    .needs_image = true,
    .run = length_run,
};

const struct io_command io_truncate = {
    .name = "truncate",
    .alias = "t",
    .arguments = "SIZE",
    .summary = "change the size of the image",
    .options = truncate_options,
    .values_size = sizeof(struct truncate_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .needs_image = true,
    .writes = true,
    .run = truncate_run,
};

const struct io_command io_map = {
    .name = "map",
    .arguments = "",
    .summary = "print which parts the image allocates",
    .options = io_no_options,
    .needs_image = true,
    .run = map_run,
};

const struct io_command io_alloc = {
    .name = "alloc",
    .alias = "a",
    .arguments = "OFFSET [LENGTH]",
    .summary = "count the bytes that are allocated",
    .options = io_no_options,
    .min_arguments = 1,
    .max_arguments = 2,
    .needs_image = true,
    .run = alloc_run,
};

const struct io_command io_info = {
    .name = "info",
    .alias = "i",
    .arguments = "",
    .summary = "describe the image",
    .options = io_no_options,
    .needs_image = true,
    .run = info_run,
};
