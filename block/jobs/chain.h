/* SPDX-License-Identifier: Apache-2.0 */
/* Backing chains, for the jobs that join layers. */
#ifndef BLOCK_JOBS_CHAIN_H
#define BLOCK_JOBS_CHAIN_H

#include "block/node.h"

/* Past filters, to the image. */
struct node *chain_image(struct node *node);
/* Is `wanted` (an image, or a filter above one) in the backing chain of `top`, or `top` itself? */
bool chain_has(struct node *top, struct node *wanted);
struct node *chain_bottom(struct node *top);
/* The image of the chain with this file name, below `top` or `top` itself; NULL: none. */
struct node *chain_find_file(struct node *top, const char *filename);
/* The overlay of `image` in the chain of `top`, NULL when it is `top`. */
struct node *chain_overlay(struct node *top, const struct node *image);

/* Changes what an image in use says about its backing file; an image that was opened read-only is reopened for it.
 * `backing` NULL: it has none. `name` NULL: that of the backing node. `masks_protocol`: a backing file without a format
 * is called raw. YIELDS. */
bool chain_rename_backing(struct node *overlay, struct node *backing, const char *name, bool masks_protocol,
                          struct error *err);

#endif
