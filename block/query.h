/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptions of nodes in the schema's types, for `img info` and the query- commands. Results are owned by the caller
 * and freed with the types' own functions. All YIELD; NULL and an error when a driver cannot tell what it must.
 */
#ifndef BLOCK_QUERY_H
#define BLOCK_QUERY_H

#include "block/node.h"
#include "qmp/schema/types.h"

/* `with_backing`: the images below go into backing_image, as deep as the chain is. */
struct image_info *node_query_image(struct node *node, bool with_backing, struct error *err);

/* The node and all nodes below it but the backing chain, which has descriptions of its own. */
struct block_graph_info *node_query_graph(struct node *node, struct error *err);

/* `flat`: without backing images. */
struct block_device_info *node_query_device(struct node *node, bool flat, struct error *err);

/* The size of the clusters in which a format allocates, through filters and raw layers; 0 when there are none. Does not
 * yield. */
uint64_t node_cluster_size(struct node *node);
/* Does it take compressed writes? Encrypted images do not: compressed clusters are stored in clear. Does not yield. */
bool node_compresses(struct node *node);

#endif
