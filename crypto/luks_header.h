/* SPDX-License-Identifier: Apache-2.0 */
/* The LUKS header on the disk and in memory (luks_header.c), and its keys (luks.c, luks_slots.c). Private to crypto/.
 */
#ifndef CRYPTO_LUKS_HEADER_H
#define CRYPTO_LUKS_HEADER_H

#include "crypto/hash.h"
#include "crypto/luks.h"

/* LUKS 1.2.3, figures 1 and 2. */
enum {
    LUKS_HEADER_SIZE = 592,
    LUKS_SLOT_OFFSET = 208, /* of the first slot's descriptor */
    LUKS_SLOT_SIZE = 48,
    LUKS_DIGEST = 20,
    LUKS_SALT = 32,
    LUKS_STRIPES = 4000,
    LUKS_SLOT_ALIGN = 4096, /* key material begins at such offsets */
    LUKS_MIN_ITERATIONS = 1000,
};
#define LUKS_SLOT_ACTIVE 0x00ac71f3u
#define LUKS_SLOT_INACTIVE 0x0000deadu

struct luks_slot {
    bool active;
    uint32_t iterations, stripes;
    uint8_t salt[LUKS_SALT];
    uint64_t offset; /* of the key material, bytes */
};

struct luks_header {
    enum crypto_cipher_algorithm algorithm;
    enum crypto_cipher_mode mode;
    enum crypto_iv_generator iv;
    enum crypto_hash iv_hash, hash; /* iv_hash: essiv */
    uint32_t key_size;
    uint64_t payload_offset; /* bytes; 0: detached */
    uint8_t digest[LUKS_DIGEST], digest_salt[LUKS_SALT];
    uint32_t digest_iterations;
    char uuid[40];
    struct luks_slot slots[LUKS_KEY_SLOTS];
};

struct luks {
    struct luks_header header;
    uint64_t container_size;
    uint8_t key[CRYPTO_MAX_KEY]; /* the master key */
    struct sector_cipher *cipher;
};

/* Bytes of a slot's key material on the disk. */
uint64_t luks_material_size(const struct luks_header *header);
bool luks_header_decode(const uint8_t wire[LUKS_HEADER_SIZE], uint64_t container_size, struct luks_header *header,
                        struct error *err);
void luks_header_encode(const struct luks_header *header, uint8_t wire[LUKS_HEADER_SIZE]);
void luks_slot_encode(const struct luks_slot *slot, uint8_t wire[LUKS_SLOT_SIZE]);

/* luks_slots.c. All YIELD. */
/* Tries one slot. true with *found when the passphrase opens it; `key` then has the master key. false: an error. */
bool luks_slot_try(const struct luks_header *header, unsigned number, const struct luks_storage *storage,
                   const struct secret_bytes *passphrase, uint8_t *key, bool *found, struct error *err);
/* Writes the master key, split and encrypted, into a slot's place, and fills the slot's description in. */
bool luks_slot_fill(struct luks_header *header, unsigned number, const struct luks_storage *storage,
                    const struct secret_bytes *passphrase, const uint8_t *key, uint32_t iter_time_ms,
                    struct error *err);
bool luks_pbkdf2(enum crypto_hash hash, const void *passphrase, size_t passphrase_size, const uint8_t *salt,
                 uint32_t iterations, uint8_t *key, size_t key_size, struct error *err);
bool luks_count_iterations(const struct luks_header *header, uint32_t time_ms, uint32_t *iterations, struct error *err);
bool luks_write(const struct luks_storage *storage, uint64_t offset, const void *data, size_t size, struct error *err);
bool luks_flush(const struct luks_storage *storage, struct error *err);

#endif
