/* SPDX-License-Identifier: Apache-2.0 */
/* Options about exports: listing them, asking about one, choosing one. */
#include "nbd/option.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"

static enum outcome begin(struct nbd_connection *connection)
{
    if (connection->context_export != connection->export)
        vec_clear(&connection->contexts); /* negotiated for another export: void (proto.md, NBD_OPT_SET_META_CONTEXT) */
    return connection->export->closing ? HANG_UP : BEGIN_TRANSMISSION;
}

/* The only option without a reply frame: size and flags, or the connection is dropped. */
enum outcome option_export_name(const struct option *option)
{
    struct nbd_connection *connection = option->connection;
    struct nbd_export *export = nbd_find_export(connection->server, (const char *)option->data, option->length);
    if (!export || connection->extended) /* with extended headers, a client must use NBD_OPT_GO */
        return HANG_UP;
    nbd_enter_export(connection, export);
    uint8_t answer[10 + 124] = {0};
    store_be64(answer, export->edge->child->size);
    store_be16(answer + 8, nbd_export_flags(connection, export));
    if (stream_send_all(connection->stream, answer, connection->no_zeroes ? 10 : sizeof answer) < 0)
        return HANG_UP;
    return begin(connection);
}

enum outcome option_list(const struct option *option)
{
    enum outcome outcome;
    if (!option_is_empty(option, "NBD_OPT_LIST", &outcome))
        return outcome;
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
        alive = alive && option_reply(option, NBD_REP_SERVER, data, 4 + name_length + description_length);
        free(names[i]);
        free(descriptions[i]);
    }
    return alive ? option_acknowledge(option) : HANG_UP;
}

static bool send_info(const struct option *option, uint16_t type, const void *data, size_t length)
{
    uint8_t item[2 + NBD_MAX_NAME];
    store_be16(item, type);
    memcpy(item + 2, data, length);
    return option_reply(option, NBD_REP_INFO, item, 2 + length);
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

enum outcome option_info_or_go(const struct option *option)
{
    struct nbd_connection *connection = option->connection;
    struct cursor cursor = {option->data, option->length};
    uint32_t name_length;
    const char *name = cursor_take_string(&cursor, &name_length);
    uint16_t count = cursor_take_u16(&cursor);
    const uint8_t *requests = cursor_take(&cursor, 2u * count);
    if (cursor.bad || cursor.left)
        return option_refuse(option, NBD_REP_ERR_INVALID,
                             "option %u: its %u bytes do not hold a name and a list of requests", option->number,
                             option->length);
    if (name_length > NBD_MAX_NAME)
        return option_refuse(option, NBD_REP_ERR_INVALID, "export name of %u bytes: at most %u are allowed",
                             name_length, NBD_MAX_NAME);
    struct nbd_export *export = nbd_find_export(connection->server, name, name_length);
    if (!export)
        return option_refuse(option, NBD_REP_ERR_UNKNOWN, "export '%.*s' is not present", (int)MIN(name_length, 256u),
                             name);

    nbd_enter_export(connection, export);
    bool alive = true;
    for (uint16_t i = 0; alive && i < count; i++)
        alive = send_requested_info(option, export, load_be16(requests + 2 * i));
    uint8_t answer[10];
    store_be64(answer, export->edge->child->size);
    store_be16(answer + 8, nbd_export_flags(connection, export));
    alive = alive && send_info(option, NBD_INFO_EXPORT, answer, sizeof answer) &&
            option_reply(option, NBD_REP_ACK, NULL, 0);
    if (!alive)
        return HANG_UP;
    if (option->number == NBD_OPT_GO)
        return begin(connection);
    nbd_leave_export(connection);
    return GO_ON;
}
