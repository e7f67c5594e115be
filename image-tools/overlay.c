/* SPDX-License-Identifier: Apache-2.0 */
/* A temporary overlay takes the writes to an image that shall not change; its file is gone from the folder as soon as
 * it is open. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "block/create.h"
#include "image-tools/tool.h"
#include "qmp/schema/types.h"

struct edge *tool_open_overlay(struct tool *tool, const char *path, const char *format, const struct open_mode *wanted,
                               struct error *err)
{
    struct open_mode mode = *wanted;
    const struct block_driver *qcow2 = graph_driver(tool->graph, "qcow2");
    const char *folder = getenv("TMPDIR");
    auto_free char *name = xasprintf("%s/spindle.XXXXXX", folder ? folder : "/var/tmp");
    auto_free char *absolute = realpath(path, NULL);
    mode.read_only = true;
    struct edge *base = tool_open(tool, path, false, format, &mode, 0, err);
    if (!base)
        return NULL;
    if (!absolute || !qcow2) {
        tool_close(base);
        return fail_null(err, ENOENT, "Cannot put an overlay on '%s': it has no path of its own", path);
    }
    auto_qcow2_create_options *options = qcow2_create_options_new();
    options->has_size = true;
    options->size = base->child->size;
    options->backing_file = TAKE(absolute);
    options->backing_fmt = xstrdup(base->child->driver->name);
    tool_close(base);
    auto_close int fd = mkstemp(name);
    if (fd < 0)
        return fail_errno_null(err, errno, "Cannot make a temporary file in '%s'", folder ? folder : "/var/tmp");
    struct edge *edge = NULL;
    mode.read_only = false;
    if (image_create(tool->graph, name, qcow2, options, err))
        edge = tool_open(tool, name, false, "qcow2", &mode,
                         BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, err);
    unlink(name);
    return edge;
}
