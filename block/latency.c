/* SPDX-License-Identifier: Apache-2.0 */
/* See latency.h. A clock is read twice for a request that enters the graph, and never inside of it. */
#include "block/latency.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/loop.h"

static void histogram_free(struct latency_histogram *histogram)
{
    if (!histogram)
        return;
    free(histogram->boundaries);
    free(histogram->bins);
    free(histogram);
}

void latency_free(struct node *node)
{
    for (size_t i = 0; i < ARRAY_SIZE(node->stats.histograms); i++)
        histogram_free(node->stats.histograms[i]);
}

bool latency_set_histogram(struct node *node, enum latency_kind kind, const uint64_t *boundaries, size_t count,
                           struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (boundaries[i] <= (i ? boundaries[i - 1] : 0))
            return fail(err, EINVAL, "The boundaries of a histogram must be ascending, and greater than 0");
    }
    struct latency_histogram *histogram = NULL;
    if (count) {
        histogram = new (struct latency_histogram);
        histogram->n_boundaries = count;
        histogram->boundaries = xmemdup(boundaries, count * sizeof *boundaries);
        histogram->bins = new_array(uint64_t, count + 1);
    }
    histogram_free(node->stats.histograms[kind]);
    node->stats.histograms[kind] = histogram;
    return true;
}

static void histogram_count(struct latency_histogram *histogram, uint64_t duration_ns)
{
    size_t low = 0, high = histogram->n_boundaries; /* the bin lies in [low, high] */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (duration_ns < histogram->boundaries[middle])
            high = middle;
        else
            low = middle + 1;
    }
    histogram->bins[low]++;
}

uint64_t latency_start(const struct edge *edge)
{
    return edge->parent ? 0 : loop_now_ns(edge->child->loop);
}

void latency_end(struct node *node, enum latency_kind kind, uint64_t start_ns)
{
    if (!start_ns)
        return;
    struct block_stats *stats = &node->stats;
    uint64_t now_ns = loop_now_ns(node->loop), duration_ns = now_ns - start_ns;
    uint64_t *const sums[] = {&stats->read_ns, &stats->write_ns, &stats->flush_ns, &stats->discard_ns};
    *sums[kind] += duration_ns;
    uint64_t us = duration_ns / 1000;
    stats->latencies[kind][us ? MIN(highest_bit(us) + 1, LATENCY_BINS - 1u) : 0]++;
    stats->last_ns = now_ns;
    if (kind != LATENCY_DISCARD && stats->histograms[kind])
        histogram_count(stats->histograms[kind], duration_ns);
}
