/* SPDX-License-Identifier: Apache-2.0 */
/* What an image says about its backing file, and giving everything back to it after a commit. */
#include "formats/qcow2/state.h"

#include <string.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"

bool qcow2_change_backing(struct node *node, const char *name, const char *format, struct error *err)
{
    struct qcow2 *q = node->state;
    if (q->broken)
        return fail(err, EIO, "the image is corrupt: its header cannot be changed");
    if (name && q->raw_data)
        return fail(err, EINVAL, "an image whose data file is raw cannot have a backing file");
    struct header now = q->header;
    now.backing_name = (char *)name;
    now.backing_format = name ? (char *)format : NULL;
    /* What refers to data must not be newer than the header, nor the other way round: see `rebase`. */
    int result = qcow2_sync_durable(q);
    if (result)
        return fail_errno(err, result, "cannot write the image's metadata");
    if (!header_rewrite(q, &now, err))
        return false;
    char *old_name = q->header.backing_name, *old_format = q->header.backing_format;
    q->header.backing_name = name ? xstrdup(name) : NULL;
    q->header.backing_format = now.backing_format ? xstrdup(format) : NULL;
    free(old_name);
    free(old_format);
    return true;
}

bool qcow2_make_empty(struct node *node, struct error *err)
{
    struct qcow2 *q = node->state;
    if (q->broken)
        return fail(err, EIO, "the image is corrupt: it cannot be emptied");
    node_mark_written(node);
    block_event(q->file, BLKDEBUG_EVENT_EMPTY_IMAGE_PREPARE);
    int result = qcow2_unmap_span(q, 0, cluster_end(q, q->size), true, FREE_OTHER);
    if (!result)
        result = qcow2_sync_durable(q);
    return !result || fail_errno(err, result, "cannot give the image's clusters back");
}
