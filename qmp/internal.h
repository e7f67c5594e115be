/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder know of each other. */
#ifndef QMP_INTERNAL_H
#define QMP_INTERNAL_H

#include "base/list.h"
#include "base/loop.h"
#include "base/vec.h"
#include "qmp/server.h"

struct chardev;

struct qmp_server {
    struct qmp_events events; /* first: the sink that the program's parts are given is found from it */
    struct loop *loop;
    void *app;
    void (*quit)(void *app);
    struct chardev_services services;
    vec(const struct qmp_module *) modules;
    vec(struct chardev *) chardevs;
    struct list monitors;    /* of struct qmp_monitor */
    struct list held_events; /* of struct held_event (events.c) */
    vec_of(event_limits, struct event_limit) limits;
    unsigned next_monitor; /* number of the next monitor that gets no name */
};

struct event_limit {
    const char *name;
    const char *key; /* may be NULL */
    uint64_t interval_ns;
};

/* monitor.c */
struct qmp_monitor *monitor_new(struct qmp_server *server, const char *id, struct chardev *chardev, bool is_pretty);
struct qmp_monitor *monitor_from_link(struct list *link); /* of server->monitors */
void monitor_close(struct qmp_monitor *monitor);          /* YIELDS */
bool monitor_uses(const struct qmp_monitor *monitor, const struct chardev *chardev);
const char *monitor_id(const struct qmp_monitor *monitor);
bool monitor_is_negotiating(const struct qmp_monitor *monitor);
void monitor_end_negotiation(struct qmp_monitor *monitor);
void monitor_send_event(struct qmp_monitor *monitor, const struct json *event); /* does not yield */

/* server.c */
bool server_uses_chardev(const struct qmp_server *server, const struct chardev *chardev);
/* Of devices that nobody uses. change YIELDS. */
bool server_remove_chardev(struct qmp_server *server, const char *id, struct error *err);
bool server_change_chardev(struct qmp_server *server, const struct chardev_options *options, struct error *err);

/* events.c */
void server_emit(struct qmp_events *sink, const char *name, struct json *data);
void server_drop_held_events(struct qmp_server *server);

/* dispatch.c */
struct json *qmp_error_answer(const struct error *err, const struct json *id);

/* control.c */
struct version_info *qmp_version(void);

/* introspect.c: everything the modules have. Owned. */
struct json *qmp_introspect(const struct qmp_server *server);

#endif
