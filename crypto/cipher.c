/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sectors: initialization vectors, and how threads share a key. A thread that encrypts takes an engine from a list of
 * those that rest, or has a new one made; so there are as many as threads have ever worked at the same time.
 */
#include "crypto/cipher_private.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/co.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "crypto/hash.h"
#include "crypto/secret.h"

/* Below that, handing work to another thread costs more than it saves; AES makes some GB a second. */
enum { OFFLOAD_SIZE = 128 << 10, OFFLOAD_PIECE = 64 << 10, OFFLOAD_PIECES = 8 };

struct sector_cipher {
    enum crypto_cipher_algorithm algorithm;
    enum crypto_cipher_mode mode;
    enum crypto_iv_generator iv;
    size_t key_size;
    uint8_t key[CRYPTO_MAX_KEY];
    enum crypto_cipher_algorithm essiv_algorithm;
    uint8_t essiv_key[CRYPTO_HASH_MAX_SIZE];
    pthread_mutex_t lock; /* of `resting` */
    struct engines *resting;
};

/* What one thread needs at a time. */
struct engines {
    struct engines *next;
    struct cipher_engine *data, *essiv; /* essiv NULL: another generator */
};

size_t crypto_key_size(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode)
{
    static const size_t sizes[] = {16, 24, 32}; /* the schema lists every cipher with these three */
    return sizes[algorithm % 3] * (mode == CRYPTO_CIPHER_MODE_XTS ? 2 : 1);
}

static struct cipher_engine *engine_new(enum crypto_cipher_algorithm algorithm, enum crypto_cipher_mode mode,
                                        const uint8_t *key, size_t key_size, struct error *err)
{
    auto_error problem = {0};
    struct cipher_engine *engine = gnutls_engine_new(algorithm, mode, key, key_size, &problem);
    if (!engine && !error_is_set(&problem))
        engine = nettle_engine_new(algorithm, mode, key, key_size);
    if (!engine)
        error_move(err, &problem);
    return engine;
}

static void engines_free(struct engines *engines)
{
    if (engines->data)
        engines->data->ops->free(engines->data);
    if (engines->essiv)
        engines->essiv->ops->free(engines->essiv);
    free(engines);
}

static struct engines *engines_new(const struct sector_cipher *cipher, struct error *err)
{
    struct engines *engines = new (struct engines);
    engines->data = engine_new(cipher->algorithm, cipher->mode, cipher->key, cipher->key_size, err);
    if (engines->data && cipher->iv == CRYPTO_IV_GENERATOR_ESSIV)
        engines->essiv = engine_new(cipher->essiv_algorithm, CRYPTO_CIPHER_MODE_ECB, cipher->essiv_key,
                                    crypto_key_size(cipher->essiv_algorithm, CRYPTO_CIPHER_MODE_ECB), err);
    if (engines->data && (engines->essiv || cipher->iv != CRYPTO_IV_GENERATOR_ESSIV))
        return engines;
    engines_free(engines);
    return NULL;
}

static struct engines *take(struct sector_cipher *cipher)
{
    pthread_mutex_lock(&cipher->lock);
    struct engines *engines = cipher->resting;
    if (engines)
        cipher->resting = engines->next;
    pthread_mutex_unlock(&cipher->lock);
    return engines ? engines : engines_new(cipher, NULL);
}

static void give_back(struct sector_cipher *cipher, struct engines *engines)
{
    pthread_mutex_lock(&cipher->lock);
    engines->next = cipher->resting;
    cipher->resting = engines;
    pthread_mutex_unlock(&cipher->lock);
}

/* ESSIV encrypts with the hash of the key as the key, so the hash must be as long as some key of that cipher. */
static bool set_essiv(struct sector_cipher *cipher, const struct sector_cipher_options *options, struct error *err)
{
    enum crypto_cipher_algorithm family = options->algorithm - options->algorithm % 3;
    size_t size = crypto_hash_size(options->iv_hash);
    for (enum crypto_cipher_algorithm algorithm = family; algorithm < family + 3; algorithm++) {
        if (crypto_key_size(algorithm, CRYPTO_CIPHER_MODE_ECB) != size)
            continue;
        cipher->essiv_algorithm = algorithm;
        return crypto_hash_digest(options->iv_hash, options->key, options->key_size, cipher->essiv_key, err);
    }
    return fail(err, EINVAL, "hash %s gives %zu bytes, cipher %s has no keys of that size for essiv",
                crypto_hash_name(options->iv_hash), size, crypto_cipher_algorithm_name(options->algorithm));
}

struct sector_cipher *sector_cipher_new(const struct sector_cipher_options *options, struct error *err)
{
    size_t wanted = crypto_key_size(options->algorithm, options->mode);
    if (options->key_size != wanted)
        return fail_null(err, EINVAL, "a key of %zu bytes: %s in mode %s takes %zu", options->key_size,
                         crypto_cipher_algorithm_name(options->algorithm), crypto_cipher_mode_name(options->mode),
                         wanted);
    struct sector_cipher *cipher = new (struct sector_cipher);
    cipher->algorithm = options->algorithm;
    cipher->mode = options->mode;
    cipher->iv = options->iv;
    cipher->key_size = options->key_size;
    memcpy(cipher->key, options->key, options->key_size);
    pthread_mutex_init(&cipher->lock, NULL);
    if (options->iv != CRYPTO_IV_GENERATOR_ESSIV || set_essiv(cipher, options, err))
        cipher->resting = engines_new(cipher, err);
    if (cipher->resting)
        return cipher;
    sector_cipher_free(cipher);
    return NULL;
}

void sector_cipher_free(struct sector_cipher *cipher)
{
    if (!cipher)
        return;
    struct engines *engines;
    while ((engines = cipher->resting)) {
        cipher->resting = engines->next;
        engines_free(engines);
    }
    pthread_mutex_destroy(&cipher->lock);
    secret_wipe(cipher, sizeof *cipher);
    free(cipher);
}

static int make_iv(const struct sector_cipher *cipher, struct engines *engines, uint64_t sector,
                   uint8_t iv[CIPHER_BLOCK])
{
    uint8_t none[CIPHER_BLOCK] = {0};
    memset(iv, 0, CIPHER_BLOCK);
    if (cipher->iv == CRYPTO_IV_GENERATOR_PLAIN)
        store_le32(iv, (uint32_t)sector);
    else
        store_le64(iv, sector);
    return engines->essiv ? engines->essiv->ops->encrypt(engines->essiv, none, iv, CIPHER_BLOCK) : 0;
}

static int run(struct sector_cipher *cipher, bool encrypt, uint64_t sector, uint8_t *data, size_t size)
{
    struct engines *engines = take(cipher);
    if (!engines)
        return -ENOMEM;
    struct cipher_engine *engine = engines->data;
    int (*step)(struct cipher_engine *, uint8_t *, uint8_t *, size_t) =
        encrypt ? engine->ops->encrypt : engine->ops->decrypt;
    int error = 0;
    for (size_t done = 0; done < size && !error; done += CRYPTO_SECTOR, sector++) {
        uint8_t iv[CIPHER_BLOCK];
        error = make_iv(cipher, engines, sector, iv);
        if (!error)
            error = step(engine, iv, data + done, CRYPTO_SECTOR);
    }
    give_back(cipher, engines);
    return error;
}

int sector_cipher_encrypt(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size)
{
    return run(cipher, true, sector, data, size);
}

int sector_cipher_decrypt(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size)
{
    return run(cipher, false, sector, data, size);
}

/* Large pieces --------------------------------------------------------------------------------------------------- */

struct piece {
    struct sector_cipher *cipher;
    bool encrypt;
    uint64_t sector;
    uint8_t *data;
    size_t size;
    int error;
};

static void run_piece(void *arg)
{
    struct piece *piece = arg;
    piece->error = run(piece->cipher, piece->encrypt, piece->sector, piece->data, piece->size);
}

static void offload_piece(void *arg)
{
    co_offload(run_piece, arg);
}

/* At most OFFLOAD_PIECES at once, each on its own worker; this coroutine waits for all of them. */
static int run_co(struct sector_cipher *cipher, struct loop *loop, bool encrypt, uint64_t sector, uint8_t *data,
                  size_t size)
{
    if (size < OFFLOAD_SIZE)
        return run(cipher, encrypt, sector, data, size);
    struct piece pieces[OFFLOAD_PIECES];
    size_t step = MAX((size_t)OFFLOAD_PIECE, round_up(DIV_ROUND_UP(size, OFFLOAD_PIECES), CRYPTO_SECTOR));
    size_t count = 0;
    struct co_group group;
    co_group_init(&group);
    for (size_t done = 0; done < size; done += step, count++) {
        pieces[count] =
            (struct piece){cipher, encrypt, sector + done / CRYPTO_SECTOR, data + done, MIN(step, size - done)};
        co_spawn(loop, &group, offload_piece, &pieces[count]);
    }
    co_group_wait(&group);
    int error = 0;
    for (size_t i = 0; i < count; i++)
        error = error ? error : pieces[i].error;
    return error;
}

int sector_cipher_encrypt_co(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size)
{
    return run_co(cipher, loop_current(), true, sector, data, size);
}

int sector_cipher_decrypt_co(struct sector_cipher *cipher, uint64_t sector, void *data, size_t size)
{
    return run_co(cipher, loop_current(), false, sector, data, size);
}

/* Wrapped secrets ------------------------------------------------------------------------------------------------ */

bool crypto_unwrap(const uint8_t key[32], const uint8_t iv[16], uint8_t *data, size_t *size, struct error *err)
{
    if (!*size || *size % CIPHER_BLOCK)
        return fail(err, EINVAL, "%zu encrypted bytes: expected a positive multiple of %d", *size, CIPHER_BLOCK);
    struct cipher_engine *engine = engine_new(CRYPTO_CIPHER_ALGORITHM_AES_256, CRYPTO_CIPHER_MODE_CBC, key, 32, err);
    if (!engine)
        return false;
    uint8_t vector[CIPHER_BLOCK];
    memcpy(vector, iv, sizeof vector);
    int error = engine->ops->decrypt(engine, vector, data, *size);
    engine->ops->free(engine);
    uint8_t padding = data[*size - 1];
    bool good = !error && padding >= 1 && padding <= CIPHER_BLOCK;
    for (size_t i = 1; i <= padding && good; i++)
        good = data[*size - i] == padding;
    if (!good)
        return fail(err, EINVAL, "cannot be decrypted: the wrong key or initialization vector, or damaged");
    *size -= padding;
    return true;
}
