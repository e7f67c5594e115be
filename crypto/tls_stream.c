/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS streams; see the header.
 *
 *      sendv --> record (16 KiB) --> gnutls_record_send --> push --> `output` --flush--> stream below
 *      recv  <-- gnutls_record_recv <-- pull <-- `input` <----------fill---------------- stream below
 *
 * The library is only ever called between two yields: push appends to a buffer and never fails, pull takes what has
 * been received, or says "try again", upon which we wait for more and ask again. So a receiver and a sender can never
 * be inside it at the same time, and both may leave something to send (a receiver: alerts, key updates).
 *
 * Small pieces (the header of a reply, its data) are gathered into full records: a record costs 22 bytes and a pass of
 * the cipher.
 */
#include "crypto/tls_stream.h"

#include <arpa/inet.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/iov.h"
#include "base/math.h"
#include "base/strbuf.h"
#include "crypto/tls_private.h"

enum {
    RECORD = 16 << 10,        /* plain bytes, the protocol's limit */
    INPUT = 32 << 10,         /* a record and a half: what is received at once */
    FLUSH_ABOVE = 256 << 10,  /* a sender stops to flush when so much is encrypted */
    HANDSHAKE_MAX = 256 << 10 /* bytes that a peer may send before it has proven itself */
};

struct tls_stream {
    struct stream stream;
    struct stream *under;
    struct object *creds;
    gnutls_session_t session;
    char *identity;
    bool is_broken; /* a record was damaged, or the stream below has failed: nothing more is sent */

    size_t input_used, input_filled, received; /* `received`: in all, until the handshake is done */
    bool input_ended;                          /* the stream below has */
    struct strbuf output, spare;
    struct co_mutex output_lock; /* of the stream below, for sending */
    uint8_t *record;             /* being gathered; made with the first small piece */
    uint8_t input[INPUT];
};

static struct tls_stream *tls_of(const struct stream *stream)
{
    return container_of(stream, struct tls_stream, stream);
}

/* What the library calls ----------------------------------------------------------------------------------------- */

static ssize_t push(gnutls_transport_ptr_t arg, const void *data, size_t size)
{
    struct tls_stream *tls = arg;
    strbuf_append_bytes(&tls->output, data, size);
    return (ssize_t)size;
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *data, size_t size)
{
    struct tls_stream *tls = arg;
    size_t part = MIN(size, tls->input_filled - tls->input_used);
    if (!part && tls->input_ended)
        return 0;
    if (!part) {
        gnutls_transport_set_errno(tls->session, EAGAIN);
        return -1;
    }
    memcpy(data, tls->input + tls->input_used, part);
    tls->input_used += part;
    return (ssize_t)part;
}

/* Never asked with a blocking timeout: there is data, or there is none yet. */
static int pull_timeout(gnutls_transport_ptr_t arg, unsigned timeout_ms)
{
    const struct tls_stream *tls = arg;
    (void)timeout_ms;
    return tls->input_filled > tls->input_used || tls->input_ended;
}

/* The stream below ----------------------------------------------------------------------------------------------- */

/* Called when everything received has been pulled. YIELDS. 0, or -errno. */
static int fill(struct tls_stream *tls)
{
    ssize_t got = stream_recv(tls->under, tls->input, sizeof tls->input);
    if (got < 0)
        return (int)got;
    tls->input_used = 0;
    tls->input_filled = (size_t)got;
    tls->input_ended = !got;
    tls->received += (size_t)got;
    return 0;
}

/* Sends what is encrypted, in order, whoever has left it there. YIELDS. */
static int flush(struct tls_stream *tls)
{
    if (!tls->output.length)
        return 0;
    with_co_lock (&tls->output_lock) {
        while (tls->output.length) {
            struct strbuf sending = tls->output;
            tls->output = tls->spare;
            tls->spare = (struct strbuf){0};
            int error = stream_send_all(tls->under, sending.text, sending.length);
            strbuf_clear(&sending);
            if (tls->spare.text)
                strbuf_free(&sending);
            else
                tls->spare = sending;
            if (error < 0) {
                tls->is_broken = true;
                strbuf_clear(&tls->output);
                return error;
            }
        }
    }
    return 0;
}

/* The stream ----------------------------------------------------------------------------------------------------- */

/* -errno for what the library says, 0: ask again. */
static int take_code(struct tls_stream *tls, ssize_t code)
{
    if (code == GNUTLS_E_AGAIN)
        return fill(tls);
    if (code == GNUTLS_E_PREMATURE_TERMINATION)
        return -ECONNRESET; /* cut off: what came before may not be all that was sent */
    if (code != GNUTLS_E_REHANDSHAKE && !gnutls_error_is_fatal((int)code))
        return 0; /* warnings, interruptions */
    tls->is_broken = true;
    return -EPROTO;
}

static ssize_t tls_recv(struct stream *stream, void *buffer, size_t size)
{
    struct tls_stream *tls = tls_of(stream);
    for (;;) {
        ssize_t got = gnutls_record_recv(tls->session, buffer, size);
        int error = flush(tls);
        if (got >= 0)
            return got;
        if (!error)
            error = take_code(tls, got);
        if (error < 0)
            return error;
    }
}

static int encrypt(struct tls_stream *tls, const void *data, size_t size)
{
    while (size) {
        ssize_t done = gnutls_record_send(tls->session, data, size);
        if (done < 0 && (done == GNUTLS_E_AGAIN || done == GNUTLS_E_INTERRUPTED))
            continue; /* push takes everything, so these do not last */
        if (done < 0)
            return -EPROTO;
        data = (const char *)data + done;
        size -= (size_t)done;
    }
    return 0;
}

static int tls_sendv(struct stream *stream, struct iovec *iov, int count)
{
    struct tls_stream *tls = tls_of(stream);
    size_t gathered = 0;
    int error = tls->is_broken ? -EPIPE : 0;
    for (iov_advance(&iov, &count, 0); count && !error;) {
        size_t part = MIN(iov->iov_len, (size_t)RECORD - gathered);
        if (part == RECORD) {
            error = encrypt(tls, iov->iov_base, part);
        } else {
            if (!tls->record)
                tls->record = xmalloc(RECORD);
            memcpy(tls->record + gathered, iov->iov_base, part);
            gathered += part;
        }
        iov_advance(&iov, &count, part);
        if (!error && gathered && (gathered == RECORD || !count)) {
            error = encrypt(tls, tls->record, gathered);
            gathered = 0;
        }
        if (!error && (tls->output.length > FLUSH_ABOVE || !count))
            error = flush(tls);
    }
    return error;
}

static void tls_shutdown(struct stream *stream)
{
    stream_shutdown(tls_of(stream)->under);
}

static void tls_move(struct stream *stream, struct loop *loop)
{
    stream_move(tls_of(stream)->under, loop);
}

static void tls_close(struct stream *stream)
{
    struct tls_stream *tls = tls_of(stream);
    gnutls_deinit(tls->session);
    stream_close(tls->under);
    object_release(tls->creds);
    strbuf_free(&tls->output);
    strbuf_free(&tls->spare);
    free(tls->record);
    free(tls->identity);
    free(stream->peer);
    free(tls);
}

static const struct stream_ops tls_stream_ops = {
    .recv = tls_recv,
    .sendv = tls_sendv,
    .shutdown = tls_shutdown,
    .close = tls_close,
    .move = tls_move,
};

void tls_goodbye(struct stream *stream)
{
    if (stream->ops != &tls_stream_ops || tls_of(stream)->is_broken)
        return;
    gnutls_bye(tls_of(stream)->session, GNUTLS_SHUT_WR);
    flush(tls_of(stream));
}

const char *tls_peer_identity(const struct stream *stream)
{
    return stream->ops == &tls_stream_ops ? tls_of(stream)->identity : NULL;
}

/* The handshake -------------------------------------------------------------------------------------------------- */

static bool prepare(struct tls_stream *tls, const char *hostname, struct error *err)
{
    const struct tls_creds_state *creds = tls_creds_state(tls->creds);
    unsigned flags = (creds->is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL;
    int code = gnutls_init(&tls->session, flags | GNUTLS_NO_TICKETS);
    if (code >= 0)
        code = gnutls_priority_set_direct(tls->session, creds->priority, NULL);
    if (code >= 0)
        code = gnutls_credentials_set(tls->session, creds->type, creds->creds.any);
    if (code < 0)
        return fail(err, EINVAL, "TLS: %s", gnutls_strerror(code));
    gnutls_handshake_set_timeout(tls->session, 0); /* deadlines are the owner's */
    gnutls_transport_set_ptr(tls->session, tls);
    gnutls_transport_set_push_function(tls->session, push);
    gnutls_transport_set_pull_function(tls->session, pull);
    gnutls_transport_set_pull_timeout_function(tls->session, pull_timeout);
    if (creds->type != GNUTLS_CRD_CERTIFICATE || !creds->verify_peer)
        return true;
    if (creds->is_server)
        gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUIRE);
    else if (!hostname)
        return fail(err, EINVAL, "TLS: without the server's host name its certificate cannot be verified");
    return true;
}

/* The library verifies the peer's certificate inside of the handshake; what it is given lives as long as that. */
static void set_verification(struct tls_stream *tls, const char *hostname, gnutls_typed_vdata_st wanted[2])
{
    const struct tls_creds_state *creds = tls_creds_state(tls->creds);
    unsigned count = 1;
    if (creds->type != GNUTLS_CRD_CERTIFICATE || !creds->verify_peer)
        return;
    wanted[0] = (gnutls_typed_vdata_st){
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = (unsigned char *)(creds->is_server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER)};
    if (!creds->is_server)
        wanted[count++] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)hostname};
    gnutls_session_set_verify_cert2(tls->session, wanted, count, 0);
}

static bool handshake_failed(struct tls_stream *tls, int code, struct error *err)
{
    gnutls_datum_t why = {0};
    if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
        gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(tls->session),
                                                     gnutls_certificate_type_get(tls->session), &why, 0);
    if (why.data)
        fail(err, EACCES, "TLS handshake: the peer's certificate: %s", why.data);
    else if (code == GNUTLS_E_FATAL_ALERT_RECEIVED || code == GNUTLS_E_WARNING_ALERT_RECEIVED)
        fail(err, EACCES, "TLS handshake: the peer refuses: %s", gnutls_alert_get_name(gnutls_alert_get(tls->session)));
    else
        fail(err, EPROTO, "TLS handshake: %s", gnutls_strerror(code));
    gnutls_free(why.data);
    return false;
}

static bool shake_hands(struct tls_stream *tls, struct error *err)
{
    for (;;) {
        int code = gnutls_handshake(tls->session);
        if (code < 0 && gnutls_error_is_fatal(code))
            gnutls_alert_send_appropriate(tls->session, code);
        int error = flush(tls);
        if (!code && !error)
            return true;
        if (code < 0 && gnutls_error_is_fatal(code))
            return handshake_failed(tls, code, err);
        if (!error && tls->received > HANDSHAKE_MAX)
            error = -EMSGSIZE;
        if (!error && code == GNUTLS_E_AGAIN)
            error = fill(tls);
        if (error < 0)
            return fail_errno(err, error, "TLS handshake");
    }
}

static char *find_identity(struct tls_stream *tls)
{
    const struct tls_creds_state *creds = tls_creds_state(tls->creds);
    if (creds->type == GNUTLS_CRD_PSK && creds->is_server)
        return xstrdup(gnutls_psk_server_get_username(tls->session));
    unsigned count;
    const gnutls_datum_t *certificates = gnutls_certificate_get_peers(tls->session, &count);
    if (creds->type != GNUTLS_CRD_CERTIFICATE || !creds->verify_peer || !certificates || !count)
        return NULL;
    gnutls_x509_crt_t certificate;
    gnutls_datum_t name = {0};
    char *identity = NULL;
    if (gnutls_x509_crt_init(&certificate) < 0)
        return NULL;
    if (gnutls_x509_crt_import(certificate, &certificates[0], GNUTLS_X509_FMT_DER) >= 0 &&
        gnutls_x509_crt_get_dn2(certificate, &name) >= 0)
        identity = xstrndup((char *)name.data, name.size);
    gnutls_free(name.data);
    gnutls_x509_crt_deinit(certificate);
    return identity;
}

/* Those are not for the server name extension (RFC 6066, 3). */
static bool is_address(const char *hostname)
{
    uint8_t bytes[16];
    return inet_pton(AF_INET, hostname, bytes) == 1 || inet_pton(AF_INET6, hostname, bytes) == 1;
}

static struct stream *start(struct stream *under, struct object *creds, const char *hostname, struct error *err)
{
    struct tls_stream *tls = new (struct tls_stream);
    tls->stream = (struct stream){.ops = &tls_stream_ops, .loop = under->loop, .peer = xstrdup(under->peer)};
    tls->under = under;
    tls->creds = creds;
    creds->users++;
    co_mutex_init(&tls->output_lock);
    gnutls_typed_vdata_st wanted[2] = {0};
    bool good = prepare(tls, hostname, err);
    if (good) {
        if (hostname && !is_address(hostname))
            gnutls_server_name_set(tls->session, GNUTLS_NAME_DNS, hostname, strlen(hostname));
        set_verification(tls, hostname, wanted);
        good = shake_hands(tls, err);
    }
    if (!good) {
        stream_close(&tls->stream);
        return NULL;
    }
    tls->identity = find_identity(tls);
    return &tls->stream;
}

struct stream *tls_accept(struct stream *under, struct object *creds, struct error *err)
{
    return start(under, creds, NULL, err);
}

struct stream *tls_connect(struct stream *under, struct object *creds, const char *hostname, struct error *err)
{
    return start(under, creds, hostname, err);
}
