/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scatter/gather vectors. All walks share one cursor: find the element that holds an offset, then take spans that do
 * not cross an element until the size is used up. Most vectors that pass here have one element.
 */
#include "base/iov.h"

#include <string.h>
#include "base/is_zero.h"
#include "base/math.h"

struct cursor {
    const struct iovec *iov, *end;
    size_t skip; /* bytes of *iov that are behind us */
};

static struct cursor cursor_at(const struct iovec *iov, int count, size_t offset)
{
    struct cursor cursor = {iov, iov + count, offset};
    while (cursor.iov < cursor.end && cursor.skip >= cursor.iov->iov_len)
        cursor.skip -= cursor.iov++->iov_len;
    return cursor;
}

/* The next span of at most `size` bytes; length 0 at the end of the vector or when size is 0. */
static struct iovec cursor_next(struct cursor *cursor, size_t size)
{
    while (cursor->iov < cursor->end && cursor->skip == cursor->iov->iov_len) {
        cursor->iov++;
        cursor->skip = 0;
    }
    if (cursor->iov >= cursor->end)
        return (struct iovec){0};
    size_t length = MIN(size, cursor->iov->iov_len - cursor->skip);
    struct iovec span = {(char *)cursor->iov->iov_base + cursor->skip, length};
    cursor->skip += length;
    return span;
}

size_t iov_total(const struct iovec *iov, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total;
}

int iov_slice(struct iovec *out, const struct iovec *iov, int count, size_t offset, size_t length)
{
    struct cursor cursor = cursor_at(iov, count, offset);
    int n = 0;
    for (struct iovec span; (span = cursor_next(&cursor, length)).iov_len; length -= span.iov_len)
        out[n++] = span;
    return n;
}

int iov_slice_count(const struct iovec *iov, int count, size_t offset, size_t length)
{
    struct cursor cursor = cursor_at(iov, count, offset);
    int n = 0;
    for (struct iovec span; (span = cursor_next(&cursor, length)).iov_len; length -= span.iov_len)
        n++;
    return n;
}

void iov_advance(struct iovec **iov, int *count, size_t bytes)
{
    while (*count && bytes >= (*iov)->iov_len) {
        bytes -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (*count && bytes) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
}

size_t iov_from_buffer(const struct iovec *iov, int count, size_t offset, const void *buffer, size_t size)
{
    struct cursor cursor = cursor_at(iov, count, offset);
    size_t done = 0;
    for (struct iovec span; (span = cursor_next(&cursor, size - done)).iov_len; done += span.iov_len)
        memcpy(span.iov_base, (const char *)buffer + done, span.iov_len);
    return done;
}

size_t iov_to_buffer(const struct iovec *iov, int count, size_t offset, void *buffer, size_t size)
{
    struct cursor cursor = cursor_at(iov, count, offset);
    size_t done = 0;
    for (struct iovec span; (span = cursor_next(&cursor, size - done)).iov_len; done += span.iov_len)
        memcpy((char *)buffer + done, span.iov_base, span.iov_len);
    return done;
}

size_t iov_set(const struct iovec *iov, int count, size_t offset, int byte, size_t size)
{
    struct cursor cursor = cursor_at(iov, count, offset);
    size_t done = 0;
    for (struct iovec span; (span = cursor_next(&cursor, size - done)).iov_len; done += span.iov_len)
        memset(span.iov_base, byte, span.iov_len);
    return done;
}

size_t iov_copy(const struct iovec *to, int to_count, size_t to_offset, const struct iovec *from, int from_count,
                size_t from_offset, size_t size)
{
    struct cursor cursor = cursor_at(from, from_count, from_offset);
    size_t done = 0;
    for (struct iovec span; (span = cursor_next(&cursor, size - done)).iov_len;) {
        size_t moved = iov_from_buffer(to, to_count, to_offset + done, span.iov_base, span.iov_len);
        done += moved;
        if (moved < span.iov_len)
            break;
    }
    return done;
}

bool iov_is_zero(const struct iovec *iov, int count, size_t offset, size_t size)
{
    struct cursor cursor = cursor_at(iov, count, offset);
    for (struct iovec span; (span = cursor_next(&cursor, size)).iov_len; size -= span.iov_len)
        if (!buffer_is_zero(span.iov_base, span.iov_len))
            return false;
    return true;
}
