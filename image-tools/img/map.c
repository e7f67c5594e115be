/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img map: which parts of an image are where. The JSON form has every extent; the table for people only those whose
 * bytes lie as they are in some file.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/printable.h"
#include "block/request.h"
#include "image-tools/img/command.h"

struct map_options {
    const char *format, *output;
    uint64_t start, length;
    bool force_share, image_opts, confined;
    struct texts objects;
};

static const struct tool_option map_options[] = {
    OPTION_ROW_TEXT('f', "format", "FMT", struct map_options, format, "format of the image (default: probed)"),
    OPTION_ROW_SIZE('s', "start-offset", "OFFSET", struct map_options, start, "begin here (default: 0)"),
    OPTION_ROW_SIZE('l', "max-length", "LENGTH", struct map_options, length, "go no further than this many bytes"),
    OPTION_ROW_TEXT(0, "output", "human|json", struct map_options, output, "layout of the result (default: human)"),
    OPTION_ROW_FLAG('U', "force-share", struct map_options, force_share,
                    "open the image even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "confined", struct map_options, confined,
                    "parse the image in a process of its own that can do nothing else"),
    OPTION_ROW_FLAG(0, "image-opts", struct map_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct map_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static void set_defaults(void *values)
{
    ((struct map_options *)values)->length = UINT64_MAX;
}

struct map_entry_place {
    uint64_t start;
    struct block_status status;
};

struct mapper {
    enum output_format output;
    struct map_entry_place entry; /* not printed yet: what follows may continue it */
    bool has_entry, printed;
    bool hidden; /* human: there is data that has no place of its own */
};

static void print_json_entry(struct mapper *mapper)
{
    const struct block_status *status = &mapper->entry.status;
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, \"zero\": %s, "
           "\"data\": %s, \"compressed\": %s",
           mapper->printed ? ",\n" : "", mapper->entry.start, status->length, status->depth,
           status->allocated ? "true" : "false", status->zero ? "true" : "false", status->data ? "true" : "false",
           status->compressed ? "true" : "false");
    if (status->node)
        printf(", \"offset\": %" PRIu64, status->offset);
    printf("}");
    mapper->printed = true;
}

/* Hexadecimal, but a plain 0. */
static void print_number(uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, value ? "0x%" PRIx64 : "%" PRIx64, value);
    printf("%-16s", text);
}

static void print_human_entry(struct mapper *mapper)
{
    const struct block_status *status = &mapper->entry.status;
    if (!status->data || status->zero)
        return;
    if (!status->node) {
        mapper->hidden = true;
        return;
    }
    print_number(mapper->entry.start);
    print_number(status->length);
    print_number(status->offset);
    auto_free char *filename = printable(status->node->filename ? status->node->filename : "");
    printf("%s\n", filename);
}

static void print_entry(struct mapper *mapper)
{
    if (!mapper->has_entry)
        return;
    if (mapper->output == OUTPUT_JSON)
        print_json_entry(mapper);
    else
        print_human_entry(mapper);
}

static bool continues(const struct block_status *a, const struct block_status *b)
{
    return a->data == b->data && a->zero == b->zero && a->allocated == b->allocated && a->compressed == b->compressed &&
           a->depth == b->depth && a->node == b->node && (!a->node || a->offset + a->length == b->offset);
}

static void add_extent(struct mapper *mapper, uint64_t start, const struct block_status *status)
{
    if (mapper->has_entry && continues(&mapper->entry.status, status)) {
        mapper->entry.status.length += status->length;
        return;
    }
    print_entry(mapper);
    mapper->entry = (struct map_entry_place){start, *status};
    mapper->has_entry = true;
}

static int map_edge(struct edge *edge, uint64_t start, uint64_t end, struct mapper *mapper)
{
    printf(mapper->output == OUTPUT_JSON ? "[" : "Offset          Length          Mapped to       File\n");
    while (start < end && !mapper->hidden) {
        struct block_status status;
        int result = block_status(edge, start, end - start, BLOCK_STATUS_PRECISE, &status);
        if (result < 0) {
            log_error("Could not read the map at offset %" PRIu64 ": %s", start, strerror(-result));
            return 1;
        }
        add_extent(mapper, start, &status);
        start += status.length;
    }
    if (!mapper->hidden)
        print_entry(mapper);
    if (mapper->output == OUTPUT_JSON)
        printf("]\n");
    if (!mapper->hidden)
        return 0;
    log_error("File contains external, encrypted or compressed clusters, which this table cannot show; --output json "
              "does");
    return 1;
}

static int map_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct map_options *options = values;
    tool->confined = options->confined;
    auto_error err = {0};
    struct mapper mapper = {0};
    if (!img_output_format(options->output, &mapper.output))
        return 1;
    struct open_mode mode = {.read_only = true, .force_share = options->force_share};
    struct edge *edge = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode,
                                  BLOCK_PERM_CONSISTENT_READ, &err);
    if (!edge)
        return img_fail(&err, 1);
    uint64_t start = MIN(options->start, edge->child->size);
    int status = map_edge(edge, start, start + MIN(options->length, edge->child->size - start), &mapper);
    tool_close(edge);
    return status;
}

const struct img_command img_map = {
    .name = "map",
    .arguments = "FILE",
    .summary = "Show where the parts of an image are",
    .options = map_options,
    .values_size = sizeof(struct map_options),
    .set_defaults = set_defaults,
    .min_arguments = 1,
    .max_arguments = 1,
    .run = map_run,
};
