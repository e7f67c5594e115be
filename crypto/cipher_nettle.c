/* SPDX-License-Identifier: Apache-2.0 */
/* What GnuTLS does not offer: Serpent, Twofish, AES-192 in XTS, and ECB, by Nettle's block functions and modes. */
#include <nettle/aes.h>
#include <nettle/cbc.h>
#include <nettle/nettle-types.h>
#include <nettle/serpent.h>
#include <nettle/twofish.h>
#include <nettle/xts.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "crypto/cipher_private.h"
#include "crypto/secret.h"

union context {
    struct aes128_ctx aes128;
    struct aes192_ctx aes192;
    struct aes256_ctx aes256;
    struct serpent_ctx serpent;
    struct twofish_ctx twofish;
};

struct block_cipher {
    size_t key_size;
    nettle_cipher_func *encrypt, *decrypt;
    void (*set_encrypt_key)(union context *context, const uint8_t *key);
    void (*set_decrypt_key)(union context *context, const uint8_t *key);
};

struct nettle_engine {
    struct cipher_engine engine;
    const struct block_cipher *cipher;
    enum crypto_cipher_mode mode;
    union context encrypt, decrypt, tweak;
};

/* One shape for all: void * contexts, and keys of a fixed size. */
#define BLOCK_FUNCTIONS(name, struct_name)                                                                             \
    static void name##_encrypt_blocks(const void *context, size_t size, uint8_t *to, const uint8_t *from)              \
    {                                                                                                                  \
        name##_encrypt((const struct struct_name *)context, size, to, from);                                           \
    }                                                                                                                  \
    static void name##_decrypt_blocks(const void *context, size_t size, uint8_t *to, const uint8_t *from)              \
    {                                                                                                                  \
        name##_decrypt((const struct struct_name *)context, size, to, from);                                           \
    }
BLOCK_FUNCTIONS(aes128, aes128_ctx)
BLOCK_FUNCTIONS(aes192, aes192_ctx)
BLOCK_FUNCTIONS(aes256, aes256_ctx)
BLOCK_FUNCTIONS(serpent, serpent_ctx)
BLOCK_FUNCTIONS(twofish, twofish_ctx)

#define AES_KEYS(bits)                                                                                                 \
    static void aes##bits##_set_encrypt(union context *context, const uint8_t *key)                                    \
    {                                                                                                                  \
        aes##bits##_set_encrypt_key(&context->aes##bits, key);                                                         \
    }                                                                                                                  \
    static void aes##bits##_set_decrypt(union context *context, const uint8_t *key)                                    \
    {                                                                                                                  \
        aes##bits##_set_decrypt_key(&context->aes##bits, key);                                                         \
    }
AES_KEYS(128)
AES_KEYS(192)
AES_KEYS(256)

#define FEISTEL_KEYS(name, bits)                                                                                       \
    static void name##bits##_set(union context *context, const uint8_t *key)                                           \
    {                                                                                                                  \
        name##_set_key(&context->name, bits / 8, key);                                                                 \
    }
FEISTEL_KEYS(serpent, 128)
FEISTEL_KEYS(serpent, 192)
FEISTEL_KEYS(serpent, 256)
FEISTEL_KEYS(twofish, 128)
FEISTEL_KEYS(twofish, 192)
FEISTEL_KEYS(twofish, 256)

#define AES_ROW(bits)                                                                                                  \
    {                                                                                                                  \
        bits / 8, aes##bits##_encrypt_blocks, aes##bits##_decrypt_blocks, aes##bits##_set_encrypt,                     \
            aes##bits##_set_decrypt                                                                                    \
    }
#define OTHER_ROW(name, bits)                                                                                          \
    {                                                                                                                  \
        bits / 8, name##_encrypt_blocks, name##_decrypt_blocks, name##bits##_set, name##bits##_set                     \
    }
static const struct block_cipher block_ciphers[CRYPTO_CIPHER_ALGORITHM__COUNT] = {
    [CRYPTO_CIPHER_ALGORITHM_AES_128] = AES_ROW(128),
    [CRYPTO_CIPHER_ALGORITHM_AES_192] = AES_ROW(192),
    [CRYPTO_CIPHER_ALGORITHM_AES_256] = AES_ROW(256),
    [CRYPTO_CIPHER_ALGORITHM_SERPENT_128] = OTHER_ROW(serpent, 128),
    [CRYPTO_CIPHER_ALGORITHM_SERPENT_192] = OTHER_ROW(serpent, 192),
    [CRYPTO_CIPHER_ALGORITHM_SERPENT_256] = OTHER_ROW(serpent, 256),
    [CRYPTO_CIPHER_ALGORITHM_TWOFISH_128] = OTHER_ROW(twofish, 128),
    [CRYPTO_CIPHER_ALGORITHM_TWOFISH_192] = OTHER_ROW(twofish, 192),
    [CRYPTO_CIPHER_ALGORITHM_TWOFISH_256] = OTHER_ROW(twofish, 256),
};

static int engine_encrypt(struct cipher_engine *base, uint8_t iv[CIPHER_BLOCK], uint8_t *data, size_t size)
{
    struct nettle_engine *engine = (struct nettle_engine *)base;
    const struct block_cipher *cipher = engine->cipher;
    switch (engine->mode) {
    case CRYPTO_CIPHER_MODE_CBC:
        cbc_encrypt(&engine->encrypt, cipher->encrypt, CIPHER_BLOCK, iv, size, data, data);
        return 0;
    case CRYPTO_CIPHER_MODE_XTS:
        xts_encrypt_message(&engine->encrypt, &engine->tweak, cipher->encrypt, iv, size, data, data);
        return 0;
    default: cipher->encrypt(&engine->encrypt, size, data, data); return 0;
    }
}

static int engine_decrypt(struct cipher_engine *base, uint8_t iv[CIPHER_BLOCK], uint8_t *data, size_t size)
{
    struct nettle_engine *engine = (struct nettle_engine *)base;
    const struct block_cipher *cipher = engine->cipher;
    switch (engine->mode) {
    case CRYPTO_CIPHER_MODE_CBC:
        cbc_decrypt(&engine->decrypt, cipher->decrypt, CIPHER_BLOCK, iv, size, data, data);
        return 0;
    case CRYPTO_CIPHER_MODE_XTS:
        xts_decrypt_message(&engine->decrypt, &engine->tweak, cipher->decrypt, cipher->encrypt, iv, size, data, data);
        return 0;
    default: cipher->decrypt(&engine->decrypt, size, data, data); return 0;
    }
}

static void engine_free(struct cipher_engine *base)
{
    secret_wipe(base, sizeof(struct nettle_engine));
    free(base);
}

static const struct cipher_engine_ops nettle_engine_ops = {
    .free = engine_free,
    .encrypt = engine_encrypt,
    .decrypt = engine_decrypt,
};

struct cipher_engine *nettle_engine_new(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode,
                                        const uint8_t *key, size_t key_size)
{
    struct nettle_engine *engine = new (struct nettle_engine);
    const struct block_cipher *cipher = &block_ciphers[algorithm];
    engine->engine.ops = &nettle_engine_ops;
    engine->cipher = cipher;
    engine->mode = mode;
    cipher->set_encrypt_key(&engine->encrypt, key);
    cipher->set_decrypt_key(&engine->decrypt, key);
    if (mode == CRYPTO_CIPHER_MODE_XTS)
        cipher->set_encrypt_key(&engine->tweak, key + key_size / 2);
    return &engine->engine;
}
