/* SPDX-License-Identifier: Apache-2.0 */
/* One QMP session, from the client's side; see the header. */
#include "tests/sim/qmp_client.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/stream.h"
#include "base/vec.h"
#include "qmp/schema/json.h"

struct qmp_client {
    struct stream *stream;
    struct json_stream *input;
    char buffer[4096];
    const char *data; /* not yet read by `input` */
    size_t length;
    vec(struct json *) events; /* since the last command */
};

/* The next value that comes; NULL: the connection broke. */
static struct json *receive(struct qmp_client *client)
{
    for (;;) {
        struct json *value = NULL;
        if (json_stream_read(client->input, &client->data, &client->length, &value, NULL) == JSON_STREAM_VALUE)
            return value;
        ssize_t n = stream_recv(client->stream, client->buffer, sizeof client->buffer);
        if (n <= 0)
            return NULL;
        client->data = client->buffer;
        client->length = (size_t)n;
    }
}

static void forget_events(struct qmp_client *client)
{
    for (size_t i = 0; i < client->events.count; i++)
        json_free(client->events.items[i]);
    vec_clear(&client->events);
}

struct json *qmp_client_call(struct qmp_client *client, const char *text, struct error *err)
{
    forget_events(client);
    if (stream_send_all(client->stream, text, strlen(text)))
        return fail_null(err, ENOTCONN, "the monitor is gone");
    for (;;) {
        struct json *answer = receive(client);
        if (!answer)
            return fail_null(err, ENOTCONN, "the monitor is gone");
        if (json_get(answer, "event")) {
            vec_push(&client->events, answer);
            continue;
        }
        struct json *value = json_take(answer, "return");
        const char *problem = json_string(json_get(json_get(answer, "error"), "desc"));
        if (!value)
            fail(err, EINVAL, "%s", problem ? problem : "an answer that is none");
        json_free(answer);
        return value;
    }
}

static bool is_event(const struct json *event, const char *name, const char *member, const char *value)
{
    const char *found = json_string(json_get(event, "event"));
    if (!found || strcmp(found, name))
        return false;
    const char *text = member ? json_string(json_get(json_get(event, "data"), member)) : value;
    return !member || (text && !strcmp(text, value));
}

bool qmp_client_wait_event(struct qmp_client *client, const char *name, const char *member, const char *value)
{
    for (size_t i = 0;; i++) {
        if (i == client->events.count) {
            struct json *event = receive(client);
            if (!event)
                return false;
            vec_push(&client->events, event);
        }
        if (is_event(client->events.items[i], name, member, value))
            return true;
    }
}

struct qmp_client *qmp_client_new(struct loop *loop, const char *path, struct error *err)
{
    const struct stream_address address = {.kind = SOCKET_UNIX, .path = path};
    struct stream *stream = stream_connect(loop, &address, err);
    if (!stream)
        return NULL;
    struct qmp_client *client = new (struct qmp_client);
    client->stream = stream;
    client->input = json_stream_new(1 << 20);
    auto_json *greeting = receive(client);
    auto_json *answer = greeting ? qmp_client_call(client, "{'execute': 'qmp_capabilities'}\n", err) : NULL;
    if (answer)
        return client;
    qmp_client_free(client);
    return fail_null(err, ENOTCONN, "the monitor does not negotiate");
}

void qmp_client_free(struct qmp_client *client)
{
    if (!client)
        return;
    forget_events(client);
    vec_free(&client->events);
    json_stream_free(client->input);
    stream_close(client->stream);
    free(client);
}
