/* SPDX-License-Identifier: Apache-2.0 */
/* See new_image.h. */
#include "storage-daemon/new_image.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/name.h"
#include "qmp/schema/types.h"

static const struct node *image_of(const struct node *node)
{
    while (node->driver->kind == DRIVER_FILTER && node->file)
        node = node->file->child;
    return node;
}

static const char *format_of(const struct new_image *image)
{
    const struct node *like = image_of(image->like);
    if (image->format)
        return image->format;
    if (image->is_overlay)
        return "qcow2";
    return like->driver->kind == DRIVER_FORMAT ? like->driver->name : "raw";
}

static bool make_qcow2(const struct new_image *image, const struct block_driver *driver, struct error *err)
{
    const struct node *like = image_of(image->like);
    auto_qcow2_create_options *options = qcow2_create_options_new();
    options->has_size = true;
    options->size = image->size ? image->size : like->size;
    if (image->is_overlay) {
        options->backing_file = xstrdup(like->filename);
        options->backing_fmt = xstrdup(like->driver->name);
    }
    return image_create(like->graph, image->filename, driver, options, err);
}

static bool make_raw(const struct new_image *image, const struct block_driver *driver, struct error *err)
{
    if (image->is_overlay)
        return fail(err, ENOTSUP, "Format 'raw' has no backing files");
    auto_raw_create_options *options = raw_create_options_new();
    options->has_size = true;
    options->size = image->size ? image->size : image->like->size;
    return image_create(image->like->graph, image->filename, driver, options, err);
}

static bool make(const struct new_image *image, const char *format, struct error *err)
{
    const struct block_driver *driver = graph_driver(image->like->graph, format);
    if (!driver || driver->kind != DRIVER_FORMAT)
        return fail(err, ENOENT, "Unknown file format '%s'", format);
    if (!strcmp(format, "qcow2"))
        return make_qcow2(image, driver, err);
    if (!strcmp(format, "raw"))
        return make_raw(image, driver, err);
    return fail(err, ENOTSUP, "Images of format '%s' are not made by this command", format);
}

struct node *new_image_open(const struct new_image *image, struct error *err)
{
    const char *format = format_of(image);
    if (!image->exists && !make(image, format, err))
        return NULL;
    const struct open_mode mode = {
        .direct = image->like->direct,
        .no_flush = image->like->no_flush,
        .unmap = image->like->discard == BLOCK_DISCARD_UNMAP,
        .no_backing = true,
        .node_name = image->node_name,
    };
    return node_open_filename(image->like->graph, image->filename, format, &mode, err);
}
