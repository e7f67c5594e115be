/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large a new image would be. All tables are counted as they are when every cluster has its place (they take
 * little, and an image grows into them), so the two answers differ in the data only. Refcounts count themselves: a few
 * rounds find how many there must be.
 */
#include <inttypes.h>
#include <string.h>
#include "block/name.h"
#include "formats/qcow2/bitmap_store.h"
#include "formats/qcow2/encryption.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/state.h"
#include "qmp/schema/types.h"

/* Refcount blocks and table for `clusters` others. */
static uint64_t refcount_clusters(uint64_t clusters, uint64_t cluster_size, uint64_t refcount_bits)
{
    uint64_t per_block = cluster_size * 8 / refcount_bits, per_table = cluster_size / 8, blocks = 0, table = 0;
    for (;;) {
        uint64_t new_blocks = DIV_ROUND_UP(clusters + blocks + table, per_block);
        uint64_t new_table = DIV_ROUND_UP(new_blocks, per_table);
        if (new_blocks == blocks && new_table == table)
            return blocks + table;
        blocks = new_blocks;
        table = new_table;
    }
}

/* Bytes of clusters that hold data, when everything that reads as zeroes is left out. */
static int measure_data(struct edge *source, uint64_t cluster_size, uint64_t *bytes)
{
    uint64_t size = source->child->size, counted = 0; /* guest offset behind the last cluster counted */
    *bytes = 0;
    for (uint64_t at = 0; at < size;) {
        struct block_status status;
        int result = block_status(source, at, size - at, 0, &status);
        if (result < 0)
            return result;
        if (!status.zero) {
            uint64_t begin = MAX(counted, round_down(at, cluster_size));
            uint64_t end = round_up(at + status.length, cluster_size);
            *bytes += end > begin ? end - begin : 0;
            counted = MAX(counted, end);
        }
        at += status.length;
    }
    return 0;
}

static bool is_qcow2_v3(const struct node *node)
{
    return node->driver == &qcow2_driver && ((const struct qcow2 *)node->state)->header.version >= 3;
}

bool qcow2_measure(const void *options, struct edge *source, struct image_measure *result, struct error *err)
{
    const struct qcow2_create_options *o = options;
    uint64_t cluster_size = o->cluster_size, size = round_up(source ? source->child->size : o->size, 512);
    bool v2 = o->compat == QCOW2_COMPAT_V2 || o->compat == QCOW2_COMPAT_0_10;
    if (!qcow2_check_create_options(o, v2 ? 2 : 3, err))
        return false;
    uint64_t entry = o->extended_l2 ? 16 : 8, clusters = DIV_ROUND_UP(size, cluster_size);
    uint64_t l2 = DIV_ROUND_UP(clusters, cluster_size / entry);
    if (l2 > L1_BYTES_MAX / 8)
        return fail(err, EFBIG, "a disk of %" PRIu64 " bytes is too large for clusters of %" PRIu64 " bytes", size,
                    cluster_size);
    uint64_t luks;
    if (!encryption_header_size(o, &luks, err))
        return false;
    uint64_t fixed = 1 + DIV_ROUND_UP(luks, cluster_size) + l2 + DIV_ROUND_UP(l2 * 8, cluster_size);
    uint64_t metadata = fixed + refcount_clusters(fixed + clusters, cluster_size, (uint64_t)o->refcount_bits);
    *result = (struct image_measure){.fully_allocated = (metadata + clusters) * cluster_size};
    uint64_t data = 0;
    int status = source ? measure_data(source, cluster_size, &data) : 0;
    if (status < 0)
        return fail_errno(err, status, "cannot find out what the source holds");
    if (o->preallocation == PREALLOC_MODE_FULL || o->preallocation == PREALLOC_MODE_FALLOC)
        data = clusters * cluster_size;
    result->required = metadata * cluster_size + data;
    if (source && !v2 && is_qcow2_v3(source->child)) {
        result->has_bitmaps = true;
        result->bitmaps = bitmaps_measure(source->child->state, cluster_size);
    }
    return true;
}
