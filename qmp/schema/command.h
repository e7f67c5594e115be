/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands, events and modules as data: what the generated tables consist of, and what a handler and an event emitter
 * see. The handlers' prototypes are in the generated commands.h, the emitters in the generated events.h.
 */
#ifndef QMP_SCHEMA_COMMAND_H
#define QMP_SCHEMA_COMMAND_H

#include "qmp/schema/schema.h"

struct qmp_server;
struct qmp_monitor;

/* What a handler is called with. */
struct qmp_context {
    void *app;                   /* the program's, as it was given to qmp_server_new() */
    struct qmp_server *server;   /* all monitors, commands and events of the program */
    struct qmp_monitor *monitor; /* the one the command came through; NULL: the program itself asks */
};

struct qmp_command {
    const char *name;
    const char *doc;
    const struct schema_type *arg; /* NULL: no arguments */
    const struct schema_type *ret; /* NULL: returns {} */
    bool returns_json;             /* the handler gives a struct json *, not a C value of `ret` */
    const char *const *features;   /* NULL-terminated; NULL = none */
    bool (*call)(struct qmp_context *context, void *arg, void **ret, struct error *err);
};

struct qmp_event {
    const char *name;
    const char *doc;
    const struct schema_type *arg; /* NULL: no data */
};

/* One file of the schema: `qmp_module_block_core` for block-core.json. */
struct qmp_module {
    const char *name;
    const struct qmp_command *commands;
    size_t n_commands;
    const struct qmp_event *events;
    size_t n_events;
};

/* Where events go. Whoever may emit one is given a pointer to this; the monitors of a program are behind it. */
struct qmp_events {
    /* Takes `data`; NULL = the event has none. Does not yield. */
    void (*emit)(struct qmp_events *sink, const char *name, struct json *data);
};

#endif
