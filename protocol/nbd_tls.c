/* SPDX-License-Identifier: Apache-2.0 */
#include "protocol/nbd_tls.h"

#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "crypto/tls_creds.h"
#include "crypto/tls_stream.h"

static struct stream *begin(void *user, struct stream *plain, struct error *err)
{
    struct nbd_tls *tls = user;
    return tls_connect(plain, tls->creds, tls->hostname, err);
}

bool nbd_tls_set(struct nbd_tls *tls, struct object_set *objects, const char *id, const char *hostname,
                 struct nbd_client_settings *settings, struct error *err)
{
    if (!id)
        return !hostname || fail(err, EINVAL, "tls-hostname is for TLS: tls-creds is missing");
    const char *expected = hostname ? hostname : settings->host;
    tls->creds = tls_creds_hold(objects, id, TLS_CREDS_ENDPOINT_CLIENT, err);
    if (!tls->creds)
        return false;
    if (!expected && tls_creds_verify_name(tls->creds))
        return fail(err, EINVAL,
                    "a server at a UNIX socket has no host name that its certificate could be for: say tls-hostname "
                    "(or verify-peer=off for the credentials '%s')",
                    id);
    tls->hostname = xstrdup(expected);
    tls->client = (struct nbd_client_tls){.begin = begin, .end = tls_goodbye, .user = tls};
    settings->tls = &tls->client;
    return true;
}

void nbd_tls_release(struct nbd_tls *tls)
{
    object_release(TAKE(tls->creds));
    free(TAKE(tls->hostname));
}
