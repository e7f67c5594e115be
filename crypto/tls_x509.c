/* SPDX-License-Identifier: Apache-2.0 */
/* tls-creds-x509: certificates from a directory with the ecosystem's file names. */
#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "crypto/secret.h"
#include "crypto/tls_private.h"

static bool failed(struct error *err, const char *path, int code)
{
    return fail(err, EINVAL, "'%s': %s", path, gnutls_strerror(code));
}

/* The authority that signs peers, and what it has revoked. */
static bool load_authority(struct tls_creds_state *state, const char *ca_path, struct error *err)
{
    int count = gnutls_certificate_set_x509_trust_file(state->creds.x509, ca_path, GNUTLS_X509_FMT_PEM);
    if (count <= 0)
        return failed(err, ca_path, count ? count : GNUTLS_E_NO_CERTIFICATE_FOUND);
    auto_error problem = {0};
    auto_free char *crl_path = tls_creds_file(state, "ca-crl.pem", false, &problem);
    if (error_is_set(&problem)) {
        error_move(err, &problem);
        return false;
    }
    count = crl_path ? gnutls_certificate_set_x509_crl_file(state->creds.x509, crl_path, GNUTLS_X509_FMT_PEM) : 0;
    return count >= 0 || failed(err, crl_path, count);
}

static bool load_key(struct object *object, const char *cert_path, const char *key_path, struct error *err)
{
    const struct tls_creds_x509_properties *options = &object->options->u.tls_creds_x509;
    struct tls_creds_state *state = object->state;
    auto_secret_bytes *password = options->passwordid ? secret_lookup(object->set, options->passwordid, err) : NULL;
    if (options->passwordid && !password)
        return false;
    int code = gnutls_certificate_set_x509_key_file2(state->creds.x509, cert_path, key_path, GNUTLS_X509_FMT_PEM,
                                                     password ? password->data : NULL, 0);
    if (code < 0)
        return fail(err, EINVAL, "'%s' with '%s': %s", cert_path, key_path, gnutls_strerror(code));
    return true;
}

/* A server has a certificate of its own; a client may have one. */
static bool load_files(struct object *object, struct error *err)
{
    const struct tls_creds_x509_properties *options = &object->options->u.tls_creds_x509;
    struct tls_creds_state *state = object->state;
    bool is_server = state->is_server;
    auto_error problem = {0};
    auto_free char *ca_path = tls_creds_file(state, "ca-cert.pem", true, &problem);
    auto_free char *cert_path =
        tls_creds_file(state, is_server ? "server-cert.pem" : "client-cert.pem", is_server, &problem);
    auto_free char *key_path =
        tls_creds_file(state, is_server ? "server-key.pem" : "client-key.pem", is_server || cert_path, &problem);
    if (error_is_set(&problem)) {
        error_move(err, &problem);
        return false;
    }
    if (options->sanity_check && !tls_check_certificates(ca_path, cert_path, is_server, err))
        return false;
    return load_authority(state, ca_path, err) && (!cert_path || load_key(object, cert_path, key_path, err)) &&
           (!is_server || tls_creds_load_dh(state, err));
}

static void x509_close(struct object *object)
{
    struct tls_creds_state *state = object->state;
    gnutls_certificate_free_credentials(state->creds.x509);
    tls_creds_end(object);
}

static bool x509_open(struct object *object, struct error *err)
{
    const struct tls_creds_x509_properties *options = &object->options->u.tls_creds_x509;
    struct tls_creds_state *state = object->state;
    const struct tls_creds_properties common = {.dir = options->dir,
                                                .endpoint = options->endpoint,
                                                .verify_peer = options->verify_peer,
                                                .priority = options->priority};
    state->type = GNUTLS_CRD_CERTIFICATE;
    gnutls_certificate_allocate_credentials(&state->creds.x509);
    if (!tls_creds_begin(object, &common, "", err) || !load_files(object, err)) {
        x509_close(object);
        return false;
    }
    if (state->dh)
        gnutls_certificate_set_dh_params(state->creds.x509, state->dh);
    else if (state->is_server)
        gnutls_certificate_set_known_dh_params(state->creds.x509, GNUTLS_SEC_PARAM_MEDIUM);
    return true;
}

const struct object_kind tls_creds_x509_kind = {
    .type = OBJECT_TYPE_TLS_CREDS_X509,
    .state_size = sizeof(struct tls_creds_state),
    .open = x509_open,
    .close = x509_close,
};
