/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request line of HTTP/1.x (RFC 9112, 3), as far as one resource needs it. Header fields are for others: none
 * changes the answer. A body is not read, since the connection is closed behind the answer.
 */
#include <string.h>
#include "storage-daemon/metrics.h"

/* Takes what stands before `end` off the front of the line, and `end` too; NULL: it is not there. */
static const char *take_word(const char **at, const char *stop, char end, size_t *length)
{
    const char *word = *at, *found = memchr(word, end, (size_t)(stop - word));
    if (!found)
        return NULL;
    *length = (size_t)(found - word);
    *at = found + 1;
    return word;
}

static bool is(const char *word, size_t length, const char *text)
{
    return length == strlen(text) && !memcmp(word, text, length);
}

struct metrics_request metrics_request_parse(const char *head, size_t length)
{
    const char *at = head, *stop = memchr(head, '\n', length);
    size_t method_length, target_length;
    if (!stop || stop == head)
        return (struct metrics_request){400, false};
    stop -= stop[-1] == '\r';
    const char *method = take_word(&at, stop, ' ', &method_length);
    const char *target = method && method_length ? take_word(&at, stop, ' ', &target_length) : NULL;
    if (!target || !target_length || stop - at != 8 || memcmp(at, "HTTP/", 5))
        return (struct metrics_request){400, false};
    if (at[5] != '1' || at[6] != '.')
        return (struct metrics_request){505, false};
    const char *query = memchr(target, '?', target_length);
    if (query)
        target_length = (size_t)(query - target);
    bool only_head = is(method, method_length, "HEAD");
    if (!is(target, target_length, "/metrics"))
        return (struct metrics_request){404, only_head};
    bool is_known = only_head || is(method, method_length, "GET");
    return (struct metrics_request){is_known ? 200 : 405, only_head};
}
