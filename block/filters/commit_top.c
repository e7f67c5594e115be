/* SPDX-License-Identifier: Apache-2.0 */
/* commit_top: see mirror_top.h. */
#include "block/filters/filters.h"
#include "block/filters/mirror_top.h"
#include "qmp/schema/types.h"

static bool top_open(struct node *node, struct error *err)
{
    return filter_open_file(node, node->options->u.raw.file, err);
}

/* What lies above goes on reading the same: the images between are complete in what they have. */
static bool top_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return edge_check_perm(node->file, 0, BLOCK_PERM_ALL, err);
}

static void top_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    if (node->file)
        edge_apply_perm(node->file, 0, BLOCK_PERM_ALL);
}

const struct block_driver commit_top_driver = {
    .name = "commit_top",
    .kind = DRIVER_FILTER,
    .open = top_open,
    .read = filter_read,
    .check_perm = top_check_perm,
    .set_perm = top_set_perm,
};
