/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers for monitoring, as Prometheus reads them: `--metrics addr...` answers GET /metrics with the text exposition
 * format 0.0.4. Names and meanings: metrics.c, and METRICS in the manual page.
 *
 * Whoever can reach the socket may read all of it, and nothing else; it is served without TLS and without asking who is
 * there, so the socket is one that only the collector can reach.
 */
#ifndef STORAGE_DAEMON_METRICS_H
#define STORAGE_DAEMON_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

struct daemon;
struct strbuf;
struct stream_address;

/* Everything there is to tell at this moment. Does not yield. */
void metrics_write(struct daemon *daemon, struct strbuf *out);

/* metrics_server.c */
struct metrics_server;
struct metrics_server *metrics_server_new(struct daemon *daemon, const struct stream_address *address,
                                          struct error *err); /* YIELDS */
void metrics_server_free(struct metrics_server *server);      /* YIELDS until its clients are gone; NULL is allowed */

/* metrics_request.c: what a request asks for, from its head (up to and with the empty line). The status of the answer:
 * 200 when it is for the metrics. */
struct metrics_request {
    int status;
    bool only_head; /* HEAD: no body */
};
struct metrics_request metrics_request_parse(const char *head, size_t length);

#endif
