/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of block/ share and nobody else needs. */
#ifndef BLOCK_INTERNAL_H
#define BLOCK_INTERNAL_H

#include "base/list.h"
#include "block/driver.h"
#include "block/node.h"
#include "block/request.h"

struct blockdev_options;
struct json;

struct graph {
    struct loop *loop;
    const struct block_driver **drivers; /* owned array, ends with NULL */
    size_t n_drivers;
    struct list nodes;   /* by graph_link, in order of creation */
    struct list opening; /* by opening_link: drivers are opening them */
    unsigned next_id;    /* of made-up node names */
    struct graph_events events;
    struct object_set *objects; /* what options refer to by id; NULL: the program has none */
    size_t drains;              /* in force, on any node */
    bool is_private;            /* graph_set_private() */
    uint64_t *served;           /* file systems of our own: served.c */
    size_t n_served;
    uint64_t visits; /* walks through the graph; node->visited is the last that met the node */
};

/* graph.c --------------------------------------------------------------------------------------------------------- */

/* How a node comes into being, beyond its options. */
struct open_context {
    struct node *opener; /* the node whose child it becomes, or NULL */
    bool probed, probed_by_image, metadata_only;
};
struct node *graph_open(struct graph *graph, const struct blockdev_options *options, const struct open_context *context,
                        struct error *err);
/* Opens an inline definition, or finds the node referred to; one reference for the caller. */
struct node *graph_resolve(struct graph *graph, const struct blockdev_ref *ref, const struct open_context *context,
                           struct error *err);
/* A copy of `options` in which what a child takes over from its parent is filled in where it is absent. */
struct blockdev_options *graph_inherit(const struct node *parent, const char *role,
                                       const struct blockdev_options *options);
/* Attaches an opened child under a role; refuses loops. Takes over the reference, also on failure. */
struct edge *graph_attach_child(struct node *parent, const char *role, struct node *child, uint32_t perm,
                                uint32_t shared, struct error *err);
/* Applies the options and has the driver open the node. */
bool node_open_driver(struct node *node, struct error *err);
/* The generic options into the node's fields; refuses contradictions. */
bool node_apply_options(struct node *node, const struct blockdev_options *options, struct error *err);

/* perm.c ---------------------------------------------------------------------------------------------------------- */

void perm_for_backing(const struct node *parent, const struct edge *edge, uint32_t perm, uint32_t *backing_perm,
                      uint32_t *backing_shared);
bool perm_check_parents(struct node *node, struct error *err);
void perm_apply_below(struct node *node);

/* name.c ---------------------------------------------------------------------------------------------------------- */

/* The path that a name without options means; NULL and an error for an unknown protocol. */
char *name_to_path(const char *filename, struct error *err);
bool name_is_device(const struct graph *graph, const char *path);

/* options_tree.c: brings an object with node options, as people may write them, into the form of the schema. */
void options_tree_complete(const struct graph *graph, struct json *tree);

/* drain.c --------------------------------------------------------------------------------------------------------- */

/* To be called when edges of `node` have changed while graph->drains is not 0. */
void drain_refresh(struct node *node);

/* Must a request wait before it enters the graph through this edge? */
static inline bool edge_is_held(const struct edge *edge)
{
    return edge->child->quiesced && !edge->parent;
}

/* request.c, flush.c, zero.c, mapper.c ---------------------------------------------------------------------------- */

/* Any span, inside the node's size and allowed; the caller has entered the node. */
int node_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags);
int node_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags);
int node_flush(struct node *node);

/* The data loops of mapper drivers. */
int mapper_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags);
int mapper_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags);

/* What this layer alone says about a span; never longer than asked, never 0. */
int node_extent(struct node *node, uint64_t offset, uint64_t length, struct extent *extent);

/* Largest piece that bounce buffers and zero buffers are cut into. */
#define BOUNCE_SIZE (1 * MiB)

#endif
