/* SPDX-License-Identifier: Apache-2.0 */
/* AES in CBC and XTS by GnuTLS, which uses the processor's AES instructions where there are any. */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "crypto/cipher_private.h"

struct gnutls_engine {
    struct cipher_engine engine;
    gnutls_cipher_hd_t handle;
};

static gnutls_cipher_hd_t handle_of(struct cipher_engine *engine)
{
    return ((struct gnutls_engine *)engine)->handle;
}

static int engine_encrypt(struct cipher_engine *engine, uint8_t iv[CIPHER_BLOCK], uint8_t *data, size_t size)
{
    gnutls_cipher_set_iv(handle_of(engine), iv, CIPHER_BLOCK);
    return gnutls_cipher_encrypt2(handle_of(engine), data, size, data, size) < 0 ? -EIO : 0;
}

static int engine_decrypt(struct cipher_engine *engine, uint8_t iv[CIPHER_BLOCK], uint8_t *data, size_t size)
{
    gnutls_cipher_set_iv(handle_of(engine), iv, CIPHER_BLOCK);
    return gnutls_cipher_decrypt2(handle_of(engine), data, size, data, size) < 0 ? -EIO : 0;
}

static void engine_free(struct cipher_engine *engine)
{
    gnutls_cipher_deinit(handle_of(engine));
    free(engine);
}

static const struct cipher_engine_ops gnutls_engine_ops = {
    .free = engine_free,
    .encrypt = engine_encrypt,
    .decrypt = engine_decrypt,
};

static gnutls_cipher_algorithm_t find(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode)
{
    static const gnutls_cipher_algorithm_t algorithms[CRYPTO_CIPHER_ALGORITHM__COUNT][CRYPTO_CIPHER_MODE__COUNT] = {
        [CRYPTO_CIPHER_ALGORITHM_AES_128][CRYPTO_CIPHER_MODE_CBC] = GNUTLS_CIPHER_AES_128_CBC,
        [CRYPTO_CIPHER_ALGORITHM_AES_192][CRYPTO_CIPHER_MODE_CBC] = GNUTLS_CIPHER_AES_192_CBC,
        [CRYPTO_CIPHER_ALGORITHM_AES_256][CRYPTO_CIPHER_MODE_CBC] = GNUTLS_CIPHER_AES_256_CBC,
        [CRYPTO_CIPHER_ALGORITHM_AES_128][CRYPTO_CIPHER_MODE_XTS] = GNUTLS_CIPHER_AES_128_XTS,
        [CRYPTO_CIPHER_ALGORITHM_AES_256][CRYPTO_CIPHER_MODE_XTS] = GNUTLS_CIPHER_AES_256_XTS,
    };
    return algorithms[algorithm][mode];
}

struct cipher_engine *gnutls_engine_new(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode,
                                        const uint8_t *key, size_t key_size, struct error *err)
{
    gnutls_cipher_algorithm_t number = find(algorithm, mode);
    if (!number)
        return NULL;
    uint8_t no_iv[CIPHER_BLOCK] = {0};
    gnutls_datum_t secret = {(unsigned char *)key, (unsigned)key_size}, iv = {no_iv, sizeof no_iv};
    struct gnutls_engine *engine = new (struct gnutls_engine);
    engine->engine.ops = &gnutls_engine_ops;
    int code = gnutls_cipher_init(&engine->handle, number, &secret, &iv);
    if (code >= 0)
        return &engine->engine;
    free(engine);
    return fail_null(err, EINVAL, "cipher %s-%s: %s", crypto_cipher_algorithm_name(algorithm),
                     crypto_cipher_mode_name(mode), gnutls_strerror(code));
}
