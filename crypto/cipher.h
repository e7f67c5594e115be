/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encryption of disks: block ciphers over sectors of 512 bytes, each with an initialization vector of its own that
 * follows from its number.
 *
 * A sector_cipher is made once for a key and then only read: any number of threads may use it at the same time.
 * Data is changed in place. Large pieces are spread over the loop's worker threads (sector_cipher_run()), so that one
 * coroutine's encryption keeps nobody else waiting.
 */
#ifndef CRYPTO_CIPHER_H
#define CRYPTO_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "qmp/schema/types.h"

struct sector_cipher;

enum { CRYPTO_SECTOR = 512, CRYPTO_MAX_KEY = 64 };

/* Bytes of the key of a cipher in a mode (XTS: both keys). */
size_t crypto_key_size(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode);

struct sector_cipher_options {
    enum crypto_cipher_algorithm algorithm;
    enum crypto_cipher_mode mode;
    enum crypto_iv_generator iv;
    enum crypto_hash iv_hash; /* essiv */
    const uint8_t *key;
    size_t key_size; /* crypto_key_size() */
};
struct sector_cipher *sector_cipher_new(const struct sector_cipher_options *options, struct error *err);
void sector_cipher_free(struct sector_cipher *cipher); /* wipes the key. NULL is allowed */

/* `size` is a multiple of CRYPTO_SECTOR; `sector` is the number that belongs to its first 512 bytes. On the calling
 * thread; 0 or -errno. */
int sector_cipher_encrypt(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size);
int sector_cipher_decrypt(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size);

/* The same in a coroutine: what is large goes to worker threads. YIELDS. */
int sector_cipher_encrypt_co(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size);
int sector_cipher_decrypt_co(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size);

/* AES-256-CBC of bytes with PKCS#7 padding, as wrapped secrets use it. `data` is decrypted in place; the size without
 * padding comes back in *size. */
bool crypto_unwrap(const uint8_t key[32], const uint8_t iv[16], uint8_t *data, size_t *size, struct error *err);

#endif
