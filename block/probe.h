/* SPDX-License-Identifier: Apache-2.0 */
/* Which format is an image? Asked only when nobody said: guests can write any signature to a raw disk, so a probed
 * format is a guess that must not be trusted with more than the image itself. */
#ifndef BLOCK_PROBE_H
#define BLOCK_PROBE_H

#include "block/driver.h"

#define PROBE_HEAD_SIZE 2048u

/* The surest format driver for the first bytes; "raw" when no signature is known. Does not yield. */
const struct block_driver *probe_head(const struct graph *graph, const uint8_t *head, size_t size,
                                      const char *filename);

/* Reads the first bytes of a node and probes them. NULL and an error when they cannot be read. YIELDS. */
const struct block_driver *probe_format(struct edge *file, struct error *err);

#endif
