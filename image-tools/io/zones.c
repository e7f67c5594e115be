/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zone_*: what a zoned device is asked and told (block/zones.h). Offsets and lengths count bytes; a report shows
 * sectors of 512 bytes, as its readers know it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/zones.h"
#include "image-tools/io/io.h"

#define SECTOR 512
#define ZONES_MAX (1u << 20)
#define APPEND_PATTERN 0xcd

static bool report_run(struct io *io, void *values, const struct texts *arguments)
{
    uint64_t offset, wanted;
    if (!io_number(arguments->items[0], &offset) || !io_number(arguments->items[1], &wanted))
        return false;
    size_t count = MIN(wanted, (uint64_t)ZONES_MAX);
    auto_free struct zone *zones = try_calloc(MAX(count, (size_t)1), sizeof *zones);
    int result = zones ? block_zone_report(io->edge, offset, zones, &count) : -ENOMEM;
    if (result < 0) {
        io_failed("zone report", result);
        return false;
    }
    for (size_t i = 0; i < count; i++)
        printf("start: 0x%" PRIx64 ", len 0x%" PRIx64 ", cap 0x%" PRIx64 ", wptr 0x%" PRIx64 ", zcond:%u, [type: %u]\n",
               zones[i].start / SECTOR, zones[i].length / SECTOR, zones[i].capacity / SECTOR,
               zones[i].write_pointer / SECTOR, zones[i].condition, (unsigned)zones[i].kind);
    return true;
}

static bool order(struct io *io, enum zone_order order, const char *verb, const struct texts *arguments)
{
    uint64_t offset, length;
    if (!io_number(arguments->items[0], &offset) || !io_number(arguments->items[1], &length))
        return false;
    int result = block_zone_order(io->edge, order, offset, length);
    if (result < 0)
        io_failed(verb, result);
    return result >= 0;
}

static bool open_run(struct io *io, void *values, const struct texts *arguments)
{
    return order(io, ZONE_OPEN, "zone open", arguments);
}

static bool close_run(struct io *io, void *values, const struct texts *arguments)
{
    return order(io, ZONE_CLOSE, "zone close", arguments);
}

static bool finish_run(struct io *io, void *values, const struct texts *arguments)
{
    return order(io, ZONE_FINISH, "zone finish", arguments);
}

static bool reset_run(struct io *io, void *values, const struct texts *arguments)
{
    return order(io, ZONE_RESET, "zone reset", arguments);
}

struct append_options {
    bool tell;
};

static const struct tool_option append_options[] = {
    OPTION_ROW_FLAG('p', NULL, struct append_options, tell, "tell where the data went"),
    OPTIONS_END,
};

static bool append_run(struct io *io, void *values, const struct texts *arguments)
{
    const struct append_options *options = values;
    uint64_t offset, total = 0, length;
    if (!io_number(arguments->items[0], &offset))
        return false;
    for (size_t i = 1; i < arguments->count; i++) {
        if (!io_request_length(arguments->items[i], &length))
            return false;
        total += length;
        if (total > INT32_MAX) {
            printf("the lengths together are too large\n");
            return false;
        }
    }
    auto_free uint8_t *buffer = block_alloc_buffer(io->edge, MAX(total, (uint64_t)1));
    if (!buffer) {
        printf("out of memory for a buffer of %" PRIu64 " bytes\n", total);
        return false;
    }
    memset(buffer, APPEND_PATTERN, total);
    struct iovec iov = {buffer, total};
    int result = block_zone_append(io->edge, &offset, total, buffers_of(&iov, 1));
    if (result < 0)
        io_failed("zone append", result);
    else if (options->tell)
        printf("After zap done, the append sector is 0x%" PRIx64 "\n", offset / SECTOR);
    return result >= 0;
}

/* Rows ------------------------------------------------------------------------------------------------------------- */

#define ZONE_ROW(is_write, function)                                                                                   \
    .options = io_no_options, .min_arguments = 2, .max_arguments = 2, .needs_image = true, .writes = is_write,         \
    .run = function

const struct io_command io_zone_report = {
    .name = "zone_report",
    .alias = "zrp",
    .arguments = "OFFSET COUNT",
    .summary = "describe zones of a zoned device, from the one at an offset on",
    .details =
        "Numbers are sectors of 512 bytes; zcond is the zone's condition as the standards number it (1 empty, 2 and\n"
        "3 open, 4 closed, 14 full), type 1 conventional, 2 sequential.\n",
    ZONE_ROW(false, report_run),
};

const struct io_command io_zone_open = {
    .name = "zone_open",
    .alias = "zo",
    .arguments = "OFFSET LENGTH",
    .summary = "open the zones of a span for writing",
    ZONE_ROW(true, open_run),
};

const struct io_command io_zone_close = {
    .name = "zone_close",
    .alias = "zc",
    .arguments = "OFFSET LENGTH",
    .summary = "close the zones of a span",
    ZONE_ROW(true, close_run),
};

const struct io_command io_zone_finish = {
    .name = "zone_finish",
    .alias = "zf",
    .arguments = "OFFSET LENGTH",
    .summary = "make the zones of a span full",
    ZONE_ROW(true, finish_run),
};

const struct io_command io_zone_reset = {
    .name = "zone_reset",
    .alias = "zrs",
    .arguments = "OFFSET LENGTH",
    .summary = "empty the zones of a span",
    ZONE_ROW(true, reset_run),
};

const struct io_command io_zone_append = {
    .name = "zone_append",
    .alias = "zap",
    .arguments = "OFFSET LENGTH...",
    .summary = "write a pattern at the write pointer of the zone that begins at an offset",
    .options = append_options,
    .values_size = sizeof(struct append_options),
    .min_arguments = 2,
    .max_arguments = -1,
    .needs_image = true,
    .writes = true,
    .run = append_run,
};
