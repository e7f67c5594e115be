/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img dd: copies a part of an image, with the operands of dd(1). Input and output may be streams (stream.h): raw bytes
 * of standard input, whose end is where it ends, and to standard output.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/is_zero.h"
#include "base/log.h"
#include "base/math.h"
#include "block/create.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "image-tools/img/new_image.h"
#include "image-tools/img/stream.h"
#include "image-tools/snapshot.h"

#define BLOCK_SIZE_MAX INT32_MAX
#define PIECE (2 * MiB)
#define GROWTH (64 * MiB)

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

/* The two ends. A stream has no edge. */
struct ends {
    struct edge *from, *to;
    struct stream input, output;
    bool is_new, may_grow;
};

static bool copy_between_edges(struct ends *ends, uint64_t start, uint64_t length, struct error *err)
{
    for (uint64_t at = 0; at < length; at += PIECE) {
        uint64_t piece = MIN(length - at, PIECE);
        int result =
            block_copy(ends->from, start + at, ends->to, at, piece, ends->is_new ? BLOCK_COPY_TARGET_IS_ZERO : 0);
        if (result < 0)
            return fail_errno(err, -result, "error while copying at offset %" PRIu64, start + at);
    }
    return true;
}

/* As many bytes as there are, up to `length`. */
static int64_t read_piece(struct ends *ends, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    if (!ends->from)
        return stream_read(&ends->input, buffer, length);
    int result = block_read_buffer(ends->from, offset, buffer, length);
    return result < 0 ? result : (int64_t)length;
}

static bool write_piece(struct ends *ends, uint64_t offset, const uint8_t *buffer, uint64_t length, struct error *err)
{
    uint64_t end = offset + length;
    bool is_zero = buffer_is_zero(buffer, length);
    if (ends->to && end > ends->to->child->size && !ends->may_grow)
        return fail(err, ENOSPC, "the output has %" PRIu64 " bytes, and more are coming", ends->to->child->size);
    if (ends->to && end > ends->to->child->size &&
        !node_resize(ends->to, round_up(end + end / 4, GROWTH), PREALLOCATION_OFF, false, err))
        return false;
    int result = 0;
    if (ends->to && !(is_zero && ends->is_new))
        result = block_write_buffer(ends->to, offset, buffer, length, 0);
    else if (!ends->to)
        result = is_zero ? stream_write_zeroes(&ends->output, length) : stream_write(&ends->output, buffer, length);
    return result >= 0 || fail_errno(err, -result, "error while writing at offset %" PRIu64, offset);
}

static bool copy_stream(struct ends *ends, uint64_t start, uint64_t length, uint64_t *copied, struct error *err)
{
    auto_free uint8_t *buffer = try_aligned_alloc(4096, PIECE);
    if (!buffer)
        return fail(err, ENOMEM, "out of memory for a buffer");
    for (*copied = 0; *copied < length;) {
        uint64_t piece = MIN(length - *copied, PIECE);
        int64_t got = read_piece(ends, start + *copied, buffer, piece);
        if (got < 0)
            return fail_errno(err, (int)-got, "error while reading at offset %" PRIu64, start + *copied);
        if (got && !write_piece(ends, *copied, buffer, (uint64_t)got, err))
            return false;
        *copied += (uint64_t)got;
        if ((uint64_t)got < piece)
            break;
    }
    return true;
}

static bool copy(struct ends *ends, uint64_t start, uint64_t length, struct error *err)
{
    uint64_t copied = length;
    bool ok = ends->from && ends->to ? copy_between_edges(ends, start, length, err)
                                     : copy_stream(ends, start, length, &copied, err);
    if (ok && ends->may_grow) /* to what came; formats count in sectors */
        ok = node_resize(ends->to, ends->to->child->driver->create->create_format ? round_up(copied, 512) : copied,
                         PREALLOCATION_OFF, true, err);
    int result = !ok ? 0 : ends->to ? block_flush(ends->to) : stream_finish(&ends->output);
    return ok && (!result || fail_errno(err, -result, "error while flushing the output"));
}

/* Where the input begins and how long it may be; a stream is read up to there. */
static bool find_input(struct ends *ends, const struct operands *operands, uint64_t *start, uint64_t *length,
                       struct error *err)
{
    find_span(operands, ends->from ? ends->from->child->size : INT64_MAX, start, length);
    if (ends->from)
        return true;
    int result = *length ? stream_skip(&ends->input, *start) : 0;
    if (result == -ENODATA)
        log_error("%s: cannot skip to specified offset", operands->input);
    return !result || result == -ENODATA || fail_errno(err, -result, "error while reading standard input");
}

static bool open_output(struct tool *tool, const struct dd_options *options, const struct operands *operands,
                        struct ends *ends, uint64_t length, struct error *err)
{
    const char *format = options->target_format ? options->target_format : "raw";
    const struct texts none = {0};
    struct new_image image = {.filename = operands->output,
                              .format = format,
                              .options = &none,
                              .size = ends->from ? length : 0,
                              .has_size = true,
                              .quiet = true};
    if (!options->no_create && !new_image_create(tool, &image, err))
        return false;
    struct open_mode mode = {.unmap = true};
    ends->to = tool_open(tool, operands->output, false, format, &mode,
                         BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, err);
    if (!ends->to)
        return false;
    const struct node *node = ends->to->child;
    ends->is_new = !options->no_create && (node->driver->create->create_format || node->file->child->growable);
    ends->may_grow = ends->is_new && !ends->from;
    if (ends->from && node->size < length)
        return fail(err, ENOSPC, "'%s' has %" PRIu64 " bytes, %" PRIu64 " are needed", operands->output, node->size,
                    length);
    return true;
}

static bool check_streams(const struct dd_options *options, const struct operands *operands, struct error *err)
{
    if (stream_is_meant(operands->input) && options->format && strcmp(options->format, "raw"))
        return fail(err, EINVAL, "standard input can only be raw, not '%s'", options->format);
    if (stream_is_meant(operands->input) && (options->image_opts || options->snapshot))
        return fail(err, EINVAL, "%s is not possible with standard input", options->snapshot ? "-l" : "--image-opts");
    if (stream_is_meant(operands->output) && options->target_format && strcmp(options->target_format, "raw"))
        return fail(err, EINVAL, "dd writes raw bytes to standard output, not '%s': convert can write qcow2 there",
                    options->target_format);
    if (stream_is_meant(operands->output) && options->no_create)
        return fail(err, EINVAL, "-n is not possible with standard output");
    return true;
}

static bool run(struct tool *tool, const struct dd_options *options, const struct operands *operands, struct ends *ends,
                struct error *err)
{
    struct open_mode mode = {.read_only = true, .force_share = options->force_share};
    uint64_t start, length;
    if (!check_streams(options, operands, err))
        return false;
    if (stream_is_meant(operands->input))
        stream_open_input(&ends->input);
    else if (!(ends->from = tool_open(tool, operands->input, options->image_opts, options->format, &mode,
                                      BLOCK_PERM_CONSISTENT_READ, err)))
        return false;
    if (options->snapshot && !snapshot_load(ends->from, options->snapshot, err))
        return false;
    if (!find_input(ends, operands, &start, &length, err))
        return false;
    bool ok = stream_is_meant(operands->output) ? stream_open_output(&ends->output, err)
                                                : open_output(tool, options, operands, ends, length, err);
    return ok && copy(ends, start, length, err);
}

static int dd_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct dd_options *options = values;
    auto_error err = {0};
    struct operands operands = {.block_size = 512};
    struct ends ends = {0};
    bool ok = read_operands(&operands, arguments, &err) && run(tool, options, &operands, &ends, &err);
    tool_close(ends.to);
    tool_close(ends.from);
    return ok ? 0 : img_fail(&err, 1);
}

const struct img_command img_dd = {
    .name = "dd",
    .arguments = "if=INPUT of=OUTPUT [bs=BYTES] [count=BLOCKS] [skip=BLOCKS]",
    .summary = "Copy a part of an image into a new image",
    .details =
        "Blocks have 512 bytes unless bs= says otherwise; count= counts from the beginning of the input, before\n"
        "skip= is taken away. '-' as INPUT or OUTPUT is standard input or output, of raw bytes.\n",
    .options = dd_options,
    .values_size = sizeof(struct dd_options),
    .run = dd_run,
};
