/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: a time stamp, a limit on how often, and out to every monitor that has negotiated.
 *
 * An event with a limit opens a window of time for its key when it is sent. What comes while the window is open
 * replaces what was held there before, and is sent when the window closes, which opens the next one. A window that
 * closes with nothing held is forgotten.
 */
#include "qmp/internal.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"

struct held_event {
    struct list link;
    struct qmp_server *server;
    const struct event_limit *limit;
    char *key;          /* value of the limit's key, as text */
    struct json *event; /* NULL: none since the window opened */
    struct loop_timer timer;
};

static struct json *make_event(const struct qmp_server *server, const char *name, struct json *data)
{
    uint64_t now_ns = loop_wall_ns(server->loop);
    struct json *timestamp = json_new_object();
    json_set(timestamp, "seconds", json_new_int((int64_t)(now_ns / 1000000000u)));
    json_set(timestamp, "microseconds", json_new_int((int64_t)(now_ns % 1000000000u / 1000)));
    struct json *event = json_new_object();
    json_set(event, "timestamp", timestamp);
    json_set(event, "event", json_new_string(name));
    if (data)
        json_set(event, "data", data);
    return event;
}

static void send_to_all(struct qmp_server *server, const struct json *event)
{
    for (struct list *link = server->monitors.next; link != &server->monitors; link = link->next)
        monitor_send_event(monitor_from_link(link), event);
}

static void held_event_free(struct held_event *held)
{
    loop_timer_cancel(&held->timer);
    list_remove(&held->link);
    json_free(held->event);
    free(held->key);
    free(held);
}

static void open_window(struct held_event *held)
{
    loop_timer_arm(held->server->loop, &held->timer, loop_now_ns(held->server->loop) + held->limit->interval_ns);
}

static void window_closed(void *arg)
{
    struct held_event *held = (struct held_event *)arg;
    if (!held->event) {
        held_event_free(held);
        return;
    }
    auto_json *event = TAKE(held->event);
    open_window(held);
    send_to_all(held->server, event);
}

static const struct event_limit *find_limit(const struct qmp_server *server, const char *name)
{
    for (size_t i = 0; i < server->limits.count; i++)
        if (!strcmp(server->limits.items[i].name, name))
            return &server->limits.items[i];
    return NULL;
}

/* The open window for this event, or NULL after one has been opened: then the event is to be sent now. */
static struct held_event *find_or_open_window(struct qmp_server *server, const struct event_limit *limit,
                                              const struct json *event)
{
    const struct json *value = limit->key ? json_get(json_get(event, "data"), limit->key) : NULL;
    auto_free char *key = value ? json_to_text(value) : xstrdup("");
    struct held_event *held;
    list_for_each (held, &server->held_events, link) {
        if (!strcmp(held->limit->name, limit->name) && !strcmp(held->key, key))
            return held;
    }
    held = xcalloc(1, sizeof *held);
    held->server = server;
    held->limit = limit;
    held->key = TAKE(key);
    held->timer.fn = window_closed;
    held->timer.arg = held;
    list_append(&server->held_events, &held->link);
    open_window(held);
    return NULL;
}

void server_emit(struct qmp_events *sink, const char *name, struct json *data)
{
    struct qmp_server *server = container_of(sink, struct qmp_server, events);
    auto_json *event = make_event(server, name, data);
    const struct event_limit *limit = find_limit(server, name);
    struct held_event *held = limit ? find_or_open_window(server, limit, event) : NULL;
    if (!held) {
        send_to_all(server, event);
        return;
    }
    json_free(held->event);
    held->event = TAKE(event);
}

void server_drop_held_events(struct qmp_server *server)
{
    while (!list_empty(&server->held_events)) {
        struct held_event *held = list_first(&server->held_events, struct held_event, link);
        if (held->event)
            send_to_all(server, held->event);
        held_event_free(held);
    }
}
