/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands where in a qcow2 file. Names and numbers are those of the format's specification ("Qcow2 Image File
 * Format"); every number on disk is big-endian. Nothing here has state.
 *
 *   cluster 0            anywhere, on cluster boundaries
 *   +--------+           refcount table -> refcount blocks: how many references each host cluster has
 *   | header |           L1 table -> L2 tables -> data clusters: where each guest cluster is
 *   | exts   |           snapshot table -> L1 tables of snapshots -> ...
 *   | names  |           bitmap directory -> bitmap tables -> bitmap data
 *   +--------+
 */
#ifndef FORMATS_QCOW2_LAYOUT_H
#define FORMATS_QCOW2_LAYOUT_H

#include <stdint.h>
#include "base/math.h"

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

/* Byte offsets of the header's fields. */
enum {
    HEADER_MAGIC = 0,
    HEADER_VERSION = 4,
    HEADER_BACKING_OFFSET = 8,
    HEADER_BACKING_SIZE = 16,
    HEADER_CLUSTER_BITS = 20,
    HEADER_SIZE = 24,
    HEADER_CRYPT_METHOD = 32,
    HEADER_L1_SIZE = 36,
    HEADER_L1_OFFSET = 40,
    HEADER_REFTABLE_OFFSET = 48,
    HEADER_REFTABLE_CLUSTERS = 56,
    HEADER_SNAPSHOT_COUNT = 60,
    HEADER_SNAPSHOT_OFFSET = 64,
    HEADER_V2_LENGTH = 72, /* version 2 ends here */
    HEADER_INCOMPATIBLE = 72,
    HEADER_COMPATIBLE = 80,
    HEADER_AUTOCLEAR = 88,
    HEADER_REFCOUNT_ORDER = 96,
    HEADER_LENGTH = 100,
    HEADER_V3_LENGTH = 104, /* the least of version 3 */
    HEADER_COMPRESSION_TYPE = 104,
    HEADER_NEW_LENGTH = 112, /* what we write: with the compression type and its padding */
};

#define INCOMPATIBLE_DIRTY (1ull << 0)
#define INCOMPATIBLE_CORRUPT (1ull << 1)
#define INCOMPATIBLE_DATA_FILE (1ull << 2)
#define INCOMPATIBLE_COMPRESSION (1ull << 3)
#define INCOMPATIBLE_EXTENDED_L2 (1ull << 4)
#define INCOMPATIBLE_KNOWN 0x1full
#define COMPATIBLE_LAZY_REFCOUNTS (1ull << 0)
#define AUTOCLEAR_BITMAPS (1ull << 0)
#define AUTOCLEAR_RAW_DATA (1ull << 1)
/* Ours, far from those that the specification will give out: the write log (write_log.c) belongs to this content. Other
 * programs clear autoclear bits that they do not know before they write. */
#define AUTOCLEAR_WRITE_LOG (1ull << 60)

enum { COMPRESSION_DEFLATE = 0, COMPRESSION_ZSTD = 1 };
enum { CRYPT_NONE = 0, CRYPT_AES = 1, CRYPT_LUKS = 2 };

/* Header extensions: type, length, data, padding to 8. */
#define EXTENSION_END 0u
#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_FEATURE_NAMES 0x6803f857u
#define EXTENSION_BITMAPS 0x23852875u
#define EXTENSION_ENCRYPTION 0x0537be77u
#define EXTENSION_DATA_FILE 0x44415441u
#define EXTENSION_WRITE_LOG 0x53706c67u /* ours, "Splg": where the write log is */
#define FEATURE_NAME_ENTRY 48u          /* type, bit, 46 bytes of name */

/* The write log's extension: version, bits of a region's size, place, bytes. */
enum { WRITE_LOG_VERSION = 1, WRITE_LOG_EXTENSION_SIZE = 24 };
enum { DIRTY_MAP_BYTES = 4096 }; /* of dirty regions, at the end of the log */

/* Limits. Those of the format and those that the ecosystem's other implementations keep, so that an image made here
 * opens everywhere, and an image from elsewhere cannot ask for more memory than an honest one needs. */
enum { CLUSTER_BITS_MIN = 9, CLUSTER_BITS_MAX = 21, CLUSTER_BITS_MIN_EXTENDED = 14 };
#define REFCOUNT_ORDER_MAX 6u
#define L1_BYTES_MAX (32 * MiB)
#define REFTABLE_BYTES_MAX (8 * MiB)
#define SNAPSHOT_COUNT_MAX 65536u
#define SNAPSHOT_TABLE_BYTES_MAX (64 * MiB)
#define SNAPSHOT_EXTRA_MAX 1024u
#define BITMAP_COUNT_MAX 65535u
#define BITMAP_DIRECTORY_BYTES_MAX (64 * MiB)
#define BITMAP_NAME_MAX 1023u
#define BITMAP_TABLE_ENTRIES_MAX (1u << 24) /* 128 MiB of table */
#define BACKING_NAME_MAX 1023u
#define HOST_OFFSET_END (1ull << 56) /* what entries can name */

/* Entries of L1 and L2 tables. */
#define ENTRY_OFFSET 0x00fffffffffffe00ull
#define ENTRY_COPIED (1ull << 63)
#define ENTRY_COMPRESSED (1ull << 62)
#define ENTRY_ZERO (1ull << 0)
#define L1_RESERVED 0x7f000000000001ffull
#define L2_RESERVED 0x3f000000000001feull
#define REFTABLE_RESERVED 0x1ffull
#define BITMAP_TABLE_RESERVED 0xff000000000001feull

/* Subcluster bits of an extended L2 entry. */
enum { SUBCLUSTERS = 32 };
#define SUBCLUSTERS_ALLOCATED 0x00000000ffffffffull
#define SUBCLUSTERS_ZERO 0xffffffff00000000ull

/* Fixed part of a snapshot table entry and of a bitmap directory entry. */
enum {
    SNAPSHOT_L1_OFFSET = 0,
    SNAPSHOT_L1_SIZE = 8,
    SNAPSHOT_ID_SIZE = 12,
    SNAPSHOT_NAME_SIZE = 14,
    SNAPSHOT_DATE_S = 16,
    SNAPSHOT_DATE_NS = 20,
    SNAPSHOT_VM_CLOCK = 24,
    SNAPSHOT_VM_STATE_SIZE = 32,
    SNAPSHOT_EXTRA_SIZE = 36,
    SNAPSHOT_FIXED = 40,
    SNAPSHOT_EXTRA = 24,    /* what we know and write: sizes of machine state and disk, instruction count */
    SNAPSHOT_EXTRA_V3 = 16, /* version 3: at least the 64-bit sizes of machine state and disk */
};
enum {
    BITMAP_TABLE_OFFSET = 0,
    BITMAP_TABLE_SIZE = 8,
    BITMAP_FLAGS = 12,
    BITMAP_TYPE = 16,
    BITMAP_GRANULARITY = 17, /* in bits */
    BITMAP_NAME_SIZE = 18,
    BITMAP_EXTRA_SIZE = 20,
    BITMAP_FIXED = 24,
};
enum { BITMAP_IN_USE = 1 << 0, BITMAP_AUTO = 1 << 1, BITMAP_EXTRA_COMPATIBLE = 1 << 2 };
enum { BITMAP_TYPE_DIRTY = 1 };
#define BITMAP_ALL_ONES (1ull << 0) /* of a table entry without an offset */

#endif
