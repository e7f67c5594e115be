/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cipher.c and the two libraries behind it share. Private to crypto/.
 *
 * An engine is a cipher with its key set, used by one thread at a time. GnuTLS has AES with the processor's own
 * instructions; Nettle has the others, and modes that GnuTLS does not offer for them.
 */
#ifndef CRYPTO_CIPHER_PRIVATE_H
#define CRYPTO_CIPHER_PRIVATE_H

#include "crypto/cipher.h"

enum { CIPHER_BLOCK = 16 };

struct cipher_engine;
struct cipher_engine_ops {
    void (*free)(struct cipher_engine *engine);
    /* In place; `iv` is overwritten. The size is a multiple of the block. 0 or -errno. */
    int (*encrypt)(struct cipher_engine *engine, uint8_t iv[CIPHER_BLOCK], uint8_t *data, size_t size);
    int (*decrypt)(struct cipher_engine *engine, uint8_t iv[CIPHER_BLOCK], uint8_t *data, size_t size);
};
struct cipher_engine {
    const struct cipher_engine_ops *ops;
    struct cipher_engine *next; /* the owner's list of those that rest */
};

/* NULL without an error: this library does not have it. */
struct cipher_engine *gnutls_engine_new(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode,
                                        const uint8_t *key, size_t key_size, struct error *err);
struct cipher_engine *nettle_engine_new(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode,
                                        const uint8_t *key, size_t key_size);

#endif
