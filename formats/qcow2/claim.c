/* SPDX-License-Identifier: Apache-2.0 */
/* Who is working on which guest clusters; see the header. Ended claims are kept for the next request. */
#include "formats/qcow2/claim.h"

#include "base/alloc.h"

struct claim *claim_conflict(struct qcow2 *q, uint64_t begin, uint64_t end, bool shared)
{
    struct claim *claim;
    list_for_each (claim, &q->claims, link) {
        if (claim->begin < end && begin < claim->end && !(shared && claim_is_shared(claim)))
            return claim;
    }
    return NULL;
}

struct claim *claim_take(struct qcow2 *q, uint64_t begin, uint64_t end, enum claim_kind kind)
{
    struct claim *claim = list_first(&q->spare_claims, struct claim, link);
    if (claim)
        list_remove(&claim->link);
    else
        claim = new (struct claim);
    claim->begin = begin;
    claim->end = end;
    claim->kind = kind;
    claim->host = claim->bytes = 0;
    co_queue_init(&claim->waiters);
    list_append(&q->claims, &claim->link);
    return claim;
}

void claim_wait(struct claim *claim)
{
    co_queue_wait_uncancellable(&claim->waiters);
}

void claim_release(struct qcow2 *q, struct claim *claim)
{
    list_remove(&claim->link);
    list_prepend(&q->spare_claims, &claim->link);
    co_queue_wake_all(&claim->waiters);
}

struct claim *claim_exclusive(struct qcow2 *q, uint64_t begin, uint64_t end)
{
    struct claim *other;
    while ((other = claim_conflict(q, begin, end, false)))
        claim_wait(other);
    return claim_take(q, begin, end, CLAIM_OTHER);
}

void claims_destroy(struct qcow2 *q)
{
    struct claim *claim;
    list_for_each_safe (claim, &q->spare_claims, link) {
        list_remove(&claim->link);
        free(claim);
    }
}
