/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STARTTLS: the connection goes on inside TLS, and everything that was negotiated before is void (proto.md,
 * "TLS support", FORCEDTLS mode). A server with credentials takes no other option before.
 *
 * Nothing that a client has sent ahead in clear can be taken for something that came inside of TLS: the handshake reads
 * exactly what an option needs, so whatever follows it goes to the TLS library, as a record.
 */
#include "base/trace.h"
#include "crypto/authz.h"
#include "crypto/tls_stream.h"
#include "nbd/option.h"

static void forget_everything(struct nbd_connection *connection)
{
    connection->structured = connection->extended = false;
    vec_free(&connection->contexts);
    connection->context_export = NULL;
}

enum outcome option_start_tls(const struct option *option)
{
    struct nbd_connection *connection = option->connection;
    struct nbd_server *server = connection->server;
    enum outcome outcome;
    auto_error err = {0};
    if (!option_is_empty(option, "NBD_OPT_STARTTLS", &outcome))
        return outcome;
    if (!server->tls_creds)
        return option_refuse(option, NBD_REP_ERR_POLICY, "TLS not configured");
    if (connection->has_tls)
        return option_refuse(option, NBD_REP_ERR_INVALID, "TLS is in use already");
    if (option_acknowledge(option) != GO_ON)
        return HANG_UP;
    forget_everything(connection);
    connection->stream = tls_accept(connection->stream, server->tls_creds, &err);
    if (!connection->stream) {
        trace(nbd_tls_failed, "%s", err.message);
        return HANG_UP;
    }
    connection->has_tls = true;
    const char *identity = tls_peer_identity(connection->stream);
    trace(nbd_tls, "%s: %s", connection->stream->peer, identity ? identity : "anonymous");
    if (server->tls_authz && !authz_allows(server->tls_authz, identity, &err)) {
        trace(nbd_not_authorized, "%s: %s", connection->stream->peer, err.message);
        return HANG_UP;
    }
    return GO_ON;
}
