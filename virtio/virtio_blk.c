/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-blk request parser. The header is copied out before it is looked at, ranges of discard and write-zeroes
 * too: the driver can change its memory while we think. Data is never copied; the element's pieces are trimmed at the
 * front by the header and at the back by the status byte.
 */
#include "virtio/virtio_blk.h"

#include <string.h>
#include "base/endian.h"
#include "base/iov.h"
#include "base/math.h"
#include "virtio/features.h"

#define HEADER_BYTES 16u /* le32 type, le32 reserved, le64 sector */
#define RANGE_BYTES 16u  /* le64 sector, le32 count, le32 flags */

/* --- configuration space, 5.2.4 ------------------------------------------------------------------------------- */

void virtio_blk_config_encode(const struct virtio_blk_limits *limits, uint8_t config[VIRTIO_BLK_CONFIG_SIZE])
{
    memset(config, 0, VIRTIO_BLK_CONFIG_SIZE);
    store_le64(config + 0, limits->capacity_bytes / VIRTIO_BLK_SECTOR_SIZE);
    store_le32(config + 8, limits->size_max);
    store_le32(config + 12, limits->seg_max);
    /* 16: geometry, which we do not offer */
    store_le32(config + 20, limits->block_size);
    config[24] = limits->physical_block_exponent;
    store_le16(config + 26, limits->min_io_blocks);
    store_le32(config + 28, limits->opt_io_blocks);
    config[VIRTIO_BLK_CONFIG_WRITEBACK] = limits->writeback;
    store_le16(config + 34, limits->num_queues);
    store_le32(config + 36, limits->max_discard_sectors);
    store_le32(config + 40, limits->max_discard_ranges);
    store_le32(config + 44, limits->discard_alignment);
    store_le32(config + 48, limits->max_zeroes_sectors);
    store_le32(config + 52, limits->max_zeroes_ranges);
    config[56] = limits->zeroes_may_unmap;
}

uint64_t virtio_blk_features(const struct virtio_blk_limits *limits)
{
    uint64_t features = VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) |
                        VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE);
    if (limits->size_max)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX);
    if (limits->seg_max)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX);
    if (limits->read_only)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_RO);
    if (limits->num_queues > 1)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    if (limits->max_discard_sectors)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_DISCARD);
    if (limits->max_zeroes_sectors)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
    return features;
}

/* --- requests, 5.2.6 ------------------------------------------------------------------------------------------ */

static void trim_front(struct iovec **iov, uint32_t *count, uint64_t bytes)
{
    while (bytes) {
        uint64_t piece = MIN(bytes, (uint64_t)(*iov)->iov_len);
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + piece;
        (*iov)->iov_len -= piece;
        bytes -= piece;
        if (!(*iov)->iov_len) {
            (*iov)++;
            (*count)--;
        }
    }
    while (*count && !(*iov)->iov_len) { /* also empty pieces that were there already */
        (*iov)++;
        (*count)--;
    }
}

/* Takes the last writable byte off; there is one. */
static uint8_t *take_status(struct virtqueue_element *element, uint32_t *in_count)
{
    struct iovec *in = virtqueue_element_in(element);
    struct iovec *last = &in[*in_count - 1];
    last->iov_len--;
    if (!last->iov_len)
        (*in_count)--;
    return (uint8_t *)last->iov_base + last->iov_len;
}

/* Bytes of a span of 512-byte sectors, when it is on the disk. */
static bool span_of_sectors(const struct virtio_blk_limits *limits, uint64_t sector, uint64_t length, uint64_t *offset)
{
    return !mul_overflows(sector, VIRTIO_BLK_SECTOR_SIZE, offset) && is_aligned(*offset, limits->block_size) &&
           is_aligned(length, limits->block_size) && span_fits(*offset, length, limits->capacity_bytes);
}

static int parse_transfer(const struct virtio_blk_limits *limits, struct virtio_blk_request *request, uint64_t sector)
{
    if (request->type == VIRTIO_BLK_T_OUT && limits->read_only)
        return VIRTIO_BLK_S_IOERR;
    if (!span_of_sectors(limits, sector, request->length, &request->offset))
        return VIRTIO_BLK_S_IOERR;
    if (request->type == VIRTIO_BLK_T_IN)
        request->written_if_ok = request->length + 1;
    return 0;
}

static int parse_range(const struct virtio_blk_limits *limits, bool zeroes, const uint8_t raw[RANGE_BYTES],
                       struct virtio_blk_range *range)
{
    uint64_t sector = load_le64(raw);
    uint32_t sectors = load_le32(raw + 8), flags = load_le32(raw + 12);
    uint32_t known = zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    if (flags & ~known) /* 5.2.6.2: an unknown flag, or unmap on a discard */
        return VIRTIO_BLK_S_UNSUPP;
    if (sectors > (zeroes ? limits->max_zeroes_sectors : limits->max_discard_sectors))
        return VIRTIO_BLK_S_IOERR;
    range->length = (uint64_t)sectors * VIRTIO_BLK_SECTOR_SIZE;
    range->unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    return span_of_sectors(limits, sector, range->length, &range->offset) ? 0 : VIRTIO_BLK_S_IOERR;
}

static int parse_ranges(const struct virtio_blk_limits *limits, struct virtio_blk_request *request)
{
    bool zeroes = request->type == VIRTIO_BLK_T_WRITE_ZEROES;
    uint32_t limit = zeroes ? limits->max_zeroes_ranges : limits->max_discard_ranges;
    if (!(zeroes ? limits->max_zeroes_sectors : limits->max_discard_sectors))
        return VIRTIO_BLK_S_UNSUPP;
    if (limits->read_only)
        return VIRTIO_BLK_S_IOERR;
    uint64_t count = request->length / RANGE_BYTES;
    if (!count || request->length % RANGE_BYTES || count > MIN(limit, VIRTIO_BLK_MAX_RANGES))
        return VIRTIO_BLK_S_IOERR;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t raw[RANGE_BYTES];
        iov_to_buffer(request->data, (int)request->data_count, (uint64_t)i * RANGE_BYTES, raw, sizeof raw);
        int status = parse_range(limits, zeroes, raw, &request->ranges[i]);
        if (status)
            return status;
    }
    request->range_count = (uint32_t)count;
    return 0;
}

int virtio_blk_parse(struct virtqueue_element *element, const struct virtio_blk_limits *limits,
                     struct virtio_blk_request *request)
{
    uint8_t header[HEADER_BYTES];
    uint32_t out_count = element->out_count, in_count = element->in_count;
    struct iovec *out = virtqueue_element_out(element);
    if (!element->in_bytes || element->out_bytes < HEADER_BYTES)
        return -EPROTO;
    iov_to_buffer(out, (int)out_count, 0, header, sizeof header);
    trim_front(&out, &out_count, sizeof header);

    request->type = load_le32(header);
    request->status = take_status(element, &in_count);
    request->offset = 0;
    request->range_count = 0;
    request->written_if_ok = 1;
    bool to_driver = request->type == VIRTIO_BLK_T_IN || request->type == VIRTIO_BLK_T_GET_ID;
    request->data = to_driver ? virtqueue_element_in(element) : out;
    request->data_count = to_driver ? in_count : out_count;
    request->length = to_driver ? element->in_bytes - 1 : element->out_bytes - HEADER_BYTES;

    switch (request->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT: return parse_transfer(limits, request, load_le64(header + 8));
    case VIRTIO_BLK_T_FLUSH: return 0;
    case VIRTIO_BLK_T_GET_ID:
        request->length = MIN(request->length, (uint64_t)VIRTIO_BLK_ID_BYTES);
        request->written_if_ok = request->length + 1;
        return 0;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES: return parse_ranges(limits, request);
    default: return VIRTIO_BLK_S_UNSUPP;
    }
}

uint64_t virtio_blk_finish(const struct virtio_blk_request *request, enum virtio_blk_status status)
{
    *(volatile uint8_t *)request->status = status;
    /* After an error the data is not promised, but the status byte is behind it: all of it counts as written. */
    return request->written_if_ok;
}

void virtio_blk_fill_id(const struct virtio_blk_request *request, const char *serial)
{
    char id[VIRTIO_BLK_ID_BYTES] = {0};
    memcpy(id, serial, strnlen(serial, sizeof id));
    iov_from_buffer(request->data, (int)request->data_count, 0, id, request->length);
}
