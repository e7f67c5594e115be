/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk requests and configuration space (virtio 1.3, section 5.2), shared by the vhost-user export and the
 * emulator's own device.
 *
 * A chain from the driver is a 16-byte header, data, and a status byte that is the last byte the device may write; how
 * it is cut into descriptors means nothing. virtio_blk_parse() checks all of that against the disk, and leaves the data
 * as iovecs that point straight into guest memory.
 */
#ifndef VIRTIO_VIRTIO_BLK_H
#define VIRTIO_VIRTIO_BLK_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "virtio/virtqueue.h"

#define VIRTIO_BLK_SECTOR_SIZE 512u /* the unit of every sector number, whatever the block size */
#define VIRTIO_BLK_ID_BYTES 20u
#define VIRTIO_BLK_MAX_RANGES 32u /* ranges in one discard or write-zeroes request that we accept at most */

/* Feature bit numbers, 5.2.3. */
enum virtio_blk_feature {
    VIRTIO_BLK_F_SIZE_MAX = 1,
    VIRTIO_BLK_F_SEG_MAX = 2,
    VIRTIO_BLK_F_GEOMETRY = 4,
    VIRTIO_BLK_F_RO = 5,
    VIRTIO_BLK_F_BLK_SIZE = 6,
    VIRTIO_BLK_F_FLUSH = 9,
    VIRTIO_BLK_F_TOPOLOGY = 10,
    VIRTIO_BLK_F_CONFIG_WCE = 11,
    VIRTIO_BLK_F_MQ = 12,
    VIRTIO_BLK_F_DISCARD = 13,
    VIRTIO_BLK_F_WRITE_ZEROES = 14,
    VIRTIO_BLK_F_LIFETIME = 15,
    VIRTIO_BLK_F_SECURE_ERASE = 16,
};

/* Request types, 5.2.6. */
enum virtio_blk_type {
    VIRTIO_BLK_T_IN = 0,
    VIRTIO_BLK_T_OUT = 1,
    VIRTIO_BLK_T_FLUSH = 4,
    VIRTIO_BLK_T_GET_ID = 8,
    VIRTIO_BLK_T_GET_LIFETIME = 10,
    VIRTIO_BLK_T_DISCARD = 11,
    VIRTIO_BLK_T_WRITE_ZEROES = 13,
    VIRTIO_BLK_T_SECURE_ERASE = 14,
};

enum virtio_blk_status { VIRTIO_BLK_S_OK = 0, VIRTIO_BLK_S_IOERR = 1, VIRTIO_BLK_S_UNSUPP = 2 };

#define VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP 1u

/* What the parser checks requests against. The same struct fills the configuration space. */
struct virtio_blk_limits {
    uint64_t capacity_bytes;
    uint32_t block_size; /* logical block, bytes; a power of two, at least 512 */
    uint32_t seg_max, size_max;
    uint8_t physical_block_exponent; /* log2 of logical blocks in a physical one */
    uint16_t min_io_blocks;
    uint32_t opt_io_blocks;
    uint16_t num_queues;
    bool read_only;
    bool writeback;               /* the configuration space's `writeback` byte */
    uint32_t max_discard_sectors; /* 512-byte sectors in one range; 0: discard not offered */
    uint32_t max_discard_ranges;  /* up to VIRTIO_BLK_MAX_RANGES */
    uint32_t discard_alignment;   /* sectors */
    uint32_t max_zeroes_sectors;  /* 0: write-zeroes not offered */
    uint32_t max_zeroes_ranges;
    bool zeroes_may_unmap;
};

#define VIRTIO_BLK_CONFIG_SIZE 60u      /* through write_zeroes_may_unmap and its padding */
#define VIRTIO_BLK_CONFIG_WRITEBACK 32u /* offset of the one byte that a driver may write */
void virtio_blk_config_encode(const struct virtio_blk_limits *limits, uint8_t config[VIRTIO_BLK_CONFIG_SIZE]);
/* The feature bits that these limits stand for (device-specific bits only). */
uint64_t virtio_blk_features(const struct virtio_blk_limits *limits);

struct virtio_blk_range {
    uint64_t offset, length; /* bytes */
    bool unmap;              /* write-zeroes: the space may be deallocated */
};

struct virtio_blk_request {
    uint32_t type;      /* enum virtio_blk_type */
    uint64_t offset;    /* bytes; IN and OUT */
    uint64_t length;    /* bytes of data; IN, OUT and GET_ID */
    struct iovec *data; /* inside the element's iov; the driver's memory */
    uint32_t data_count;
    uint32_t range_count; /* DISCARD and WRITE_ZEROES: checked copies */
    struct virtio_blk_range ranges[VIRTIO_BLK_MAX_RANGES];
    uint8_t *status;        /* where the answer goes */
    uint64_t written_if_ok; /* what virtqueue_push() is told after success: data for the driver and the status byte */
};

/* 0: the request may be carried out. VIRTIO_BLK_S_IOERR or VIRTIO_BLK_S_UNSUPP: finish it with that status, do nothing
 * else. -EPROTO: there is no place for a status, or no header; the queue is broken. The element's iov is trimmed. */
int virtio_blk_parse(struct virtqueue_element *element, const struct virtio_blk_limits *limits,
                     struct virtio_blk_request *request);

/* Writes the status byte and returns the number of bytes for virtqueue_push(). */
uint64_t virtio_blk_finish(const struct virtio_blk_request *request, enum virtio_blk_status status);

/* GET_ID: the serial, padded with zeros, as much as the driver has room for. */
void virtio_blk_fill_id(const struct virtio_blk_request *request, const char *serial);

/* Status for a data path's result (0 or -errno). */
static inline enum virtio_blk_status virtio_blk_status_of(int result)
{
    return result >= 0 ? VIRTIO_BLK_S_OK : result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

#endif
