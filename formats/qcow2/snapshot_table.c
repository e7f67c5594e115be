/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of internal snapshots: read and checked, and written anew as a whole. Extra data of an entry that we do not
 * know is kept.
 *
 * A new table goes to a new place, with a barrier behind it and its refcounts; then the one header sector that names
 * it, and a barrier; then the old place is free. A power cut shows the old table or the new one.
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

static void take_extra(struct snapshot *s, const uint8_t *extra, uint32_t size)
{
    if (size >= 8)
        s->vm_state_size = load_be64(extra);
    if (size >= 16)
        s->disk_size = load_be64(extra + 8);
    if (size >= 24)
        s->icount = load_be64(extra + 16);
    if (size <= SNAPSHOT_EXTRA)
        return;
    s->unknown_size = size - SNAPSHOT_EXTRA;
    s->unknown = xmalloc(s->unknown_size);
    memcpy(s->unknown, extra + SNAPSHOT_EXTRA, s->unknown_size);
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
                         .disk_size = q->size,
                         .date_s = load_be32(fixed + SNAPSHOT_DATE_S),
                         .date_ns = load_be32(fixed + SNAPSHOT_DATE_NS),
                         .vm_clock_ns = load_be64(fixed + SNAPSHOT_VM_CLOCK),
                         .vm_state_size = load_be32(fixed + SNAPSHOT_VM_STATE_SIZE),
                         .icount = UINT64_MAX};
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
    take_extra(&s, rest, extra);
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

/* Writing ---------------------------------------------------------------------------------------------------------- */

static uint64_t entry_size(const struct snapshot *s)
{
    return round_up((uint64_t)SNAPSHOT_FIXED + SNAPSHOT_EXTRA + s->unknown_size + strlen(s->id) + strlen(s->name), 8);
}

static uint8_t *put_bytes(uint8_t *at, const void *bytes, size_t size)
{
    if (size)
        memcpy(at, bytes, size);
    return at + size;
}

static void put_entry(const struct snapshot *s, uint8_t *at)
{
    store_be64(at + SNAPSHOT_L1_OFFSET, s->l1_offset);
    store_be32(at + SNAPSHOT_L1_SIZE, s->l1_size);
    store_be16(at + SNAPSHOT_ID_SIZE, (uint16_t)strlen(s->id));
    store_be16(at + SNAPSHOT_NAME_SIZE, (uint16_t)strlen(s->name));
    store_be32(at + SNAPSHOT_DATE_S, s->date_s);
    store_be32(at + SNAPSHOT_DATE_NS, s->date_ns);
    store_be64(at + SNAPSHOT_VM_CLOCK, s->vm_clock_ns);
    store_be32(at + SNAPSHOT_VM_STATE_SIZE, s->vm_state_size > UINT32_MAX ? 0 : (uint32_t)s->vm_state_size);
    store_be32(at + SNAPSHOT_EXTRA_SIZE, SNAPSHOT_EXTRA + s->unknown_size);
    at += SNAPSHOT_FIXED;
    store_be64(at, s->vm_state_size);
    store_be64(at + 8, s->disk_size);
    store_be64(at + 16, s->icount);
    at = put_bytes(at + SNAPSHOT_EXTRA, s->unknown, s->unknown_size);
    at = put_bytes(at, s->id, strlen(s->id));
    put_bytes(at, s->name, strlen(s->name));
}

/* The new table in a place of its own, with its counts behind a barrier. */
static int write_table(struct qcow2 *q, uint64_t size, uint64_t *offset)
{
    *offset = 0;
    if (!size)
        return refcounts_write(q);
    uint64_t room = cluster_end(q, size);
    auto_free uint8_t *table = block_alloc_buffer(q->file, room);
    if (!table)
        return -ENOMEM;
    memset(table, 0, room);
    uint8_t *at = table;
    const struct snapshot *s;
    vec_for_each (s, &q->snapshots) {
        put_entry(s, at);
        at += entry_size(s);
    }
    int result = alloc_contiguous(q, room >> q->cluster_bits, offset);
    if (result)
        return result;
    result = block_write_buffer(q->file, *offset, table, room, 0);
    if (!result)
        result = refcounts_write(q);
    if (result)
        (void)refcount_add(q, *offset, room, -1, NULL);
    return result;
}

int snapshot_table_store(struct qcow2 *q)
{
    uint64_t size = 0, offset;
    const struct snapshot *s;
    vec_for_each (s, &q->snapshots)
        size += entry_size(s);
    if (size > SNAPSHOT_TABLE_BYTES_MAX)
        return -EFBIG;
    int result = write_table(q, size, &offset);
    if (!result)
        result = qcow2_barrier(q);
    if (result)
        return result;
    struct host_span old = {q->header.snapshot_offset, q->snapshot_table_bytes};
    q->header.snapshot_offset = offset;
    q->header.snapshot_count = (uint32_t)q->snapshots.count;
    q->snapshot_table_bytes = size;
    result = header_store(q);
    if (!result)
        result = qcow2_barrier(q);
    q->broken |= result != 0; /* nobody knows which of the two counts */
    overlap_build(q);
    if (!result && old.length)
        (void)refcount_add(q, old.offset, old.length, -1, NULL); /* the new table counts already: this only leaks */
    return result;
}

void snapshot_release(struct snapshot *snapshot)
{
    free(snapshot->id);
    free(snapshot->name);
    free(snapshot->unknown);
}

void snapshot_table_release(struct qcow2 *q)
{
    struct snapshot *snapshot;
    vec_for_each (snapshot, &q->snapshots)
        snapshot_release(snapshot);
    vec_free(&q->snapshots);
}
