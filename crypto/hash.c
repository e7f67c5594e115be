/* SPDX-License-Identifier: Apache-2.0 */
/* Hash functions, PBKDF2 and the anti-forensic splitter, on GnuTLS. */
#include "crypto/hash.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/math.h"
#include "crypto/hash_private.h"
#include "crypto/secret.h"

static const struct {
    gnutls_digest_algorithm_t digest;
    gnutls_mac_algorithm_t mac;
    size_t size;
} hashes[CRYPTO_HASH__COUNT] = {
    [CRYPTO_HASH_MD5] = {GNUTLS_DIG_MD5, GNUTLS_MAC_MD5, 16},
    [CRYPTO_HASH_SHA1] = {GNUTLS_DIG_SHA1, GNUTLS_MAC_SHA1, 20},
    [CRYPTO_HASH_SHA224] = {GNUTLS_DIG_SHA224, GNUTLS_MAC_SHA224, 28},
    [CRYPTO_HASH_SHA256] = {GNUTLS_DIG_SHA256, GNUTLS_MAC_SHA256, 32},
    [CRYPTO_HASH_SHA384] = {GNUTLS_DIG_SHA384, GNUTLS_MAC_SHA384, 48},
    [CRYPTO_HASH_SHA512] = {GNUTLS_DIG_SHA512, GNUTLS_MAC_SHA512, 64},
    [CRYPTO_HASH_RIPEMD160] = {.size = 20},
};

size_t crypto_hash_size(enum crypto_hash hash)
{
    return hashes[hash].size;
}

/* The system's policy may forbid old ones. */
bool crypto_hash_available(enum crypto_hash hash)
{
    uint8_t digest[CRYPTO_HASH_MAX_SIZE];
    return crypto_hash_digest(hash, "", 0, digest, NULL);
}

static bool failed(struct error *err, enum crypto_hash hash, int code)
{
    return fail(err, EOPNOTSUPP, "hash %s: %s", crypto_hash_name(hash), gnutls_strerror(code));
}

bool crypto_hash_digest(enum crypto_hash hash, const void *data, size_t size, uint8_t *digest, struct error *err)
{
    if (hash == CRYPTO_HASH_RIPEMD160) {
        ripemd160_hash(data, size, digest);
        return true;
    }
    int code = gnutls_hash_fast(hashes[hash].digest, data, size, digest);
    return code >= 0 || failed(err, hash, code);
}

bool crypto_random(void *data, size_t size, struct error *err)
{
    int code = gnutls_rnd(GNUTLS_RND_KEY, data, size);
    return code >= 0 || fail(err, EIO, "no random numbers: %s", gnutls_strerror(code));
}

bool crypto_pbkdf2(enum crypto_hash hash, const void *passphrase, size_t passphrase_size, const uint8_t *salt,
                   size_t salt_size, uint64_t iterations, uint8_t *key, size_t key_size, struct error *err)
{
    if (!iterations || iterations > UINT32_MAX)
        return fail(err, EINVAL, "%llu rounds of key derivation: 1 to %u can be made", (unsigned long long)iterations,
                    UINT32_MAX);
    if (hash == CRYPTO_HASH_RIPEMD160) {
        ripemd160_pbkdf2(passphrase, passphrase_size, salt, salt_size, (uint32_t)iterations, key, key_size);
        return true;
    }
    gnutls_datum_t secret = {(unsigned char *)passphrase, (unsigned)passphrase_size};
    gnutls_datum_t grain = {(unsigned char *)salt, (unsigned)salt_size};
    int code = gnutls_pbkdf2(hashes[hash].mac, &secret, &grain, (unsigned)iterations, key, key_size);
    return code >= 0 || failed(err, hash, code);
}

/* The thread's own time: how busy the machine is must not make keys weaker. */
static uint64_t thread_time_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool crypto_pbkdf2_count(enum crypto_hash hash, size_t key_size, uint32_t time_ms, uint64_t *iterations,
                         struct error *err)
{
    static const uint8_t salt[32] = {0};
    uint8_t key[CRYPTO_HASH_MAX_SIZE];
    /* Doubles until it takes long enough to be told from noise. */
    for (uint64_t rounds = 1 << 12;; rounds *= 2) {
        uint64_t begin = thread_time_ns();
        if (!crypto_pbkdf2(hash, "password", 8, salt, sizeof salt, rounds, key, MIN(key_size, sizeof key), err))
            return false;
        uint64_t took = thread_time_ns() - begin;
        if (took < 20000000 && rounds < UINT32_MAX / 4)
            continue;
        double wanted = (double)rounds / (double)MAX(took, (uint64_t)1) * 1e6 * time_ms;
        *iterations = wanted < UINT32_MAX ? (uint64_t)wanted : UINT32_MAX;
        return true;
    }
}

/* Diffuses a block: every digest-sized piece becomes the hash of its number and itself. */
static bool diffuse(enum crypto_hash hash, uint8_t *block, size_t size, struct error *err)
{
    uint8_t input[4 + CRYPTO_HASH_MAX_SIZE], digest[CRYPTO_HASH_MAX_SIZE];
    size_t step = crypto_hash_size(hash);
    for (size_t done = 0, number = 0; done < size; done += step, number++) {
        size_t part = MIN(step, size - done);
        store_be32(input, (uint32_t)number);
        memcpy(input + 4, block + done, part);
        if (!crypto_hash_digest(hash, input, 4 + part, digest, err))
            return false;
        memcpy(block + done, digest, part);
    }
    return true;
}

static void mix(uint8_t *to, const uint8_t *a, const uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        to[i] = a[i] ^ b[i];
}

/* LUKS 1.2.3, "Anti-forensic information splitting": all stripes but the last are random; the last one is the key
 * mixed with what the others diffuse to. */
bool crypto_af_split(enum crypto_hash hash, const uint8_t *key, size_t size, uint32_t stripes, uint8_t *split,
                     struct error *err)
{
    uint8_t *state = xcalloc(1, size);
    bool good = crypto_random(split, size * (stripes - 1), err);
    for (uint32_t i = 0; i + 1 < stripes && good; i++) {
        mix(state, state, split + i * size, size);
        good = diffuse(hash, state, size, err);
    }
    mix(split + (stripes - 1) * size, state, key, size);
    secret_wipe(state, size);
    free(state);
    return good;
}

bool crypto_af_merge(enum crypto_hash hash, const uint8_t *split, size_t size, uint32_t stripes, uint8_t *key,
                     struct error *err)
{
    uint8_t *state = xcalloc(1, size);
    bool good = true;
    for (uint32_t i = 0; i + 1 < stripes && good; i++) {
        mix(state, state, split + i * size, size);
        good = diffuse(hash, state, size, err);
    }
    mix(key, split + (stripes - 1) * size, state, size);
    secret_wipe(state, size);
    free(state);
    return good;
}
