/* SPDX-License-Identifier: Apache-2.0 */
/* The hash function that has a file of its own (ripemd160.c). Private to crypto/. */
#ifndef CRYPTO_HASH_PRIVATE_H
#define CRYPTO_HASH_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

void ripemd160_hash(const void *data, size_t size, uint8_t *digest);
void ripemd160_pbkdf2(const void *passphrase, size_t passphrase_size, const uint8_t *salt, size_t salt_size,
                      uint32_t iterations, uint8_t *key, size_t key_size);

#endif
