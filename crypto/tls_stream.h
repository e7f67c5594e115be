/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS on top of any stream, as a stream. One coroutine may receive while another sends, as with every stream.
 *
 * The library never waits: it is given what has been received and leaves what is to be sent in buffers of ours; all
 * waiting is in the stream below. So a TLS stream runs on every kind of loop, the simulated one included.
 */
#ifndef CRYPTO_TLS_STREAM_H
#define CRYPTO_TLS_STREAM_H

#include "base/stream.h"
#include "objects/object.h"

/* The handshake, as the side that listens or that connects. They take `under` over in any case: on error it is closed.
 * `creds` are held by the stream (crypto/tls_creds.h). `hostname` is checked against the server's certificate and sent
 * to it; NULL: neither (only for credentials without certificates, or that verify nothing). YIELD. */
struct stream *tls_accept(struct stream *under, struct object *creds, struct error *err);
struct stream *tls_connect(struct stream *under, struct object *creds, const char *hostname, struct error *err);

/* Who the peer has proven to be: distinguished name or user name; NULL: it has not. For streams made above. */
const char *tls_peer_identity(const struct stream *stream);

/* Tells the peer that nothing more comes (close_notify), so that it can tell an end from a cut. For any stream: nothing
 * is done where there is no TLS. YIELDS. */
void tls_goodbye(struct stream *stream);

#endif
