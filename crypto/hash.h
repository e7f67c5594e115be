/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash functions, keys from passphrases (PBKDF2, RFC 8018) and the anti-forensic splitter of LUKS. Pure computation,
 * nothing yields; what takes long says so and may be called from a worker thread.
 */
#ifndef CRYPTO_HASH_H
#define CRYPTO_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "qmp/schema/types.h"

enum { CRYPTO_HASH_MAX_SIZE = 64 };

bool crypto_hash_available(enum crypto_hash hash);
size_t crypto_hash_size(enum crypto_hash hash); /* bytes of a digest */
bool crypto_hash_digest(enum crypto_hash hash, const void *data, size_t size, uint8_t *digest, struct error *err);

/* Good random numbers: for keys. */
bool crypto_random(void *data, size_t size, struct error *err);

/* Slow. */
bool crypto_pbkdf2(enum crypto_hash hash, const void *passphrase, size_t passphrase_size, const uint8_t *salt,
                   size_t salt_size, uint64_t iterations, uint8_t *key, size_t key_size, struct error *err);
/* Iterations that this thread does in `time_ms` for a key of that size, measured by its processor time. Slow. */
bool crypto_pbkdf2_count(enum crypto_hash hash, size_t key_size, uint32_t time_ms, uint64_t *iterations,
                         struct error *err);

/* Anti-forensic splitter: `size` bytes to `stripes` times as many, of which every single one is needed to come back. */
bool crypto_af_split(enum crypto_hash hash, const uint8_t *key, size_t size, uint32_t stripes, uint8_t *split,
                     struct error *err);
bool crypto_af_merge(enum crypto_hash hash, const uint8_t *split, size_t size, uint32_t stripes, uint8_t *key,
                     struct error *err);

#endif
