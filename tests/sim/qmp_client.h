/* SPDX-License-Identifier: Apache-2.0 */
/* A QMP client on a simulated stream: one command after another; events are counted and otherwise passed over. */
#ifndef TESTS_SIM_QMP_CLIENT_H
#define TESTS_SIM_QMP_CLIENT_H

#include "base/error.h"

struct json;
struct loop;
struct qmp_client;

/* Connects, takes the greeting and ends the negotiation. YIELDS. */
struct qmp_client *qmp_client_new(struct loop *loop, const char *path, struct error *err);
void qmp_client_free(struct qmp_client *client);
/* Sends a request (JSON text) and waits for its answer: what it returned, or NULL and the error it was answered with
 * (ENOTCONN: the connection broke). YIELDS. */
struct json *qmp_client_call(struct qmp_client *client, const char *text, struct error *err);
/* Waits for an event of this name whose data has `member` with this text (NULL: any). Events that came since the last
 * command count. false: the connection broke. YIELDS. */
bool qmp_client_wait_event(struct qmp_client *client, const char *name, const char *member, const char *value);

#endif
