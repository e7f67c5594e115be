/* SPDX-License-Identifier: Apache-2.0 */
/* The filters' drivers, and what a filter that passes everything on has in common with the others. */
#ifndef BLOCK_FILTERS_FILTERS_H
#define BLOCK_FILTERS_FILTERS_H

#include "block/driver.h"
#include "block/request.h"

extern const struct block_driver blkdebug_driver, blklogwrites_driver, blkverify_driver, compress_driver,
    copy_before_write_driver, copy_on_read_driver, preallocate_driver, quorum_driver, snapshot_access_driver,
    throttle_driver;

/* Opens `ref` as the file and takes its size and abilities over. What the filter needs of it follows from the
 * parents. */
struct blockdev_ref;
bool filter_open_file(struct node *node, const struct blockdev_ref *ref, struct error *err);

/* Driver functions that pass a request on to the file. */
int filter_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags);
int filter_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags);
int filter_write_compressed(struct node *node, uint64_t offset, uint64_t length, struct buffers from);
int filter_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags);
int filter_discard(struct node *node, uint64_t offset, uint64_t length);
bool filter_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact, struct error *err);

#endif
