/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard in front of metadata: before anything is written to a span of the file, it is checked that no structure
 * that is not meant lies there. A damaged or forged image may name its own tables as free or as data; without the guard
 * a guest's write would overwrite them.
 *
 * Large structures are a short list of spans, what is one cluster each (L2 tables, refcount blocks) is a hash set, so
 * that a check costs the same on an image of a gigabyte and of an exabyte. L2 tables of snapshots are known only if
 * they were read (overlap-check=all).
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "formats/qcow2/state.h"

static const char *type_name(uint32_t type)
{
    switch (type) {
    case OVERLAP_HEADER: return "the header";
    case OVERLAP_ACTIVE_L1: return "the active L1 table";
    case OVERLAP_ACTIVE_L2: return "an active L2 table";
    case OVERLAP_REFTABLE: return "the refcount table";
    case OVERLAP_REFBLOCK: return "a refcount block";
    case OVERLAP_SNAPSHOT_TABLE: return "the snapshot table";
    case OVERLAP_INACTIVE_L1: return "the L1 table of a snapshot";
    case OVERLAP_INACTIVE_L2: return "an L2 table of a snapshot";
    case OVERLAP_ENCRYPTION: return "the LUKS header";
    default: return "the bitmap directory";
    }
}

/* A slot holds (cluster index + 1) << 8 and one bit of each kind of table. */
static uint64_t set_bit(enum overlap_type type)
{
    return type == OVERLAP_ACTIVE_L2 ? 1 : type == OVERLAP_REFBLOCK ? 2 : 4;
}

static uint64_t *find_slot(const struct overlap_set *set, uint64_t index)
{
    uint64_t key = index + 1;
    uint64_t at = key * 0x9e3779b97f4a7c15ull >> (64 - set->bits);
    while (set->slots[at] && set->slots[at] >> 8 != key)
        at = (at + 1) & ((1ull << set->bits) - 1);
    return &set->slots[at];
}

static void grow_set(struct overlap_set *set)
{
    struct overlap_set larger = {.bits = set->slots ? set->bits + 1 : 6, .used = set->used};
    larger.slots = xcalloc(1ull << larger.bits, sizeof *larger.slots);
    for (uint64_t i = 0; set->slots && i < 1ull << set->bits; i++) {
        if (set->slots[i])
            *find_slot(&larger, (set->slots[i] >> 8) - 1) = set->slots[i];
    }
    free(set->slots);
    *set = larger;
}

void overlap_add(struct qcow2 *q, enum overlap_type type, uint64_t offset)
{
    struct overlap_set *set = &q->overlap;
    if (!set->slots || set->used >= 1ull << (set->bits - 1))
        grow_set(set);
    uint64_t index = cluster_index(q, offset), *slot = find_slot(set, index);
    if (!*slot) {
        *slot = (index + 1) << 8;
        set->used++;
    }
    if (type == OVERLAP_REFBLOCK && *slot & set_bit(type))
        q->refblocks_shared = true;
    *slot |= set_bit(type);
}

/* The slot stays, without the type: chains of other slots may lead over it. */
void overlap_remove(struct qcow2 *q, enum overlap_type type, uint64_t offset)
{
    if (q->overlap.slots)
        *find_slot(&q->overlap, cluster_index(q, offset)) &= ~set_bit(type);
}

static void add_span(struct qcow2 *q, enum overlap_type type, uint64_t offset, uint64_t length)
{
    if (length)
        vec_push(&q->overlap_spans, ((struct overlap_span){cluster_start(q, offset), cluster_end(q, length), type}));
}

void overlap_build(struct qcow2 *q)
{
    vec_clear(&q->overlap_spans);
    add_span(q, OVERLAP_HEADER, 0, q->cluster_size);
    add_span(q, OVERLAP_ACTIVE_L1, q->l1.offset, (uint64_t)q->l1.count * 8);
    add_span(q, OVERLAP_REFTABLE, q->reftable.offset, (uint64_t)q->reftable.count * 8);
    add_span(q, OVERLAP_SNAPSHOT_TABLE, q->header.snapshot_offset, q->snapshot_table_bytes);
    add_span(q, OVERLAP_ENCRYPTION, q->header.crypt_offset, q->header.crypt_length);
    if (bitmaps_valid(q))
        add_span(q, OVERLAP_BITMAP_DIRECTORY, q->header.bitmap_directory_offset, q->header.bitmap_directory_size);
    const struct snapshot *snapshot;
    vec_for_each (snapshot, &q->snapshots)
        add_span(q, OVERLAP_INACTIVE_L1, snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8);
    if (q->overlap.slots)
        return; /* tables that moved changed nothing about what is in clusters of their own */
    for (uint32_t i = 0; i < q->l1.count; i++) {
        if (q->l1.entries[i] & ENTRY_OFFSET)
            overlap_add(q, OVERLAP_ACTIVE_L2, q->l1.entries[i] & ENTRY_OFFSET);
    }
    for (uint32_t i = 0; i < q->reftable.count; i++) {
        if (q->reftable.entries[i] & ~REFTABLE_RESERVED)
            overlap_add(q, OVERLAP_REFBLOCK, q->reftable.entries[i] & ~REFTABLE_RESERVED);
    }
}

bool overlap_load_inactive(struct qcow2 *q, struct error *err)
{
    const struct snapshot *snapshot;
    vec_for_each (snapshot, &q->snapshots) {
        struct disk_table l1;
        if (!disk_table_load(&l1, q->file, snapshot->l1_offset, snapshot->l1_size, "L1 table of a snapshot", err))
            return false;
        for (uint32_t i = 0; i < l1.count; i++) {
            if (l1.entries[i] & ENTRY_OFFSET)
                overlap_add(q, OVERLAP_INACTIVE_L2, l1.entries[i] & ENTRY_OFFSET);
        }
        disk_table_release(&l1);
    }
    return true;
}

void overlap_release(struct qcow2 *q)
{
    free(q->overlap.slots);
    q->overlap = (struct overlap_set){0};
    vec_free(&q->overlap_spans);
}

static uint32_t find_overlap(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t types)
{
    const struct overlap_span *span;
    vec_for_each (span, &q->overlap_spans) {
        if (types & span->type && spans_overlap(offset, length, span->offset, span->length))
            return span->type;
    }
    if (!q->overlap.slots || !(types & (OVERLAP_ACTIVE_L2 | OVERLAP_REFBLOCK | OVERLAP_INACTIVE_L2)))
        return 0;
    static const enum overlap_type hashed[] = {OVERLAP_ACTIVE_L2, OVERLAP_REFBLOCK, OVERLAP_INACTIVE_L2};
    for (uint64_t i = cluster_index(q, offset); i <= cluster_index(q, offset + length - 1); i++) {
        uint64_t slot = *find_slot(&q->overlap, i);
        for (size_t t = 0; slot & 7 && t < ARRAY_SIZE(hashed); t++) {
            if (slot & set_bit(hashed[t]) && types & hashed[t])
                return hashed[t];
        }
    }
    return 0;
}

const char *overlap_name(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t ignore)
{
    uint32_t found = length ? find_overlap(q, offset, length, (OVERLAP_ALL | OVERLAP_ENCRYPTION) & ~ignore) : 0;
    return found ? type_name(found) : NULL;
}

int overlap_check(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t ignore)
{
    uint32_t found = length ? find_overlap(q, offset, length, q->overlap_types & ~ignore) : 0;
    if (likely(!found))
        return 0;
    return qcow2_corrupt(q, offset, length,
                         "a write to offset 0x%" PRIx64 " would overwrite %s: writing to the image is refused from now "
                         "on",
                         offset, type_name(found));
}

/* A cluster that is metadata must not be given away because a forged entry names it as data: its hole would be punched
 * under a table. Tables of snapshots are shared with the active ones, so dropping one reference to them is right. */
int overlap_check_free(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    uint32_t types = q->overlap_types & ~(uint32_t)(OVERLAP_INACTIVE_L1 | OVERLAP_INACTIVE_L2);
    uint32_t found = length ? find_overlap(q, offset, length, types) : 0;
    if (likely(!found))
        return 0;
    return qcow2_corrupt(q, offset, length,
                         "what is to be freed at offset 0x%" PRIx64 " is %s: writing to the image is refused from now "
                         "on",
                         offset, type_name(found));
}
