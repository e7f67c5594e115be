/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixed newstyle handshake (doc/proto.md, "Newstyle negotiation"): greeting, client flags, then options until one
 * of them begins transmission. One function an option. An option that we do not know, or whose data makes no sense,
 * gets an error reply and the negotiation goes on; only a client that has lost step (bad magic, absurd lengths) is
 * disconnected.
 *
 * A client is untrusted: option data is read whole into a bounded buffer first, then parsed with `struct cursor`, which
 * cannot run over.
 */
#include "nbd/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/trace.h"

const char *const nbd_context_names[NBD_CONTEXT_COUNT] = {[NBD_CONTEXT_ALLOCATION] = "base:allocation"};

/* What an option function wants next. */
enum outcome { GO_ON, BEGIN_TRANSMISSION, HANG_UP };

struct option {
    struct nbd_connection *connection;
    uint32_t number;
    const uint8_t *data;
    uint32_t length;
};

/* Replies
 * -------------------------------------------------------------------------------------------------------------- */

static bool reply(const struct option *option, uint32_t type, const void *data, size_t length)
{
    uint8_t head[NBD_OPTION_REPLY_SIZE];
    store_be64(head, NBD_OPTION_REPLY_MAGIC);
    store_be32(head + 8, option->number);
    store_be32(head + 12, type);
    store_be32(head + 16, (uint32_t)length);
    struct iovec iov[2] = {{head, sizeof head}, {(void *)data, length}};
    return stream_sendv(option->connection->stream, iov, length ? 2 : 1) == 0;
}

static enum outcome acknowledge(const struct option *option)
{
    return reply(option, NBD_REP_ACK, NULL, 0) ? GO_ON : HANG_UP;
}

/* An error reply carries a text for people. */
static enum outcome refuse(const struct option *option, uint32_t type, const char *format, ...) PRINTF_LIKE(3, 4);
static enum outcome refuse(const struct option *option, uint32_t type, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    trace(nbd_option_refused, "%s: option %u: %s", option->connection->stream->peer, option->number, text);
    return reply(option, type, text, MIN((size_t)length, sizeof text - 1)) ? GO_ON : HANG_UP;
}

/* Parsing
 * -------------------------------------------------------------------------------------------------------------- */

struct cursor {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct cursor *cursor, size_t size)
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

static uint32_t take_u32(struct cursor *cursor)
{
    const uint8_t *at = take(cursor, 4);
    return at ? load_be32(at) : 0;
}

static uint16_t take_u16(struct cursor *cursor)
{
    const uint8_t *at = take(cursor, 2);
    return at ? load_be16(at) : 0;
}

static const char *take_string(struct cursor *cursor, uint32_t *length)
{
    *length = take_u32(cursor);
    return (const char *)take(cursor, *length);
}

/* Options
 * -------------------------------------------------------------------------------------------------------------- */

/* From here on the export cannot go away under us, and closing it ends this connection. */
static void enter_export(struct nbd_connection *connection, struct nbd_export *export)
{
    connection->export = export;
    export->connections++;
}

static enum outcome begin(struct nbd_connection *connection)
{
    if (connection->context_export != connection->export)
        connection->contexts = 0; /* negotiated for another export: void (proto.md, NBD_OPT_SET_META_CONTEXT) */
    return connection->export->closing ? HANG_UP : BEGIN_TRANSMISSION;
}

/* The only option without a reply frame: size and flags, or the connection is dropped. */
static enum outcome option_export_name(const struct option *option)
{
    struct nbd_connection *connection = option->connection;
    struct nbd_export *export = nbd_find_export(connection->server, (const char *)option->data, option->length);
    if (!export)
        return HANG_UP;
    enter_export(connection, export);
    uint8_t answer[10 + 124] = {0};
    store_be64(answer, export->edge->child->size);
    store_be16(answer + 8, nbd_export_flags(connection, export));
    if (stream_send_all(connection->stream, answer, connection->no_zeroes ? 10 : sizeof answer) < 0)
        return HANG_UP;
    return begin(connection);
}

static enum outcome option_abort(const struct option *option)
{
    acknowledge(option);
    return HANG_UP;
}

static enum outcome option_list(const struct option *option)
{
    if (option->length)
        return refuse(option, NBD_REP_ERR_INVALID, "NBD_OPT_LIST takes no data, got %u bytes", option->length);
    /* The list may change while we send: take the names first. */
    struct nbd_export *export;
    size_t count = 0, sent = 0;
    list_for_each (export, &option->connection->server->exports, link)
        count++;
    auto_free char **names = new_array(char *, count);
    auto_free char **descriptions = new_array(char *, count);
    list_for_each (export, &option->connection->server->exports, link) {
        names[sent] = xstrdup(export->name);
        descriptions[sent++] = xstrdup(export->description);
    }
    bool alive = true;
    for (size_t i = 0; i < count; i++) {
        size_t name_length = strlen(names[i]), description_length = descriptions[i] ? strlen(descriptions[i]) : 0;
        auto_free uint8_t *data = xmalloc(4 + name_length + description_length);
        store_be32(data, (uint32_t)name_length);
        memcpy(data + 4, names[i], name_length);
        if (description_length)
            memcpy(data + 4 + name_length, descriptions[i], description_length);
        alive = alive && reply(option, NBD_REP_SERVER, data, 4 + name_length + description_length);
        free(names[i]);
        free(descriptions[i]);
    }
    return alive ? acknowledge(option) : HANG_UP;
}

static bool send_info(const struct option *option, uint16_t type, const void *data, size_t length)
{
    uint8_t item[2 + NBD_MAX_NAME];
    store_be16(item, type);
    memcpy(item + 2, data, length);
    return reply(option, NBD_REP_INFO, item, 2 + length);
}

static bool send_requested_info(const struct option *option, struct nbd_export *export, uint16_t type)
{
    uint8_t sizes[12];
    switch (type) {
    case NBD_INFO_NAME: return send_info(option, type, export->name, strlen(export->name));
    case NBD_INFO_DESCRIPTION:
        return !export->description || send_info(option, type, export->description, strlen(export->description));
    case NBD_INFO_BLOCK_SIZE:
        store_be32(sizes, 1); /* the request path takes any alignment; direct I/O prefers its own */
        store_be32(sizes + 4, MAX(4096u, export->edge->child->limits.request_alignment));
        store_be32(sizes + 8, NBD_MAX_PAYLOAD);
        return send_info(option, type, sizes, sizeof sizes);
    default: return true; /* unknown information requests are ignored */
    }
}

static enum outcome option_info_or_go(const struct option *option)
{
    struct nbd_connection *connection = option->connection;
    struct cursor cursor = {option->data, option->length};
    uint32_t name_length;
    const char *name = take_string(&cursor, &name_length);
    uint16_t count = take_u16(&cursor);
    const uint8_t *requests = take(&cursor, 2u * count);
    if (cursor.bad || cursor.left)
        return refuse(option, NBD_REP_ERR_INVALID, "option %u: its %u bytes do not hold a name and a list of requests",
                      option->number, option->length);
    if (name_length > NBD_MAX_NAME)
        return refuse(option, NBD_REP_ERR_INVALID, "export name of %u bytes: at most %u are allowed", name_length,
                      NBD_MAX_NAME);
    struct nbd_export *export = nbd_find_export(connection->server, name, name_length);
    if (!export)
        return refuse(option, NBD_REP_ERR_UNKNOWN, "export '%.*s' is not present", (int)MIN(name_length, 256u), name);

    enter_export(connection, export);
    bool alive = true;
    for (uint16_t i = 0; alive && i < count; i++)
        alive = send_requested_info(option, export, load_be16(requests + 2 * i));
    uint8_t answer[10];
    store_be64(answer, export->edge->child->size);
    store_be16(answer + 8, nbd_export_flags(connection, export));
    alive = alive && send_info(option, NBD_INFO_EXPORT, answer, sizeof answer) && reply(option, NBD_REP_ACK, NULL, 0);
    if (!alive)
        return HANG_UP;
    if (option->number == NBD_OPT_GO)
        return begin(connection);
    nbd_leave_export(connection);
    return GO_ON;
}

static enum outcome option_structured_reply(const struct option *option)
{
    if (option->length)
        return refuse(option, NBD_REP_ERR_INVALID, "NBD_OPT_STRUCTURED_REPLY takes no data, got %u bytes",
                      option->length);
    option->connection->structured = true;
    return acknowledge(option);
}

/* Does a query select a context? For listing, "base:" means the whole name space and no query at all means everything.
 */
static bool query_matches(const char *query, uint32_t length, const char *name, bool listing)
{
    if (length == strlen(name) && !memcmp(query, name, length))
        return true;
    const char *colon = strchr(name, ':');
    return listing && length == (size_t)(colon - name) + 1 && !memcmp(query, name, length);
}

static enum outcome option_meta_context(const struct option *option)
{
    struct nbd_connection *connection = option->connection;
    bool listing = option->number == NBD_OPT_LIST_META_CONTEXT;
    if (!listing) {
        connection->contexts = 0;
        connection->context_export = NULL;
    }
    if (!connection->structured)
        return refuse(option, NBD_REP_ERR_INVALID, "metadata contexts need structured replies: negotiate them first");
    struct cursor cursor = {option->data, option->length};
    uint32_t name_length;
    const char *name = take_string(&cursor, &name_length);
    uint32_t count = take_u32(&cursor);
    if (cursor.bad || name_length > NBD_MAX_NAME)
        return refuse(option, NBD_REP_ERR_INVALID, "metadata context option: malformed export name");
    if (count > NBD_MAX_CONTEXT_QUERIES)
        return refuse(option, NBD_REP_ERR_TOO_BIG, "%u metadata context queries: at most %u are taken", count,
                      NBD_MAX_CONTEXT_QUERIES);
    uint32_t selected = listing && !count ? (1u << NBD_CONTEXT_COUNT) - 1 : 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length;
        const char *query = take_string(&cursor, &length);
        for (unsigned context = 0; !cursor.bad && context < NBD_CONTEXT_COUNT; context++) {
            if (query_matches(query, length, nbd_context_names[context], listing))
                selected |= 1u << context;
        }
    }
    if (cursor.bad || cursor.left)
        return refuse(option, NBD_REP_ERR_INVALID, "metadata context option: its %u bytes do not hold %u queries",
                      option->length, count);
    struct nbd_export *export = nbd_find_export(connection->server, name, name_length);
    if (!export)
        return refuse(option, NBD_REP_ERR_UNKNOWN, "export '%.*s' is not present", (int)MIN(name_length, 256u), name);
    if (!listing) {
        connection->contexts = selected;
        connection->context_export = export;
    }
    for (unsigned context = 0; context < NBD_CONTEXT_COUNT; context++) {
        if (!(selected & 1u << context))
            continue;
        uint8_t answer[4 + 64];
        size_t length = strlen(nbd_context_names[context]);
        store_be32(answer, listing ? 0 : context + 1);
        memcpy(answer + 4, nbd_context_names[context], length);
        if (!reply(option, NBD_REP_META_CONTEXT, answer, 4 + length))
            return HANG_UP;
    }
    return acknowledge(option);
}

static const struct {
    uint32_t number;
    enum outcome (*run)(const struct option *option);
} option_table[] = {
    {NBD_OPT_EXPORT_NAME, option_export_name},
    {NBD_OPT_ABORT, option_abort},
    {NBD_OPT_LIST, option_list},
    {NBD_OPT_INFO, option_info_or_go},
    {NBD_OPT_GO, option_info_or_go},
    {NBD_OPT_STRUCTURED_REPLY, option_structured_reply},
    {NBD_OPT_LIST_META_CONTEXT, option_meta_context},
    {NBD_OPT_SET_META_CONTEXT, option_meta_context},
};

/* The negotiation
 * ------------------------------------------------------------------------------------------------------ */

static bool skip(struct stream *stream, uint32_t length)
{
    uint8_t scratch[4096];
    while (length) {
        size_t part = MIN((size_t)length, sizeof scratch);
        if (stream_recv_all(stream, scratch, part) < 0)
            return false;
        length -= (uint32_t)part;
    }
    return true;
}

static enum outcome run_option(const struct option *option)
{
    for (size_t i = 0; i < ARRAY_SIZE(option_table); i++) {
        if (option_table[i].number == option->number)
            return option_table[i].run(option);
    }
    return refuse(option, NBD_REP_ERR_UNSUP, "option %u is not supported", option->number);
}

static enum outcome next_option(struct nbd_connection *connection)
{
    uint8_t head[NBD_OPTION_SIZE];
    if (stream_recv_all(connection->stream, head, sizeof head) < 0 || load_be64(head) != NBD_OPTION_MAGIC)
        return HANG_UP;
    struct option option = {.connection = connection, .number = load_be32(head + 8), .length = load_be32(head + 12)};
    trace(nbd_option, "%s: option %u, %u bytes", connection->stream->peer, option.number, option.length);
    if (!connection->fixed_newstyle && option.number != NBD_OPT_EXPORT_NAME)
        return HANG_UP; /* such a client understands no reply */
    if (option.length > NBD_MAX_OPTION) {
        if (option.length > NBD_MAX_OPTION_SKIP || option.number == NBD_OPT_EXPORT_NAME ||
            !skip(connection->stream, option.length))
            return HANG_UP;
        return refuse(&option, NBD_REP_ERR_TOO_BIG, "option %u with %u bytes of data: at most %u are taken",
                      option.number, option.length, NBD_MAX_OPTION);
    }
    auto_free uint8_t *data = try_calloc(option.length, 1);
    if (!data || (option.length && stream_recv_all(connection->stream, data, option.length) < 0))
        return HANG_UP;
    option.data = data;
    return run_option(&option);
}

bool nbd_handshake(struct nbd_connection *connection)
{
    uint8_t greeting[18], client_flags[4];
    store_be64(greeting, NBD_MAGIC);
    store_be64(greeting + 8, NBD_OPTION_MAGIC);
    store_be16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    if (stream_send_all(connection->stream, greeting, sizeof greeting) < 0 ||
        stream_recv_all(connection->stream, client_flags, sizeof client_flags) < 0)
        return false;
    uint32_t flags = load_be32(client_flags);
    if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
        return false; /* flags that we did not offer: the client must not send them */
    connection->fixed_newstyle = flags & NBD_FLAG_FIXED_NEWSTYLE;
    connection->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    enum outcome outcome;
    do {
        outcome = next_option(connection);
    } while (outcome == GO_ON);
    return outcome == BEGIN_TRANSMISSION;
}
