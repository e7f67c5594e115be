/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server: one listening socket, any number of exports by name, any number of connections.
 *
 * A connection is one reader coroutine, one sender coroutine and a coroutine a request. The reader takes as many
 * requests as one receive call brings; the sender sends as many replies as are ready in one call: with 32 requests in
 * flight a 4 KiB read costs a small fraction of a system call.
 *
 * Everything belongs to one loop and its thread. Functions marked YIELDS run in coroutines.
 */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/stream.h"

struct edge;
struct export_driver;
struct loop;
struct object;
struct nbd_server;
struct nbd_export;

struct nbd_server_limits {
    uint32_t max_connections;   /* 0 = no limit; more wait in the listening socket's backlog */
    uint32_t handshake_seconds; /* a client that is slower is dropped; 0 = no limit */
};

struct nbd_server *nbd_server_new(struct loop *loop, const struct stream_address *address,
                                  const struct nbd_server_limits *limits, struct error *err);
/* Clients must use TLS with these credentials (tls_creds_hold()), and those that are who `authz` (authz_hold(); NULL:
 * anybody who passes the handshake) lets in are served. Takes both holds over. To be called before anybody connects. */
void nbd_server_set_tls(struct nbd_server *server, struct object *creds, struct object *authz);
/* Serves a stream that somebody else connected (tests, simulation); takes it over. */
void nbd_server_serve(struct nbd_server *server, struct stream *stream);
/* Stops listening, disconnects every client and waits for them. The exports must be closed by their owners. YIELDS. */
void nbd_server_free(struct nbd_server *server);

struct nbd_export_options {
    const char *name;        /* "" is the default export */
    const char *description; /* may be NULL */
    bool writable;
    bool writethrough;                       /* every write is durable before it is answered */
    bool allocation_depth;                   /* offers the context qemu:allocation-depth */
    const struct nbd_bitmap_option *bitmaps; /* offers a context qemu:dirty-bitmap:NAME for each */
    size_t n_bitmaps;
    void (*left)(void *user); /* the last client (that had got beyond the handshake) is gone; may be NULL */
    void *user;
    struct loop *loop; /* where its connections are served; NULL: on the server's */
};

struct nbd_bitmap_option {
    const char *node; /* NULL: the exported node, or one below it that it is based on */
    const char *name;
};

/* `edge` (readable, writable when the export is) stays the caller's and must outlive the export. Fails when the name is
 * taken or too long. */
struct nbd_export *nbd_export_new(struct nbd_server *server, const struct nbd_export_options *options,
                                  struct edge *edge, struct error *err);
/* A client that knows from elsewhere what the handshake would say, such as the kernel: `stream`, which is taken over,
 * is in transmission from the first byte on, with simple replies. Returns the transmission flags. `left` is called when
 * the client is gone. YIELDS while the server has as many clients as it may. */
uint16_t nbd_export_attach(struct nbd_export *export, struct stream *stream, void (*left)(void *user), void *user);
uint32_t nbd_export_connections(const struct nbd_export *export);
/* Disconnects its clients and waits for their requests. YIELDS. */
void nbd_export_free(struct nbd_export *export);

/* The export type `nbd` (block/export.h). Its server is the program's `struct nbd_servers` (nbd/servers.h). */
extern const struct export_driver nbd_export_driver;

#endif
