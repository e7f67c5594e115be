/* SPDX-License-Identifier: Apache-2.0 */
/* img dd: copies a part of an image, with the operands of dd(1). */
#include <inttypes.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "block/create.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "image-tools/img/new_image.h"
#include "image-tools/snapshot.h"

#define BLOCK_SIZE_MAX INT32_MAX
#define PIECE (2 * MiB)

struct dd_options {
    const char *format, *target_format, *snapshot;
    bool force_share, image_opts, no_create;
    struct texts objects;
};

static const struct tool_option dd_options[] = {
    OPTION_ROW_TEXT('f', "format", "FMT", struct dd_options, format, "format of the input (default: probed)"),
    OPTION_ROW_TEXT('O', "output-format", "FMT", struct dd_options, target_format,
                    "format of the output (default: raw)"),
    OPTION_ROW_TEXT('l', "snapshot", "SNAPSHOT", struct dd_options, snapshot, "copy this internal snapshot"),
    OPTION_ROW_FLAG('n', "no-create", struct dd_options, no_create, "the output exists already"),
    OPTION_ROW_FLAG('U', "force-share", struct dd_options, force_share,
                    "open the input even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "image-opts", struct dd_options, image_opts, "the input is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct dd_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

struct operands {
    const char *input, *output;
    uint64_t block_size, count, skip;
    bool has_count;
};

static bool read_number(const char *key, const char *text, uint64_t least, uint64_t *value, struct error *err)
{
    if (!img_size(key, text, value, NULL) || *value < least || (least && *value > BLOCK_SIZE_MAX))
        return least ? fail(err, EINVAL, "Invalid %s specified. Must be between 1 and %d.", key, BLOCK_SIZE_MAX)
                     : fail(err, EINVAL, "invalid number: '%s' in %s=%s", text, key, text);
    return true;
}

static bool read_operand(struct operands *operands, const char *text, struct error *err)
{
    const char *value = strchr(text, '=');
    if (!value)
        return fail(err, EINVAL, "unrecognized operand %s", text);
    auto_free char *key = xstrndup(text, (size_t)(value++ - text));
    if (!strcmp(key, "if"))
        operands->input = value;
    else if (!strcmp(key, "of"))
        operands->output = value;
    else if (!strcmp(key, "bs"))
        return read_number(key, value, 1, &operands->block_size, err);
    else if (!strcmp(key, "skip"))
        return read_number(key, value, 0, &operands->skip, err);
    else if (!strcmp(key, "count"))
        return operands->has_count = true, read_number(key, value, 0, &operands->count, err);
    else
        return fail(err, EINVAL, "unrecognized operand %s", key);
    return true;
}

static bool read_operands(struct operands *operands, const struct texts *arguments, struct error *err)
{
    for (size_t i = 0; i < arguments->count; i++) {
        if (!read_operand(operands, arguments->items[i], err))
            return false;
    }
    return (operands->input && operands->output) || fail(err, EINVAL, "Must specify both input and output files");
}

/* The span of the input: `count` blocks from the beginning end it, `skip` blocks are left out of that. */
static void find_span(const struct operands *operands, uint64_t size, uint64_t *start, uint64_t *length)
{
    uint64_t end = size, limit;
    *start = *length = 0;
    if (operands->has_count && !__builtin_mul_overflow(operands->count, operands->block_size, &limit))
        end = MIN(end, limit);
    if (__builtin_mul_overflow(operands->skip, operands->block_size, start))
        *start = UINT64_MAX;
    if (*start > size)
        log_error("%s: cannot skip to specified offset", operands->input);
    if (*start < end)
        *length = end - *start;
}

static bool copy(struct edge *from, uint64_t start, uint64_t length, struct edge *to, bool is_new, struct error *err)
{
    for (uint64_t at = 0; at < length; at += PIECE) {
        uint64_t piece = MIN(length - at, PIECE);
        int result = block_copy(from, start + at, to, at, piece, is_new ? BLOCK_COPY_TARGET_IS_ZERO : 0);
        if (result < 0)
            return fail_errno(err, -result, "error while copying at offset %" PRIu64, start + at);
    }
    int result = block_flush(to);
    return !result || fail_errno(err, -result, "error while flushing the output");
}

static bool write_output(struct tool *tool, const struct dd_options *options, const struct operands *operands,
                         struct edge *from, struct error *err)
{
    uint64_t start, length;
    const char *format = options->target_format ? options->target_format : "raw";
    const struct texts none = {0};
    find_span(operands, from->child->size, &start, &length);
    struct new_image image = {.filename = operands->output,
                              .format = format,
                              .options = &none,
                              .size = length,
                              .has_size = true,
                              .quiet = true};
    if (!options->no_create && !new_image_create(tool, &image, err))
        return false;
    struct open_mode mode = {.unmap = true};
    struct edge *to = tool_open(tool, operands->output, false, format, &mode,
                                BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, err);
    bool ok = to != NULL;
    if (ok && to->child->size < length)
        ok = fail(err, ENOSPC, "'%s' has %" PRIu64 " bytes, %" PRIu64 " are needed", operands->output, to->child->size,
                  length);
    bool is_new =
        !options->no_create && ok && (to->child->driver->create->create_format || to->child->file->child->growable);
    ok = ok && copy(from, start, length, to, is_new, err);
    tool_close(to);
    return ok;
}

static int dd_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct dd_options *options = values;
    auto_error err = {0};
    struct operands operands = {.block_size = 512};
    if (!read_operands(&operands, arguments, &err))
        return img_fail(&err, 1);
    struct open_mode mode = {.read_only = true, .force_share = options->force_share};
    struct edge *from =
        tool_open(tool, operands.input, options->image_opts, options->format, &mode, BLOCK_PERM_CONSISTENT_READ, &err);
    bool ok = from && (!options->snapshot || snapshot_load(from, options->snapshot, &err)) &&
              write_output(tool, options, &operands, from, &err);
    tool_close(from);
    return ok ? 0 : img_fail(&err, 1);
}

const struct img_command img_dd = {
    .name = "dd",
    .arguments = "if=INPUT of=OUTPUT [bs=BYTES] [count=BLOCKS] [skip=BLOCKS]",
    .summary = "Copy a part of an image into a new image",
    .details =
        "Blocks have 512 bytes unless bs= says otherwise; count= counts from the beginning of the input, before\n"
        "skip= is taken away.\n",
    .options = dd_options,
    .values_size = sizeof(struct dd_options),
    .run = dd_run,
};
