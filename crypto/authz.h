/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Authorization: objects `authz-simple`, `authz-list` and `authz-listfile` decide whether an identity, proven by TLS,
 * is let in. An identity is a text: the distinguished name of a certificate ("CN=client.example,O=...") or the user
 * name of a pre-shared key.
 */
#ifndef CRYPTO_AUTHZ_H
#define CRYPTO_AUTHZ_H

#include "objects/object.h"

extern const struct object_kind authz_list_kind, authz_listfile_kind, authz_simple_kind;

/* The authorization object of that id, of any kind, held for the caller (object_release()). */
struct object *authz_hold(struct object_set *set, const char *id, struct error *err);

/* `identity` NULL: the peer has proven none, and is refused. A file that cannot be read refuses everybody, and says so
 * in `err`; otherwise the error tells who was refused by what. */
bool authz_allows(struct object *authz, const char *identity, struct error *err);

#endif
