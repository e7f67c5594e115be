/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP server of a program: which commands and events there are, the character devices, and the monitors that talk
 * through them.
 *
 *     chardev (qmp/chardev.h)  <-- bytes --  monitor (qmp/monitor.c)  <-- JSON --  dispatch  -->  qmp_<command>()
 *                                                   ^------------------- events ----------------- qmp_event_<name>()
 *
 * A program makes one, registers the modules of the schema that it implements (control and introspect are always
 * there), adds character devices and monitors as its command line says, and frees the server when it ends. All on one
 * loop and its thread. Everything the server has to know is in it: several servers may live in one process.
 *
 * The protocol is QMP as described in QEMU's "QMP specification", without out-of-band execution, which is
 * not offered either: commands of one monitor run one after another, in the order they came; several monitors run
 * theirs side by side.
 */
#ifndef QMP_SERVER_H
#define QMP_SERVER_H

#include "qmp/schema/command.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

struct loop;

struct qmp_server *qmp_server_new(struct loop *loop, void *app);

/* Ends the monitors: what they have still to say is sent if their clients take it within a second. YIELDS. */
void qmp_server_free(struct qmp_server *server);

/* A module of the schema whose commands this program implements. */
void qmp_server_add_module(struct qmp_server *server, const struct qmp_module *module);

/* What the command `quit` does. It must return at once: the answer is still to be sent. */
void qmp_server_on_quit(struct qmp_server *server, void (*quit)(void *app));

/* What character devices of sockets need from the program, which has it from folders that this one does not know: TLS,
 * and descriptors that clients have handed over. NULL members: options that need them are refused. */
struct chardev_services {
    /* Credentials and, for a server, authorization (may be NULL), held until release(). NULL and an error. */
    void *(*hold_tls)(void *app, const char *creds, const char *authz, bool is_server, struct error *err);
    void (*release_tls)(void *tls);
    /* The stream inside of TLS; takes `under` over in any case. `host` is the name that a server must prove. YIELDS. */
    struct stream *(*start_tls)(void *tls, struct stream *under, const char *host, struct error *err);
    int (*take_fd)(void *app, const char *name); /* -1: there is none of that name */
};
void qmp_server_set_services(struct qmp_server *server, const struct chardev_services *services);

/* Makes a character device. A listening socket with wait=on waits for its first client here: YIELDS. */
bool qmp_server_add_chardev(struct qmp_server *server, const struct chardev_options *options, struct error *err);

/* Starts a monitor on a character device that exists and that nobody else uses. Does not yield. */
bool qmp_server_add_monitor(struct qmp_server *server, const struct monitor_options *options, struct error *err);

/* Where the program's parts send their events: qmp_event_*(qmp_server_events(server), ...). Lives as long as the
 * server. */
struct qmp_events *qmp_server_events(struct qmp_server *server);

/*
 * At most one event of this name (and with this value of the data member `key`, unless that is NULL) every
 * `interval_ms`: the first is sent at once; of those that follow before the time is over, the last is sent when it is.
 */
void qmp_server_limit_event(struct qmp_server *server, const char *name, const char *key, unsigned interval_ms);

/* The descriptor that came with the command at hand, which the caller owns then; -1: none did. */
int qmp_monitor_take_fd(struct qmp_monitor *monitor);

/* Executes one request as if a monitor had received it (`monitor` may be NULL) and returns the answer, owned. YIELDS.
 */
struct json *qmp_dispatch(struct qmp_server *server, struct qmp_monitor *monitor, const struct json *request);

#endif
