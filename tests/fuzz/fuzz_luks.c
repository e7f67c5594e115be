/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile LUKS headers. The input is a good header of version 1 with fields changed (numbers, names of ciphers, modes
 * and hashes), or the bytes of a whole one. It is described without a key, and then tried with a passphrase, unless it
 * asks for more rounds of key derivation than a fuzzer has time for. Nothing outside of the container may be read.
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
#include "crypto/luks.h"
#include "tests/fuzz/common/fuzz.h"

enum { HEAD = 1, WHOLE = 1, CONTAINER = 1280 * 1024, HEADER = 592, ROUNDS_MAX = 3000, STEPS_MAX = 32 };
enum { VERSION = 6, CIPHER = 8, MODE = 40, HASH = 72, PAYLOAD = 104, KEY_BYTES = 108, ROUNDS = 164, SLOT = 208 };
enum { SLOT_SIZE = 48, SLOT_ROUNDS = 4, SLOT_MATERIAL = 40, SLOT_STRIPES = 44 };
#define SLOT_ACTIVE 0x00ac71f3u
#define SLOT_OFF 0x0000deadu

/* A step: field, slot, value (8) or the number of a name. */
static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    uint64_t value = fuzz_interesting(random);
    bytes[0] = (uint8_t)fuzz_draw(random, 12);
    bytes[1] = (uint8_t)fuzz_draw(random, 8);
    memcpy(bytes + 2, &value, 8);
    return 10;
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

static void put_name(uint8_t *at, const char *name)
{
    memset(at, 0, 32);
    memcpy(at, name, strlen(name));
}

static void good_header(uint8_t *header)
{
    memcpy(header, "LUKS\xba\xbe\0\1", 8);
    put_name(header + CIPHER, "aes");
    put_name(header + MODE, "xts-plain64");
    put_name(header + HASH, "sha256");
    store_be32(header + PAYLOAD, 8 + LUKS_KEY_SLOTS * 256);
    store_be32(header + KEY_BYTES, 32);
    store_be32(header + ROUNDS, 1000);
    memcpy(header + 168, "12345678-1234-1234-1234-123456789abc", 36);
    for (uint32_t i = 0; i < LUKS_KEY_SLOTS; i++) {
        uint8_t *slot = header + SLOT + i * SLOT_SIZE;
        store_be32(slot, i < 2 ? SLOT_ACTIVE : SLOT_OFF);
        store_be32(slot + SLOT_ROUNDS, 100);
        store_be32(slot + SLOT_MATERIAL, 8 + i * 256);
        store_be32(slot + SLOT_STRIPES, 4000);
    }
}

static void change(uint8_t *header, const struct record *step)
{
    static const char *const ciphers[] = {"aes", "serpent", "twofish", "cast5", "des3_ede", "sm4", "", "none"};
    static const char *const modes[] = {"xts-plain64", "xts-plain",          "cbc-essiv:sha256",  "cbc-plain64",
                                        "ecb",         "ctr-plain64",        "cbc-essiv:sha1024", "xts-",
                                        "-",           "cbc-essiv:ripemd160"};
    static const char *const hashes[] = {"sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "md5", ""};
    uint8_t *slot = header + SLOT + record_number(step, 1, 1) % LUKS_KEY_SLOTS * SLOT_SIZE;
    uint64_t value = record_number(step, 2, 8);
    switch (record_number(step, 0, 1) % 12) {
    case 0: put_name(header + CIPHER, ciphers[value % ARRAY_SIZE(ciphers)]); break;
    case 1: put_name(header + MODE, modes[value % ARRAY_SIZE(modes)]); break;
    case 2: put_name(header + HASH, hashes[value % ARRAY_SIZE(hashes)]); break;
    case 3: store_be32(header + PAYLOAD, (uint32_t)value); break;
    case 4: store_be32(header + KEY_BYTES, (uint32_t)value); break;
    case 5: store_be32(header + ROUNDS, (uint32_t)value); break;
    case 6: store_be16(header + VERSION, (uint16_t)value); break;
    case 7: store_be32(slot, value & 1 ? SLOT_ACTIVE : value & 2 ? SLOT_OFF : (uint32_t)value); break;
    case 8: store_be32(slot + SLOT_ROUNDS, (uint32_t)value); break;
    case 9: store_be32(slot + SLOT_MATERIAL, (uint32_t)value); break;
    case 10: store_be32(slot + SLOT_STRIPES, (uint32_t)value); break;
    default: header[value % HEADER] = (uint8_t)(value >> 32); break;
    }
}

static int read_container(void *opaque, uint64_t offset, void *data, size_t size)
{
    FUZZ_CHECK(span_fits(offset, size, CONTAINER));
    memcpy(data, (uint8_t *)opaque + offset, size);
    return 0;
}

/* Rounds that opening with a passphrase may take, of the active slots. */
static bool is_quick(const uint8_t *header)
{
    uint64_t rounds = load_be32(header + ROUNDS);
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++) {
        const uint8_t *slot = header + SLOT + i * SLOT_SIZE;
        if (load_be32(slot) == SLOT_ACTIVE)
            rounds += load_be32(slot + SLOT_ROUNDS);
    }
    return rounds <= ROUNDS_MAX && load_be32(header + KEY_BYTES) <= 512;
}

static int open_both_ways(void *arg)
{
    uint8_t *container = arg;
    const struct luks_storage storage = {.opaque = container, .read = read_container};
    auto_free struct secret_bytes *passphrase = xcalloc(1, sizeof *passphrase + 6);
    passphrase->size = 6;
    memcpy(passphrase->data, "secret", 6);
    unsigned version;
    for (unsigned with_key = 0; with_key < 2; with_key++) {
        auto_error err = {0};
        if (with_key && !is_quick(container))
            break;
        struct luks *luks = luks_open(&storage, CONTAINER, with_key ? passphrase : NULL, &err);
        FUZZ_CHECK(luks || (err.message && *err.message));
        if (!luks)
            continue;
        FUZZ_CHECK(luks_probe(container, HEADER, &version) && version == 1);
        FUZZ_CHECK(luks_payload_offset(luks) <= CONTAINER);
        luks_info_free(luks_describe(luks));
        luks_free(luks);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    auto_free uint8_t *container = xcalloc(1, CONTAINER);
    good_header(container);
    if (data[0] & WHOLE) {
        memcpy(container, data + HEAD, MIN(size - HEAD, (size_t)CONTAINER));
    } else {
        struct records records = records_after(data, size, HEAD);
        struct record step;
        for (int i = 0; i < STEPS_MAX && record_next(&records, &step); i++)
            change(container, &step);
    }
    struct loop *loop = loop_new(LOOP_SIMULATED, 1, NULL);
    loop_run_main(loop, open_both_ways, container);
    loop_free(loop);
    return 0;
}
