/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The write log: what keeps answered writes when the program is killed (write_log.c), and dirty bitmaps when it is
 * killed or power fails (dirty_log.c). Both live in one area of the file that the header names in an extension of our
 * own, and exist only while the image is in use: a closed image has no trace of them.
 */
#ifndef FORMATS_QCOW2_WRITE_LOG_H
#define FORMATS_QCOW2_WRITE_LOG_H

#include "formats/qcow2/state.h"

/* A change of guest clusters that the log on disk knows and the L2 tables do not. */
struct log_change {
    uint64_t cluster; /* of the guest */
    uint64_t order;   /* later ones win */
    struct l2_entry entry;
    bool stays; /* at the place that the entry on disk names: its cluster is counted already */
};

/* Opening ------------------------------------------------------------------------------------------------------------
 */

/* Is there a log that may be believed? */
bool log_is_valid(const struct qcow2 *q);
/* Reads what must be done again into q->recovery. Changes nothing. */
bool log_load(struct qcow2 *q, struct error *err);
/* Does it again and writes it; `counted`: the refcounts were made anew, with q->recovery in mind. */
bool log_replay(struct qcow2 *q, bool counted, struct error *err);
/* Takes the area and the extension away, durably. Under no lock. */
bool log_drop(struct qcow2 *q, struct error *err);

/* Living -------------------------------------------------------------------------------------------------------------
 */

void log_init(struct qcow2 *q);
void log_release(struct qcow2 *q);
/* The area is there when this returns, unless the image cannot have one (q->log.active tells). Under the lock. */
int log_begin(struct qcow2 *q);
/* The same for the sake of a write: nothing, where only bitmaps are worth a log. */
static inline int log_begin_for_write(struct qcow2 *q)
{
    return q->log.for_bitmaps_only ? 0 : log_begin(q);
}
/* `count` guest clusters from `cluster` have got new entries: the same, or (advances) of neighbouring places. In memory
 * only; under the lock, behind log_begin(). Does not yield. */
void log_note(struct qcow2 *q, uint64_t cluster, struct l2_entry entry, uint32_t count, bool advances);
/* At the end of an operation that noted something, under the lock: what did not fit is settled by a sync. */
int log_settle(struct qcow2 *q, uint64_t *ticket);
/* Until everything that was noted up to the ticket would survive the end of this process. Without the lock, but with
 * the claim: nobody else may be told of a write to these clusters before. */
int log_wait(struct qcow2 *q, uint64_t ticket);
/* The L2 tables hold everything that was noted (not yet durably). Under the lock. */
int log_reset(struct qcow2 *q);

/* dirty_log.c --------------------------------------------------------------------------------------------------------
 */

/* A span of the disk is about to change. */
int dirty_log_cover_slowly(struct qcow2 *q, uint64_t offset, uint64_t length);
static inline int dirty_log_cover(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    return likely(list_empty(&q->node->bitmaps)) ? 0 : dirty_log_cover_slowly(q, offset, length);
}
/* Everything that was written since a bitmap on disk was right, into the bitmaps that were in use. */
bool dirty_log_recover(struct qcow2 *q, struct error *err);
/* Bitmaps on disk are made up to date and the regions forgotten, when it is time or `now`. Without the lock. */
int dirty_log_checkpoint(struct qcow2 *q, bool now);
void dirty_log_begin(struct qcow2 *q); /* the area is new and empty */
void dirty_log_release(struct qcow2 *q);
uint32_t dirty_log_region_bits(uint64_t size);

#endif
