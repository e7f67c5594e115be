/* SPDX-License-Identifier: Apache-2.0 */
/* LUKS volumes: making, opening, describing. Changing key slots is in luks_amend.c. */
#include "crypto/luks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "crypto/luks_header.h"

/* Making --------------------------------------------------------------------------------------------------------- */

/* The layout that the ecosystem's tools make: slots behind each other from 4 KiB on, the data right behind them. */
static void lay_out(struct luks_header *header)
{
    uint64_t step = round_up(luks_material_size(header), LUKS_SLOT_ALIGN), at = LUKS_SLOT_ALIGN;
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++, at += step)
        header->slots[i] = (struct luks_slot){.stripes = LUKS_STRIPES, .offset = at};
    header->payload_offset = at;
}

static bool choose(const struct luks_create_options *options, struct luks_header *header, struct error *err)
{
    *header = (struct luks_header){.algorithm = options->cipher_alg,
                                   .mode = options->cipher_mode,
                                   .iv = options->ivgen_alg,
                                   .hash = options->hash_alg,
                                   .iv_hash = options->has_ivgen_hash_alg ? options->ivgen_hash_alg : options->hash_alg,
                                   .key_size = crypto_key_size(options->cipher_alg, options->cipher_mode)};
    if (options->has_ivgen_hash_alg && options->ivgen_alg != CRYPTO_IV_GENERATOR_ESSIV)
        return fail(err, EINVAL, "ivgen-hash-alg is for ivgen-alg=essiv, not for %s",
                    crypto_iv_generator_name(options->ivgen_alg));
    if (!crypto_hash_available(header->hash))
        return fail(err, EOPNOTSUPP, "hash %s is not available on this system", crypto_hash_name(header->hash));
    /* The same checks that its use will make, before anything is written. */
    uint8_t key[CRYPTO_MAX_KEY] = {0};
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)i; /* some libraries refuse XTS keys whose halves are equal */
    const struct sector_cipher_options trial = {header->algorithm, header->mode, header->iv,
                                                header->iv_hash,   key,          header->key_size};
    struct sector_cipher *cipher = sector_cipher_new(&trial, err);
    sector_cipher_free(cipher);
    lay_out(header);
    return cipher != NULL;
}

uint64_t luks_header_size(const struct luks_create_options *options, struct error *err)
{
    struct luks_header header;
    return choose(options, &header, err) ? header.payload_offset : 0;
}

/* A random identifier, RFC 4122 version 4. */
static bool make_uuid(char text[40], struct error *err)
{
    uint8_t b[16];
    if (!crypto_random(b, sizeof b, err))
        return false;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    memset(text, 0, 40);
    snprintf(text, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return true;
}

static bool set_cipher(struct luks *luks, struct error *err)
{
    const struct luks_header *header = &luks->header;
    const struct sector_cipher_options options = {header->algorithm, header->mode, header->iv,
                                                  header->iv_hash,   luks->key,    header->key_size};
    luks->cipher = sector_cipher_new(&options, err);
    return luks->cipher != NULL;
}

static bool make(struct luks *luks, const struct luks_storage *storage, const struct luks_create_options *options,
                 const struct secret_bytes *passphrase, struct error *err)
{
    struct luks_header *header = &luks->header;
    uint8_t wire[LUKS_HEADER_SIZE];
    if (!crypto_random(luks->key, header->key_size, err) || !make_uuid(header->uuid, err) ||
        !crypto_random(header->digest_salt, LUKS_SALT, err) || !set_cipher(luks, err))
        return false;
    /* The digest is computed for every slot that is tried: an eighth of the time is its share. */
    if (!luks_count_iterations(header, (uint32_t)MAX(options->iter_time / 8, 1), &header->digest_iterations, err) ||
        !luks_pbkdf2(header->hash, luks->key, header->key_size, header->digest_salt, header->digest_iterations,
                     header->digest, LUKS_DIGEST, err) ||
        !luks_slot_fill(header, 0, storage, passphrase, luks->key, (uint32_t)options->iter_time, err))
        return false;
    header->slots[0].active = true;
    luks_header_encode(header, wire);
    return luks_write(storage, 0, wire, sizeof wire, err) && luks_flush(storage, err);
}

struct luks *luks_create(const struct luks_storage *storage, const struct luks_create_options *options,
                         const struct secret_bytes *passphrase, bool detached, struct error *err)
{
    struct luks_header header;
    if (!choose(options, &header, err))
        return NULL;
    struct luks *luks = new (struct luks);
    luks->header = header;
    luks->container_size = UINT64_MAX;
    if (detached)
        luks->header.payload_offset = 0;
    if (make(luks, storage, options, passphrase, err))
        return luks;
    luks_free(luks);
    return NULL;
}

/* Opening -------------------------------------------------------------------------------------------------------- */

static bool unlock(struct luks *luks, const struct luks_storage *storage, const struct secret_bytes *passphrase,
                   struct error *err)
{
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++) {
        bool found = false;
        if (luks->header.slots[i].active &&
            !luks_slot_try(&luks->header, i, storage, passphrase, luks->key, &found, err))
            return false;
        if (found)
            return set_cipher(luks, err);
    }
    return fail(err, EPERM, "Invalid password, cannot unlock any keyslot");
}

struct luks *luks_open(const struct luks_storage *storage, uint64_t container_size,
                       const struct secret_bytes *passphrase, struct error *err)
{
    uint8_t wire[LUKS_HEADER_SIZE];
    if (container_size < sizeof wire)
        return fail_null(err, EINVAL, "a LUKS header has %zu bytes, there are only %llu", sizeof wire,
                         (unsigned long long)container_size);
    int error = storage->read(storage->opaque, 0, wire, sizeof wire);
    if (error)
        return fail_errno_null(err, error, "cannot read the LUKS header");
    struct luks *luks = new (struct luks);
    luks->container_size = container_size;
    if (luks_header_decode(wire, container_size, &luks->header, err) &&
        (!passphrase || unlock(luks, storage, passphrase, err)))
        return luks;
    luks_free(luks);
    return NULL;
}

void luks_free(struct luks *luks)
{
    if (!luks)
        return;
    sector_cipher_free(luks->cipher);
    secret_wipe(luks, sizeof *luks);
    free(luks);
}

/* Looking -------------------------------------------------------------------------------------------------------- */

struct sector_cipher *luks_cipher(const struct luks *luks)
{
    return luks->cipher;
}

uint64_t luks_payload_offset(const struct luks *luks)
{
    return luks->header.payload_offset;
}

static struct luks_slot_info *describe_slot(const struct luks_slot *slot)
{
    struct luks_slot_info *info = luks_slot_info_new();
    info->active = slot->active;
    info->has_iters = info->has_stripes = slot->active;
    info->iters = slot->active ? slot->iterations : 0;
    info->stripes = slot->active ? slot->stripes : 0;
    info->key_offset = slot->offset;
    return info;
}

struct luks_info *luks_describe(const struct luks *luks)
{
    const struct luks_header *header = &luks->header;
    struct luks_info *info = luks_info_new();
    info->cipher_alg = header->algorithm;
    info->cipher_mode = header->mode;
    info->ivgen_alg = header->iv;
    info->has_ivgen_hash_alg = header->iv == CRYPTO_IV_GENERATOR_ESSIV;
    info->ivgen_hash_alg = header->iv_hash;
    info->hash_alg = header->hash;
    info->detached_header = !header->payload_offset;
    info->payload_offset = header->payload_offset;
    info->master_key_iters = header->digest_iterations;
    info->uuid = xstrdup(header->uuid);
    info->n_slots = LUKS_KEY_SLOTS;
    info->slots = new_array(struct luks_slot_info *, LUKS_KEY_SLOTS);
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        info->slots[i] = describe_slot(&header->slots[i]);
    return info;
}
