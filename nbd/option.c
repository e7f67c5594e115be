/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the negotiation: replies to them, and reading their data. */
#include "nbd/option.h"

#include <stdio.h>
#include "base/endian.h"
#include "base/trace.h"

/* Replies
 * -------------------------------------------------------------------------------------------------------------- */

bool option_reply(const struct option *option, uint32_t type, const void *data, size_t length)
{
    uint8_t head[NBD_OPTION_REPLY_SIZE];
    store_be64(head, NBD_OPTION_REPLY_MAGIC);
    store_be32(head + 8, option->number);
    store_be32(head + 12, type);
    store_be32(head + 16, (uint32_t)length);
    struct iovec iov[2] = {{head, sizeof head}, {(void *)data, length}};
    return stream_sendv(option->connection->stream, iov, length ? 2 : 1) == 0;
}

enum outcome option_acknowledge(const struct option *option)
{
    return option_reply(option, NBD_REP_ACK, NULL, 0) ? GO_ON : HANG_UP;
}

enum outcome option_refuse(const struct option *option, uint32_t type, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    trace(nbd_option_refused, "%s: option %u: %s", option->connection->stream->peer, option->number, text);
    return option_reply(option, type, text, MIN((size_t)length, sizeof text - 1)) ? GO_ON : HANG_UP;
}

bool option_is_empty(const struct option *option, const char *name, enum outcome *outcome)
{
    if (option->length)
        *outcome = option_refuse(option, NBD_REP_ERR_INVALID, "%s takes no data, got %u bytes", name, option->length);
    return !option->length;
}

/* Parsing
 * -------------------------------------------------------------------------------------------------------------- */

const uint8_t *cursor_take(struct cursor *cursor, size_t size)
{
    if (cursor->bad || size > cursor->left) {
        cursor->bad = true;
        return NULL;
    }
    const uint8_t *at = cursor->at;
    cursor->at += size;
    cursor->left -= size;
    return at;
}

uint32_t cursor_take_u32(struct cursor *cursor)
{
    const uint8_t *at = cursor_take(cursor, 4);
    return at ? load_be32(at) : 0;
}

uint16_t cursor_take_u16(struct cursor *cursor)
{
    const uint8_t *at = cursor_take(cursor, 2);
    return at ? load_be16(at) : 0;
}

const char *cursor_take_string(struct cursor *cursor, uint32_t *length)
{
    *length = cursor_take_u32(cursor);
    return (const char *)cursor_take(cursor, *length);
}
