/* SPDX-License-Identifier: Apache-2.0 */
/* The LUKS header: from bytes, checked, and back. Everything is big endian; offsets on the disk count sectors. */
#include "crypto/luks_header.h"

#include <stdio.h>
#include <string.h>
#include "base/endian.h"
#include "base/math.h"

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

enum {
    AT_VERSION = 6,
    AT_CIPHER = 8,
    AT_MODE = 40,
    AT_HASH = 72,
    AT_PAYLOAD = 104,
    AT_KEY_SIZE = 108,
    AT_DIGEST = 112,
    AT_DIGEST_SALT = 132,
    AT_DIGEST_ITERATIONS = 164,
    AT_UUID = 168,
    TEXT = 32
};

bool luks_probe(const uint8_t *head, size_t size, unsigned *version)
{
    if (size < 8 || memcmp(head, magic, sizeof magic))
        return false;
    *version = load_be16(head + AT_VERSION);
    return true;
}

uint64_t luks_material_size(const struct luks_header *header)
{
    return round_up((uint64_t)header->key_size * LUKS_STRIPES, CRYPTO_SECTOR);
}

/* Names ---------------------------------------------------------------------------------------------------------- */

static const char *const families[] = {"aes", "serpent", "twofish"}; /* in the order of the schema, three sizes each */

static bool find_algorithm(const char *name, struct luks_header *header, struct error *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(families); i++) {
        if (strcmp(families[i], name))
            continue;
        for (unsigned size = 0; size < 3; size++) {
            header->algorithm = (enum crypto_cipher_algorithm)(3 * i + size);
            if (crypto_key_size(header->algorithm, header->mode) == header->key_size)
                return true;
        }
        return fail(err, EINVAL, "LUKS header: cipher %s in mode %s has no keys of %u bytes", name,
                    crypto_cipher_mode_name(header->mode), header->key_size);
    }
    return fail(err, EOPNOTSUPP, "LUKS header: cipher '%s' is not one that is known here (aes, serpent, twofish)",
                name);
}

/* "xts-plain64", "cbc-essiv:sha256", "ecb". */
static bool find_mode(char *text, struct luks_header *header, struct error *err)
{
    char *iv = strchr(text, '-');
    if (iv)
        *iv++ = 0;
    char *iv_hash = iv ? strchr(iv, ':') : NULL;
    if (iv_hash)
        *iv_hash++ = 0;
    if (!crypto_cipher_mode_parse(text, &header->mode))
        return fail(err, EOPNOTSUPP, "LUKS header: cipher mode '%s' is not one that is known here (cbc, ecb, xts)",
                    text);
    header->iv = CRYPTO_IV_GENERATOR_PLAIN;
    if (iv ? !crypto_iv_generator_parse(iv, &header->iv) : header->mode != CRYPTO_CIPHER_MODE_ECB)
        return fail(err, EOPNOTSUPP,
                    "LUKS header: initialization vectors '%s' are not known here (plain, plain64, essiv)",
                    iv ? iv : "");
    if ((header->iv == CRYPTO_IV_GENERATOR_ESSIV) != (iv_hash != NULL))
        return fail(err, EINVAL, "LUKS header: a hash belongs to essiv, and only to it");
    if (iv_hash && !crypto_hash_parse(iv_hash, &header->iv_hash))
        return fail(err, EOPNOTSUPP, "LUKS header: hash '%s' of essiv is not known here", iv_hash);
    return true;
}

/* A text field with its NUL inside. */
static bool take_text(const uint8_t *wire, const char *what, char text[TEXT], struct error *err)
{
    memcpy(text, wire, TEXT);
    if (memchr(text, 0, TEXT))
        return true;
    text[TEXT - 1] = 0;
    return fail(err, EINVAL, "LUKS header: the name of the %s does not end", what);
}

/* From bytes ----------------------------------------------------------------------------------------------------- */

static bool decode_slot(const uint8_t *wire, unsigned number, struct luks_slot *slot, struct error *err)
{
    uint32_t active = load_be32(wire);
    if (active != LUKS_SLOT_ACTIVE && active != LUKS_SLOT_INACTIVE)
        return fail(err, EINVAL, "LUKS header: key slot %u is neither active nor inactive (%#x)", number, active);
    slot->active = active == LUKS_SLOT_ACTIVE;
    slot->iterations = load_be32(wire + 4);
    memcpy(slot->salt, wire + 8, LUKS_SALT);
    slot->offset = (uint64_t)load_be32(wire + 40) * CRYPTO_SECTOR;
    slot->stripes = load_be32(wire + 44);
    if (slot->stripes != LUKS_STRIPES)
        return fail(err, EINVAL, "LUKS header: key slot %u has %u stripes, expected %d", number, slot->stripes,
                    LUKS_STRIPES);
    if (slot->active && !slot->iterations)
        return fail(err, EINVAL, "LUKS header: key slot %u is active with 0 rounds of key derivation", number);
    return true;
}

/* Header, slots and data lie apart from each other, inside of what holds them. */
static bool check_places(const struct luks_header *header, uint64_t container_size, struct error *err)
{
    uint64_t size = luks_material_size(header);
    uint64_t end = header->payload_offset ? header->payload_offset : container_size;
    if (header->payload_offset > container_size)
        return fail(err, EINVAL, "LUKS header: the data would begin at %llu, beyond the end at %llu",
                    (unsigned long long)header->payload_offset, (unsigned long long)container_size);
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++) {
        uint64_t at = header->slots[i].offset;
        if (at < LUKS_HEADER_SIZE || !span_fits(at, size, end))
            return fail(err, EINVAL, "LUKS header: key slot %u at %llu lies outside of the header area [%d, %llu)", i,
                        (unsigned long long)at, LUKS_HEADER_SIZE, (unsigned long long)end);
        for (unsigned j = 0; j < i; j++)
            if (spans_overlap(at, size, header->slots[j].offset, size))
                return fail(err, EINVAL, "LUKS header: key slots %u and %u overlap", j, i);
    }
    return true;
}

bool luks_header_decode(const uint8_t wire[LUKS_HEADER_SIZE], uint64_t container_size, struct luks_header *header,
                        struct error *err)
{
    char cipher[TEXT], mode[TEXT], hash[TEXT];
    unsigned version;
    *header = (struct luks_header){0};
    if (!luks_probe(wire, LUKS_HEADER_SIZE, &version))
        return fail(err, EINVAL, "Volume is not in LUKS format");
    if (version != 1)
        return fail(err, EOPNOTSUPP, "LUKS version %u is not supported, only version 1 is", version);
    if (!take_text(wire + AT_CIPHER, "cipher", cipher, err) || !take_text(wire + AT_MODE, "cipher mode", mode, err) ||
        !take_text(wire + AT_HASH, "hash", hash, err))
        return false;
    header->key_size = load_be32(wire + AT_KEY_SIZE);
    if (!find_mode(mode, header, err) || !find_algorithm(cipher, header, err))
        return false;
    if (!crypto_hash_parse(hash, &header->hash))
        return fail(err, EOPNOTSUPP, "LUKS header: hash '%s' is not known here", hash);
    header->payload_offset = (uint64_t)load_be32(wire + AT_PAYLOAD) * CRYPTO_SECTOR;
    memcpy(header->digest, wire + AT_DIGEST, LUKS_DIGEST);
    memcpy(header->digest_salt, wire + AT_DIGEST_SALT, LUKS_SALT);
    header->digest_iterations = load_be32(wire + AT_DIGEST_ITERATIONS);
    if (!header->digest_iterations)
        return fail(err, EINVAL, "LUKS header: 0 rounds for the digest of the master key");
    memcpy(header->uuid, wire + AT_UUID, sizeof header->uuid);
    header->uuid[sizeof header->uuid - 1] = 0;
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        if (!decode_slot(wire + LUKS_SLOT_OFFSET + i * LUKS_SLOT_SIZE, i, &header->slots[i], err))
            return false;
    return check_places(header, container_size, err);
}

/* To bytes ------------------------------------------------------------------------------------------------------- */

void luks_slot_encode(const struct luks_slot *slot, uint8_t wire[LUKS_SLOT_SIZE])
{
    store_be32(wire, slot->active ? LUKS_SLOT_ACTIVE : LUKS_SLOT_INACTIVE);
    store_be32(wire + 4, slot->iterations);
    memcpy(wire + 8, slot->salt, LUKS_SALT);
    store_be32(wire + 40, (uint32_t)(slot->offset / CRYPTO_SECTOR));
    store_be32(wire + 44, slot->stripes);
}

void luks_header_encode(const struct luks_header *header, uint8_t wire[LUKS_HEADER_SIZE])
{
    memset(wire, 0, LUKS_HEADER_SIZE);
    memcpy(wire, magic, sizeof magic);
    store_be16(wire + AT_VERSION, 1);
    snprintf((char *)wire + AT_CIPHER, TEXT, "%s", families[header->algorithm / 3]);
    bool is_essiv = header->iv == CRYPTO_IV_GENERATOR_ESSIV;
    snprintf((char *)wire + AT_MODE, TEXT, "%s-%s%s%s", crypto_cipher_mode_name(header->mode),
             crypto_iv_generator_name(header->iv), is_essiv ? ":" : "",
             is_essiv ? crypto_hash_name(header->iv_hash) : "");
    snprintf((char *)wire + AT_HASH, TEXT, "%s", crypto_hash_name(header->hash));
    store_be32(wire + AT_PAYLOAD, (uint32_t)(header->payload_offset / CRYPTO_SECTOR));
    store_be32(wire + AT_KEY_SIZE, header->key_size);
    memcpy(wire + AT_DIGEST, header->digest, LUKS_DIGEST);
    memcpy(wire + AT_DIGEST_SALT, header->digest_salt, LUKS_SALT);
    store_be32(wire + AT_DIGEST_ITERATIONS, header->digest_iterations);
    memcpy(wire + AT_UUID, header->uuid, sizeof header->uuid);
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        luks_slot_encode(&header->slots[i], wire + LUKS_SLOT_OFFSET + i * LUKS_SLOT_SIZE);
}
