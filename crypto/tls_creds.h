/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS credentials: objects `tls-creds-x509`, `tls-creds-psk` and `tls-creds-anon`. The files in their directory are
 * read when the object is made, so that mistakes show then and not with the first client.
 */
#ifndef CRYPTO_TLS_CREDS_H
#define CRYPTO_TLS_CREDS_H

#include "objects/object.h"

extern const struct object_kind tls_creds_anon_kind, tls_creds_psk_kind, tls_creds_x509_kind;

/* The credentials of that id, of any kind, held for the caller (object_release()). They must be for `endpoint`. */
struct object *tls_creds_hold(struct object_set *set, const char *id, enum tls_creds_endpoint endpoint,
                              struct error *err);

/* Is the server's certificate verified, so that a client has to know the name it must be for? */
bool tls_creds_verify_name(const struct object *creds);

#endif
