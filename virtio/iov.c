/* SPDX-License-Identifier: Apache-2.0 */
/* Copying between a buffer and scattered pieces. One walk serves all three directions. */
#include "virtio/virtqueue.h"

#include <string.h>
#include "base/math.h"

enum iov_direction { IOV_READ, IOV_WRITE, IOV_FILL };

static size_t iov_walk(const struct iovec *iov, uint32_t count, uint64_t offset, uint8_t *buffer, size_t size,
                       enum iov_direction direction, int byte)
{
    size_t done = 0;
    for (uint32_t i = 0; i < count && done < size; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        uint8_t *piece = (uint8_t *)iov[i].iov_base + offset;
        size_t length = MIN(iov[i].iov_len - offset, size - done);
        if (direction == IOV_READ)
            memcpy(buffer + done, piece, length);
        else if (direction == IOV_WRITE)
            memcpy(piece, buffer + done, length);
        else
            memset(piece, byte, length);
        done += length;
        offset = 0;
    }
    return done;
}

size_t iov_to_buffer(const struct iovec *iov, uint32_t count, uint64_t offset, void *buffer, size_t size)
{
    return iov_walk(iov, count, offset, buffer, size, IOV_READ, 0);
}

size_t iov_from_buffer(const struct iovec *iov, uint32_t count, uint64_t offset, const void *buffer, size_t size)
{
    return iov_walk(iov, count, offset, (uint8_t *)buffer, size, IOV_WRITE, 0);
}

size_t iov_set(const struct iovec *iov, uint32_t count, uint64_t offset, int byte, size_t size)
{
    return iov_walk(iov, count, offset, NULL, size, IOV_FILL, byte);
}
