/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD servers of a program, by id. One may have none: it is what those speak of who know only one server
 * (nbd-server-start without id). Each has an address, limits, and TLS settings of its own; an export names the server
 * that it belongs to.
 */
#ifndef NBD_SERVERS_H
#define NBD_SERVERS_H

#include "nbd/server.h"

struct export_set;
struct object_set;
struct nbd_servers;

struct nbd_servers *nbd_servers_new(struct loop *loop, struct object_set *objects);
void nbd_servers_free(struct nbd_servers *servers); /* must be empty */

struct nbd_server_description {
    const char *id; /* NULL: the one without */
    const struct stream_address *address;
    struct nbd_server_limits limits;
    const char *tls_creds, *tls_authz; /* ids of objects; NULL: none */
};
/* YIELDS (looking up a host's name). */
bool nbd_servers_start(struct nbd_servers *servers, const struct nbd_server_description *description,
                       struct error *err);
/* Removes the server's exports, disconnects its clients. YIELDS. */
bool nbd_servers_stop(struct nbd_servers *servers, const char *id, struct export_set *exports, struct error *err);
void nbd_servers_stop_all(struct nbd_servers *servers,
                          struct export_set *exports); /* YIELDS; NULL: there are none any more */

/* NULL: no such server runs. */
struct nbd_server *nbd_servers_find(const struct nbd_servers *servers, const char *id);

#endif
