/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert with '-' for a source or the target. Nothing in a stream can be looked at twice, or out of order:
 *
 *   - a source is raw, and its size is known when it ends. A new target grows with it;
 *   - a raw target is every byte in order. Where standard output is a file that begins here, zeroes become holes;
 *   - a qcow2 target has its tables in front of the data (formats/qcow2/stream.c). The maps of the sources tell what is
 *     stored, before any data is read; so zeroes that no map knows of are stored as data.
 *
 * Progress goes to standard error, where an image goes to standard output.
 */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/name.h"
#include "formats/qcow2/stream.h"
#include "image-tools/img/convert_options.h"
#include "image-tools/img/new_image.h"
#include "qmp/schema/types.h"

static const char *what_input_cannot(const struct convert_options *options)
{
    return options->checksum     ? "--checksum"
           : options->resume     ? "--resume"
           : options->bitmaps    ? "--bitmaps"
           : options->snapshot   ? "-l"
           : options->image_opts ? "--image-opts"
           : options->confined   ? "--confined"
           : options->offload    ? "-C"
           : options->salvage    ? "--salvage"
           : options->backing    ? "-B"
                                 : NULL;
}

static const char *what_output_cannot(const struct convert_options *options)
{
    return options->checksum            ? "--checksum"
           : options->resume            ? "--resume"
           : options->bitmaps           ? "--bitmaps"
           : options->no_create         ? "-n"
           : options->target_image_opts ? "--target-image-opts"
           : options->compress          ? "-c"
           : options->cache             ? "-t"
           : options->offload           ? "-C"
                                        : NULL;
}

static bool check_input(const struct convert_options *options, const struct texts *arguments, struct error *err)
{
    const char *wrong = what_input_cannot(options);
    if (arguments->count > 2)
        return fail(err, EINVAL, "Standard input cannot be put together with other sources");
    if (options->format && strcmp(options->format, "raw"))
        return fail(err, EINVAL, "Standard input can only be raw: images of format '%s' are not read in order",
                    options->format);
    return !wrong || fail(err, EINVAL, "%s is not possible with standard input", wrong);
}

static bool check_output(const struct convert_options *options, struct error *err)
{
    const char *format = convert_format(options), *wrong = what_output_cannot(options);
    if (wrong)
        return fail(err, EINVAL, "%s is not possible with standard output", wrong);
    if (!strcmp(format, "raw") && options->options.count)
        return fail(err, EINVAL, "-o is not possible with a raw image on standard output");
    return !strcmp(format, "raw") || !strcmp(format, "qcow2") ||
           fail(err, EINVAL, "Standard output can be raw or qcow2, not '%s'", format);
}

bool convert_streams_check(const struct convert_options *options, const struct texts *arguments, struct error *err)
{
    bool is_output = stream_is_meant(arguments->items[arguments->count - 1]), is_input = false;
    for (size_t i = 0; i + 1 < arguments->count; i++)
        is_input = is_input || stream_is_meant(arguments->items[i]);
    if ((is_input && !check_input(options, arguments, err)) || (is_output && !check_output(options, err)))
        return false;
    return !is_input || !is_output || !strcmp(convert_format(options), "raw") ||
           fail(err, EINVAL,
                "Standard input can become only a raw image on standard output: the size of a stream is "
                "known when it ends");
}

static int emit(void *user, const void *data, size_t length)
{
    return stream_write(user, data, length);
}

/* Which parts of the disk the image stores. */
static bool make_plan(struct conversion *all, struct error *err)
{
    all->plan = new (struct pieces);
    return conversion_plan(all, all->plan) || fail(err, EIO, "It is not known what would be stored");
}

static bool write_head(struct conversion *all, const struct qcow2_create_options *options, struct error *err)
{
    auto_free struct qcow2_stream_run *runs = new_array(struct qcow2_stream_run, all->plan->count + 1);
    for (size_t i = 0; i < all->plan->count; i++) {
        const struct piece *piece = &all->plan->items[i];
        runs[i] = (struct qcow2_stream_run){piece->offset, piece->length, piece->kind == PIECE_ZERO};
    }
    struct qcow2_stream stream = {
        .options = options,
        .size = all->size,
        .runs = runs,
        .count = all->plan->count,
        .emit = emit,
        .user = all->output,
    };
    return qcow2_stream_head(&stream, err);
}

static bool begin_qcow2(struct tool *tool, const struct convert_options *given, struct conversion *all,
                        struct error *err)
{
    void *parsed = NULL;
    const struct block_driver *format = new_image_format(tool, "qcow2", err);
    if (!format || !new_image_parse(format, &given->options, all->size, &parsed, err))
        return false;
    auto_qcow2_create_options *options = parsed;
    if (given->backing && !options->backing_file) {
        options->backing_file = xstrdup(given->backing);
        options->backing_fmt = xstrdup(given->backing_format);
    }
    all->cluster_size = options->cluster_size;
    return qcow2_stream_check(options, err) && make_plan(all, err) && write_head(all, options, err);
}

bool convert_streams_begin(struct tool *tool, const struct convert_options *options, struct conversion *all,
                           struct error *err)
{
    all->target_name = "standard output";
    all->output = new (struct stream);
    all->progress.out = stderr;
    if (!stream_open_output(all->output, err))
        return false;
    return !strcmp(convert_format(options), "raw") || begin_qcow2(tool, options, all, err) ||
           fail_prefix(err, "error while converting qcow2: ");
}
