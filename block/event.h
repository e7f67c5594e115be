/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of the block layer, for tests: a format says what it is about to do in its file, and a blkdebug node below may
 * let it fail or wait just there. Without one that is a branch that is never taken.
 */
#ifndef BLOCK_EVENT_H
#define BLOCK_EVENT_H

#include "block/driver.h"
#include "qmp/schema/types.h"

struct debug_ops {
    void (*event)(struct node *node, enum blkdebug_event event); /* YIELDS */
    /* The next request that comes to this event waits there, under this name. */
    void (*add_break)(struct node *node, enum blkdebug_event event, const char *tag);
    bool (*remove_break)(struct node *node, const char *tag); /* who waits there goes on. false: no such name */
    bool (*resume)(struct node *node, const char *tag);       /* false: nobody waits under this name */
    bool (*is_waiting)(const struct node *node, const char *tag);
};

/* YIELDS */
static inline void node_event(struct node *node, enum blkdebug_event event)
{
    if (unlikely(node->driver->debug != NULL))
        node->driver->debug->event(node, event);
}

/* YIELDS */
static inline void block_event(const struct edge *edge, enum blkdebug_event event)
{
    node_event(edge->child, event);
}

/* The first node with these abilities on the way down from `node`; NULL: there is none. */
static inline struct node *node_find_debug(struct node *node)
{
    while (node && !node->driver->debug)
        node = node->file ? node->file->child : NULL;
    return node;
}

#endif
