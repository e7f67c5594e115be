/* SPDX-License-Identifier: Apache-2.0 */
/* img resize: changes the size of the disk in an image. Making it smaller destroys data and must be asked for twice. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/size.h"
#include "block/create.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "qmp/schema/types.h"

struct resize_options {
    const char *format, *preallocation, *size;
    bool quiet, shrink, image_opts;
    struct texts objects;
};

static const struct tool_option resize_options[] = {
    OPTION_ROW_TEXT('f', "format", "FMT", struct resize_options, format, "format of the image (default: probed)"),
    OPTION_ROW_TEXT(0, "preallocation", "MODE", struct resize_options, preallocation,
                    "allocate the new space in advance: off, metadata, falloc or full"),
    OPTION_ROW_FLAG(0, "shrink", struct resize_options, shrink, "allow the image to become smaller"),
    OPTION_ROW_FLAG('q', "quiet", struct resize_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG(0, "image-opts", struct resize_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct resize_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

/* "-1G" at the end is a size, not an option. */
static void take_size(void *values, int *argc, char **argv)
{
    struct resize_options *options = values;
    if (*argc < 3 || argv[*argc - 1][0] != '-' || argv[*argc - 1][1] < '0' || argv[*argc - 1][1] > '9')
        return;
    options->size = argv[--*argc];
    if (!strcmp(argv[*argc - 1], "--"))
        --*argc;
}

static bool new_size(const char *text, uint64_t old, uint64_t *size, struct error *err)
{
    char sign = *text == '+' || *text == '-' ? *text : 0;
    uint64_t value;
    if (!parse_size(sign ? text + 1 : text, &value, err))
        return fail_prefix(err, "Invalid image size '%s': ", text);
    *size = value;
    if (sign == '+' && add_overflows(old, value, size))
        return fail(err, EFBIG, "New image size is too large");
    if (sign == '-')
        *size = old - value;
    if (sign == '-' && value >= old)
        return fail(err, EINVAL, "New image size must be positive: the image has %" PRIu64 " bytes", old);
    return true;
}

static bool parse_preallocation(const char *text, enum preallocation *preallocation, struct error *err)
{
    enum prealloc_mode mode = PREALLOC_MODE_OFF;
    if (text && !prealloc_mode_parse(text, &mode))
        return fail(err, EINVAL, "Invalid preallocation mode '%s' (off, metadata, falloc or full)", text);
    *preallocation = (enum preallocation)mode;
    return true;
}

static bool resize_edge(struct edge *edge, const struct resize_options *options, const char *text, struct error *err)
{
    enum preallocation preallocation = PREALLOCATION_OFF;
    uint64_t size = 0, old = edge->child->size;
    if (!parse_preallocation(options->preallocation, &preallocation, err) || !new_size(text, old, &size, err))
        return false;
    if (size <= old && preallocation != PREALLOCATION_OFF)
        return fail(err, EINVAL, "Preallocation can only be used for growing images");
    if (size < old && !options->shrink) {
        log_error("Use the --shrink option to perform a shrink operation.");
        log_warning("Shrinking an image will delete all data beyond the shrunken image's end. Before performing such "
                    "an operation, make sure there is no important data there.");
        return false;
    }
    if (!node_resize(edge, size, preallocation, true, err))
        return false;
    int result = block_flush(edge);
    return !result || fail_errno(err, -result, "Could not write the resized image");
}

static int resize_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct resize_options *options = values;
    auto_error err = {0};
    const char *size = options->size ? options->size : arguments->count > 1 ? arguments->items[1] : NULL;
    if (!size || arguments->count + (options->size != NULL) > 2) {
        log_error("Expecting an image file name and a size");
        return 1;
    }
    struct open_mode mode = {.unmap = true};
    struct edge *edge = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode,
                                  BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, &err);
    if (!edge)
        return img_fail(&err, 1);
    bool ok = resize_edge(edge, options, size, &err);
    tool_close(edge);
    if (error_is_set(&err))
        return img_fail(&err, 1);
    if (ok && !options->quiet)
        printf("Image resized.\n");
    return ok ? 0 : 1;
}

const struct img_command img_resize = {
    .name = "resize",
    .arguments = "FILE [+|-]SIZE",
    .summary = "Change the size of an image",
    .details = "With a sign, SIZE is added to or taken from the present size.\n",
    .options = resize_options,
    .values_size = sizeof(struct resize_options),
    .min_arguments = 1,
    .max_arguments = 2,
    .before_options = take_size,
    .run = resize_run,
};
