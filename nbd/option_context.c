/* SPDX-License-Identifier: Apache-2.0 */
/* Options about metadata contexts: which there are, and which block status shall tell. */
#include "nbd/option.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"

/* Does a query select a context? For listing, a query that ends in a colon means everything that begins so. */
static bool query_matches(const char *query, uint32_t length, const char *name, bool listing)
{
    if (length == strlen(name) && !memcmp(query, name, length))
        return true;
    return listing && length && length < strlen(name) && query[length - 1] == ':' && !memcmp(query, name, length);
}

/* `chosen` has an element for each context of the export. */
static void choose(const struct nbd_export *export, struct cursor *cursor, uint32_t count, bool listing, bool *chosen)
{
    for (uint32_t i = 0; i < count && !cursor->bad; i++) {
        uint32_t length;
        const char *query = cursor_take_string(cursor, &length);
        for (size_t c = 0; !cursor->bad && c < export->contexts.count; c++)
            chosen[c] = chosen[c] || query_matches(query, length, export->contexts.items[c].name, listing);
    }
    if (listing && !count)
        memset(chosen, true, export->contexts.count);
}

struct answers {
    struct nbd_selection selection;
    vec(char *) names; /* copies: the export may go while we send */
};

static void answers_free(struct answers *answers)
{
    for (size_t i = 0; i < answers->names.count; i++)
        free(answers->names.items[i]);
    vec_free(&answers->names);
    vec_free(&answers->selection);
}

static bool send_answers(const struct option *option, const struct answers *answers, bool listing)
{
    for (size_t i = 0; i < answers->names.count; i++) {
        size_t length = strlen(answers->names.items[i]);
        auto_free uint8_t *answer = xmalloc(4 + length);
        store_be32(answer, listing ? 0 : answers->selection.items[i] + 1);
        memcpy(answer + 4, answers->names.items[i], length);
        if (!option_reply(option, NBD_REP_META_CONTEXT, answer, 4 + length))
            return false;
    }
    return true;
}

static void forget_selection(struct nbd_connection *connection)
{
    vec_free(&connection->contexts);
    connection->context_export = NULL;
}

enum outcome option_meta_context(const struct option *option)
{
    struct nbd_connection *connection = option->connection;
    bool listing = option->number == NBD_OPT_LIST_META_CONTEXT;
    if (!listing)
        forget_selection(connection); /* also when this one fails */
    if (!connection->structured)
        return option_refuse(option, NBD_REP_ERR_INVALID,
                             "metadata contexts need structured replies or extended headers: negotiate them first");
    struct cursor cursor = {option->data, option->length};
    uint32_t name_length;
    const char *name = cursor_take_string(&cursor, &name_length);
    uint32_t count = cursor_take_u32(&cursor);
    if (cursor.bad || name_length > NBD_MAX_NAME)
        return option_refuse(option, NBD_REP_ERR_INVALID, "metadata context option: malformed export name");
    if (count > NBD_MAX_CONTEXT_QUERIES)
        return option_refuse(option, NBD_REP_ERR_TOO_BIG, "%u metadata context queries: at most %u are taken", count,
                             NBD_MAX_CONTEXT_QUERIES);
    struct nbd_export *export = nbd_find_export(connection->server, name, name_length);
    if (!export)
        return option_refuse(option, NBD_REP_ERR_UNKNOWN, "export '%.*s' is not present", (int)MIN(name_length, 256u),
                             name);
    auto_free bool *chosen = new_array(bool, export->contexts.count);
    choose(export, &cursor, count, listing, chosen);
    if (cursor.bad || cursor.left)
        return option_refuse(option, NBD_REP_ERR_INVALID,
                             "metadata context option: its %u bytes do not hold %u queries", option->length, count);
    __attribute__((cleanup(answers_free))) struct answers answers = {0};
    for (size_t i = 0; i < export->contexts.count; i++) {
        if (!chosen[i])
            continue;
        vec_push(&answers.selection, (uint32_t)i);
        vec_push(&answers.names, xstrdup(export->contexts.items[i].name));
    }
    if (!listing) {
        vec_append(&connection->contexts, answers.selection.items, answers.selection.count);
        connection->context_export = export;
    }
    return send_answers(option, &answers, listing) ? option_acknowledge(option) : HANG_UP;
}
