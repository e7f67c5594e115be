/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP server: what belongs to it, and its beginning and end. */
#include "qmp/internal.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "qmp/chardev.h"
#include "qmp/schema/commands.h"

struct qmp_server *qmp_server_new(struct loop *loop, void *app)
{
    struct qmp_server *server = xcalloc(1, sizeof *server);
    server->events.emit = server_emit;
    server->loop = loop;
    server->app = app;
    list_init(&server->monitors);
    list_init(&server->held_events);
    qmp_server_add_module(server, &qmp_module_control);
    qmp_server_add_module(server, &qmp_module_introspect);
    return server;
}

void qmp_server_free(struct qmp_server *server)
{
    if (!server)
        return;
    server_drop_held_events(server);
    while (!list_empty(&server->monitors))
        monitor_close(monitor_from_link(server->monitors.next));
    for (size_t i = 0; i < server->chardevs.count; i++)
        chardev_close(server->chardevs.items[i]);
    vec_free(&server->chardevs);
    vec_free(&server->modules);
    vec_free(&server->limits);
    free(server);
}

void qmp_server_add_module(struct qmp_server *server, const struct qmp_module *module)
{
    vec_push(&server->modules, module);
}

void qmp_server_on_quit(struct qmp_server *server, void (*quit)(void *app))
{
    server->quit = quit;
}

void qmp_server_set_services(struct qmp_server *server, const struct chardev_services *services)
{
    server->services = *services;
}

struct qmp_events *qmp_server_events(struct qmp_server *server)
{
    return &server->events;
}

void qmp_server_limit_event(struct qmp_server *server, const char *name, const char *key, unsigned interval_ms)
{
    struct event_limit limit = {name, key, interval_ms * UINT64_C(1000000)};
    vec_push(&server->limits, limit);
}

static struct chardev **find_place(const struct qmp_server *server, const char *id)
{
    for (size_t i = 0; i < server->chardevs.count; i++)
        if (!strcmp(chardev_id(server->chardevs.items[i]), id))
            return &server->chardevs.items[i];
    return NULL;
}

static struct chardev *find_chardev(const struct qmp_server *server, const char *id)
{
    struct chardev **place = find_place(server, id);
    return place ? *place : NULL;
}

bool server_uses_chardev(const struct qmp_server *server, const struct chardev *chardev)
{
    for (struct list *link = server->monitors.next; link != &server->monitors; link = link->next)
        if (monitor_uses(monitor_from_link(link), chardev))
            return true;
    return false;
}

/* Opening yields: the name may be taken meanwhile. */
bool qmp_server_add_chardev(struct qmp_server *server, const struct chardev_options *options, struct error *err)
{
    struct chardev *chardev = NULL;
    if (!find_chardev(server, options->id))
        chardev = chardev_open(server, options, err);
    if (find_chardev(server, options->id)) {
        chardev_close(chardev);
        return fail(err, EEXIST, "chardev '%s': there is one of this name already", options->id);
    }
    if (chardev)
        vec_push(&server->chardevs, chardev);
    return chardev;
}

static bool check_unused(const struct qmp_server *server, const char *id, struct error *err)
{
    struct chardev **place = find_place(server, id);
    if (!place)
        return fail(err, ENOENT, "Chardev '%s' not found", id);
    return !server_uses_chardev(server, *place) || fail(err, EBUSY, "Chardev '%s' is busy: a monitor uses it", id);
}

bool server_remove_chardev(struct qmp_server *server, const char *id, struct error *err)
{
    if (!check_unused(server, id, err))
        return false;
    struct chardev **place = find_place(server, id);
    chardev_close(*place);
    vec_remove(&server->chardevs, (size_t)(place - server->chardevs.items));
    return true;
}

bool server_change_chardev(struct qmp_server *server, const struct chardev_options *options, struct error *err)
{
    if (!check_unused(server, options->id, err))
        return false;
    struct chardev *chardev = chardev_open(server, options, err);
    if (!chardev)
        return false;
    if (!check_unused(server, options->id, err)) { /* opening yields */
        chardev_close(chardev);
        return false;
    }
    struct chardev **place = find_place(server, options->id);
    chardev_close(*place);
    *place = chardev;
    return true;
}

bool qmp_server_add_monitor(struct qmp_server *server, const struct monitor_options *options, struct error *err)
{
    auto_free char *id = options->id ? xstrdup(options->id) : xasprintf("compat_monitor%u", server->next_monitor++);
    struct chardev *chardev = find_chardev(server, options->chardev);
    if (!chardev)
        return fail(err, ENOENT, "monitor '%s': there is no chardev '%s'", id, options->chardev);
    for (struct list *link = server->monitors.next; link != &server->monitors; link = link->next) {
        const struct qmp_monitor *other = monitor_from_link(link);
        if (!strcmp(monitor_id(other), id))
            return fail(err, EEXIST, "monitor '%s': there is one of this name already", id);
        if (monitor_uses(other, chardev))
            return fail(err, EBUSY, "monitor '%s': chardev '%s' is in use by monitor '%s'", id, options->chardev,
                        monitor_id(other));
    }
    monitor_new(server, id, chardev, options->pretty);
    return true;
}
