/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image header: the fixed fields, and the extensions behind them. Everything an image says about itself is checked
 * here, or (what needs the geometry) in qcow2_load(): later code trusts the header.
 *
 * Writing is in header_write.c.
 */
#include "formats/qcow2/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"

static void parse_fixed(const uint8_t *p, struct header *h)
{
    h->version = load_be32(p + HEADER_VERSION);
    h->cluster_bits = load_be32(p + HEADER_CLUSTER_BITS);
    h->size = load_be64(p + HEADER_SIZE);
    h->crypt_method = load_be32(p + HEADER_CRYPT_METHOD);
    h->l1_size = load_be32(p + HEADER_L1_SIZE);
    h->l1_offset = load_be64(p + HEADER_L1_OFFSET);
    h->reftable_offset = load_be64(p + HEADER_REFTABLE_OFFSET);
    h->reftable_clusters = load_be32(p + HEADER_REFTABLE_CLUSTERS);
    h->snapshot_count = load_be32(p + HEADER_SNAPSHOT_COUNT);
    h->snapshot_offset = load_be64(p + HEADER_SNAPSHOT_OFFSET);
    h->header_length = HEADER_V2_LENGTH;
    h->refcount_order = 4;
    if (h->version < 3)
        return;
    h->incompatible = load_be64(p + HEADER_INCOMPATIBLE);
    h->compatible = load_be64(p + HEADER_COMPATIBLE);
    h->autoclear = load_be64(p + HEADER_AUTOCLEAR);
    h->refcount_order = load_be32(p + HEADER_REFCOUNT_ORDER);
    h->header_length = load_be32(p + HEADER_LENGTH);
    if (h->header_length > HEADER_COMPRESSION_TYPE)
        h->compression_type = p[HEADER_COMPRESSION_TYPE];
}

static bool check_basics(const uint8_t *p, const struct header *h, struct error *err)
{
    if (load_be32(p + HEADER_MAGIC) != QCOW2_MAGIC)
        return fail(err, EINVAL, "not a qcow2 image: it begins with 0x%08" PRIx32 " and not with \"QFI\\xfb\"",
                    load_be32(p + HEADER_MAGIC));
    if (h->version != 2 && h->version != 3)
        return fail(err, ENOTSUP, "qcow2 version %" PRIu32 " is not supported: it must be 2 or 3", h->version);
    if (h->cluster_bits < CLUSTER_BITS_MIN || h->cluster_bits > CLUSTER_BITS_MAX)
        return fail(err, EINVAL, "cluster_bits is %" PRIu32 ": it must be from %d (512 bytes) to %d (2 MiB)",
                    h->cluster_bits, CLUSTER_BITS_MIN, CLUSTER_BITS_MAX);
    if (h->version == 3 &&
        (h->header_length < HEADER_V3_LENGTH || h->header_length % 8 || h->header_length > 1ull << h->cluster_bits))
        return fail(err, EINVAL,
                    "header_length is %" PRIu32 ": it must be a multiple of 8 from %d to the cluster size %llu",
                    h->header_length, HEADER_V3_LENGTH, 1ull << h->cluster_bits);
    if (h->refcount_order > REFCOUNT_ORDER_MAX)
        return fail(err, EINVAL, "refcount_order is %" PRIu32 ": it must not exceed %u (64 bits)", h->refcount_order,
                    REFCOUNT_ORDER_MAX);
    return true;
}

static bool check_aligned(const struct header *h, const char *field, uint64_t offset, struct error *err)
{
    uint64_t cluster_size = 1ull << h->cluster_bits;
    if (!is_aligned(offset, cluster_size))
        return fail(err, EINVAL, "%s is 0x%" PRIx64 ": it must be a multiple of the cluster size %" PRIu64, field,
                    offset, cluster_size);
    if (offset >= HOST_OFFSET_END)
        return fail(err, EINVAL, "%s is 0x%" PRIx64 ": it must be below 2^56", field, offset);
    return true;
}

static bool check_tables(const struct header *h, struct error *err)
{
    uint64_t cluster_size = 1ull << h->cluster_bits;
    if (!check_aligned(h, "l1_table_offset", h->l1_offset, err) ||
        !check_aligned(h, "refcount_table_offset", h->reftable_offset, err) ||
        !check_aligned(h, "snapshots_offset", h->snapshot_offset, err))
        return false;
    if (h->l1_size > L1_BYTES_MAX / 8)
        return fail(err, EFBIG, "l1_size is %" PRIu32 ": it must not exceed %llu entries (32 MiB)", h->l1_size,
                    L1_BYTES_MAX / 8);
    if (h->reftable_clusters == 0)
        return fail(err, EINVAL, "refcount_table_clusters is 0: an image has a refcount table of at least 1 cluster");
    if (h->reftable_clusters > REFTABLE_BYTES_MAX / cluster_size)
        return fail(err, EFBIG, "refcount_table_clusters is %" PRIu32 ": it must not exceed %llu (8 MiB)",
                    h->reftable_clusters, REFTABLE_BYTES_MAX / cluster_size);
    if (h->snapshot_count > SNAPSHOT_COUNT_MAX)
        return fail(err, EFBIG, "nb_snapshots is %" PRIu32 ": it must not exceed %u", h->snapshot_count,
                    SNAPSHOT_COUNT_MAX);
    /* The last byte of the disk must have an entry. */
    uint32_t l2_bits = h->cluster_bits - (h->incompatible & INCOMPATIBLE_EXTENDED_L2 ? 4 : 3);
    uint64_t span = 1ull << (h->cluster_bits + l2_bits);
    uint64_t needed = h->size / span + (h->size % span != 0);
    if (h->l1_size < needed)
        return fail(err, EINVAL,
                    "l1_size is %" PRIu32 ": a disk of %" PRIu64 " bytes needs %" PRIu64 " entries of %" PRIu64
                    " bytes each",
                    h->l1_size, h->size, needed, span);
    if (h->size > INT64_MAX)
        return fail(err, EFBIG, "size is %" PRIu64 ": a disk must be smaller than 2^63 bytes", h->size);
    return true;
}

static bool check_features(const struct header *h, struct error *err)
{
    if (h->crypt_method > CRYPT_LUKS)
        return fail(err, EINVAL, "crypt_method is %" PRIu32 ": it must be 0 (none), 1 (AES) or 2 (LUKS)",
                    h->crypt_method);
    if ((h->crypt_method == CRYPT_LUKS) != (h->crypt_offset != 0))
        return fail(err, EINVAL,
                    "crypt_method is %" PRIu32 ", and the place of a LUKS header is %s: it must be given if, and only "
                    "if, the method is 2 (LUKS)",
                    h->crypt_method, h->crypt_offset ? "given" : "not given");
    if (h->incompatible & INCOMPATIBLE_EXTENDED_L2 && h->cluster_bits < CLUSTER_BITS_MIN_EXTENDED)
        return fail(err, EINVAL, "cluster_bits is %" PRIu32 ": with extended L2 entries it must be at least %d",
                    h->cluster_bits, CLUSTER_BITS_MIN_EXTENDED);
    bool other_codec = h->incompatible & INCOMPATIBLE_COMPRESSION;
    if (other_codec != (h->compression_type != COMPRESSION_DEFLATE))
        return fail(err, EINVAL,
                    "compression_type is %" PRIu32 " and the compression type feature bit is %s: the bit must be set "
                    "if, and only if, the type is not 0 (deflate)",
                    h->compression_type, other_codec ? "set" : "clear");
    if (h->compression_type > COMPRESSION_ZSTD)
        return fail(err, ENOTSUP, "compression_type is %" PRIu32 ": it must be 0 (deflate) or 1 (zstd)",
                    h->compression_type);
    bool external = h->incompatible & INCOMPATIBLE_DATA_FILE;
    if (h->autoclear & AUTOCLEAR_RAW_DATA && !external)
        return fail(err, EINVAL,
                    "the raw external data feature (autoclear bit 1) is set without an external data file "
                    "(incompatible bit 2)");
    if (h->autoclear & AUTOCLEAR_RAW_DATA && h->backing_name)
        return fail(err, EINVAL, "the image has a raw external data file and a backing file: it can have only one");
    if (external && h->snapshot_count)
        return fail(err, EINVAL, "nb_snapshots is %" PRIu32 ": with an external data file it must be 0",
                    h->snapshot_count);
    return true;
}

/* The names that unknown feature bits have in the image's own table. */
static bool unknown_features(uint64_t unknown, const uint8_t *names, uint32_t length, struct error *err)
{
    char text[256] = "";
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(unknown >> bit & 1))
            continue;
        char name[FEATURE_NAME_ENTRY] = "";
        for (uint32_t at = 0; names && at + FEATURE_NAME_ENTRY <= length; at += FEATURE_NAME_ENTRY) {
            if (names[at] == 0 && names[at + 1] == bit)
                memcpy(name, names + at + 2, FEATURE_NAME_ENTRY - 2);
        }
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%sbit %u%s%s%s", used ? ", " : "", bit, *name ? " '" : "", name,
                 *name ? "'" : "");
    }
    return fail(err, ENOTSUP, "the image uses incompatible features that are not known here: %s", text);
}

static bool parse_bitmaps(struct header *h, const uint8_t *data, uint32_t length, struct error *err)
{
    if (!(h->autoclear & AUTOCLEAR_BITMAPS))
        return true; /* inconsistent: must not be looked at */
    if (length != 24)
        return fail(err, EINVAL, "the bitmaps extension has %" PRIu32 " bytes: it must have 24", length);
    h->has_bitmaps = true;
    h->bitmap_count = load_be32(data);
    h->bitmap_directory_size = load_be64(data + 8);
    h->bitmap_directory_offset = load_be64(data + 16);
    if (load_be32(data + 4) != 0)
        return fail(err, EINVAL, "the reserved field of the bitmaps extension is 0x%" PRIx32 ": it must be 0",
                    load_be32(data + 4));
    if (h->bitmap_count == 0 || h->bitmap_count > BITMAP_COUNT_MAX)
        return fail(err, EINVAL, "nb_bitmaps is %" PRIu32 ": it must be from 1 to %u", h->bitmap_count,
                    BITMAP_COUNT_MAX);
    if (h->bitmap_directory_size > BITMAP_DIRECTORY_BYTES_MAX ||
        h->bitmap_directory_size < (uint64_t)h->bitmap_count * BITMAP_FIXED)
        return fail(err, EINVAL,
                    "bitmap_directory_size is %" PRIu64 ": for %" PRIu32 " bitmaps it must be from %" PRIu64
                    " to %llu (64 MiB)",
                    h->bitmap_directory_size, h->bitmap_count, (uint64_t)h->bitmap_count * BITMAP_FIXED,
                    BITMAP_DIRECTORY_BYTES_MAX);
    return check_aligned(h, "bitmap_directory_offset", h->bitmap_directory_offset, err);
}

/* What cannot be ours, or is not whole, is no log: nothing depends on it. */
static void parse_write_log(struct header *h, const uint8_t *data, uint32_t length)
{
    uint64_t cluster_size = 1ull << h->cluster_bits;
    if (!(h->autoclear & AUTOCLEAR_WRITE_LOG) || length != WRITE_LOG_EXTENSION_SIZE ||
        load_be32(data) != WRITE_LOG_VERSION)
        return;
    uint64_t offset = load_be64(data + 8), size = load_be64(data + 16);
    uint32_t bits = load_be32(data + 4);
    if (!offset || offset % cluster_size || offset >= HOST_OFFSET_END || size % cluster_size || size > 16 * MiB ||
        bits < 9 || bits > 62)
        return;
    h->log_offset = offset;
    h->log_size = size;
    h->log_region_bits = bits;
}

static bool parse_encryption(struct header *h, const uint8_t *data, uint32_t length, struct error *err)
{
    if (length != 16)
        return fail(err, EINVAL, "the encryption extension has %" PRIu32 " bytes: it must have 16", length);
    h->crypt_offset = load_be64(data);
    h->crypt_length = load_be64(data + 8);
    if (!h->crypt_offset || !h->crypt_length)
        return fail(err, EINVAL,
                    "the LUKS header at 0x%" PRIx64 " has %" PRIu64 " bytes: it must not lie in the first "
                    "cluster, nor be empty",
                    h->crypt_offset, h->crypt_length);
    return check_aligned(h, "the offset of the LUKS header", h->crypt_offset, err);
}

static bool take_string(char **to, const uint8_t *data, uint32_t length, const char *what, struct error *err)
{
    if (*to)
        return fail(err, EINVAL, "the header has two extensions with the %s: it may have one", what);
    if (length > BACKING_NAME_MAX)
        return fail(err, EINVAL, "the %s in the header has %" PRIu32 " bytes: it must not exceed %u", what, length,
                    BACKING_NAME_MAX);
    if (memchr(data, 0, length))
        return fail(err, EINVAL, "the %s in the header contains a NUL byte", what);
    *to = xstrndup((const char *)data, length);
    return true;
}

/* Walks the extensions in `area`, which begins behind the fixed header and ends where something else may begin. */
static bool parse_extensions(struct header *h, const uint8_t *area, uint64_t size, struct error *err)
{
    const uint8_t *names = NULL;
    uint32_t names_length = 0;
    bool ok = true;
    for (uint64_t at = 0; ok && at + 8 <= size;) {
        uint32_t type = load_be32(area + at), length = load_be32(area + at + 4);
        const uint8_t *data = area + at + 8;
        if (type == EXTENSION_END)
            break;
        if (length > size - at - 8)
            return fail(err, EINVAL,
                        "header extension 0x%08" PRIx32 " has %" PRIu32 " bytes: only %" PRIu64
                        " are left in the first cluster",
                        type, length, size - at - 8);
        if (type == EXTENSION_BACKING_FORMAT)
            ok = take_string(&h->backing_format, data, length, "backing file format", err);
        else if (type == EXTENSION_DATA_FILE)
            ok = take_string(&h->data_file, data, length, "data file name", err);
        else if (type == EXTENSION_BITMAPS)
            ok = parse_bitmaps(h, data, length, err);
        else if (type == EXTENSION_ENCRYPTION)
            ok = parse_encryption(h, data, length, err);
        else if (type == EXTENSION_WRITE_LOG)
            parse_write_log(h, data, length);
        else if (type == EXTENSION_FEATURE_NAMES)
            names = data, names_length = length;
        at += 8 + round_up((uint64_t)length, 8);
    }
    uint64_t unknown = h->incompatible & ~INCOMPATIBLE_KNOWN;
    return ok && (!unknown || unknown_features(unknown, names, names_length, err));
}

static bool parse_backing_name(struct header *h, const uint8_t *cluster, uint64_t offset, uint32_t size,
                               struct error *err)
{
    uint64_t cluster_size = 1ull << h->cluster_bits;
    if (offset < h->header_length || offset >= cluster_size)
        return fail(err, EINVAL,
                    "backing_file_offset is 0x%" PRIx64 ": it must lie in the first cluster, from %" PRIu32
                    " to %" PRIu64,
                    offset, h->header_length, cluster_size);
    if (size > BACKING_NAME_MAX || size > cluster_size - offset)
        return fail(err, EINVAL,
                    "backing_file_size is %" PRIu32 ": it must not exceed %u, and end in the first cluster", size,
                    BACKING_NAME_MAX);
    return size == 0 || take_string(&h->backing_name, cluster + offset, size, "backing file name", err);
}

static bool parse_header(struct edge *file, struct header *h, struct error *err)
{
    uint8_t fixed[HEADER_NEW_LENGTH];
    if (file->child->size < HEADER_V2_LENGTH)
        return fail(err, EINVAL, "the file has %" PRIu64 " bytes: a qcow2 image has a header of at least %d",
                    file->child->size, HEADER_V2_LENGTH);
    int result = qcow2_read_file(file, 0, fixed, sizeof fixed);
    if (result)
        return fail_errno(err, result, "cannot read the header");
    parse_fixed(fixed, h);
    if (!check_basics(fixed, h, err))
        return false;
    uint64_t cluster_size = 1ull << h->cluster_bits;
    auto_free uint8_t *cluster = try_calloc(1, cluster_size);
    if (!cluster)
        return fail(err, ENOMEM, "out of memory for the header");
    result = qcow2_read_file(file, 0, cluster, cluster_size);
    if (result)
        return fail_errno(err, result, "cannot read the header");
    uint64_t name_offset = load_be64(cluster + HEADER_BACKING_OFFSET);
    if (name_offset && !parse_backing_name(h, cluster, name_offset, load_be32(cluster + HEADER_BACKING_SIZE), err))
        return false;
    uint64_t end = name_offset ? name_offset : cluster_size;
    return parse_extensions(h, cluster + h->header_length, end - h->header_length, err) && check_features(h, err) &&
           check_tables(h, err);
}

bool header_load(struct edge *file, struct header *header, struct error *err)
{
    *header = (struct header){0};
    if (parse_header(file, header, err))
        return true;
    header_release(header);
    return false;
}

void header_release(struct header *header)
{
    free(header->backing_name);
    free(header->backing_format);
    free(header->data_file);
    header->backing_name = header->backing_format = header->data_file = NULL;
}
