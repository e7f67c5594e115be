/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character devices: where a monitor's byte streams come from. A device yields one stream after another: a listening
 * socket one for each client, a connecting socket one (with reconnect-ms: one after the other), standard input and
 * output just one, null none.
 */
#ifndef QMP_CHARDEV_H
#define QMP_CHARDEV_H

#include "qmp/schema/types.h"

struct chardev;
struct loop;
struct qmp_server;
struct stream;

/* A listening socket listens when this returns; with wait=on it also has its first client, others are connected.
 * YIELDS. */
struct chardev *chardev_open(struct qmp_server *server, const struct chardev_options *options, struct error *err);
void chardev_close(struct chardev *chardev); /* nobody may be waiting in chardev_accept(). NULL is allowed */

const char *chardev_id(const struct chardev *chardev);
char *chardev_describe(const struct chardev *chardev); /* "unix:/path,server=on"; owned */

/* The next stream; the caller closes it before it asks for another. NULL: there will be none any more, or the coroutine
 * was cancelled. YIELDS. */
struct stream *chardev_accept(struct chardev *chardev);

/* Standard input and output as one stream. `signals`: Ctrl-C ends the program. */
struct stream *stdio_stream_new(struct loop *loop, bool signals);

#endif
