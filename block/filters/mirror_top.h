/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filters that jobs put above their sources; users cannot name them.
 *
 * mirror_top stands above the source of a mirror (or of an active commit), has the copy as its target, and moves the
 * data on behalf of the job. In write-blocking mode, what a guest writes goes to both.
 *
 * commit_top stands above the uppermost image of a commit while that is moved into an image further down. It does
 * nothing to requests: it takes from the images below the need to be consistent, which those between are not meanwhile.
 */
#ifndef BLOCK_FILTERS_MIRROR_TOP_H
#define BLOCK_FILTERS_MIRROR_TOP_H

#include "block/request.h"

struct dirty_bitmap;

extern const struct block_driver mirror_top_driver, commit_top_driver;

struct mirror_top_setup {
    const char *name; /* of the filter node; NULL: made up */
    struct node *source;
    uint32_t granularity;
    bool is_commit; /* the target is below the source: what lies between need not stay consistent */
};

/* Makes the filter; it is not in use yet. One reference for the caller. YIELDS. */
struct node *mirror_top_open(const struct mirror_top_setup *setup, struct error *err);
/* To be called before the filter copies or is write-blocking, and, for a commit, when it is in use: only then the
 * images between need not be consistent any more. YIELDS. */
bool mirror_top_set_target(struct node *node, struct node *target, uint32_t shared, struct error *err);

/* What is to be copied: a recording bitmap of the source. */
struct dirty_bitmap *mirror_top_dirty(struct node *node);
void mirror_top_set_write_blocking(struct node *node);
bool mirror_top_is_write_blocking(const struct node *node);
/* The target gets no writes any more, and may be used by others: before the filter is taken out. */
void mirror_top_retire(struct node *node);
int mirror_top_flush_target(struct node *node);   /* also while the caller has drained the node. YIELDS */
bool mirror_top_is_busy(const struct node *node); /* a copy or a write to both is in flight */
/* The first error of a guest's write to the target since the last call; 0: none. */
int mirror_top_take_error(struct node *node);
void mirror_top_set_kick(struct node *node, void (*kick)(void *user), void *user); /* after such an error */

/* Copies a span of the source; its dirty bits are reset before, and set again when that fails. YIELDS. */
int mirror_top_copy(struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags, bool *read_failed);

#endif
