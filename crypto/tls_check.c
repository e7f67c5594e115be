/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sanity check of certificates: mistakes that every handshake would fail on, found when the credentials are made
 * and said in words: out of date, made for another use, not signed by the authority.
 */
#include <gnutls/x509.h>
#include <stdlib.h>
#include <time.h>
#include "base/cleanup.h"
#include "crypto/tls_private.h"

struct certificates {
    gnutls_x509_crt_t *items;
    unsigned count;
};

static void certificates_free(struct certificates *list)
{
    for (unsigned i = 0; i < list->count; i++)
        gnutls_x509_crt_deinit(list->items[i]);
    gnutls_free(list->items);
}
#define auto_certificates __attribute__((cleanup(certificates_free))) struct certificates

static bool load(const char *path, struct certificates *list, struct error *err)
{
    gnutls_datum_t text;
    int code = gnutls_load_file(path, &text);
    if (code < 0)
        return fail(err, EINVAL, "'%s': %s", path, gnutls_strerror(code));
    code = gnutls_x509_crt_list_import2(&list->items, &list->count, &text, GNUTLS_X509_FMT_PEM, 0);
    gnutls_free(text.data);
    return code >= 0 || fail(err, EINVAL, "'%s': %s", path, gnutls_strerror(code));
}

static bool check_time(const char *path, gnutls_x509_crt_t certificate, struct error *err)
{
    time_t now = time(NULL);
    if (gnutls_x509_crt_get_expiration_time(certificate) < now)
        return fail(err, EKEYEXPIRED, "'%s': the certificate has expired", path);
    if (gnutls_x509_crt_get_activation_time(certificate) > now)
        return fail(err, EINVAL, "'%s': the certificate is not valid yet", path);
    return true;
}

/* What is not stated is allowed. */
static bool check_usage(const char *path, gnutls_x509_crt_t certificate, unsigned wanted, const char *what,
                        struct error *err)
{
    unsigned usage, critical;
    int code = gnutls_x509_crt_get_key_usage(certificate, &usage, &critical);
    if (code < 0 || usage & wanted || !critical)
        return true;
    return fail(err, EINVAL, "'%s': the certificate's key usage does not allow %s", path, what);
}

static bool check_authority(const char *path, gnutls_x509_crt_t certificate, struct error *err)
{
    unsigned critical;
    if (gnutls_x509_crt_get_ca_status(certificate, &critical) <= 0)
        return fail(err, EINVAL, "'%s': not the certificate of an authority (its basic constraints say so)", path);
    return check_time(path, certificate, err) &&
           check_usage(path, certificate, GNUTLS_KEY_KEY_CERT_SIGN, "signing certificates", err);
}

static bool check_purpose(const char *path, gnutls_x509_crt_t certificate, bool is_server, struct error *err)
{
    const char *wanted = is_server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT;
    if (gnutls_x509_crt_check_key_purpose(certificate, wanted, 0))
        return true;
    return fail(err, EINVAL, "'%s': the certificate's purpose is not that of a TLS %s", path,
                is_server ? "server" : "client");
}

static bool check_signature(const char *own_path, const struct certificates *own, const char *ca_path,
                            const struct certificates *authorities, struct error *err)
{
    unsigned status;
    int code = gnutls_x509_crt_list_verify(own->items, (int)own->count, authorities->items, (int)authorities->count,
                                           NULL, 0, GNUTLS_VERIFY_DO_NOT_ALLOW_SAME, &status);
    if (code < 0)
        return fail(err, EINVAL, "'%s': %s", own_path, gnutls_strerror(code));
    if (!status)
        return true;
    gnutls_datum_t text = {0};
    gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    fail(err, EINVAL, "'%s' with the authority '%s': %s", own_path, ca_path, text.data ? (char *)text.data : "");
    gnutls_free(text.data);
    return false;
}

bool tls_check_certificates(const char *ca_path, const char *own_path, bool is_server, struct error *err)
{
    auto_certificates authorities = {0}, own = {0};
    if (!load(ca_path, &authorities, err))
        return false;
    for (unsigned i = 0; i < authorities.count; i++)
        if (!check_authority(ca_path, authorities.items[i], err))
            return false;
    if (!own_path)
        return true;
    return load(own_path, &own, err) && check_time(own_path, own.items[0], err) &&
           check_usage(own_path, own.items[0], GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_ENCIPHERMENT,
                       "signing or exchanging keys", err) &&
           check_purpose(own_path, own.items[0], is_server, err) &&
           check_signature(own_path, &own, ca_path, &authorities, err);
}
