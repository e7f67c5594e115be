/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, an encrypted image has something in clear, is encrypted with the wrong key or sector numbers, or
 * changes a guest's memory.
 * links: protocol formats crypto objects
 */
#include "crypto/cipher.h"
#include "crypto/luks.h"
#include "tests/unit/formats/qcow2/fixture.h"

#define AES "encrypt.format=aes,encrypt.key-secret=one"
#define LUKS                                                                                                           \
    "encrypt.format=luks,encrypt.key-secret=one,encrypt.iter-time=1,encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1"
#define KEY ", 'encrypt': {'key-secret': 'one'}"

static void fill(uint8_t *buffer, size_t size, const char *text)
{
    for (size_t i = 0; i < size; i++)
        buffer[i] = (uint8_t)text[i % strlen(text)];
}

static void write_text(struct world *world, uint64_t offset, size_t size, const char *text)
{
    auto_free uint8_t *buffer = xmalloc(size), *before = xmalloc(size);
    fill(buffer, size, text);
    memcpy(before, buffer, size);
    assert_int_equal(block_write_buffer(world->edge, offset, buffer, size, 0), 0);
    assert_memory_equal(buffer, before, size); /* encrypted elsewhere */
}

/* The file's bytes from where the guest's offset is stored. */
static void stored(struct world *world, uint64_t offset, uint8_t *out, size_t size, uint64_t *host)
{
    struct extent extent;
    size_t file_size;
    assert_int_equal(qcow2_map(world->edge->child, offset, size, &extent), 0);
    assert_int_equal(extent.kind, EXTENT_ENCODED);
    assert_true(extent.length >= size && extent.child);
    auto_free uint8_t *file = sim_file_get(world->loop, IMAGE, &file_size);
    assert_true(extent.child_offset + size <= file_size);
    memcpy(out, file + extent.child_offset, size);
    *host = extent.child_offset;
}

/* --- AES: what another implementation makes of it --- */

/* `openssl enc -aes-128-cbc -nopad`, key "first passphrase", initialization vector 2048 (little endian), first block.
 */
static const uint8_t expected_aes[16] = {0x03, 0x9b, 0x41, 0x35, 0xe3, 0x36, 0x34, 0x79,
                                         0x58, 0xd7, 0x46, 0xe5, 0x56, 0x14, 0x95, 0x1d};

static void aes_vector(struct world *world, void *arg)
{
    uint8_t data[512];
    uint64_t host;
    create(world, IMAGE, "size=4M,cluster_size=4k," AES);
    open_image(world, IMAGE, true, KEY);
    write_text(world, 3 << 20, 4096, "elsewhere");
    write_text(world, 1 << 20, 512, "sector 2048");
    stored(world, 1 << 20, data, sizeof data, &host);
    assert_memory_equal(data, expected_aes, sizeof expected_aes);
}

static void test_aes(void **state)
{
    in_world(1, aes_vector, NULL);
}

/* --- LUKS: the header's own key, and sectors counted in the file --- */

struct area {
    const uint8_t *bytes;
    uint64_t offset, length;
};

static int read_area(void *opaque, uint64_t offset, void *data, size_t size)
{
    const struct area *area = opaque;
    assert_true(offset + size <= area->length);
    memcpy(data, area->bytes + area->offset + offset, size);
    return 0;
}

static void luks_sectors(struct world *world, void *arg)
{
    uint8_t data[2][1024], plain[1024];
    uint64_t host[2];
    create(world, IMAGE, "size=4M,cluster_size=4k," LUKS);
    open_image(world, IMAGE, true, KEY);
    write_text(world, 1 << 20, 4096, "the same");
    write_text(world, 2 << 20, 4096, "the same");
    for (unsigned i = 0; i < 2; i++)
        stored(world, (i + 1ull) << 20, data[i], sizeof data[i], &host[i]);
    assert_memory_not_equal(data[0], data[1], 512);
    assert_memory_not_equal(data[0], data[0] + 512, 512);
    size_t size;
    auto_free uint8_t *file = sim_file_get(world->loop, IMAGE, &size);
    const struct header *h = &state_of(world)->header;
    struct area area = {file, h->crypt_offset, h->crypt_length};
    struct luks_storage storage = {.opaque = &area, .read = read_area};
    auto_secret_bytes *passphrase = secret_lookup(world->objects, "one", NULL);
    auto_error err = {0};
    struct luks *luks = luks_open(&storage, area.length, passphrase, &err);
    if (!luks)
        fail_with("%s", err.message);
    fill(plain, sizeof plain, "the same");
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(sector_cipher_decrypt(luks_cipher(luks), host[i] / 512, data[i], sizeof data[i]), 0);
        assert_memory_equal(data[i], plain, sizeof plain);
    }
    luks_free(luks);
}

static void test_luks(void **state)
{
    in_world(2, luks_sectors, NULL);
}

/* --- nothing in clear --- */

#define SECRET "do not tell anybody: "

static void assert_hidden(struct world *world, const char *name, const char *when)
{
    size_t size;
    auto_free uint8_t *file = sim_file_get(world->loop, name, &size);
    if (memmem(file, size, SECRET, strlen(SECRET)))
        fail_with("%s: clear text in %s", when, name);
}

static void no_progress(void *user, uint64_t done, uint64_t total)
{
}

static void amend(struct world *world, const char *keyval)
{
    struct qcow2_amend_options *options = NULL;
    auto_error err = {0};
    assert_true(qcow2_amend_options_from_keyval(keyval, NULL, &options, &err));
    if (!qcow2_driver.amend->amend(world->edge->child, options, false, no_progress, NULL, &err))
        fail_with("amend %s: %s", keyval, err.message);
    qcow2_amend_options_free(options);
}

/* Every way on which data goes to the file: new clusters, copies around them, in place, of snapshots, of tails when the
 * size changes, clusters made of zero clusters, and what an open writer keeps in its log. */
static void hidden(struct world *world, void *arg)
{
    const char *options = arg;
    auto_error err = {0};
    auto_free char *keyval = xasprintf("size=1M,%s", options);
    create(world, IMAGE, keyval);
    open_image(world, IMAGE, true, KEY);
    write_text(world, 0, 300000, SECRET);
    write_text(world, 1000, 70001, SECRET);
    write_text(world, 500000, 3, SECRET);
    assert_int_equal(block_zero(world->edge, 8192, 16384, REQUEST_MAY_UNMAP), 0);
    write_text(world, 9000, 700, SECRET);
    assert_hidden(world, IMAGE, "not flushed");
    assert_int_equal(block_flush(world->edge), 0);
    assert_true(qcow2_driver.snapshots->create(world->edge->child, "s", &err));
    write_text(world, 100, 100, SECRET);
    write_text(world, 1000000, 20000, SECRET);
    assert_true(node_resize(world->edge, 1000448, PREALLOCATION_OFF, true, &err));
    assert_true(node_resize(world->edge, 3 << 20, PREALLOCATION_OFF, true, &err));
    write_text(world, 2 << 20, 1 << 20, SECRET);
    amend(world, "lazy_refcounts=on");
    uint8_t zeroes[512] = {0}, tail[512];
    assert_int_equal(block_read_buffer(world->edge, 1000448, tail, sizeof tail), 0);
    assert_memory_equal(tail, zeroes, sizeof tail);
    /* Compressed clusters would be in clear. */
    struct iovec iov = {zeroes, sizeof zeroes};
    assert_int_equal(block_write(world->edge, 0, sizeof zeroes, buffers_of(&iov, 1), REQUEST_COMPRESSED), -ENOTSUP);
    assert_hidden(world, IMAGE, "at the end");
    assert_clean(world, false, options);
    close_image(world);
    assert_hidden(world, IMAGE, "closed");
}

static void test_hidden(void **state)
{
    static const char *const options[] = {"cluster_size=4k," LUKS, "cluster_size=16k,extended_l2=on," LUKS,
                                          "cluster_size=512," AES, "preallocation=metadata," AES};
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        in_world(i, hidden, (void *)(uintptr_t)options[i]);
}

static void hidden_external(struct world *world, void *arg)
{
    create(world, IMAGE, "size=1M,cluster_size=4k,data_file=data.bin," LUKS);
    open_image(world, IMAGE, true, KEY);
    write_text(world, 1000, 300000, SECRET);
    close_image(world);
    assert_hidden(world, IMAGE, "closed");
    assert_hidden(world, "data.bin", "closed");
}

/* Version 2 has zeroes only as data, and gets some when a newer image becomes one. */
static void hidden_downgrade(struct world *world, void *arg)
{
    create(world, "base.qcow2", "size=1M,cluster_size=4k");
    create(world, IMAGE, "size=1M,cluster_size=4k,backing_file=base.qcow2,backing_fmt=qcow2," AES);
    open_image(world, IMAGE, true, KEY);
    assert_int_equal(block_zero(world->edge, 0, 8192, 0), 0);
    write_text(world, 8192, 4096, SECRET);
    amend(world, "compat=0.10");
    uint8_t data[512], zeroes[512] = {0};
    uint64_t host;
    stored(world, 4096, data, sizeof data, &host);
    assert_memory_not_equal(data, zeroes, sizeof data);
    assert_int_equal(block_read_buffer(world->edge, 4096, data, sizeof data), 0);
    assert_memory_equal(data, zeroes, sizeof data);
    assert_hidden(world, IMAGE, "version 2");
}

static void test_hidden_elsewhere(void **state)
{
    in_world(5, hidden_external, NULL);
    in_world(6, hidden_downgrade, NULL);
}

/* --- without a key --- */

static void no_key(struct world *world, void *arg)
{
    auto_error err = {0};
    create(world, IMAGE, "size=1M,cluster_size=4k," LUKS);
    assert_false(try_open(world, IMAGE, true, "", &err));
    assert_non_null(strstr(err.message, "key-secret"));
    error_clear(&err);
    assert_false(try_open(world, IMAGE, true, ", 'encrypt': {'key-secret': 'two'}", &err));
    assert_non_null(strstr(err.message, "Invalid password"));
    /* For its metadata it opens; data is refused, not made up. */
    struct open_mode mode = {.metadata_only = true};
    struct node *node = node_open_filename(world->graph, IMAGE, "qcow2", &mode, NULL);
    assert_non_null(node);
    world->edge = edge_attach(NULL, "test", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE, BLOCK_PERM_ALL, NULL);
    node_unref(node);
    assert_clean(world, false, "without a key");
    uint8_t data[512] = {0};
    assert_int_equal(block_write_buffer(world->edge, 0, data, sizeof data, 0), -EKEYREJECTED);
    close_image(world);
    open_image(world, IMAGE, true, KEY);
    write_text(world, 0, 4096, "text");
    close_image(world);
    node = node_open_filename(world->graph, IMAGE, "qcow2", &mode, NULL);
    world->edge = edge_attach(NULL, "test", node, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, NULL);
    node_unref(node);
    assert_int_equal(block_read_buffer(world->edge, 0, data, sizeof data), -EKEYREJECTED);
    assert_int_equal(block_read_buffer(world->edge, 8192, data, sizeof data), 0); /* zeroes are no secret */
}

static void test_no_key(void **state)
{
    in_world(7, no_key, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aes),    cmocka_unit_test(test_luks),
        cmocka_unit_test(test_hidden), cmocka_unit_test(test_hidden_elsewhere),
        cmocka_unit_test(test_no_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
