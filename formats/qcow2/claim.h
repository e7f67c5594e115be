/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Claims: spans of guest clusters that somebody is working on. A write into clusters that are there already holds a
 * *shared* claim; what changes a mapping (allocating write, zero, discard, compressed write) holds an *exclusive* one,
 * from before it looks at the mapping until the mapping is changed. So a discard never frees a cluster that a write is
 * still filling, two writes never allocate for the same cluster, and copy on write reads a source that stays.
 *
 * Only requests in flight have claims: the list is as long as the queue is deep, and is searched in order.
 */
#ifndef FORMATS_QCOW2_CLAIM_H
#define FORMATS_QCOW2_CLAIM_H

#include "formats/qcow2/state.h"

enum claim_kind {
    CLAIM_IN_PLACE,     /* shared: nothing to commit */
    CLAIM_NEW_CLUSTERS, /* exclusive: `clusters` new ones at `host` */
    CLAIM_REUSE,        /* exclusive: the clusters' own places in the file become valid */
    CLAIM_COMPRESSED,   /* exclusive: `bytes` at `host` are counted, and nobody names them yet */
    CLAIM_OTHER,        /* exclusive: zero, discard, compressed write */
};

struct claim {
    struct list link;
    uint64_t begin, end; /* guest cluster indexes, end is behind the last */
    enum claim_kind kind;
    uint64_t host; /* of cluster `begin` */
    uint64_t bytes;
    struct co_queue waiters;
};

static inline bool claim_is_shared(const struct claim *claim)
{
    return claim->kind == CLAIM_IN_PLACE;
}

/* The first claim in the way of a new one over [begin, end), or NULL. Does not yield. */
struct claim *claim_conflict(struct qcow2 *q, uint64_t begin, uint64_t end, bool shared);
struct claim *claim_take(struct qcow2 *q, uint64_t begin, uint64_t end, enum claim_kind kind); /* no conflict may be */
void claim_wait(struct claim *claim); /* until it ends; YIELDS, look again afterwards */
void claim_release(struct qcow2 *q, struct claim *claim);
/* Waits for all conflicts and takes. YIELDS. */
struct claim *claim_exclusive(struct qcow2 *q, uint64_t begin, uint64_t end);
void claims_destroy(struct qcow2 *q);

#endif
