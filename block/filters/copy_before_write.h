/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping the state of a disk at one moment while it goes on being written: a copy-before-write node stands above the
 * disk and copies what is about to be changed to its target. A backup job has it copy the rest, too; a snapshot-access
 * node reads the old state from target and disk.
 *
 *      guest            snapshot-access
 *        |  writes       |  reads the state when the filter was put in
 *     [copy-before-write]
 *        | file    \ target
 *     [disk]       [copy]
 *
 * Everything is in clusters: the unit that is copied. Functions that take an edge enter the node through it, so that
 * they take part in drains.
 */
#ifndef BLOCK_FILTERS_COPY_BEFORE_WRITE_H
#define BLOCK_FILTERS_COPY_BEFORE_WRITE_H

#include "block/request.h"

struct dirty_bitmap;
struct cbw;

bool node_is_copy_before_write(const struct node *node);

/* The clusters that are still to be copied: a bitmap of the filter node, which nobody else may change. */
struct dirty_bitmap *cbw_todo(struct node *node);
uint64_t cbw_cluster_size(struct node *node);
/* An error made the copy worthless (on-cbw-error=break-snapshot): -errno, else 0. */
int cbw_broken(struct node *node);

/* How the copying is done: flags of enum block_copy_flags; `discard`: the source's space is given back behind it. */
void cbw_set_copying(struct node *node, uint32_t flags, bool discard);
/* Is told of every part that need not be copied any more, whoever copied it. */
void cbw_set_progress(struct node *node, void (*progress)(void *user, uint64_t bytes), void *user);

/* Copies what of the span is still to be copied. 0 or -errno, with the side that failed. YIELDS. */
int cbw_copy(struct edge *edge, uint64_t offset, uint64_t length, bool *read_failed);
/* Leaves out of the copy what the span's first status says is not allocated in the topmost image of the disk; *done is
 * how far that goes, *skipped how much it was. YIELDS. */
int cbw_skip_unallocated(struct edge *edge, uint64_t offset, uint64_t length, uint64_t *done, uint64_t *skipped);

/* The old state, for snapshot-access. `node` has been entered. YIELD. */
int cbw_snapshot_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to);
int cbw_snapshot_extent(struct node *node, uint64_t offset, uint64_t length, struct extent *extent);
/* Nobody will read the span again: it need not be kept, nor copied. */
int cbw_snapshot_discard(struct node *node, uint64_t offset, uint64_t length);

#endif
