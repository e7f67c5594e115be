/* SPDX-License-Identifier: Apache-2.0 */
/* img measure: how much room a new image would need, empty or with the content of an existing one. */
#include <inttypes.h>
#include <stdio.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "block/create.h"
#include "image-tools/img/command.h"
#include "image-tools/img/new_image.h"
#include "image-tools/snapshot.h"
#include "qmp/schema/json.h"
#include "qmp/schema/schema.h"

struct measure_options {
    const char *format, *target_format, *output, *size, *snapshot;
    struct texts options;
    bool force_share, image_opts;
    struct texts objects;
};

static const struct tool_option measure_options[] = {
    OPTION_ROW_TEXT('O', "target-format", "FMT", struct measure_options, target_format,
                    "format of the new image (default: raw)"),
    OPTION_ROW_TEXTS('o', "options", "KEY=VALUE[,...]", struct measure_options, options,
                     "options of the new image; '-o help' lists them"),
    OPTION_ROW_TEXT('s', "size", "SIZE", struct measure_options, size, "measure an empty disk of this size"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct measure_options, format, "format of FILE (default: probed)"),
    OPTION_ROW_TEXT('l', "snapshot", "SNAPSHOT", struct measure_options, snapshot,
                    "measure this internal snapshot of FILE: its ID or name, or snapshot.id=ID,snapshot.name=NAME"),
    OPTION_ROW_TEXT(0, "output", "human|json", struct measure_options, output, "layout of the result (default: human)"),
    OPTION_ROW_FLAG('U', "force-share", struct measure_options, force_share,
                    "open the image even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "image-opts", struct measure_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct measure_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static void set_defaults(void *values)
{
    ((struct measure_options *)values)->target_format = "raw";
}

static void print_result(const struct image_measure *result, enum output_format output)
{
    if (output == OUTPUT_HUMAN) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", result->required,
               result->fully_allocated);
        if (result->has_bitmaps)
            printf("bitmaps size: %" PRIu64 "\n", result->bitmaps);
        return;
    }
    auto_json *object = json_new_object();
    if (result->has_bitmaps)
        json_set(object, "bitmaps", json_new_uint(result->bitmaps));
    json_set(object, "required", json_new_uint(result->required));
    json_set(object, "fully-allocated", json_new_uint(result->fully_allocated));
    auto_free char *text = json_to_pretty_text(object);
    printf("%s\n", text);
}

static bool measure(const struct block_driver *format, const struct measure_options *options, uint64_t size,
                    struct edge *source, struct image_measure *result, struct error *err)
{
    void *created = NULL;
    if (!new_image_parse(format, &options->options, size, &created, err))
        return false;
    bool ok = format->measure(created, source, result, err);
    schema_free(image_create_options_type(format), created);
    return ok;
}

static bool measure_file(struct tool *tool, const struct block_driver *format, const struct measure_options *options,
                         const char *name, struct image_measure *result, struct error *err)
{
    struct open_mode mode = {.read_only = true, .force_share = options->force_share};
    struct edge *source =
        tool_open(tool, name, options->image_opts, options->format, &mode, BLOCK_PERM_CONSISTENT_READ, err);
    bool ok = source && (!options->snapshot || snapshot_load(source, options->snapshot, err)) &&
              measure(format, options, source->child->size, source, result, err);
    tool_close(source);
    return ok;
}

static int measure_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct measure_options *options = values;
    auto_error err = {0};
    enum output_format output;
    struct image_measure result = {0};
    uint64_t size = 0;
    if (!img_output_format(options->output, &output))
        return 1;
    const struct block_driver *format = new_image_format(tool, options->target_format, &err);
    if (!format)
        return img_fail(&err, 1);
    if (new_image_help(format, &options->options))
        return 0;
    const char *problem = options->size && arguments->count     ? "--size N cannot be used together with a filename."
                          : !options->size && !arguments->count ? "Either --size N or one filename must be specified."
                          : options->snapshot && options->size  ? "-l needs a file to look into."
                                                                : NULL;
    if (problem) {
        log_error("%s", problem);
        return 1;
    }
    if (!format->measure) {
        log_error("Block driver '%s' does not support size measurement", format->name);
        return 1;
    }
    bool ok = options->size
                  ? img_size("size", options->size, &size, &err) && measure(format, options, size, NULL, &result, &err)
                  : measure_file(tool, format, options, arguments->items[0], &result, &err);
    if (!ok)
        return img_fail(&err, 1);
    print_result(&result, output);
    return 0;
}

const struct img_command img_measure = {
    .name = "measure",
    .arguments = "[FILE]",
    .summary = "Say how much room a new image would need",
    .details = "'required' is what an image with this content takes, 'fully allocated' what it can grow to.\n",
    .options = measure_options,
    .values_size = sizeof(struct measure_options),
    .set_defaults = set_defaults,
    .max_arguments = 1,
    .run = measure_run,
};
