/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File systems that this very program serves (FUSE exports). A node must not be opened through one: the calls that
 * open, close and ask files do not yield, so the loop would wait for answers that only it can give.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include "base/alloc.h"
#include "block/internal.h"

void graph_serve_device(struct graph *graph, uint64_t device)
{
    graph->served = xrealloc_array(graph->served, graph->n_served + 1, sizeof *graph->served);
    graph->served[graph->n_served++] = device;
}

void graph_stop_serving_device(struct graph *graph, uint64_t device)
{
    for (size_t i = 0; i < graph->n_served; i++) {
        if (graph->served[i] == device) {
            graph->served[i] = graph->served[--graph->n_served];
            return;
        }
    }
}

bool graph_serves_path(const struct graph *graph, const char *path)
{
    struct statx found;
    /* DONT_SYNC: what the kernel knows by itself; it asks no file system, least of all us. */
    if (!graph->n_served || statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &found) < 0)
        return false;
    uint64_t device = makedev(found.stx_dev_major, found.stx_dev_minor);
    for (size_t i = 0; i < graph->n_served; i++) {
        if (graph->served[i] == device)
            return true;
    }
    return false;
}
