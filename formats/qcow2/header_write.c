/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the header.
 *
 * An existing header is patched: the fixed fields lie in one 512-byte sector, which a disk writes as a whole, and
 * fields, extensions and padding that we do not know stay untouched.
 *
 * When names or extensions change it is rewritten, still by one sector: the new fields and extensions all stand in the
 * first sector (the table of feature names, which is there for people, gives way when there is no room), and a name of
 * a backing file that does not fit there goes to a place of the first cluster that the old header does not use, with a
 * barrier behind it, before the sector that points to it is written. So a power cut leaves the old header or the new
 * one.
 */
#include "formats/qcow2/state.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"

enum { SECTOR = 512 };

static const struct feature_name {
    uint8_t type, bit; /* type: 0 incompatible, 1 compatible, 2 autoclear */
    const char *name;
} feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

static void format_fixed(const struct header *h, uint8_t *p)
{
    store_be64(p + HEADER_SIZE, h->size);
    store_be32(p + HEADER_L1_SIZE, h->l1_size);
    store_be64(p + HEADER_L1_OFFSET, h->l1_offset);
    store_be64(p + HEADER_REFTABLE_OFFSET, h->reftable_offset);
    store_be32(p + HEADER_REFTABLE_CLUSTERS, h->reftable_clusters);
    store_be32(p + HEADER_SNAPSHOT_COUNT, h->snapshot_count);
    store_be64(p + HEADER_SNAPSHOT_OFFSET, h->snapshot_offset);
    if (h->version < 3)
        return;
    store_be64(p + HEADER_INCOMPATIBLE, h->incompatible);
    store_be64(p + HEADER_COMPATIBLE, h->compatible);
    store_be64(p + HEADER_AUTOCLEAR, h->autoclear);
}

int header_store(struct qcow2 *q)
{
    uint8_t sector[SECTOR];
    int result = qcow2_read_file(q->file, 0, sector, sizeof sector);
    if (result)
        return result;
    format_fixed(&q->header, sector);
    return block_write_buffer(q->file, 0, sector, sizeof sector, 0);
}

int header_set_incompatible(struct qcow2 *q, uint64_t bits, bool on)
{
    uint64_t old = q->header.incompatible;
    q->header.incompatible = on ? old | bits : old & ~bits;
    if (q->header.incompatible == old || q->header.version < 3)
        return 0;
    int result = header_store(q);
    if (!result)
        result = qcow2_barrier(q);
    if (result)
        q->header.incompatible = old;
    return result;
}

struct writer {
    uint8_t *at, *end;
};

static bool put_extension(struct writer *w, uint32_t type, const void *data, uint32_t length)
{
    uint64_t size = 8 + round_up((uint64_t)length, 8);
    if ((uint64_t)(w->end - w->at) < size)
        return false;
    store_be32(w->at, type);
    store_be32(w->at + 4, length);
    if (length)
        memcpy(w->at + 8, data, length);
    w->at += size;
    return true;
}

static bool put_feature_names(struct writer *w)
{
    uint8_t table[ARRAY_SIZE(feature_names) * FEATURE_NAME_ENTRY] = {0};
    for (size_t i = 0; i < ARRAY_SIZE(feature_names); i++) {
        uint8_t *entry = table + i * FEATURE_NAME_ENTRY;
        entry[0] = feature_names[i].type;
        entry[1] = feature_names[i].bit;
        memcpy(entry + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
    return put_extension(w, EXTENSION_FEATURE_NAMES, table, sizeof table);
}

static bool put_encryption(struct writer *w, const struct header *h)
{
    uint8_t data[16];
    if (!h->crypt_offset)
        return true;
    store_be64(data, h->crypt_offset);
    store_be64(data + 8, h->crypt_length);
    return put_extension(w, EXTENSION_ENCRYPTION, data, sizeof data);
}

bool header_format(const struct header *h, uint8_t *cluster, uint64_t *used, struct error *err)
{
    uint64_t cluster_size = 1ull << h->cluster_bits;
    memset(cluster, 0, cluster_size);
    store_be32(cluster + HEADER_MAGIC, QCOW2_MAGIC);
    store_be32(cluster + HEADER_VERSION, h->version);
    store_be32(cluster + HEADER_CLUSTER_BITS, h->cluster_bits);
    store_be32(cluster + HEADER_CRYPT_METHOD, h->crypt_method);
    format_fixed(h, cluster);
    uint32_t length = HEADER_V2_LENGTH;
    if (h->version >= 3) {
        length = HEADER_NEW_LENGTH;
        store_be32(cluster + HEADER_REFCOUNT_ORDER, h->refcount_order);
        store_be32(cluster + HEADER_LENGTH, length);
        cluster[HEADER_COMPRESSION_TYPE] = (uint8_t)h->compression_type;
    }
    struct writer w = {cluster + length, cluster + cluster_size};
    bool fits = true;
    if (h->backing_format)
        fits = put_extension(&w, EXTENSION_BACKING_FORMAT, h->backing_format, (uint32_t)strlen(h->backing_format));
    fits = fits && put_encryption(&w, h);
    if (fits && h->data_file)
        fits = put_extension(&w, EXTENSION_DATA_FILE, h->data_file, (uint32_t)strlen(h->data_file));
    if (fits && h->version >= 3) {
        struct writer before = w;
        size_t name = h->backing_name ? strlen(h->backing_name) : 0;
        /* For people only: left out of a cluster of 512 bytes rather than a name that is needed. */
        if (put_feature_names(&w) && (size_t)(w.end - w.at) < name + 8) {
            memset(before.at, 0, (size_t)(w.at - before.at));
            w = before;
        }
    }
    fits = fits && put_extension(&w, EXTENSION_END, NULL, 0);
    if (fits && h->backing_name) {
        size_t size = strlen(h->backing_name);
        fits = size <= BACKING_NAME_MAX && size <= (size_t)(w.end - w.at);
        if (fits) {
            memcpy(w.at, h->backing_name, size);
            store_be64(cluster + HEADER_BACKING_OFFSET, (uint64_t)(w.at - cluster));
            store_be32(cluster + HEADER_BACKING_SIZE, (uint32_t)size);
            w.at += size;
        }
    }
    *used = (uint64_t)(w.at - cluster);
    return fits || fail(err, EINVAL,
                        "the names of the backing file and of the data file do not fit into the header: they must not "
                        "exceed %u bytes each, and end in the first cluster of %" PRIu64 " bytes",
                        BACKING_NAME_MAX, cluster_size);
}

/* Rewriting ---------------------------------------------------------------------------------------------------------
 */

/* What an extension that is made anew, or is no more, was before. */
static bool is_ours(uint32_t type)
{
    return type == EXTENSION_BACKING_FORMAT || type == EXTENSION_DATA_FILE || type == EXTENSION_BITMAPS ||
           type == EXTENSION_FEATURE_NAMES || type == EXTENSION_WRITE_LOG;
}

/* Copies the extensions that we do not make; *end is where the old area ends. The area was checked when it was parsed.
 */
static bool keep_extensions(const uint8_t *cluster, const struct header *h, struct writer *w, uint64_t *end)
{
    uint64_t at = h->header_length, limit = 1ull << h->cluster_bits;
    bool fits = true;
    while (at + 8 <= limit) {
        uint32_t type = load_be32(cluster + at), length = load_be32(cluster + at + 4);
        if (type == EXTENSION_END || length > limit - at - 8)
            break;
        if (!is_ours(type))
            fits = fits && put_extension(w, type, cluster + at + 8, length);
        at += 8 + round_up((uint64_t)length, 8);
    }
    *end = at + 8;
    return fits;
}

static bool put_text_extension(struct writer *w, uint32_t type, const char *text)
{
    return !text || put_extension(w, type, text, (uint32_t)strlen(text));
}

static bool put_bitmaps(struct writer *w, const struct header *h)
{
    uint8_t data[24] = {0};
    if (!h->has_bitmaps)
        return true;
    store_be32(data, h->bitmap_count);
    store_be64(data + 8, h->bitmap_directory_size);
    store_be64(data + 16, h->bitmap_directory_offset);
    return put_extension(w, EXTENSION_BITMAPS, data, sizeof data);
}

static bool put_write_log(struct writer *w, const struct header *h)
{
    uint8_t data[WRITE_LOG_EXTENSION_SIZE] = {0};
    if (!h->log_offset)
        return true;
    store_be32(data, WRITE_LOG_VERSION);
    store_be32(data + 4, h->log_region_bits);
    store_be64(data + 8, h->log_offset);
    store_be64(data + 16, h->log_size);
    return put_extension(w, EXTENSION_WRITE_LOG, data, sizeof data);
}

/* A place for the backing file's name that the old header does not use: behind the extensions if it ends in the first
 * sector, else one of two slots that take turns. 0: none. */
static uint64_t place_name(const struct header *now, const uint8_t *old, uint64_t old_end, uint64_t behind,
                           uint64_t size)
{
    uint64_t cluster_size = 1ull << now->cluster_bits;
    uint64_t used = load_be64(old + HEADER_BACKING_OFFSET), used_size = load_be32(old + HEADER_BACKING_SIZE);
    if (behind + size <= SECTOR)
        return behind;
    for (uint64_t at = SECTOR; at + size <= cluster_size; at += round_up((uint64_t)BACKING_NAME_MAX, SECTOR)) {
        bool is_free = at >= old_end && (at >= used + used_size || at + size <= used);
        if (is_free)
            return at;
    }
    return 0;
}

bool header_rewrite(struct qcow2 *q, const struct header *now, struct error *err)
{
    uint64_t cluster_size = q->cluster_size, old_end;
    auto_free uint8_t *old = try_calloc(1, cluster_size);
    uint8_t sector[SECTOR] = {0};
    if (!old)
        return fail(err, ENOMEM, "out of memory for the header");
    int result = qcow2_read_file(q->file, 0, old, cluster_size);
    if (result)
        return fail_errno(err, result, "cannot read the header");

    uint32_t length = now->version < 3 ? HEADER_V2_LENGTH : MAX(now->header_length, (uint32_t)HEADER_V3_LENGTH);
    if (length > SECTOR - 8)
        return fail(err, ENOTSUP, "the header has %" PRIu32 " bytes: more than fit into one sector", length);
    memcpy(sector, old, MIN(length, q->header.header_length));
    store_be32(sector + HEADER_VERSION, now->version);
    format_fixed(now, sector);
    if (now->version >= 3) {
        store_be32(sector + HEADER_REFCOUNT_ORDER, now->refcount_order);
        store_be32(sector + HEADER_LENGTH, length);
    }
    struct writer w = {sector + length, sector + SECTOR};
    bool fits = put_text_extension(&w, EXTENSION_BACKING_FORMAT, now->backing_format) &&
                put_text_extension(&w, EXTENSION_DATA_FILE, now->data_file) && put_bitmaps(&w, now) &&
                put_write_log(&w, now) && keep_extensions(old, &q->header, &w, &old_end) && w.end - w.at >= 8;
    if (!fits)
        return fail(err, ENOSPC, "the header's extensions do not fit into its first sector");
    struct writer before = w;
    if (now->version >= 3 && put_feature_names(&w) && w.end - w.at < 8) {
        memset(before.at, 0, (size_t)(w.end - before.at)); /* for people only: it gives way */
        w = before;
    }
    w.at += 8; /* EXTENSION_END, no data */
    store_be64(sector + HEADER_BACKING_OFFSET, 0);
    store_be32(sector + HEADER_BACKING_SIZE, 0);
    if (now->backing_name) {
        uint64_t size = strlen(now->backing_name);
        uint64_t at = size > BACKING_NAME_MAX ? 0 : place_name(now, old, old_end, (uint64_t)(w.at - sector), size);
        if (!at)
            return fail(err, EINVAL,
                        "the name of the backing file has %" PRIu64 " bytes: it does not fit into the header", size);
        store_be64(sector + HEADER_BACKING_OFFSET, at);
        store_be32(sector + HEADER_BACKING_SIZE, (uint32_t)size);
        if (at + size <= SECTOR)
            memcpy(sector + at, now->backing_name, size);
        else
            result = block_write_buffer(q->file, at, now->backing_name, size, 0);
        if (!result && at + size > SECTOR)
            result = qcow2_barrier(q);
    }
    if (!result)
        result = block_write_buffer(q->file, 0, sector, sizeof sector, 0);
    if (!result)
        result = qcow2_barrier(q);
    return !result || fail_errno(err, result, "cannot write the header");
}
