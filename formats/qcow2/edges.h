/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The edges of the write order (the essay of sync.c), each with its name: a barrier says what it stands between. With a
 * name missing, an image survives every orderly day and breaks on the wrong power cut; so tests/sim builds this folder
 * once for each edge with SPINDLE_PLANT set to it, in which that one barrier does nothing, and proves that its cuts
 * find every one of these bugs.
 */
#ifndef FORMATS_QCOW2_EDGES_H
#define FORMATS_QCOW2_EDGES_H

#include "formats/qcow2/state.h"

enum order_edge {
    EDGE_NONE,
    EDGE_COUNTED_BEFORE_NAMED, /* data and refcounts, before the L2 and L1 entries that name the clusters */
    EDGE_UNNAMED_BEFORE_FREED, /* the entries that named a cluster are gone, before it is given to somebody else */
    EDGE_BLOCK_BEFORE_TABLE,   /* a refcount block, before the table entry that names it */
    EDGE_TABLE_BEFORE_HEADER,  /* a new refcount table, before the header names it */
    EDGE_HEADER_BEFORE_OLD,    /* the header that names it, before the old table's place is given away */
    EDGE_ZEROES_BEFORE_SIZE,   /* what a larger disk gains reads as zeroes, before it is larger */
    EDGE_MAP_BEFORE_ANSWER,    /* the entries of a durable write, before it is answered */
    EDGE_UNREAD_BEFORE_HOLE,   /* entries that read from a place are gone, before a hole is made in it that decrypts to
                                  noise */
};

#ifndef SPINDLE_PLANT
#define SPINDLE_PLANT EDGE_NONE
#endif

static inline int order_barrier(struct qcow2 *q, enum order_edge edge)
{
    return edge == SPINDLE_PLANT ? 0 : qcow2_barrier(q);
}

#endif
