/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A check while the image is in use (check_live.c) wants to know which clusters move. Who changes counts, or gives
 * references up, says so here; without a check this costs one comparison.
 */
#ifndef FORMATS_QCOW2_LIVE_H
#define FORMATS_QCOW2_LIVE_H

#include "formats/qcow2/state.h"

void live_touch_slowly(struct live_check *live, uint64_t first, uint64_t count);

/* The span's clusters: their counts change, or a reference to them goes. Under the lock. */
static inline void live_touch(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    if (unlikely(q->live != NULL) && length)
        live_touch_slowly(q->live, cluster_index(q, offset),
                          cluster_index(q, offset + length - 1) - cluster_index(q, offset) + 1);
}

/* Tables change as a whole: a check that is under way must begin anew. */
void live_restart(struct qcow2 *q);

extern const struct live_check_ops qcow2_live_check_ops;

#endif
