/* SPDX-License-Identifier: Apache-2.0 */
/* img create: a new, empty image, perhaps on top of a backing file. */
#include <string.h>
#include "base/log.h"
#include "base/size.h"
#include "image-tools/img/command.h"
#include "image-tools/img/new_image.h"

struct create_options {
    const char *format, *backing, *backing_format;
    struct texts options;
    bool unsafe_backing, quiet;
    struct texts objects;
};

static const struct tool_option create_options[] = {
    OPTION_ROW_TEXT('f', "format", "FMT", struct create_options, format, "format of the new image (default: raw)"),
    OPTION_ROW_TEXTS('o', "options", "KEY=VALUE[,...]", struct create_options, options,
                     "options of the format; '-o help' lists them"),
    OPTION_ROW_TEXT('b', "backing", "FILE", struct create_options, backing,
                    "the new image only records differences to this one"),
    OPTION_ROW_TEXT('F', "backing-format", "FMT", struct create_options, backing_format, "format of the backing file"),
    OPTION_ROW_TEXT('B', NULL, "FMT", struct create_options, backing_format, "the same as -F"),
    OPTION_ROW_FLAG('u', "backing-unsafe", struct create_options, unsafe_backing,
                    "do not open the backing file; SIZE must be given"),
    OPTION_ROW_FLAG('q', "quiet", struct create_options, quiet, "print nothing but errors"),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct create_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static void set_defaults(void *values)
{
    ((struct create_options *)values)->format = "raw";
}

static int create_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct create_options *options = values;
    auto_error err = {0};
    const struct block_driver *format = new_image_format(tool, options->format, &err);
    if (!format) {
        fail_prefix(&err, "%s: ", arguments->count ? arguments->items[0] : "create");
        return img_fail(&err, 1);
    }
    if (new_image_help(format, &options->options))
        return 0;
    if (!arguments->count) {
        log_error("Expecting image file name");
        return 1;
    }
    struct new_image image = {
        .filename = arguments->items[0],
        .format = options->format,
        .options = &options->options,
        .backing = options->backing,
        .backing_format = options->backing_format,
        .unsafe_backing = options->unsafe_backing,
        .quiet = options->quiet,
        .has_size = arguments->count > 1,
    };
    if (image.has_size && !parse_size(arguments->items[1], &image.size, &err)) {
        fail_prefix(&err, "%s: Invalid image size: ", image.filename);
        return img_fail(&err, 1);
    }
    return new_image_create(tool, &image, &err) ? 0 : img_fail(&err, 1);
}

const struct img_command img_create = {
    .name = "create",
    .arguments = "FILE [SIZE]",
    .summary = "Make a new image",
    .details = "Without SIZE, the new image is as large as its backing file. An existing file is overwritten unless it "
               "is in use.\n",
    .options = create_options,
    .values_size = sizeof(struct create_options),
    .set_defaults = set_defaults,
    .max_arguments = 2,
    .run = create_run,
};
