/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One key slot: the master key, split over 4000 stripes, encrypted with a key that is derived from a passphrase.
 *
 *     passphrase --PBKDF2(salt, rounds)--> slot key --decrypts--> stripes --merge--> master key --PBKDF2--> digest?
 *
 * Deriving a key is slow on purpose: it runs on a worker thread, with buffers only.
 */
#include "crypto/luks_header.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/co.h"
#include "base/math.h"

/* On worker threads ---------------------------------------------------------------------------------------------- */

struct derivation {
    enum crypto_hash hash;
    const void *passphrase;
    size_t passphrase_size;
    const uint8_t *salt;
    uint64_t iterations;
    uint8_t *key;
    size_t key_size;
    uint32_t time_ms;
    struct error err;
    bool good;
};

static void derive(void *arg)
{
    struct derivation *d = arg;
    d->good = crypto_pbkdf2(d->hash, d->passphrase, d->passphrase_size, d->salt, LUKS_SALT, d->iterations, d->key,
                            d->key_size, &d->err);
}

static void count(void *arg)
{
    struct derivation *d = arg;
    d->good = crypto_pbkdf2_count(d->hash, d->key_size, d->time_ms, &d->iterations, &d->err);
}

bool luks_pbkdf2(enum crypto_hash hash, const void *passphrase, size_t passphrase_size, const uint8_t *salt,
                 uint32_t iterations, uint8_t *key, size_t key_size, struct error *err)
{
    struct derivation d = {hash, passphrase, passphrase_size, salt, iterations, key, key_size, 0, {0}, false};
    co_offload(derive, &d);
    error_move(err, &d.err);
    return d.good;
}

bool luks_count_iterations(const struct luks_header *header, uint32_t time_ms, uint32_t *iterations, struct error *err)
{
    struct derivation d = {.hash = header->hash, .key_size = header->key_size, .time_ms = time_ms};
    co_offload(count, &d);
    error_move(err, &d.err);
    *iterations = (uint32_t)MIN(MAX(d.iterations, (uint64_t)LUKS_MIN_ITERATIONS), (uint64_t)UINT32_MAX);
    return d.good;
}

/* Storage -------------------------------------------------------------------------------------------------------- */

bool luks_write(const struct luks_storage *storage, uint64_t offset, const void *data, size_t size, struct error *err)
{
    int error = storage->write(storage->opaque, offset, data, size);
    return !error || fail_errno(err, error, "cannot write the LUKS header at %llu", (unsigned long long)offset);
}

bool luks_flush(const struct luks_storage *storage, struct error *err)
{
    int error = storage->flush ? storage->flush(storage->opaque) : 0;
    return !error || fail_errno(err, error, "cannot flush the LUKS header");
}

/* Slots ---------------------------------------------------------------------------------------------------------- */

static struct sector_cipher *slot_cipher(const struct luks_header *header, const struct luks_slot *slot,
                                         const struct secret_bytes *passphrase, struct error *err)
{
    uint8_t key[CRYPTO_MAX_KEY];
    struct sector_cipher *cipher = NULL;
    if (luks_pbkdf2(header->hash, passphrase->data, passphrase->size, slot->salt, slot->iterations, key,
                    header->key_size, err)) {
        const struct sector_cipher_options options = {header->algorithm, header->mode, header->iv,
                                                      header->iv_hash,   key,          header->key_size};
        cipher = sector_cipher_new(&options, err);
    }
    secret_wipe(key, sizeof key);
    return cipher;
}

static bool is_master_key(const struct luks_header *header, const uint8_t *key, bool *is, struct error *err)
{
    uint8_t digest[LUKS_DIGEST];
    bool good = luks_pbkdf2(header->hash, key, header->key_size, header->digest_salt, header->digest_iterations, digest,
                            sizeof digest, err);
    *is = good && !memcmp(digest, header->digest, sizeof digest);
    return good;
}

static bool open_material(const struct luks_header *header, const struct luks_slot *slot,
                          const struct luks_storage *storage, const struct secret_bytes *passphrase, uint8_t *material,
                          uint8_t *key, struct error *err)
{
    size_t size = luks_material_size(header);
    int error = storage->read(storage->opaque, slot->offset, material, size);
    if (error)
        return fail_errno(err, error, "cannot read the LUKS key material at %llu", (unsigned long long)slot->offset);
    struct sector_cipher *cipher = slot_cipher(header, slot, passphrase, err);
    if (!cipher)
        return false;
    error = sector_cipher_decrypt_co(cipher, 0, material, size);
    sector_cipher_free(cipher);
    if (error)
        return fail_errno(err, error, "cannot decrypt the LUKS key material");
    return crypto_af_merge(header->hash, material, header->key_size, slot->stripes, key, err);
}

bool luks_slot_try(const struct luks_header *header, unsigned number, const struct luks_storage *storage,
                   const struct secret_bytes *passphrase, uint8_t *key, bool *found, struct error *err)
{
    const struct luks_slot *slot = &header->slots[number];
    size_t size = luks_material_size(header);
    uint8_t *material = try_aligned_alloc(4096, round_up(size, 4096));
    *found = false;
    if (!material)
        return fail(err, ENOMEM, "no memory for the LUKS key material");
    bool good =
        open_material(header, slot, storage, passphrase, material, key, err) && is_master_key(header, key, found, err);
    secret_wipe(material, size);
    free(material);
    return good;
}

static bool make_material(struct luks_header *header, struct luks_slot *slot, const struct secret_bytes *passphrase,
                          const uint8_t *key, uint8_t *material, size_t size, struct error *err)
{
    memset(material, 0, size);
    if (!crypto_af_split(header->hash, key, header->key_size, slot->stripes, material, err))
        return false;
    struct sector_cipher *cipher = slot_cipher(header, slot, passphrase, err);
    if (!cipher)
        return false;
    int error = sector_cipher_encrypt_co(cipher, 0, material, size);
    sector_cipher_free(cipher);
    return !error || fail_errno(err, error, "cannot encrypt the LUKS key material");
}

bool luks_slot_fill(struct luks_header *header, unsigned number, const struct luks_storage *storage,
                    const struct secret_bytes *passphrase, const uint8_t *key, uint32_t iter_time_ms, struct error *err)
{
    struct luks_slot *slot = &header->slots[number];
    size_t size = luks_material_size(header);
    if (!luks_count_iterations(header, iter_time_ms, &slot->iterations, err) ||
        !crypto_random(slot->salt, sizeof slot->salt, err))
        return false;
    slot->stripes = LUKS_STRIPES;
    uint8_t *material = try_aligned_alloc(4096, round_up(size, 4096));
    if (!material)
        return fail(err, ENOMEM, "no memory for the LUKS key material");
    bool good = make_material(header, slot, passphrase, key, material, size, err) &&
                luks_write(storage, slot->offset, material, size, err) && luks_flush(storage, err);
    secret_wipe(material, size);
    free(material);
    return good;
}
