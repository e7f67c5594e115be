/* SPDX-License-Identifier: Apache-2.0 */
/* TLS of the NBD client by the program's own credentials: what the `nbd` driver and `spindle-nbd -L` give to
 * nbd-client/. */
#ifndef PROTOCOL_NBD_TLS_H
#define PROTOCOL_NBD_TLS_H

#include "nbd-client/client.h"
#include "objects/object.h"

struct nbd_tls {
    struct object *creds; /* held; NULL: no TLS */
    char *hostname;       /* whom the server's certificate must be for; NULL: nobody in particular */
    struct nbd_client_tls client;
};

/* Fills `settings->tls`, which lives as long as `tls`. `id` NULL: no TLS. `hostname` NULL: settings->host. */
bool nbd_tls_set(struct nbd_tls *tls, struct object_set *objects, const char *id, const char *hostname,
                 struct nbd_client_settings *settings, struct error *err);
void nbd_tls_release(struct nbd_tls *tls);

#endif
