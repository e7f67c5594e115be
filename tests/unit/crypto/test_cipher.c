/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: hashes, key derivation and disk encryption against published vectors, both libraries against
 * each other, and large pieces against small ones. */
#include "tests/unit/crypto/broken.h"
#include "tests/unit/base/loops.h"

#include "base/rng.h"
#include "crypto/cipher_private.h"
#include "crypto/hash.h"

static void hashes(void **state)
{
    (void)state;
    static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
                                    0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
                                    0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    uint8_t digest[CRYPTO_HASH_MAX_SIZE];
    assert_true(crypto_hash_digest(CRYPTO_HASH_SHA256, "abc", 3, digest, NULL));
    assert_memory_equal(digest, abc, 32);
    for (enum crypto_hash hash = 0; hash < CRYPTO_HASH__COUNT; hash++)
        assert_true(crypto_hash_size(hash) && crypto_hash_available(hash));
}

static void pbkdf2(void **state)
{
    (void)state;
    static const uint8_t rounds4096[32] = {0xc5, 0xe4, 0x78, 0xd5, 0x92, 0x88, 0xc8, 0x41, 0xaa, 0x53, 0x0d,
                                           0xb6, 0x84, 0x5c, 0x4c, 0x8d, 0x96, 0x28, 0x93, 0xa0, 0x01, 0xce,
                                           0x4e, 0x11, 0xa4, 0x96, 0x38, 0x73, 0xaa, 0x98, 0x13, 0x4a};
    uint8_t key[32];
    assert_true(crypto_pbkdf2(CRYPTO_HASH_SHA256, "password", 8, (const uint8_t *)"salt", 4, 4096, key, 32, NULL));
    assert_memory_equal(key, rounds4096, 32);
    assert_false(crypto_pbkdf2(CRYPTO_HASH_SHA256, "password", 8, (const uint8_t *)"salt", 4, 0, key, 32, NULL));
    uint64_t few, many;
    assert_true(crypto_pbkdf2_count(CRYPTO_HASH_SHA256, 32, 10, &few, NULL));
    assert_true(crypto_pbkdf2_count(CRYPTO_HASH_SHA256, 32, 1000, &many, NULL));
    assert_true(few > 0 && many > few * 10);
}

static void splitter(void **state)
{
    (void)state;
    uint8_t key[24], back[24], split[24 * 50];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(i * 7);
    assert_true(crypto_af_split(CRYPTO_HASH_SHA1, key, sizeof key, 50, split, NULL));
    assert_true(crypto_af_merge(CRYPTO_HASH_SHA1, split, sizeof key, 50, back, NULL));
    assert_memory_equal(key, back, sizeof key);
    split[333] ^= 1; /* every bit is needed */
    assert_true(crypto_af_merge(CRYPTO_HASH_SHA1, split, sizeof key, 50, back, NULL));
    assert_memory_not_equal(key, back, sizeof key);
}

static struct sector_cipher *make(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode,
                                  enum crypto_iv_generator iv, const uint8_t *key)
{
    const struct sector_cipher_options options = {algorithm,          mode, iv,
                                                  CRYPTO_HASH_SHA256, key,  crypto_key_size(algorithm, mode)};
    struct error err = {0};
    struct sector_cipher *cipher = sector_cipher_new(&options, &err);
    if (!cipher)
        broken("%s", err.message);
    return cipher;
}

/* IEEE 1619, vector 4. */
static void xts_vector(void **state)
{
    (void)state;
    static const uint8_t key[32] = {0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60,
                                    0x28, 0x74, 0x71, 0x35, 0x26, 0x31, 0x41, 0x59, 0x26, 0x53, 0x58,
                                    0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95};
    static const uint8_t begin[16] = {0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76,
                                      0x48, 0x9f, 0x30, 0x8c, 0xd4, 0xcf, 0xa6, 0xe2};
    uint8_t data[512], plain[512];
    for (int i = 0; i < 512; i++)
        data[i] = plain[i] = (uint8_t)i;
    struct sector_cipher *cipher =
        make(CRYPTO_CIPHER_ALGORITHM_AES_128, CRYPTO_CIPHER_MODE_XTS, CRYPTO_IV_GENERATOR_PLAIN64, key);
    assert_int_equal(sector_cipher_encrypt(cipher, 0, data, 512), 0);
    assert_memory_equal(data, begin, sizeof begin);
    assert_int_equal(sector_cipher_decrypt(cipher, 0, data, 512), 0);
    assert_memory_equal(data, plain, 512);
    sector_cipher_free(cipher);
}

/* What both libraries have, they do alike. */
static void libraries_agree(void **state)
{
    (void)state;
    uint8_t key[64], a[1024], b[1024];
    struct rng rng;
    rng_seed(&rng, 5);
    rng_fill(&rng, key, sizeof key);
    for (enum crypto_cipher_algorithm alg = 0; alg < CRYPTO_CIPHER_ALGORITHM__COUNT; alg++)
        for (enum crypto_cipher_mode mode = 0; mode < CRYPTO_CIPHER_MODE__COUNT; mode++) {
            size_t key_size = crypto_key_size(alg, mode);
            struct cipher_engine *first = gnutls_engine_new(alg, mode, key, key_size, NULL);
            if (!first)
                continue;
            struct cipher_engine *second = nettle_engine_new(alg, mode, key, key_size);
            uint8_t iv_a[16] = {1, 2, 3}, iv_b[16] = {1, 2, 3};
            rng_fill(&rng, a, sizeof a);
            memcpy(b, a, sizeof a);
            assert_int_equal(first->ops->encrypt(first, iv_a, a, sizeof a), 0);
            assert_int_equal(second->ops->encrypt(second, iv_b, b, sizeof b), 0);
            assert_memory_equal(a, b, sizeof a);
            first->ops->free(first);
            second->ops->free(second);
        }
}

/* Every cipher in every mode: comes back, differs from sector to sector, large pieces as small ones. */
static int every_cipher_main(void *arg)
{
    enum { SIZE = 1 << 20 };
    uint8_t *data = malloc(SIZE), *copy = malloc(SIZE), key[64];
    struct rng rng;
    (void)arg;
    rng_seed(&rng, 6);
    rng_fill(&rng, key, sizeof key);
    memset(data, 0, SIZE);
    for (enum crypto_cipher_algorithm alg = 0; alg < CRYPTO_CIPHER_ALGORITHM__COUNT; alg++)
        for (enum crypto_cipher_mode mode = 0; mode < CRYPTO_CIPHER_MODE__COUNT; mode++)
            for (enum crypto_iv_generator iv = 0; iv < CRYPTO_IV_GENERATOR__COUNT; iv++) {
                bool essiv_fits = crypto_key_size(alg, CRYPTO_CIPHER_MODE_ECB) == 32 || alg % 3 < 2;
                if (!essiv_fits)
                    continue;
                struct sector_cipher *cipher = make(alg, mode, iv, key);
                size_t size = alg % 3 == 2 && iv == CRYPTO_IV_GENERATOR_PLAIN64 ? SIZE : 8192;
                assert_int_equal(sector_cipher_encrypt_co(cipher, 77, data, size), 0);
                memcpy(copy, data, size);
                assert_true((memcmp(copy, copy + 512, 512) == 0) == (mode == CRYPTO_CIPHER_MODE_ECB));
                for (size_t at = 0; at < size; at += 512)
                    assert_int_equal(sector_cipher_decrypt(cipher, 77 + at / 512, data + at, 512), 0);
                for (size_t at = 0; at < size; at++)
                    assert_int_equal(data[at], 0);
                assert_int_equal(sector_cipher_decrypt_co(cipher, 77, copy, size), 0);
                assert_memory_equal(copy, data, size);
                sector_cipher_free(cipher);
            }
    free(data);
    free(copy);
    return 0;
}

static void every_cipher(void **state)
{
    run_on_loop(state, every_cipher_main, NULL);
}

static void mistakes(void **state)
{
    (void)state;
    uint8_t key[64] = {1};
    struct error err = {0};
    struct sector_cipher_options options = {CRYPTO_CIPHER_ALGORITHM_AES_256,
                                            CRYPTO_CIPHER_MODE_XTS,
                                            CRYPTO_IV_GENERATOR_PLAIN64,
                                            CRYPTO_HASH_SHA256,
                                            key,
                                            32};
    assert_null(sector_cipher_new(&options, &err));
    assert_string_equal(err.message, "a key of 32 bytes: aes-256 in mode xts takes 64");
    error_clear(&err);
    options = (struct sector_cipher_options){
        CRYPTO_CIPHER_ALGORITHM_AES_256, CRYPTO_CIPHER_MODE_CBC, CRYPTO_IV_GENERATOR_ESSIV, CRYPTO_HASH_SHA1, key, 32};
    assert_null(sector_cipher_new(&options, &err)); /* no AES key has 20 bytes */
    error_clear(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes),           cmocka_unit_test(pbkdf2),
        cmocka_unit_test(splitter),         cmocka_unit_test(xts_vector),
        cmocka_unit_test(mistakes),         cmocka_unit_test(libraries_agree),
        ONE_LOOP(every_cipher, kind_uring), ONE_LOOP(every_cipher, kind_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
