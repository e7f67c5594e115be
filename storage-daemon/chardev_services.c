/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon lends the character devices of its monitors: TLS, and descriptors of clients. */
#include <stdlib.h>
#include "base/alloc.h"
#include "crypto/authz.h"
#include "crypto/tls_creds.h"
#include "crypto/tls_stream.h"
#include "objects/fds.h"
#include "storage-daemon/daemon.h"
#include "qmp/server.h"

struct tls {
    struct object *creds, *authz;
    bool is_server;
};

static void release_tls(void *opaque)
{
    struct tls *tls = opaque;
    object_release(tls->creds);
    object_release(tls->authz);
    free(tls);
}

static void *hold_tls(void *app, const char *creds, const char *authz, bool is_server, struct error *err)
{
    struct daemon *daemon = app;
    struct tls *tls = new (struct tls);
    tls->is_server = is_server;
    tls->creds =
        tls_creds_hold(daemon->objects, creds, is_server ? TLS_CREDS_ENDPOINT_SERVER : TLS_CREDS_ENDPOINT_CLIENT, err);
    tls->authz = tls->creds && authz ? authz_hold(daemon->objects, authz, err) : NULL;
    if (tls->creds && (tls->authz || !authz))
        return tls;
    release_tls(tls);
    return NULL;
}

static struct stream *start_tls(void *opaque, struct stream *under, const char *host, struct error *err)
{
    struct tls *tls = opaque;
    if (!tls->is_server)
        return tls_connect(under, tls->creds, host, err);
    struct stream *stream = tls_accept(under, tls->creds, err);
    if (!stream || !tls->authz || authz_allows(tls->authz, tls_peer_identity(stream), err))
        return stream;
    stream_close(stream);
    return NULL;
}

static int take_fd(void *app, const char *name)
{
    struct daemon *daemon = app;
    return fds_take_name(object_set_fds(daemon->objects), name);
}

const struct chardev_services daemon_chardev_services = {
    .hold_tls = hold_tls,
    .release_tls = release_tls,
    .start_tls = start_tls,
    .take_fd = take_fd,
};
