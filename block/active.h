/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing nodes over (blockdev-set-active): an inactive node has written everything, closed its image and let go of its
 * locks, so that another process may use the image; when it becomes active again, it opens the image anew and sees what
 * has become of it. Only nodes that nobody uses can be handed over, but for exports that say that they do not mind.
 */
#ifndef BLOCK_ACTIVE_H
#define BLOCK_ACTIVE_H

#include "block/node.h"

/* Both YIELD; nothing happens when the node is what it shall be. */
bool node_deactivate(struct node *node, struct error *err);
bool node_activate(struct node *node, struct error *err);
/* A node that has just been made and was never open (blockdev-add with active=false) is inactive from now on. */
void node_be_inactive(struct node *node);
/* The size of the disk that a node of these options would be. No lock is taken, and nodes that are inactive are looked
 * through. YIELDS. */
bool graph_look_at(struct graph *graph, const struct blockdev_options *options, uint64_t *size, struct error *err);
/* All nodes made by the user, users before those they use, or the other way round. */
bool graph_set_active(struct graph *graph, bool active, struct error *err);

#endif
