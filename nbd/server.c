/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server's outer life: listening, connections, exports. The protocol itself is in handshake.c and
 * transmission.c. */
#include "nbd/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/log.h"
#include "base/trace.h"
#include "crypto/tls_stream.h"

/* A connection
 * ----------------------------------------------------------------------------------------------------------- */

#define GOODBYE_NS 2000000000ull /* for telling a client that does not read any more that TLS ends */

static void handshake_timeout(void *arg)
{
    struct nbd_connection *connection = arg;
    trace(nbd_handshake_timeout, "%s", connection->stream->peer);
    co_cancel(connection->co);
}

void nbd_enter_export(struct nbd_connection *connection, struct nbd_export *export)
{
    connection->export = export;
    export->connections++;
}

void nbd_leave_export(struct nbd_connection *connection)
{
    struct nbd_export *export = connection->export;
    connection->export = NULL;
    if (!export || --export->connections)
        return;
    co_queue_wake_all(&export->idle);
    if (export->served && export->left && !export->closing)
        export->left(export->user);
}

static void connection_free(struct nbd_connection *connection)
{
    struct nbd_server *server = connection->server;
    nbd_leave_export(connection);
    if (connection->left)
        connection->left(connection->user);
    list_remove(&connection->link);
    stream_close(connection->stream);
    vec_free(&connection->contexts);
    free(connection);
    co_semaphore_release(&server->free_slots);
}

static void connection_run(void *arg)
{
    struct nbd_connection *connection = arg;
    struct nbd_server *server = connection->server;
    struct loop_timer deadline = {.fn = handshake_timeout, .arg = connection};
    connection->co = co_self();
    trace(nbd_connect, "%s", connection->stream->peer);
    if (server->limits.handshake_seconds)
        loop_timer_arm(server->loop, &deadline,
                       loop_now_ns(server->loop) + server->limits.handshake_seconds * 1000000000ull);
    bool agreed = connection->export || nbd_handshake(connection);
    loop_timer_cancel(&deadline);
    if (agreed) {
        connection->export->served = true;
        nbd_transmission(connection);
    }
    if (connection->has_tls && connection->stream && !connection->broken) {
        loop_timer_arm(server->loop, &deadline, loop_now_ns(server->loop) + GOODBYE_NS);
        tls_goodbye(connection->stream);
        loop_timer_cancel(&deadline);
    }
    trace(nbd_disconnect, "%s", connection->stream ? connection->stream->peer : "TLS handshake failed");
    connection_free(connection);
}

/* The slot (max_connections) is the caller's to have taken. */
static struct nbd_connection *connection_start(struct nbd_server *server, struct stream *stream)
{
    struct nbd_connection *connection = new (struct nbd_connection);
    connection->server = server;
    connection->stream = stream;
    connection->loop = server->loop;
    list_init(&connection->free_requests);
    list_init(&connection->ready);
    co_queue_init(&connection->room);
    co_queue_init(&connection->sent);
    co_group_init(&connection->requests);
    co_group_init(&connection->senders);
    list_append(&server->connections, &connection->link);
    connection->co = co_spawn(server->loop, &server->group, connection_run, connection);
    return connection;
}

/* Server
 * --------------------------------------------------------------------------------------------------------------- */

static void acceptor_run(void *arg)
{
    struct nbd_server *server = arg;
    bool warned = false;
    for (;;) {
        co_semaphore_acquire(&server->free_slots);
        int error = 0;
        struct stream *stream = server->listener ? listener_accept(server->listener, &error) : NULL;
        if (stream) {
            connection_start(server, stream);
            warned = false;
            continue;
        }
        co_semaphore_release(&server->free_slots);
        if (error == -ECANCELED || !server->listener)
            return;
        /* Out of descriptors or memory: the clients that are there go on; try again shortly, say it once. */
        if (!warned)
            log_warning("NBD server at %s: cannot accept a connection: %s", listener_name(server->listener),
                        strerror(-error));
        warned = true;
        if (co_sleep_ns(100000000) < 0)
            return;
    }
}

struct nbd_server *nbd_server_new(struct loop *loop, const struct stream_address *address,
                                  const struct nbd_server_limits *limits, struct error *err)
{
    struct listener *listener = NULL;
    if (address) {
        listener = listener_new(loop, address, 1024, err);
        if (!listener)
            return NULL;
    }
    struct nbd_server *server = new (struct nbd_server);
    server->loop = loop;
    server->listener = listener;
    server->limits = *limits;
    list_init(&server->exports);
    list_init(&server->connections);
    nbd_room_init(&server->room, loop);
    list_init(&server->rooms);
    co_group_init(&server->group);
    co_semaphore_init(&server->free_slots, limits->max_connections ? limits->max_connections : SIZE_MAX / 2);
    if (listener)
        co_spawn(loop, &server->group, acceptor_run, server);
    return server;
}

void nbd_server_set_tls(struct nbd_server *server, struct object *creds, struct object *authz)
{
    server->tls_creds = creds;
    server->tls_authz = authz;
}

void nbd_server_serve(struct nbd_server *server, struct stream *stream)
{
    co_semaphore_acquire(&server->free_slots);
    connection_start(server, stream);
}

void nbd_disconnect(struct nbd_connection *connection)
{
    if (connection->stream && !connection->is_away)
        stream_shutdown(connection->stream);
    co_cancel(connection->co); /* travels to where the connection is */
}

void nbd_hang_up(struct nbd_connection *connection)
{
    stream_shutdown(connection->stream);
    co_cancel(connection->reader);
}

void nbd_server_free(struct nbd_server *server)
{
    struct nbd_connection *connection;
    co_group_cancel(&server->group);
    list_for_each (connection, &server->connections, link)
        nbd_disconnect(connection);
    co_group_wait(&server->group);
    if (server->listener)
        listener_close(server->listener);
    assert(list_empty(&server->exports));
    struct nbd_room *room;
    list_for_each_safe (room, &server->rooms, link)
        free(room);
    object_release(server->tls_creds);
    object_release(server->tls_authz);
    free(server);
}

/* Exports
 * -------------------------------------------------------------------------------------------------------------- */

struct nbd_export *nbd_find_export(struct nbd_server *server, const char *name, size_t length)
{
    struct nbd_export *export;
    list_for_each (export, &server->exports, link) {
        if (!export->closing && strlen(export->name) == length && !memcmp(export->name, name, length))
            return export;
    }
    return NULL;
}

uint16_t nbd_export_flags(const struct nbd_connection *connection, const struct nbd_export *export)
{
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;
    /* Several connections are always safe: a flush on one covers what was answered on all, as they share the node. But
     * who is told so where only one is let in would wait for the second for ever. */
    if (connection->server->limits.max_connections != 1)
        flags |= NBD_FLAG_CAN_MULTI_CONN;
    if (connection->structured)
        flags |= NBD_FLAG_SEND_DF;
    if (connection->extended && connection->contexts.count && connection->context_export == export)
        flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    if (export->writable)
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    else
        flags |= NBD_FLAG_READ_ONLY;
    return flags;
}

static void export_free(struct nbd_export *export)
{
    nbd_contexts_close(export);
    list_remove(&export->link);
    free(export->name);
    free(export->description);
    free(export);
}

struct nbd_export *nbd_export_new(struct nbd_server *server, const struct nbd_export_options *options,
                                  struct edge *edge, struct error *err)
{
    if (strlen(options->name) > NBD_MAX_NAME)
        return fail_null(err, EINVAL, "NBD export name: %zu bytes, the protocol allows %u", strlen(options->name),
                         NBD_MAX_NAME);
    if (options->description && strlen(options->description) > NBD_MAX_NAME)
        return fail_null(err, EINVAL, "description of NBD export '%s': %zu bytes, the protocol allows %u",
                         options->name, strlen(options->description), NBD_MAX_NAME);
    if (nbd_find_export(server, options->name, strlen(options->name)))
        return fail_null(err, EEXIST, "NBD server already has an export named '%s'", options->name);
    struct nbd_export *export = new (struct nbd_export);
    export->server = server;
    export->name = xstrdup(options->name);
    export->description = xstrdup(options->description);
    export->writable = options->writable;
    export->writethrough = options->writethrough;
    export->left = options->left;
    export->user = options->user;
    export->edge = edge;
    export->loop = options->loop ? options->loop : server->loop;
    co_queue_init(&export->idle);
    if (!nbd_contexts_open(export, options, err)) {
        fail_prefix(err, "NBD export '%s': ", options->name);
        export_free(export);
        return NULL;
    }
    list_append(&server->exports, &export->link);
    return export;
}

uint16_t nbd_export_attach(struct nbd_export *export, struct stream *stream, void (*left)(void *user), void *user)
{
    co_semaphore_acquire(&export->server->free_slots);
    struct nbd_connection *connection = connection_start(export->server, stream); /* runs when we wait */
    connection->left = left;
    connection->user = user;
    nbd_enter_export(connection, export);
    return nbd_export_flags(connection, export);
}

uint32_t nbd_export_connections(const struct nbd_export *export)
{
    return export->connections;
}

void nbd_export_free(struct nbd_export *export)
{
    struct nbd_connection *connection;
    export->closing = true;
    list_for_each (connection, &export->server->connections, link) {
        if (connection->export == export)
            nbd_disconnect(connection);
        if (connection->context_export == export)
            connection->context_export = NULL;
    }
    while (export->connections)
        co_queue_wait_uncancellable(&export->idle);
    export_free(export);
}
