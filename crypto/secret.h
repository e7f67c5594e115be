/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets: objects `secret` and `secret_keyring`. The bytes come from a property, a file or the kernel's keyring, raw
 * or in base64, and may be wrapped: encrypted by AES-256-CBC under the bytes of another secret, padded as PKCS#7 says.
 * They are wiped when the object goes.
 */
#ifndef CRYPTO_SECRET_H
#define CRYPTO_SECRET_H

#include "objects/object.h"

extern const struct object_kind secret_kind, secret_keyring_kind;

/* Bytes that are wiped when they are freed. `data[size]` is a NUL, for users that want a text. */
struct secret_bytes {
    size_t size;
    char data[];
};
void secret_bytes_free(struct secret_bytes *bytes); /* NULL is allowed */
static inline void secret_bytes_cleanup(struct secret_bytes **bytes)
{
    secret_bytes_free(*bytes);
}
#define auto_secret_bytes __attribute__((cleanup(secret_bytes_cleanup))) struct secret_bytes

/* A copy of what the secret object `id` holds, of either kind. `set` may be NULL: there are no objects. */
struct secret_bytes *secret_lookup(struct object_set *set, const char *id, struct error *err);

/* Memory that held a secret: zeroes that the compiler does not leave out. */
void secret_wipe(void *data, size_t size);

#endif
