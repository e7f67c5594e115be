/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixed newstyle handshake (doc/proto.md, "Newstyle negotiation"): greeting, client flags, then options until one
 * of them begins transmission. One function an option. An option that we do not know, or whose data makes no sense,
 * gets an error reply and the negotiation goes on; only a client that has lost step (bad magic, absurd lengths) is
 * disconnected.
 */
#include "nbd/option.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/trace.h"

static enum outcome option_abort(const struct option *option)
{
    option_acknowledge(option);
    return HANG_UP;
}

static enum outcome option_structured_reply(const struct option *option)
{
    enum outcome outcome;
    if (!option_is_empty(option, "NBD_OPT_STRUCTURED_REPLY", &outcome))
        return outcome;
    if (option->connection->extended)
        return option_refuse(option, NBD_REP_ERR_EXT_HEADER_REQD, "extended headers are in use already");
    option->connection->structured = true;
    return option_acknowledge(option);
}

/* Headers with 64-bit lengths, in requests and replies; structured replies are part of it. */
static enum outcome option_extended_headers(const struct option *option)
{
    enum outcome outcome;
    if (!option_is_empty(option, "NBD_OPT_EXTENDED_HEADERS", &outcome))
        return outcome;
    if (option->connection->extended)
        return option_refuse(option, NBD_REP_ERR_INVALID, "extended headers are in use already");
    option->connection->structured = option->connection->extended = true;
    return option_acknowledge(option);
}

static const struct {
    uint32_t number;
    enum outcome (*run)(const struct option *option);
} option_table[] = {
    {NBD_OPT_EXPORT_NAME, option_export_name},
    {NBD_OPT_ABORT, option_abort},
    {NBD_OPT_LIST, option_list},
    {NBD_OPT_STARTTLS, option_start_tls},
    {NBD_OPT_INFO, option_info_or_go},
    {NBD_OPT_GO, option_info_or_go},
    {NBD_OPT_STRUCTURED_REPLY, option_structured_reply},
    {NBD_OPT_LIST_META_CONTEXT, option_meta_context},
    {NBD_OPT_SET_META_CONTEXT, option_meta_context},
    {NBD_OPT_EXTENDED_HEADERS, option_extended_headers},
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

/* A server with credentials speaks of nothing else before TLS. */
static bool must_wait_for_tls(const struct option *option)
{
    const struct nbd_connection *connection = option->connection;
    return connection->server->tls_creds && !connection->has_tls && option->number != NBD_OPT_STARTTLS &&
           option->number != NBD_OPT_ABORT;
}

static enum outcome run_option(const struct option *option)
{
    if (must_wait_for_tls(option)) {
        if (option->number == NBD_OPT_EXPORT_NAME)
            return HANG_UP; /* there is no way to say why */
        return option_refuse(option, NBD_REP_ERR_TLS_REQD, "Option %u not permitted before TLS", option->number);
    }
    for (size_t i = 0; i < ARRAY_SIZE(option_table); i++) {
        if (option_table[i].number == option->number)
            return option_table[i].run(option);
    }
    return option_refuse(option, NBD_REP_ERR_UNSUP, "option %u is not supported", option->number);
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
        return option_refuse(&option, NBD_REP_ERR_TOO_BIG, "option %u with %u bytes of data: at most %u are taken",
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
