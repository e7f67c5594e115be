/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of internal snapshots: read and checked, never written. Its clusters, and everything the snapshots refer
 * to, are respected by refcounts, check and the guard; entries and extra data that we do not know stay as they are on
 * disk.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "formats/qcow2/state.h"

static bool check_entry(struct qcow2 *q, uint32_t number, const struct snapshot *s, uint32_t extra, struct error *err)
{
    if (extra > SNAPSHOT_EXTRA_MAX)
        return fail(err, EFBIG, "snapshot %" PRIu32 " has %" PRIu32 " bytes of extra data: it must not exceed %u",
                    number, extra, SNAPSHOT_EXTRA_MAX);
    if (in_cluster(q, s->l1_offset) || s->l1_offset >= HOST_OFFSET_END)
        return fail(err, EINVAL,
                    "the L1 table of snapshot %" PRIu32 " is at 0x%" PRIx64
                    ": it must be at a multiple of the cluster size %" PRIu64 " below 2^56",
                    number, s->l1_offset, q->cluster_size);
    if (s->l1_size > L1_BYTES_MAX / 8)
        return fail(err, EFBIG,
                    "the L1 table of snapshot %" PRIu32 " has %" PRIu32 " entries: it must not exceed %llu (32 MiB)",
                    number, s->l1_size, L1_BYTES_MAX / 8);
    if (!span_fits(s->l1_offset, (uint64_t)s->l1_size * 8, q->file->child->size))
        return fail(err, EINVAL,
                    "the L1 table of snapshot %" PRIu32 " (0x%" PRIx64 ", %" PRIu32
                    " entries) does not lie inside the file of %" PRIu64 " bytes",
                    number, s->l1_offset, s->l1_size, q->file->child->size);
    return true;
}

static char *take_text(const uint8_t **at, uint32_t length)
{
    char *text = xstrndup((const char *)*at, length);
    *at += length;
    return text;
}

/* Reads one entry at *offset and moves it behind. */
static bool load_entry(struct qcow2 *q, uint32_t number, uint64_t *offset, struct error *err)
{
    uint8_t fixed[SNAPSHOT_FIXED];
    int result = qcow2_read_file(q->file, *offset, fixed, sizeof fixed);
    if (result)
        return fail_errno(err, result, "cannot read snapshot %" PRIu32, number);
    struct snapshot s = {.l1_offset = load_be64(fixed + SNAPSHOT_L1_OFFSET),
                         .l1_size = load_be32(fixed + SNAPSHOT_L1_SIZE),
                         .disk_size = q->size};
    uint32_t extra = load_be32(fixed + SNAPSHOT_EXTRA_SIZE), id = load_be16(fixed + SNAPSHOT_ID_SIZE),
             name = load_be16(fixed + SNAPSHOT_NAME_SIZE);
    if (!check_entry(q, number, &s, extra, err))
        return false;
    if (q->header.version >= 3 && extra < SNAPSHOT_EXTRA_V3)
        return fail(err, EINVAL,
                    "snapshot %" PRIu32 " has %" PRIu32 " bytes of extra data: in version 3 it must be at least %d",
                    number, extra, SNAPSHOT_EXTRA_V3);
    uint64_t length = SNAPSHOT_FIXED + (uint64_t)extra + id + name;
    if (*offset + length - q->header.snapshot_offset > SNAPSHOT_TABLE_BYTES_MAX)
        return fail(err, EFBIG, "the snapshot table is larger than %llu bytes", SNAPSHOT_TABLE_BYTES_MAX);
    if (!span_fits(*offset, length, q->file->child->size))
        return fail(err, EINVAL,
                    "snapshot %" PRIu32 " at 0x%" PRIx64 " does not end inside the file of %" PRIu64 " bytes", number,
                    *offset, q->file->child->size);
    auto_free uint8_t *rest = xmalloc(extra + id + name + 1);
    result = qcow2_read_file(q->file, *offset + SNAPSHOT_FIXED, rest, extra + id + name);
    if (result)
        return fail_errno(err, result, "cannot read snapshot %" PRIu32, number);
    if (extra >= SNAPSHOT_EXTRA_V3)
        s.disk_size = load_be64(rest + 8);
    const uint8_t *at = rest + extra;
    s.id = take_text(&at, id);
    s.name = take_text(&at, name);
    vec_push(&q->snapshots, s);
    *offset = round_up(*offset + length, 8);
    return true;
}

bool snapshot_table_load(struct qcow2 *q, struct error *err)
{
    uint64_t offset = q->header.snapshot_offset;
    for (uint32_t number = 0; number < q->header.snapshot_count; number++) {
        if (!load_entry(q, number, &offset, err))
            return false;
    }
    q->snapshot_table_bytes = offset - q->header.snapshot_offset;
    return true;
}

void snapshot_table_release(struct qcow2 *q)
{
    struct snapshot *snapshot;
    vec_for_each (snapshot, &q->snapshots) {
        free(snapshot->id);
        free(snapshot->name);
    }
    vec_free(&q->snapshots);
}
