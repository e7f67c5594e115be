/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: LUKS headers are made, opened, changed and refused as they should; a power cut at any write of
 * a change of slots, after which any sectors that were not flushed are lost, leaves an image that some passphrase
 * opens. */
#include "tests/unit/crypto/broken.h"
#include "tests/unit/base/loops.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/rng.h"
#include "crypto/luks_header.h"
#include "crypto/objects.h"

enum { DISK = 4 << 20 };

/* A disk in memory that stops taking writes after a number of them. `durable`, if not NULL, is what a power cut leaves
 * at least. */
struct disk {
    uint8_t *data, *durable;
    int writes_left; /* -1: any number */
};

static int disk_read(void *opaque, uint64_t offset, void *data, size_t size)
{
    struct disk *disk = opaque;
    if (!span_fits(offset, size, DISK))
        return -EIO;
    memcpy(data, disk->data + offset, size);
    return 0;
}

static int disk_write(void *opaque, uint64_t offset, const void *data, size_t size)
{
    struct disk *disk = opaque;
    if (!span_fits(offset, size, DISK) || !disk->writes_left)
        return -EIO;
    disk->writes_left -= disk->writes_left > 0;
    memcpy(disk->data + offset, data, size);
    return 0;
}

static int disk_flush(void *opaque)
{
    struct disk *disk = opaque;
    if (!disk->writes_left)
        return -EIO;
    if (disk->durable)
        memcpy(disk->durable, disk->data, DISK);
    return 0;
}

/* Of the sectors that were not flushed, any may have reached the disk. */
static void cut_power(struct disk *disk, struct rng *rng)
{
    for (size_t at = 0; at < DISK; at += 512)
        if (rng_coin(rng))
            memcpy(disk->data + at, disk->durable + at, 512);
}

static struct luks_storage storage_of(struct disk *disk)
{
    return (struct luks_storage){.opaque = disk, .read = disk_read, .write = disk_write, .flush = disk_flush};
}

static struct object_set *make_secrets(void)
{
    struct object_set *set = object_set_new(loop_current());
    object_set_add_kinds(set, crypto_object_kinds);
    assert_true(object_add_text(set, "secret,id=one,data=first", NULL));
    assert_true(object_add_text(set, "secret,id=two,data=second", NULL));
    assert_true(object_add_text(set, "secret,id=three,data=third", NULL));
    return set;
}

static struct luks_create_options *quick(const char *text)
{
    struct luks_create_options *options;
    struct error err = {0};
    if (!luks_create_options_from_keyval(text, NULL, &options, &err))
        broken("%s", err.message);
    return options;
}

static void make(struct disk *disk, struct object_set *secrets, const char *text)
{
    auto_luks_create_options *options = quick(text);
    auto_secret_bytes *one = secret_lookup(secrets, "one", NULL);
    struct luks_storage storage = storage_of(disk);
    struct error err = {0};
    struct luks *luks = luks_create(&storage, options, one, false, &err);
    if (!luks)
        broken("%s: %s", text, err.message);
    assert_int_equal(luks_payload_offset(luks), luks_header_size(options, NULL));
    luks_free(luks);
}

static bool opens(struct disk *disk, struct object_set *secrets, const char *id)
{
    struct luks_storage storage = storage_of(disk);
    auto_secret_bytes *passphrase = secret_lookup(secrets, id, NULL);
    struct luks *luks = luks_open(&storage, DISK, passphrase, NULL);
    luks_free(luks);
    return luks != NULL;
}

static bool amend(struct disk *disk, struct object_set *secrets, const char *text, bool force, char **message)
{
    struct luks_storage storage = storage_of(disk);
    struct luks_amend_options *options;
    auto_error err = {0};
    assert_true(luks_amend_options_from_keyval(text, NULL, &options, NULL));
    struct luks *luks = luks_open(&storage, DISK, NULL, &err);
    assert_non_null(luks);
    bool good = luks_amend(luks, &storage, options, secrets, "one", force, &err);
    if (message)
        *message = xstrdup(err.message);
    luks_free(luks);
    luks_amend_options_free(options);
    return good;
}

static void refuses(struct disk *disk, struct object_set *secrets, const char *text, const char *expected)
{
    auto_free char *message = NULL;
    assert_false(amend(disk, secrets, text, false, &message));
    if (!strstr(message, expected))
        broken("%s: expected '%s' in '%s'", text, expected, message);
}

static int make_and_open_main(void *arg)
{
    static const char *const kinds[] = {"iter-time=1", "iter-time=1,cipher-alg=aes-128,hash-alg=sha1",
                                        "iter-time=1,cipher-alg=serpent-256,hash-alg=sha512",
                                        "iter-time=1,cipher-alg=twofish-192,cipher-mode=cbc,ivgen-alg=plain",
                                        "iter-time=1,cipher-mode=cbc,ivgen-alg=essiv,hash-alg=ripemd160,"
                                        "ivgen-hash-alg=sha256"};
    struct object_set *secrets = make_secrets();
    struct disk disk = {.data = xcalloc(1, DISK), .writes_left = -1};
    (void)arg;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        make(&disk, secrets, kinds[i]);
        assert_true(opens(&disk, secrets, "one"));
        assert_false(opens(&disk, secrets, "two"));
    }
    auto_luks_create_options *bad = quick("ivgen-hash-alg=sha256");
    assert_int_equal(luks_header_size(bad, NULL), 0);
    free(disk.data);
    object_set_free(secrets);
    return 0;
}

static void make_and_open(void **state)
{
    run_on_loop(state, make_and_open_main, NULL);
}

static int slots_main(void *arg)
{
    struct object_set *secrets = make_secrets();
    struct disk disk = {.data = xcalloc(1, DISK), .writes_left = -1};
    (void)arg;
    make(&disk, secrets, "iter-time=1");
    refuses(&disk, secrets, "state=active", "'new-secret' is required");
    refuses(&disk, secrets, "state=active,new-secret=two,keyslot=0,iter-time=1", "overwrite active keyslot 0");
    refuses(&disk, secrets, "state=active,new-secret=two,secret=three,iter-time=1", "opens none of the key slots");
    assert_true(amend(&disk, secrets, "state=active,new-secret=two,iter-time=1", false, NULL));
    assert_true(opens(&disk, secrets, "one") && opens(&disk, secrets, "two"));
    assert_true(amend(&disk, secrets, "state=active,new-secret=three,keyslot=6,iter-time=1", false, NULL));
    assert_true(opens(&disk, secrets, "three"));
    refuses(&disk, secrets, "state=inactive", "either explicit keyslot index or the password");
    refuses(&disk, secrets, "state=inactive,keyslot=4", "already erased");
    refuses(&disk, secrets, "state=inactive,keyslot=1,old-secret=three", "doesn't contain");
    assert_true(amend(&disk, secrets, "state=inactive,old-secret=one", false, NULL));
    assert_false(opens(&disk, secrets, "one"));
    assert_true(amend(&disk, secrets, "state=inactive,keyslot=6", false, NULL));
    refuses(&disk, secrets, "state=inactive,old-secret=three", "No keyslots match");
    refuses(&disk, secrets, "state=inactive,old-secret=two", "refusing operation");
    assert_true(opens(&disk, secrets, "two"));
    assert_true(amend(&disk, secrets, "state=inactive,old-secret=two", true, NULL));
    assert_false(opens(&disk, secrets, "two"));
    free(disk.data);
    object_set_free(secrets);
    return 0;
}

static void slots(void **state)
{
    run_on_loop(state, slots_main, NULL);
}

/* Replaces a passphrase in two steps, in the slot whose description lies across two sectors, with the power cut after
 * every possible number of writes, several times. */
static int power_cuts_main(void *arg)
{
    struct object_set *secrets = make_secrets();
    struct disk disk = {.data = xcalloc(1, DISK), .writes_left = -1};
    struct disk cut = {.data = xcalloc(1, DISK), .durable = xcalloc(1, DISK)};
    struct rng rng;
    (void)arg;
    rng_seed(&rng, 3);
    make(&disk, secrets, "iter-time=1");
    for (int writes = 0, last = 0; !last; writes++) {
        assert_true(writes < 10);
        for (int again = 0; again < 4; again++) {
            memcpy(cut.data, disk.data, DISK);
            memcpy(cut.durable, disk.data, DISK);
            cut.writes_left = writes;
            bool filled = amend(&cut, secrets, "state=active,new-secret=two,keyslot=6,iter-time=1", false, NULL);
            bool erased = filled && amend(&cut, secrets, "state=inactive,old-secret=one", false, NULL);
            last = erased;
            cut_power(&cut, &rng);
            cut.writes_left = -1;
            bool two = opens(&cut, secrets, "two"), one = opens(&cut, secrets, "one");
            assert_true(two || one);
            assert_true(two || !filled);
            assert_true(!one || !erased);
        }
    }
    free(disk.data);
    free(cut.data);
    free(cut.durable);
    object_set_free(secrets);
    return 0;
}

static void power_cuts(void **state)
{
    run_on_loop(state, power_cuts_main, NULL);
}

/* Each line makes one field of a good header bad. */
static int forged_main(void *arg)
{
    static const struct {
        unsigned at, size;
        uint32_t value;
        const char *message;
    } forgeries[] = {
        {0, 4, 0, "not in LUKS format"},
        {6, 2, 2, "LUKS version 2"},
        {8, 4, 0x41414141, "cipher 'AAAA"},
        {40, 4, 0x41414141, "cipher mode"},
        {72, 4, 0x41414141, "hash 'AAAA"},
        {104, 4, 1, "outside of the header area"},
        {104, 4, 0xffffffff, "beyond the end"},
        {108, 4, 0xffffffff, "no keys of 4294967295 bytes"},
        {164, 4, 0, "0 rounds for the digest"},
        {208, 4, 1, "neither active nor inactive"},
        {212, 4, 0, "0 rounds of key derivation"},
        {248, 4, 0, "outside of the header area"},
        {248, 4, 0xffffffff, "outside of the header area"},
        {248, 4, 9 + 504, "overlap"},
        {252, 4, 0xffffffff, "stripes"},
        {252, 4, 0, "stripes"},
    };
    struct object_set *secrets = make_secrets();
    struct disk disk = {.data = xcalloc(1, DISK), .writes_left = -1};
    struct luks_storage storage = storage_of(&disk);
    (void)arg;
    make(&disk, secrets, "iter-time=1");
    uint8_t good[LUKS_HEADER_SIZE];
    memcpy(good, disk.data, sizeof good);
    for (size_t i = 0; i < ARRAY_SIZE(forgeries); i++) {
        auto_error err = {0};
        memcpy(disk.data, good, sizeof good);
        if (forgeries[i].size == 2)
            store_be16(disk.data + forgeries[i].at, (uint16_t)forgeries[i].value);
        else
            store_be32(disk.data + forgeries[i].at, forgeries[i].value);
        struct luks *luks = luks_open(&storage, DISK, NULL, &err);
        if (luks || !strstr(err.message, forgeries[i].message))
            broken("%zu: expected '%s', found '%s'", i, forgeries[i].message, luks ? "no error" : err.message);
    }
    memcpy(disk.data, good, sizeof good);
    memset(disk.data + 8, 'A', 32); /* a name without an end */
    assert_null(luks_open(&storage, DISK, NULL, NULL));
    memcpy(disk.data, good, sizeof good);
    assert_null(luks_open(&storage, 100, NULL, NULL));
    assert_null(luks_open(&storage, 1 << 20, NULL, NULL)); /* the data would begin beyond its end */
    free(disk.data);
    object_set_free(secrets);
    return 0;
}

static void forged(void **state)
{
    run_on_loop(state, forged_main, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE_LOOP(make_and_open, kind_uring), ONE_LOOP(make_and_open, kind_simulated),
        ONE_LOOP(slots, kind_epoll),         ONE_LOOP(power_cuts, kind_epoll),
        ONE_LOOP(forged, kind_epoll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
