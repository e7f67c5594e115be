/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LUKS containers that open: a good one whose passphrase is known, and a script that changes fields of its header and
 * bytes of its key material, fills key slots and erases them, and opens it in between. (fuzz_luks.c is about headers
 * that are anything; there no passphrase is the right one.)
 *
 * What opens has the master key it was made with, whatever was done to it; who fills a slot opens the container with
 * the new passphrase, and with the old one; nothing but header and key material is read or written.
 *
 * links: crypto
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "crypto/luks_header.h"
#include "crypto/objects.h"
#include "tests/fuzz/common/fuzz.h"

enum { HEAD = 1, STEPS_MAX = 12, ROUNDS = 1, ROUNDS_MAX = 4000, KEY = 32, SLOT_AREA = 256 * 512 };
enum { PAYLOAD = 4096 + LUKS_KEY_SLOTS * SLOT_AREA, CONTAINER = PAYLOAD + 4096 };

struct play {
    uint8_t *container;
    struct object_set *objects;
    uint8_t key[KEY];
};

/* ---- steps: kind, slot, value (4), byte ---- */

enum step_kind { STEP_HEADER, STEP_MATERIAL, STEP_FILL, STEP_ERASE_SLOT, STEP_ERASE_SECRET, STEP_KINDS };

static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    static const uint32_t fields[] = {104, 108, 112, 132, 164, 208, 212, 216, 248, 252, 256, 260, 296, 300};
    bytes[0] = (uint8_t)fuzz_draw(random, STEP_KINDS);
    bytes[1] = (uint8_t)fuzz_draw(random, LUKS_KEY_SLOTS);
    uint32_t value = bytes[0] == STEP_HEADER ? fields[fuzz_draw(random, ARRAY_SIZE(fields))] + fuzz_draw(random, 4)
                                             : (uint32_t)fuzz_draw(random, LUKS_STRIPES * KEY);
    store_le32(bytes + 2, value);
    bytes[6] = (uint8_t)fuzz_interesting(random);
    return 7;
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

/* ---- the container ---- */

static bool lies_in_container(uint64_t offset, size_t size)
{
    return span_fits(offset, size, CONTAINER);
}

static int read_container(void *opaque, uint64_t offset, void *data, size_t size)
{
    FUZZ_CHECK(lies_in_container(offset, size));
    memcpy(data, ((struct play *)opaque)->container + offset, size);
    return 0;
}

static int write_container(void *opaque, uint64_t offset, const void *data, size_t size)
{
    FUZZ_CHECK(lies_in_container(offset, size));
    memcpy(((struct play *)opaque)->container + offset, data, size);
    return 0;
}

static struct secret_bytes *passphrase_of(struct play *play, const char *secret)
{
    struct secret_bytes *bytes = secret_lookup(play->objects, secret, NULL);
    FUZZ_CHECK(bytes);
    return bytes;
}

/* The key material of slot 0, for the passphrase "one", by few rounds. */
static void make_material(struct play *play, const struct luks_header *header)
{
    const struct luks_slot *slot = &header->slots[0];
    uint8_t slot_key[KEY], *material = play->container + slot->offset;
    auto_secret_bytes *one = passphrase_of(play, "one");
    FUZZ_CHECK(luks_pbkdf2(header->hash, one->data, one->size, slot->salt, slot->iterations, slot_key, KEY, NULL));
    const struct sector_cipher_options options = {header->algorithm, header->mode, header->iv,
                                                  header->iv_hash,   slot_key,     KEY};
    struct sector_cipher *cipher = sector_cipher_new(&options, NULL);
    FUZZ_CHECK(cipher && crypto_af_split(header->hash, play->key, KEY, slot->stripes, material, NULL) &&
               !sector_cipher_encrypt_co(cipher, 0, material, luks_material_size(header)));
    sector_cipher_free(cipher);
}

static void make_container(struct play *play)
{
    struct luks_header header = {.algorithm = CRYPTO_CIPHER_ALGORITHM_AES_128,
                                 .mode = CRYPTO_CIPHER_MODE_XTS,
                                 .iv = CRYPTO_IV_GENERATOR_PLAIN64,
                                 .hash = CRYPTO_HASH_SHA256,
                                 .key_size = KEY,
                                 .payload_offset = PAYLOAD,
                                 .digest_iterations = ROUNDS,
                                 .uuid = "12345678-1234-1234-1234-123456789abc"};
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        header.slots[i] = (struct luks_slot){.active = i == 0,
                                             .iterations = i == 0 ? ROUNDS : 0,
                                             .stripes = LUKS_STRIPES,
                                             .offset = 4096 + (uint64_t)i * SLOT_AREA};
    FUZZ_CHECK(crypto_random(play->key, KEY, NULL));
    FUZZ_CHECK(luks_pbkdf2(header.hash, play->key, KEY, header.digest_salt, ROUNDS, header.digest, LUKS_DIGEST, NULL));
    luks_header_encode(&header, play->container);
    make_material(play, &header);
}

/* Is there time to try a passphrase on all slots? */
static bool is_quick(const uint8_t *header)
{
    uint64_t rounds = load_be32(header + 164);
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        rounds += load_be32(header + LUKS_SLOT_OFFSET + i * LUKS_SLOT_SIZE + 4);
    return rounds <= ROUNDS_MAX * LUKS_KEY_SLOTS && load_be32(header + 108) <= 64;
}

/* ---- what is done with it ---- */

static struct luks *open_container(struct play *play, const char *secret)
{
    const struct luks_storage storage = {.opaque = play, .read = read_container, .write = write_container};
    auto_error err = {0};
    auto_secret_bytes *passphrase = passphrase_of(play, secret);
    struct luks *luks = luks_open(&storage, CONTAINER, passphrase, &err);
    FUZZ_CHECK(luks || (err.message && *err.message));
    if (luks)
        FUZZ_CHECK(luks->header.key_size == KEY && !memcmp(luks->key, play->key, KEY));
    return luks;
}

static bool opens(struct play *play, const char *secret)
{
    struct luks *luks = open_container(play, secret);
    luks_free(luks);
    return luks != NULL;
}

static void amend(struct play *play, enum step_kind kind, unsigned slot, bool any_slot)
{
    const struct luks_storage storage = {.opaque = play, .read = read_container, .write = write_container};
    struct luks_amend_options options = {.state = kind == STEP_FILL ? LUKS_SLOT_STATE_ACTIVE : LUKS_SLOT_STATE_INACTIVE,
                                         .has_keyslot = kind != STEP_ERASE_SECRET && !any_slot,
                                         .keyslot = slot,
                                         .has_iter_time = true,
                                         .iter_time = 1};
    char one[] = "one", two[] = "two";
    if (kind == STEP_FILL)
        options.new_secret = two;
    if (kind == STEP_ERASE_SECRET)
        options.old_secret = any_slot ? one : two;
    struct luks *luks = open_container(play, "one");
    if (!luks)
        return;
    auto_error err = {0};
    bool done = luks_amend(luks, &storage, &options, play->objects, "one", false, &err);
    FUZZ_CHECK(done || (err.message && *err.message));
    luks_free(luks);
    if (kind == STEP_FILL)
        FUZZ_CHECK(opens(play, "one") && (!done || opens(play, "two")));
}

static void take_step(struct play *play, const struct record *step)
{
    enum step_kind kind = (enum step_kind)(record_number(step, 0, 1) % STEP_KINDS);
    unsigned slot = (unsigned)record_number(step, 1, 1) % LUKS_KEY_SLOTS;
    uint64_t value = record_number(step, 2, 4);
    uint8_t byte = (uint8_t)record_number(step, 6, 1);
    if (kind == STEP_HEADER)
        play->container[value % LUKS_HEADER_SIZE] ^= byte;
    else if (kind == STEP_MATERIAL)
        play->container[4096 + slot * SLOT_AREA + value % SLOT_AREA] ^= byte;
    else if (is_quick(play->container))
        amend(play, kind, slot, byte & 1);
}

struct input {
    struct loop *loop;
    const uint8_t *data;
    size_t size;
};

static int play_all(void *arg)
{
    struct input *input = arg;
    struct play play = {.container = xcalloc(1, CONTAINER), .objects = object_set_new(input->loop)};
    object_set_add_kinds(play.objects, crypto_object_kinds);
    FUZZ_CHECK(object_add_text(play.objects, "secret,id=one,data=first", NULL) &&
               object_add_text(play.objects, "secret,id=two,data=second", NULL));
    make_container(&play);
    FUZZ_CHECK(opens(&play, "one") && !opens(&play, "two"));
    struct records records = records_after(input->data, input->size, HEAD);
    struct record step;
    for (int i = 0; i < STEPS_MAX && record_next(&records, &step); i++)
        take_step(&play, &step);
    if (is_quick(play.container)) {
        opens(&play, "one");
        opens(&play, "two");
    }
    object_set_free(play.objects);
    free(play.container);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct input input = {loop_new(LOOP_SIMULATED, 1, NULL), data, size};
    loop_run_main(input.loop, play_all, &input);
    loop_free(input.loop);
    return 0;
}
