/* SPDX-License-Identifier: Apache-2.0 */
/* What credentials and streams share. Private to crypto/. */
#ifndef CRYPTO_TLS_PRIVATE_H
#define CRYPTO_TLS_PRIVATE_H

#include <gnutls/gnutls.h>
#include "crypto/tls_creds.h"

/* Of every kind of credentials: what a session is given. */
struct tls_creds_state {
    gnutls_credentials_type_t type;
    bool is_server, verify_peer;
    char *priority; /* algorithms, complete */
    char *dir;
    gnutls_dh_params_t dh; /* NULL: those that the library knows */
    union {
        gnutls_certificate_credentials_t x509;
        gnutls_psk_server_credentials_t psk_server;
        gnutls_psk_client_credentials_t psk_client;
        gnutls_anon_server_credentials_t anon_server;
        gnutls_anon_client_credentials_t anon_client;
        void *any;
    } creds;
};

static inline const struct tls_creds_state *tls_creds_state(const struct object *creds)
{
    return (const struct tls_creds_state *)creds->state;
}

/* tls_creds.c: what the kinds have in common. `suffix` completes the algorithms. */
bool tls_creds_begin(struct object *object, const struct tls_creds_properties *properties, const char *suffix,
                     struct error *err);
void tls_creds_end(struct object *object);
/* The path of a file in the directory; NULL and an error when it must be there and is not, NULL without one when it
 * need not. Owned. */
char *tls_creds_file(const struct tls_creds_state *state, const char *name, bool mandatory, struct error *err);
bool tls_creds_load_dh(struct tls_creds_state *state, struct error *err);

/* tls_check.c: do these certificates make sense: in time, for this use, and signed by this authority? */
bool tls_check_certificates(const char *ca_path, const char *own_path, bool is_server, struct error *err);

#endif
