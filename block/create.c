/* SPDX-License-Identifier: Apache-2.0 */
/* Making and resizing images. A new image is first a file, then, for a format with metadata of its own, an open file
 * that the format fills. Nobody else may use the file meanwhile. */
#include "block/create.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include "base/cleanup.h"
#include "block/internal.h"
#include "block/name.h"
#include "qmp/schema/types.h"

const struct schema_type *image_create_options_type(const struct block_driver *format)
{
    return format->create ? format->create->options_type : NULL;
}

const struct block_driver *create_protocol(struct graph *graph, const char *filename, struct error *err)
{
    auto_free char *path = name_to_path(filename, err);
    if (!path)
        return NULL;
    const char *name = name_is_device(graph, path) ? "host_device" : "file";
    const struct block_driver *driver = graph_driver(graph, name);
    if (!driver)
        return fail_null(err, ENOTSUP, "Driver '%s' is not part of this program", name);
    return driver;
}

static bool write_format(struct graph *graph, const char *filename, const struct block_driver *format, void *options,
                         struct error *err)
{
    struct node *file = node_open_protocol(graph, filename, &(struct open_mode){.unmap = true}, err);
    if (!file)
        return false;
    struct edge *edge = edge_attach(NULL, "image creation", file, BLOCK_PERM_ALL, BLOCK_PERM_CONSISTENT_READ, err);
    node_unref(file);
    if (!edge)
        return false;
    bool ok = format->create->create_format(graph, edge, filename, options, err);
    if (ok) {
        int result = block_flush(edge);
        ok = !result || fail_errno(err, -result, "Could not flush '%s'", filename);
    }
    edge_detach(edge);
    return ok;
}

bool image_create(struct graph *graph, const char *filename, const struct block_driver *format, void *options,
                  struct error *err)
{
    return image_create_in(graph, filename, format, options, NULL, err);
}

bool image_create_in(struct graph *graph, const char *filename, const struct block_driver *format, void *options,
                     const struct file_create_options *file, struct error *err)
{
    if (!format->create)
        return fail(err, ENOTSUP, "Format driver '%s' does not support image creation", format->name);
    const struct block_driver *protocol = create_protocol(graph, filename, err);
    if (!protocol)
        return false;
    if (!protocol->create)
        return fail(err, ENOTSUP, "Protocol driver '%s' does not support image creation, so '%s' must exist already",
                    protocol->name, filename);
    auto_free char *path = name_to_path(filename, err);
    if (!format->create->create_format)
        return protocol->create->create_file(graph, path, options, err);
    auto_raw_create_options *empty = raw_create_options_new();
    if (file) {
        empty->nocow = file->nocow;
        empty->extent_size_hint = file->extent_size_hint;
    }
    return protocol->create->create_file(graph, path, empty, err) &&
           write_format(graph, filename, format, options, err);
}

bool node_resize(struct edge *edge, uint64_t size, enum preallocation preallocation, bool exact, struct error *err)
{
    struct node *node = edge->child;
    if (!node->driver->resize)
        return fail(err, ENOTSUP, "Image format driver '%s' does not support resize", node->driver->name);
    if (node->read_only)
        return fail(err, EACCES, "Image of node '%s' is read-only", node->name);
    if (!(edge->perm & BLOCK_PERM_RESIZE))
        return fail(err, EPERM, "%s may not resize node '%s'", edge->role, node->name);
    if (size > INT64_MAX)
        return fail(err, EFBIG, "Image size %" PRIu64 " is too large: the limit is 2^63 - 1 bytes", size);
    node_drain_begin(node);
    bool ok = node->driver->resize(node, size, preallocation, exact, err);
    node_mark_written(node);
    node_drain_end(node);
    return ok;
}
