/* SPDX-License-Identifier: Apache-2.0 */
/* New images. The protocol makes the file, the format writes its metadata into it. */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include "block/driver.h"

/* The protocol driver that a file name belongs to; NULL and an error for a protocol this program does not have. */
const struct block_driver *create_protocol(struct graph *graph, const char *filename, struct error *err);

/* Makes `filename` as an image of `format`. `options` is the C type of format->create->options_type. An existing file
 * is emptied, unless somebody is using it. YIELDS. */
bool image_create(struct graph *graph, const char *filename, const struct block_driver *format, void *options,
                  struct error *err);

/* The same, with options of the file that holds the image; `file` NULL: the defaults. A raw image has its own. YIELDS.
 */
struct file_create_options;
bool image_create_in(struct graph *graph, const char *filename, const struct block_driver *format, void *options,
                     const struct file_create_options *file, struct error *err);

/* The options type of a format's `-o`; NULL when the format cannot create images. */
const struct schema_type *image_create_options_type(const struct block_driver *format);

/* Changes the size that the parents of `edge` see; the edge must have the resize permission. YIELDS, drains the node.
 */
bool node_resize(struct edge *edge, uint64_t size, enum preallocation preallocation, bool exact, struct error *err);

#endif
