/* SPDX-License-Identifier: Apache-2.0 */
/* New images from the options of a command line: what `create` and `convert` have in common. */
#ifndef IMAGE_TOOLS_IMG_NEW_IMAGE_H
#define IMAGE_TOOLS_IMG_NEW_IMAGE_H

#include "image-tools/options.h"
#include "image-tools/tool.h"

struct new_image {
    const char *filename, *format;
    const struct texts *options; /* of -o, each KEY=VALUE,... */
    const char *backing, *backing_format;
    uint64_t size;
    bool has_size;       /* else from -o size=, else that of the backing file */
    bool unsafe_backing; /* do not open the backing file */
    bool quiet;          /* do not print the "Formatting" line */
};

/* The format driver. NULL and an error when there is none of that name, or it cannot create images. */
const struct block_driver *new_image_format(struct tool *tool, const char *format, struct error *err);

/* Prints the options of -o when they ask for help. true: that was done. */
bool new_image_help(const struct block_driver *format, const struct texts *options);

/* All -o as one tree; owned. NULL and an error when one of them is malformed. */
struct json *new_image_join(const struct texts *options, struct error *err);
/* The options of a disk of `size` bytes in the type of the format, without making it; to be freed with schema_free().
 */
bool new_image_parse(const struct block_driver *format, const struct texts *options, uint64_t size, void **parsed,
                     struct error *err);

/* YIELDS. */
bool new_image_create(struct tool *tool, const struct new_image *image, struct error *err);

#endif
