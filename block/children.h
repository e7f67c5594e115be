/* SPDX-License-Identifier: Apache-2.0 */
/* Children that come and go while their parent is in use (x-blockdev-change). A driver says how by its add_child and
 * remove_child. */
#ifndef BLOCK_CHILDREN_H
#define BLOCK_CHILDREN_H

#include "block/node.h"

/* Both drain the parent, and change nothing when they fail. YIELD. */
bool node_add_child(struct node *parent, struct node *child, struct error *err);
bool node_remove_child(struct node *parent, const char *role, struct error *err);

#endif
