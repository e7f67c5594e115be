/* SPDX-License-Identifier: Apache-2.0 */
/* Probing: every format driver says how sure it is about the first bytes; the surest wins, and raw, which is never
 * sure, is what remains. */
#include "block/probe.h"

#include <string.h>
#include "block/internal.h"

const struct block_driver *probe_head(const struct graph *graph, const uint8_t *head, size_t size, const char *filename)
{
    const struct block_driver *best = NULL;
    int best_score = 0;
    for (const struct block_driver *const *driver = graph_drivers(graph); *driver; driver++) {
        int score = (*driver)->probe ? (*driver)->probe(head, size, filename ? filename : "") : 0;
        if (score > best_score) {
            best = *driver;
            best_score = score;
        }
    }
    return best;
}

const struct block_driver *probe_format(struct edge *file, struct error *err)
{
    const struct node *node = file->child;
    uint8_t head[PROBE_HEAD_SIZE] = {0};
    size_t size = MIN(node->size, sizeof head);
    int result = size ? block_read_buffer(file, 0, head, size) : 0;
    if (result < 0) {
        fail_errno(err, -result, "Could not read '%s' to find its format",
                   node->filename ? node->filename : node->name);
        return NULL;
    }
    const struct block_driver *driver = probe_head(node->graph, head, size, node->filename);
    if (!driver)
        fail(err, EINVAL, "No driver knows the format of '%s'", node->filename ? node->filename : node->name);
    return driver;
}
