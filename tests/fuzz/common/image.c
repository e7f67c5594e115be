/* SPDX-License-Identifier: Apache-2.0 */
/* See image.h. Nothing read from the image is believed: it may have been changed by earlier steps. */
#include "tests/fuzz/common/image.h"

#include <string.h>
#include "base/endian.h"
#include "base/math.h"
#include "formats/qcow2/layout.h"

enum step_op {
    STEP_BYTES,
    STEP_HEADER,
    STEP_L1,
    STEP_L2,
    STEP_REFTABLE,
    STEP_REFBLOCK,
    STEP_SNAPSHOT,
    STEP_SNAPSHOT_L1,
    STEP_BITMAPS,
    STEP_BITMAP_ENTRY,
    STEP_BITMAP_TABLE,
    STEP_EXTENSION,
    STEP_SIZE,
    STEP_GRAFT_SNAPSHOT,
    STEP_GRAFT_BITMAP,
    STEP_BACKING_NAME,
    STEP_COUNT
};
enum { STEP_BYTES_USED = 14 };

/* A field of the file: `bytes` at `at`, big endian; bytes 0: there is no such field. */
struct field {
    size_t at;
    unsigned bytes;
};

struct step {
    enum step_op op;
    unsigned a, b, mode;
    uint64_t literal;
};

static bool fits(const struct fuzz_image *image, uint64_t at, uint64_t bytes)
{
    return bytes <= image->size && at <= image->size - bytes;
}

static uint64_t get(const struct fuzz_image *image, struct field field)
{
    uint64_t value = 0;
    if (!fits(image, field.at, field.bytes))
        return 0;
    for (unsigned i = 0; i < field.bytes; i++)
        value = value << 8 | image->bytes[field.at + i];
    return value;
}

static void put(struct fuzz_image *image, struct field field, uint64_t value)
{
    if (!fits(image, field.at, field.bytes))
        return;
    for (unsigned i = field.bytes; i--; value >>= 8)
        image->bytes[field.at + i] = (uint8_t)value;
}

static uint64_t header64(const struct fuzz_image *image, size_t at)
{
    return get(image, (struct field){at, 8});
}

static uint32_t header32(const struct fuzz_image *image, size_t at)
{
    return (uint32_t)get(image, (struct field){at, 4});
}

static uint64_t cluster_size(const struct fuzz_image *image)
{
    uint32_t bits = header32(image, HEADER_CLUSTER_BITS);
    return bits >= CLUSTER_BITS_MIN && bits <= CLUSTER_BITS_MAX ? 1ull << bits : 512;
}

static bool is_extended(const struct fuzz_image *image)
{
    return header32(image, HEADER_VERSION) == 3 && header64(image, HEADER_INCOMPATIBLE) & INCOMPATIBLE_EXTENDED_L2;
}

/* The `index`-th entry of a table of 8-byte entries, of those that the file has. */
static struct field entry_of(const struct fuzz_image *image, uint64_t table, uint64_t count, unsigned index)
{
    if (!count || table >= image->size)
        return (struct field){0};
    uint64_t at = table + index % count * 8;
    return fits(image, at, 8) ? (struct field){at, 8} : (struct field){0};
}

static struct field l1_entry(const struct fuzz_image *image, unsigned index)
{
    return entry_of(image, header64(image, HEADER_L1_OFFSET), header32(image, HEADER_L1_SIZE), index);
}

static struct field l2_entry(const struct fuzz_image *image, struct field l1, unsigned index)
{
    uint64_t table = get(image, l1) & ENTRY_OFFSET;
    if (!l1.bytes || !table)
        return (struct field){0};
    /* Low entries are the ones in use; the bitmaps of extended entries are entries of their own here. */
    return entry_of(image, table, cluster_size(image) / 8, index & 0x100 ? index : index % 64);
}

static struct field reftable_entry(const struct fuzz_image *image, unsigned index)
{
    uint64_t clusters = header32(image, HEADER_REFTABLE_CLUSTERS);
    return entry_of(image, header64(image, HEADER_REFTABLE_OFFSET), MIN(clusters * cluster_size(image) / 8, 64ull),
                    index);
}

static struct field refcount(const struct fuzz_image *image, unsigned table_index, unsigned index)
{
    struct field entry = reftable_entry(image, index & 0x8000 ? table_index : 0);
    uint64_t block = get(image, entry) & ~REFTABLE_RESERVED;
    unsigned order = header32(image, HEADER_VERSION) == 3 ? header32(image, HEADER_REFCOUNT_ORDER) : 4;
    unsigned bytes = order >= 3 && order <= REFCOUNT_ORDER_MAX ? 1u << (order - 3) : 1;
    uint64_t at = block + (uint64_t)(index % 256) * bytes;
    return entry.bytes && block && fits(image, at, bytes) ? (struct field){at, bytes} : (struct field){0};
}

static struct field header_field(unsigned index)
{
    static const struct field fields[] = {
        {HEADER_VERSION, 4},
        {HEADER_BACKING_OFFSET, 8},
        {HEADER_BACKING_SIZE, 4},
        {HEADER_CLUSTER_BITS, 4},
        {HEADER_SIZE, 8},
        {HEADER_CRYPT_METHOD, 4},
        {HEADER_L1_SIZE, 4},
        {HEADER_L1_OFFSET, 8},
        {HEADER_REFTABLE_OFFSET, 8},
        {HEADER_SNAPSHOT_COUNT, 4},
        {HEADER_SNAPSHOT_OFFSET, 8},
        {HEADER_REFTABLE_CLUSTERS, 4},
        {HEADER_INCOMPATIBLE, 8},
        {HEADER_COMPATIBLE, 8},
        {HEADER_AUTOCLEAR, 8},
        {HEADER_REFCOUNT_ORDER, 4},
        {HEADER_LENGTH, 4},
        {HEADER_COMPRESSION_TYPE, 1},
    };
    return fields[index % ARRAY_SIZE(fields)];
}

/* Where entry `index` of the snapshot table begins; 0: nowhere. */
static uint64_t snapshot_at(const struct fuzz_image *image, unsigned index)
{
    uint64_t at = header64(image, HEADER_SNAPSHOT_OFFSET);
    uint32_t count = header32(image, HEADER_SNAPSHOT_COUNT);
    if (!count)
        return 0;
    for (unsigned left = index % MIN(count, 8u); left && fits(image, at, SNAPSHOT_FIXED); left--) {
        const uint8_t *entry = image->bytes + at;
        at = round_up(at + SNAPSHOT_FIXED + load_be16(entry + SNAPSHOT_ID_SIZE) +
                          load_be16(entry + SNAPSHOT_NAME_SIZE) + load_be32(entry + SNAPSHOT_EXTRA_SIZE),
                      8);
    }
    return fits(image, at, SNAPSHOT_FIXED) ? at : 0;
}

static struct field snapshot_field(const struct fuzz_image *image, unsigned index, unsigned which)
{
    static const struct field fields[] = {
        {SNAPSHOT_L1_OFFSET, 8}, {SNAPSHOT_L1_SIZE, 4},    {SNAPSHOT_ID_SIZE, 2},
        {SNAPSHOT_NAME_SIZE, 2}, {SNAPSHOT_EXTRA_SIZE, 4}, {32, 4},
        {SNAPSHOT_FIXED, 8},     {SNAPSHOT_FIXED + 8, 8},
    };
    uint64_t at = snapshot_at(image, index);
    struct field field = fields[which % ARRAY_SIZE(fields)];
    return at ? (struct field){at + field.at, field.bytes} : (struct field){0};
}

static struct field snapshot_l1_entry(const struct fuzz_image *image, unsigned index, unsigned entry)
{
    uint64_t at = snapshot_at(image, index);
    if (!at)
        return (struct field){0};
    struct field l1 =
        entry_of(image, header64(image, at + SNAPSHOT_L1_OFFSET), header32(image, at + SNAPSHOT_L1_SIZE), entry & 0xff);
    return entry & 0x4000 ? l2_entry(image, l1, entry >> 8 & 63) : l1;
}

/* Where the header extension of a type begins, or (type 0) the `index`-th; 0: nowhere. */
static uint64_t extension_at(const struct fuzz_image *image, uint32_t type, unsigned index)
{
    uint64_t at = header32(image, HEADER_VERSION) == 3 ? header32(image, HEADER_LENGTH) : HEADER_V2_LENGTH;
    for (unsigned i = 0; i < 16 && fits(image, at, 8); i++) {
        uint32_t found = header32(image, at);
        if (type ? found == type : i == index)
            return at;
        if (found == EXTENSION_END)
            return type ? 0 : at;
        at = round_up(at + 8 + header32(image, at + 4), 8);
    }
    return 0;
}

static uint64_t bitmap_at(const struct fuzz_image *image, unsigned index)
{
    uint64_t extension = extension_at(image, EXTENSION_BITMAPS, 0);
    if (!extension)
        return 0;
    uint64_t at = header64(image, extension + 8 + 16);
    for (unsigned left = index % 4; left && fits(image, at, BITMAP_FIXED); left--)
        at = round_up(at + BITMAP_FIXED + load_be16(image->bytes + at + BITMAP_NAME_SIZE) +
                          load_be32(image->bytes + at + BITMAP_EXTRA_SIZE),
                      8);
    return fits(image, at, BITMAP_FIXED) ? at : 0;
}

static struct field bitmap_field(const struct fuzz_image *image, unsigned index, unsigned which)
{
    static const struct field fields[] = {{BITMAP_TABLE_OFFSET, 8}, {BITMAP_TABLE_SIZE, 4}, {12, 4}, {16, 1}, {17, 1},
                                          {BITMAP_NAME_SIZE, 2},    {BITMAP_EXTRA_SIZE, 4}};
    uint64_t at = bitmap_at(image, index);
    struct field field = fields[which % ARRAY_SIZE(fields)];
    return at ? (struct field){at + field.at, field.bytes} : (struct field){0};
}

static struct field bitmap_table_entry(const struct fuzz_image *image, unsigned index, unsigned entry)
{
    uint64_t at = bitmap_at(image, index);
    if (!at)
        return (struct field){0};
    return entry_of(image, header64(image, at + BITMAP_TABLE_OFFSET), header32(image, at + BITMAP_TABLE_SIZE), entry);
}

static struct field extension_field(const struct fuzz_image *image, unsigned index, unsigned which)
{
    uint64_t at = extension_at(image, 0, index % 6);
    if (!at)
        return (struct field){0};
    return which % 3 == 0   ? (struct field){at, 4}
           : which % 3 == 1 ? (struct field){at + 4, 4}
                            : (struct field){at + 8 + which / 3 % 64, 8};
}

static struct field bitmaps_field(const struct fuzz_image *image, unsigned which)
{
    static const struct field fields[] = {{8, 4}, {12, 4}, {16, 8}, {24, 8}};
    uint64_t at = extension_at(image, EXTENSION_BITMAPS, 0);
    struct field field = fields[which % ARRAY_SIZE(fields)];
    return at ? (struct field){at + field.at, field.bytes} : (struct field){0};
}

/* ---- values ---- */

static uint64_t new_value(const struct fuzz_image *image, uint64_t old, const struct step *step)
{
    uint64_t size = cluster_size(image), place = step->literal % (image->size / size + 2) * size;
    switch (step->mode % 8) {
    case 0: return step->literal;
    case 1: return place;
    case 2: return place | ENTRY_COPIED;
    case 3: return place | ENTRY_COPIED | ENTRY_ZERO;
    case 4: return place | ENTRY_COMPRESSED | step->literal >> 48 << 54 | (step->literal >> 16 & 0x1ff);
    case 5: return old ^ 1ull << step->literal % 64;
    case 6: return old + (uint64_t)(int8_t)step->literal;
    default: return old ^ (step->literal & 1 ? ENTRY_COPIED : ENTRY_ZERO);
    }
}

/* ---- grafts: parts that an image may not have ---- */

/* New clusters at the file's end; 0: there is no room. */
static uint64_t append(struct fuzz_image *image, uint64_t clusters)
{
    uint64_t size = cluster_size(image), at = round_up((uint64_t)image->size, size);
    if (at + clusters * size > image->capacity)
        return 0;
    memset(image->bytes + image->size, 0, at + clusters * size - image->size);
    image->size = at + clusters * size;
    return at;
}

/* One cluster counts as used once, where its refcount is 16 bits wide and has a block. */
static void count_cluster(struct fuzz_image *image, uint64_t at)
{
    struct field entry = reftable_entry(image, 0);
    uint64_t block = get(image, entry) & ~REFTABLE_RESERVED;
    if (entry.bytes && block && (header32(image, HEADER_VERSION) == 2 || header32(image, HEADER_REFCOUNT_ORDER) == 4))
        put(image, (struct field){block + at / cluster_size(image) * 2, 2}, 1);
}

/* A snapshot that shares the active tables. */
static void graft_snapshot(struct fuzz_image *image, const struct step *step)
{
    uint32_t l1_size = header32(image, HEADER_L1_SIZE);
    if (!header32(image, HEADER_SNAPSHOT_COUNT)) {
        uint64_t table = append(image, 1);
        if (!table)
            return;
        count_cluster(image, table);
        put(image, (struct field){HEADER_SNAPSHOT_OFFSET, 8}, table);
    }
    uint32_t count = header32(image, HEADER_SNAPSHOT_COUNT);
    uint64_t at = header64(image, HEADER_SNAPSHOT_OFFSET) + (uint64_t)count * 64;
    uint64_t l1_from = header64(image, HEADER_L1_OFFSET), l1 = step->a & 1 ? 0 : append(image, 1);
    if (!fits(image, at, 64) || count > 6)
        return;
    memset(image->bytes + at, 0, 64);
    store_be64(image->bytes + at + SNAPSHOT_L1_OFFSET, l1 ? l1 : l1_from);
    store_be32(image->bytes + at + SNAPSHOT_L1_SIZE, l1_size);
    store_be16(image->bytes + at + SNAPSHOT_ID_SIZE, 1);
    store_be16(image->bytes + at + SNAPSHOT_NAME_SIZE, 2);
    store_be32(image->bytes + at + SNAPSHOT_EXTRA_SIZE, SNAPSHOT_EXTRA_V3);
    store_be64(image->bytes + at + SNAPSHOT_FIXED + 8, header64(image, HEADER_SIZE));
    image->bytes[at + SNAPSHOT_FIXED + SNAPSHOT_EXTRA_V3] = (uint8_t)('1' + count);
    memcpy(image->bytes + at + SNAPSHOT_FIXED + SNAPSHOT_EXTRA_V3 + 1, "s", 1);
    uint64_t bytes = MIN((uint64_t)l1_size * 8, cluster_size(image));
    if (l1 && fits(image, l1_from, bytes)) {
        count_cluster(image, l1);
        memcpy(image->bytes + l1, image->bytes + l1_from, bytes);
    }
    put(image, (struct field){HEADER_SNAPSHOT_COUNT, 4}, count + 1);
}

/* Moves what follows the header extensions' place and puts one of bitmaps there, where the first cluster has room. */
static uint64_t add_bitmap_extension(struct fuzz_image *image, uint64_t directory)
{
    uint64_t at = header32(image, HEADER_VERSION) == 3 ? header32(image, HEADER_LENGTH) : 0;
    uint64_t size = cluster_size(image);
    if (at < HEADER_V3_LENGTH || at + 64 > size || !fits(image, 0, size))
        return 0;
    memmove(image->bytes + at + 32, image->bytes + at, size - at - 32);
    store_be32(image->bytes + at, EXTENSION_BITMAPS);
    store_be32(image->bytes + at + 4, 24);
    store_be32(image->bytes + at + 8, 0);
    store_be32(image->bytes + at + 12, 0);
    store_be64(image->bytes + at + 16, 0);
    store_be64(image->bytes + at + 24, directory);
    put(image, (struct field){HEADER_AUTOCLEAR, 8}, header64(image, HEADER_AUTOCLEAR) | AUTOCLEAR_BITMAPS);
    return at;
}

/* A bitmap with one cluster of bits; flags and granularity from the step. */
static void graft_bitmap(struct fuzz_image *image, const struct step *step)
{
    uint64_t extension = extension_at(image, EXTENSION_BITMAPS, 0);
    uint64_t directory = extension ? header64(image, extension + 24) : append(image, 1);
    if (!directory || (!extension && !(extension = add_bitmap_extension(image, directory))))
        return;
    count_cluster(image, directory);
    uint32_t count = header32(image, extension + 8);
    uint64_t at = directory + (uint64_t)count * 32, table = append(image, 2);
    if (!table || count > 6 || !fits(image, at, 32))
        return;
    count_cluster(image, table);
    count_cluster(image, table + cluster_size(image));
    memset(image->bytes + at, 0, 32);
    store_be64(image->bytes + at + BITMAP_TABLE_OFFSET, table);
    store_be32(image->bytes + at + BITMAP_TABLE_SIZE, 1);
    store_be32(image->bytes + at + 12, step->a & 3);
    image->bytes[at + 16] = 1;
    image->bytes[at + 17] = (uint8_t)(9 + step->b % 12);
    store_be16(image->bytes + at + BITMAP_NAME_SIZE, 2);
    image->bytes[at + BITMAP_FIXED] = 'b';
    image->bytes[at + BITMAP_FIXED + 1] = (uint8_t)('0' + count);
    store_be64(image->bytes + table, table + cluster_size(image));
    memset(image->bytes + table + cluster_size(image), (int)step->literal & 0xff, 64);
    put(image, (struct field){extension + 8, 4}, count + 1);
    put(image, (struct field){extension + 16, 8}, (uint64_t)(count + 1) * 32);
}

static void set_backing_name(struct fuzz_image *image, const struct step *step)
{
    static const char *const names[] = {
        "base",  "fuzz.qcow2", "json:{\"driver\":\"raw\",\"file\":\"x\"}",
        "nbd:x", "",           "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"base\"}}"};
    const char *name = names[step->a % ARRAY_SIZE(names)];
    uint64_t at = step->b & 1 ? header64(image, HEADER_BACKING_OFFSET) : cluster_size(image) - 96;
    if (!fits(image, at, strlen(name)) || at < HEADER_V2_LENGTH)
        return;
    memcpy(image->bytes + at, name, strlen(name));
    put(image, (struct field){HEADER_BACKING_OFFSET, 8}, at);
    put(image, (struct field){HEADER_BACKING_SIZE, 4}, strlen(name));
}

static void set_size(struct fuzz_image *image, const struct step *step)
{
    size_t size = step->a & 1 ? image->size - MIN(image->size, (size_t)step->b) : image->size + step->b;
    size = MIN(size, image->capacity);
    if (size > image->size)
        memset(image->bytes + image->size, step->a >> 1, size - image->size);
    image->size = size;
}

/* ---- steps ---- */

static struct field field_of(const struct fuzz_image *image, const struct step *step)
{
    unsigned a = step->a, b = step->b;
    switch (step->op) {
    case STEP_BYTES: {
        uint64_t at = ((uint64_t)(a & 0xff) << 16 | b) % MAX(image->size, (size_t)1);
        return (struct field){at, 1u << (a >> 8) % 4};
    }
    case STEP_HEADER: return header_field(a);
    case STEP_L1: return l1_entry(image, a % 64);
    case STEP_L2: return l2_entry(image, l1_entry(image, a % 8), b * (is_extended(image) ? 2 : 1));
    case STEP_REFTABLE: return reftable_entry(image, a);
    case STEP_REFBLOCK: return refcount(image, a, b);
    case STEP_SNAPSHOT: return snapshot_field(image, a, b);
    case STEP_SNAPSHOT_L1: return snapshot_l1_entry(image, a, b);
    case STEP_BITMAPS: return bitmaps_field(image, a);
    case STEP_BITMAP_ENTRY: return bitmap_field(image, a, b);
    case STEP_BITMAP_TABLE: return bitmap_table_entry(image, a, b);
    case STEP_EXTENSION: return extension_field(image, a, b);
    default: return (struct field){0};
    }
}

void fuzz_image_step(struct fuzz_image *image, const struct record *record)
{
    struct step step = {.op = record_number(record, 0, 1) % STEP_COUNT,
                        .a = (unsigned)record_number(record, 1, 2),
                        .b = (unsigned)record_number(record, 3, 2),
                        .mode = (unsigned)record_number(record, 5, 1),
                        .literal = record_number(record, 6, 8)};
    switch (step.op) {
    case STEP_GRAFT_SNAPSHOT: graft_snapshot(image, &step); return;
    case STEP_GRAFT_BITMAP: graft_bitmap(image, &step); return;
    case STEP_BACKING_NAME: set_backing_name(image, &step); return;
    case STEP_SIZE: set_size(image, &step); return;
    default: break;
    }
    struct field field = field_of(image, &step);
    if (field.bytes)
        put(image, field, new_value(image, get(image, field), &step));
}

size_t fuzz_image_fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    bytes[0] = (uint8_t)fuzz_draw(random, STEP_COUNT);
    uint16_t a = (uint16_t)fuzz_draw(random, fuzz_draw(random, 4) ? 16 : 65536),
             b = (uint16_t)fuzz_draw(random, fuzz_draw(random, 4) ? 64 : 65536);
    memcpy(bytes + 1, &a, 2);
    memcpy(bytes + 3, &b, 2);
    bytes[5] = (uint8_t)fuzz_draw(random, 8);
    uint64_t literal = fuzz_interesting(random);
    memcpy(bytes + 6, &literal, 8);
    return STEP_BYTES_USED;
}
