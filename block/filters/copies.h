/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of which every child of a node has a copy (quorum, blkverify). A *round* is one request made of all children
 * at the same time, each with a result of its own; what follows from the results is the driver's business.
 *
 * Copies stay the same only if all of them see overlapping writes in one order, and can be compared only while nobody
 * changes them. So a change holds off every overlapping round, and a round that compares holds off overlapping changes.
 */
#ifndef BLOCK_FILTERS_COPIES_H
#define BLOCK_FILTERS_COPIES_H

#include "block/filters/filters.h"
#include "block/filters/ranges.h"

struct copies {
    struct list changes, comparisons; /* of struct range: in flight */
    uint32_t perm, shared;            /* of the parents, all together */
    uint32_t more;                    /* what the driver needs of its children beyond that */
};

enum round_kind { ROUND_READ, ROUND_PREFETCH, ROUND_WRITE, ROUND_ZERO, ROUND_FLUSH };

struct turn { /* a child's part in a round */
    struct round *round;
    struct edge *edge;
    int result;
    uint8_t *buffer; /* ROUND_READ: what this child says */
};

struct round {
    struct node *node;
    enum round_kind kind;
    uint64_t offset, length;
    struct buffers from; /* ROUND_WRITE */
    uint32_t flags;
    struct turn *turns;
    size_t count;
    struct range range;
};

void copies_init(struct copies *copies, uint32_t more);
size_t copies_count(const struct node *node);

/* Asks all children and waits for all answers; 0, or -ENOMEM before anybody was asked. What a read brings is in buffers
 * of our own: comparing bytes in the memory of a guest, which changes them as it likes, would say nothing. After a
 * result of 0 comes round_end(). Both YIELD. */
int round_run(struct copies *copies, struct round *round);
void round_end(struct round *round);

/* Does the child say the same as the other one? Otherwise *where is the first byte that differs. */
bool turns_agree(const struct turn *one, const struct turn *other, uint64_t *where);

/* The children get what the parents need, and others do not write to them meanwhile. */
bool copies_check_perm(struct copies *copies, struct node *node, uint32_t perm, uint32_t shared, struct error *err);
void copies_set_perm(struct copies *copies, struct node *node, uint32_t perm, uint32_t shared);
/* One more child, with those permissions. */
struct edge *copies_open(struct copies *copies, struct node *node, const char *role, const struct blockdev_ref *ref,
                         struct error *err);
struct edge *copies_attach(struct copies *copies, struct node *node, const char *role, struct node *child,
                           struct error *err);

#endif
