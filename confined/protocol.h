/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a confined worker and its owner say to each other: one datagram (SOCK_SEQPACKET) a question, one an answer, of
 * fixed sizes. Both are the same program, so numbers are as the processor has them.
 *
 *     owner                                       worker
 *       OPEN  format, flags             ------->
 *                                       <-------  facts: size, cluster size, format, names that the image holds
 *       MAP   offset, length            ------->
 *                                       <-------  up to 127 extents, the first at `offset`; they may go beyond `length`
 *       READ  offset, length            ------->
 *                                       <-------  decoded bytes, in the shared buffer
 *       INFO                            ------->
 *                                       <-------  what is special to the format: JSON in the shared buffer
 *       CHECK                           ------->
 *                                       <-------  counters
 *
 * The worker has read bytes that an attacker made, so the owner takes every answer for an attacker's: confined/
 * validate.c says what an answer may be. The worker trusts its owner.
 */
#ifndef CONFINED_PROTOCOL_H
#define CONFINED_PROTOCOL_H

#include <stdint.h>

/* Descriptors of a worker; 0, 1 and 2 are /dev/null. */
enum { CONFINED_IMAGE_FD = 3, CONFINED_SOCKET_FD = 4, CONFINED_BUFFER_FD = 5 };

/* The hidden argument that makes a program a worker. */
#define CONFINED_WORKER_ARGUMENT "--confined-worker"

#define CONFINED_BUFFER_SIZE (2u << 20) /* as large as a cluster can be */
#define CONFINED_EXTENTS 127u
#define CONFINED_NAME_SIZE 1024u /* backing file names have at most 1023 bytes */
#define CONFINED_FORMAT_SIZE 32u
/* Bytes that an extent may reach beyond the end of the file: an image may end inside its last cluster. */
#define CONFINED_SLACK (2u << 20)

enum confined_op { CONFINED_OPEN = 1, CONFINED_MAP, CONFINED_READ, CONFINED_INFO, CONFINED_CHECK };

enum confined_open_flags { CONFINED_METADATA_ONLY = 1 };

struct confined_question {
    uint32_t sequence; /* the answer repeats it */
    uint32_t op;
    uint64_t offset, length;
    uint32_t flags;
    char format[CONFINED_FORMAT_SIZE]; /* "": to be found by the first bytes */
};

enum confined_fact_flags {
    CONFINED_HAS_DIRTY_FLAG = 1,
    CONFINED_DIRTY = 2,
    CONFINED_COMPRESSED = 4,
    CONFINED_ENCRYPTED = 8,
    CONFINED_CAN_CHECK = 16,
    CONFINED_HAS_BACKING = 32,
    CONFINED_FACT_FLAGS = 63,
};

struct confined_facts {
    uint64_t size, cluster_size;
    uint32_t flags;
    char format[CONFINED_FORMAT_SIZE], backing_format[CONFINED_FORMAT_SIZE];
    char backing_name[CONFINED_NAME_SIZE];
};

enum confined_extent_flags {
    CONFINED_ALLOCATED = 1,
    CONFINED_FOLLOW = 2,
    CONFINED_PLACED = 4, /* `host_offset` says where in the file */
    CONFINED_EXTENT_FLAGS = 7,
};

struct confined_extent {
    uint64_t length, host_offset;
    uint32_t kind; /* enum extent_kind */
    uint32_t flags;
};

/* The counters of a check, in the order of the schema's ImageCheck. */
enum confined_counter {
    CONFINED_IMAGE_END,
    CONFINED_TOTAL,
    CONFINED_CHECK_ERRORS,
    CONFINED_ALLOCATED_CLUSTERS,
    CONFINED_FRAGMENTED,
    CONFINED_COMPRESSED_CLUSTERS,
    CONFINED_LEAKS,
    CONFINED_CORRUPTIONS,
    CONFINED_COUNTERS,
};

struct confined_answer {
    uint32_t sequence, op;
    int32_t result; /* 0 or -errno; then u.message says why, or is empty */
    uint32_t count; /* MAP: extents; READ, INFO: bytes in the buffer; else 0 */
    union {
        struct confined_facts facts;
        struct confined_extent extents[CONFINED_EXTENTS];
        int64_t counters[CONFINED_COUNTERS];
        char message[512];
    } u;
};

#endif
