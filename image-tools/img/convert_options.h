/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `img convert`, for the files that carry it out. */
#ifndef IMAGE_TOOLS_IMG_CONVERT_OPTIONS_H
#define IMAGE_TOOLS_IMG_CONVERT_OPTIONS_H

#include "image-tools/img/convert.h"
#include "image-tools/options.h"

struct convert_options {
    const char *format, *target_format, *backing, *backing_format, *cache, *source_cache, *workers, *sparse_size,
        *snapshot, *output, *resume_state;
    struct texts options;
    uint64_t rate;
    bool no_create, target_is_zero, compress, out_of_order, offload, salvage, progress, quiet, force_share, image_opts,
        target_image_opts, bitmaps, skip_broken_bitmaps, confined, checksum, resume;
    struct texts objects;
};

/* The target's format; the sources' one may be NULL. */
static inline const char *convert_format(const struct convert_options *options)
{
    return options->target_format ? options->target_format : "raw";
}

/* convert_streams.c. What a stream cannot do is refused. */
bool convert_streams_check(const struct convert_options *options, const struct texts *arguments, struct error *err);
/* The head of an image that goes to standard output. YIELDS. */
bool convert_streams_begin(struct tool *tool, const struct convert_options *options, struct conversion *all,
                           struct error *err);

#endif
