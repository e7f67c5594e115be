/* SPDX-License-Identifier: Apache-2.0 */
/* RIPEMD-160, which some builds of GnuTLS leave out, by Nettle: old LUKS images have it. */
#include <nettle/hmac.h>
#include <nettle/pbkdf2.h>
#include <nettle/ripemd160.h>
#include "crypto/hash_private.h"

void ripemd160_hash(const void *data, size_t size, uint8_t *digest)
{
    struct ripemd160_ctx context;
    ripemd160_init(&context);
    ripemd160_update(&context, size, data);
    ripemd160_digest(&context, RIPEMD160_DIGEST_SIZE, digest);
}

void ripemd160_pbkdf2(const void *passphrase, size_t passphrase_size, const uint8_t *salt, size_t salt_size,
                      uint32_t iterations, uint8_t *key, size_t key_size)
{
    struct hmac_ripemd160_ctx context;
    hmac_ripemd160_set_key(&context, passphrase_size, passphrase);
    PBKDF2(&context, hmac_ripemd160_update, hmac_ripemd160_digest, RIPEMD160_DIGEST_SIZE, iterations, salt_size, salt,
           key_size, key);
}
