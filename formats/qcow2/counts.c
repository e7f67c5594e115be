/* SPDX-License-Identifier: Apache-2.0 */
/* Counts in chunks that come into being with their first count. */
#include "formats/qcow2/counts.h"

#include <stdlib.h>
#include "base/alloc.h"

bool counts_init(struct counts *counts, uint64_t clusters)
{
    *counts = (struct counts){.clusters = clusters,
                              .chunks = try_calloc(clusters / COUNTS_CHUNK + 1, sizeof *counts->chunks)};
    return counts->chunks != NULL;
}

void counts_release(struct counts *counts)
{
    for (uint64_t i = 0; counts->chunks && i <= counts->clusters / COUNTS_CHUNK; i++)
        free(counts->chunks[i]);
    free(counts->chunks);
    *counts = (struct counts){0};
}

uint64_t counts_get(const struct counts *counts, uint64_t index)
{
    if (index >= counts->clusters || !counts->chunks[index / COUNTS_CHUNK])
        return 0;
    return counts->chunks[index / COUNTS_CHUNK][index % COUNTS_CHUNK];
}

int counts_add(struct counts *counts, uint64_t first, uint64_t last)
{
    if (last >= counts->clusters)
        return -ERANGE;
    for (uint64_t index = first; index <= last; index++) {
        uint32_t **chunk = &counts->chunks[index / COUNTS_CHUNK];
        if (!*chunk)
            *chunk = try_calloc(COUNTS_CHUNK, sizeof **chunk);
        if (!*chunk)
            return -ENOMEM;
        uint32_t *count = &(*chunk)[index % COUNTS_CHUNK];
        *count += *count != UINT32_MAX;
    }
    counts->end = MAX(counts->end, last + 1);
    return 0;
}

uint64_t counts_next(const struct counts *counts, uint64_t index)
{
    while (index < counts->end) {
        const uint32_t *chunk = counts->chunks[index / COUNTS_CHUNK];
        if (!chunk)
            index = round_down(index, COUNTS_CHUNK) + COUNTS_CHUNK;
        else if (chunk[index % COUNTS_CHUNK])
            return index;
        else
            index++;
    }
    return UINT64_MAX;
}
