/* SPDX-License-Identifier: Apache-2.0 */
/* How long requests from outside of the graph take: sums, and histograms for those who want them. */
#ifndef BLOCK_LATENCY_H
#define BLOCK_LATENCY_H

#include <stdbool.h>
#include "block/node.h"

enum latency_kind { LATENCY_READ, LATENCY_WRITE, LATENCY_FLUSH, LATENCY_DISCARD };

/* bins[i] counts what took less than boundaries[i] and no less than boundaries[i - 1], in nanoseconds; the last bin has
 * no upper boundary. */
struct latency_histogram {
    size_t n_boundaries;
    uint64_t *boundaries, *bins; /* bins: one more */
};

/* The bins of node->stats.latencies: where bin `i` ends, in nanoseconds; the last one has no end. */
static inline uint64_t latency_bin_end(unsigned i)
{
    return UINT64_C(1000) << i;
}

/* Counts anew in these bins; no boundaries: stops counting. They must be ascending. Not for LATENCY_DISCARD. */
bool latency_set_histogram(struct node *node, enum latency_kind kind, const uint64_t *boundaries, size_t count,
                           struct error *err);
void latency_free(struct node *node);

/* The time now for an edge from outside, 0 for others; and what came of it. */
uint64_t latency_start(const struct edge *edge);
void latency_end(struct node *node, enum latency_kind kind, uint64_t start_ns);

#endif
