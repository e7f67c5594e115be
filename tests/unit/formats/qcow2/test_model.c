/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, an image does not read back what was written to it, or its metadata went wrong on the way.
 * links: protocol formats
 *
 * Random requests from several coroutines at once against a plain array, over versions, cluster sizes, refcount widths,
 * extended entries, backing files, compression, encryption, lazy refcounts and caches of a few entries; with checks,
 * reopening and resizing in between.
 */
#include "tests/unit/formats/qcow2/fixture.h"

enum { WORKERS = 4, STRIPE = 1536, ROUNDS = 6, STEPS = 40 };

struct setup {
    const char *name, *create, *open;
    bool has_backing, compresses;
    uint64_t size;
};

struct model {
    struct world *world;
    const struct setup *setup;
    uint8_t *bytes;
    uint64_t size;
    struct co_group group;
};

struct worker {
    struct model *model;
    unsigned number;
};

static void expect_read(struct model *model, uint64_t offset, uint64_t length)
{
    auto_free uint8_t *buffer = xmalloc(length);
    assert_int_equal(block_read_buffer(model->world->edge, offset, buffer, length), 0);
    for (uint64_t i = 0; i < length; i++) {
        if (buffer[i] != model->bytes[offset + i])
            fail_with("%s: byte at 0x%" PRIx64 " is 0x%02x, expected 0x%02x", model->setup->name, offset + i, buffer[i],
                      model->bytes[offset + i]);
    }
}

static void write_span(struct model *model, uint64_t offset, uint64_t length, uint32_t flags)
{
    auto_free uint8_t *buffer = xmalloc(length);
    uint8_t first = (uint8_t)world_random(model->world, 256);
    bool noise = world_random(model->world, 2);
    for (uint64_t i = 0; i < length; i++)
        buffer[i] = noise ? (uint8_t)world_random(model->world, 256) : (uint8_t)(first + i / 512);
    int result;
    if (flags & REQUEST_COMPRESSED) {
        struct iovec iov = {buffer, length};
        result = block_write(model->world->edge, offset, length, buffers_of(&iov, 1), flags);
    } else {
        result = block_write_buffer(model->world->edge, offset, buffer, length, flags);
    }
    assert_int_equal(result, 0);
    memcpy(model->bytes + offset, buffer, length);
}

/* A worker touches only its own stripes, which share clusters with those of others. */
static void worker_run(void *arg)
{
    struct worker *worker = arg;
    struct model *model = worker->model;
    struct world *world = model->world;
    for (int step = 0; step < STEPS; step++) {
        uint64_t stripes = model->size / STRIPE / WORKERS;
        uint64_t offset = (world_random(world, stripes) * WORKERS + worker->number) * STRIPE;
        uint64_t length = 512 * (1 + world_random(world, 3));
        if (world_random(world, 4) == 0) {
            offset += world_random(world, 100);
            length -= 400;
        }
        switch (world_random(world, 6)) {
        case 0: expect_read(model, offset, length); break;
        case 1:
            assert_int_equal(block_zero(world->edge, offset, length, world_random(world, 2) ? REQUEST_MAY_UNMAP : 0),
                             0);
            memset(model->bytes + offset, 0, length);
            break;
        case 2: write_span(model, offset, length, REQUEST_FUA); break;
        default: write_span(model, offset, length, 0); break;
        }
    }
}

/* A discarded span reads as before or as zeroes, sector by sector; the model learns which. */
static void discard(struct model *model, uint64_t offset, uint64_t length)
{
    assert_int_equal(block_discard(model->world->edge, offset, length), 0);
    auto_free uint8_t *buffer = xmalloc(length), *zeroes = xcalloc(1, 512);
    assert_int_equal(block_read_buffer(model->world->edge, offset, buffer, length), 0);
    for (uint64_t i = 0; i < length; i += 512) {
        if (memcmp(buffer + i, model->bytes + offset + i, 512) != 0)
            assert_memory_equal(buffer + i, zeroes, 512);
    }
    memcpy(model->bytes + offset, buffer, length);
}

/* One request at a time, of any size. */
static void large_requests(struct model *model)
{
    struct world *world = model->world;
    uint64_t cluster = state_of(world)->cluster_size;
    for (int step = 0; step < 12; step++) {
        uint64_t offset = world_random(world, model->size / 512) * 512;
        uint64_t length = 512 * (1 + world_random(world, MIN((model->size - offset) / 512, 6 * cluster / 512)));
        switch (world_random(world, model->setup->compresses ? 7 : 5)) {
        case 0: discard(model, offset, length); break;
        case 1:
            assert_int_equal(block_zero(world->edge, offset, length, world_random(world, 2) ? REQUEST_MAY_UNMAP : 0),
                             0);
            memset(model->bytes + offset, 0, length);
            break;
        case 2: expect_read(model, offset, length); break;
        case 3:
        case 4: write_span(model, offset, length, 0); break;
        default:
            offset = round_down(offset, cluster);
            write_span(model, offset, MIN(cluster * (1 + world_random(world, 3)), model->size - offset),
                       REQUEST_COMPRESSED);
            break;
        }
    }
}

static void resize(struct model *model)
{
    auto_error err = {0};
    uint64_t size = (model->setup->size / 1024 + world_random(model->world, model->setup->size / 512)) * 512;
    if (!node_resize(model->world->edge, size, PREALLOCATION_OFF, true, &err))
        fail_with("%s: resize to %" PRIu64 ": %s", model->setup->name, size, err.message);
    if (size > model->size)
        memset(model->bytes + model->size, 0, size - model->size);
    model->size = size;
    assert_int_equal(model->world->edge->child->size, size);
}

static void make_backing(struct model *model)
{
    struct world *world = model->world;
    create(world, "base.qcow2", "size=3M,cluster_size=4k");
    open_image(world, "base.qcow2", true, "");
    for (uint64_t i = 0; i < 3 * MiB; i++)
        model->bytes[i] = (uint8_t)(i / 512 * 7 + 1);
    assert_int_equal(block_write_buffer(world->edge, 0, model->bytes, 3 * MiB, 0), 0);
    close_image(world);
    memset(model->bytes + model->size, 0, model->size < 3 * MiB ? 3 * MiB - model->size : 0);
}

static void run_model(struct world *world, void *arg)
{
    const struct setup *setup = arg;
    struct model model = {.world = world, .setup = setup, .size = setup->size};
    auto_free uint8_t *bytes = model.bytes = xcalloc(1, setup->size * 2 + 4 * MiB);
    if (setup->has_backing)
        make_backing(&model);
    create(world, IMAGE, setup->create);
    for (int round = 0; round < ROUNDS; round++) {
        open_image(world, IMAGE, true, setup->open);
        struct worker workers[WORKERS];
        co_group_init(&model.group);
        for (unsigned i = 0; i < WORKERS; i++) {
            workers[i] = (struct worker){&model, i};
            co_spawn(world->loop, &model.group, worker_run, &workers[i]);
        }
        co_group_wait(&model.group);
        expect_read(&model, 0, model.size);
        large_requests(&model);
        if (round % 2)
            assert_int_equal(block_flush(world->edge), 0);
        expect_read(&model, 0, model.size);
        if (round % 3 == 2)
            resize(&model);
        expect_read(&model, 0, model.size);
        if (round % 2)
            assert_clean(world, true, setup->name);
        close_image(world);
        open_image(world, IMAGE, false, setup->open);
        assert_clean(world, false, setup->name);
        expect_read(&model, 0, model.size);
        close_image(world);
    }
    const char *directory = getenv("SPINDLE_TEST_DUMP");
    if (directory) {
        auto_free char *path = xasprintf("%s/%s.qcow2", directory, setup->name);
        auto_free char *raw = xasprintf("%s/%s.raw", directory, setup->name);
        dump(world, IMAGE, path);
        sim_file_put(world->loop, "raw", model.bytes, model.size);
        dump(world, "raw", raw);
    }
}

#define AES "encrypt.format=aes,encrypt.key-secret=one"
#define LUKS                                                                                                           \
    "encrypt.format=luks,encrypt.key-secret=one,encrypt.iter-time=1,encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1"
#define KEY ", 'encrypt': {'key-secret': 'one'}"

static const struct setup setups[] = {
    {"v3-64k", "size=4M", "", false, true, 4 * MiB},
    {"v3-512", "size=1M,cluster_size=512", ", 'l2-cache-size': 1024, 'l2-cache-entry-size': 512", false, true, 1 * MiB},
    {"v3-4k-tiny-cache", "size=4M,cluster_size=4k",
     ", 'l2-cache-size': 2048, 'l2-cache-entry-size': 1024, 'refcount-cache-size': 4096", false, true, 4 * MiB},
    {"v3-2m", "size=9M,cluster_size=2M", "", false, true, 9 * MiB},
    {"v2-64k", "size=4M,compat=0.10", "", false, true, 4 * MiB},
    {"v2-backing", "size=4M,compat=0.10,cluster_size=4k,backing_file=base.qcow2,backing_fmt=qcow2", "", true, true,
     4 * MiB},
    {"v3-backing", "size=4M,cluster_size=16k,backing_file=base.qcow2,backing_fmt=qcow2", "", true, true, 4 * MiB},
    {"v3-short-overlay", "size=2M,cluster_size=4k,backing_file=base.qcow2,backing_fmt=qcow2", "", true, true, 2 * MiB},
    {"extended-16k", "size=4M,cluster_size=16k,extended_l2=on", "", false, true, 4 * MiB},
    {"extended-64k-backing", "size=4M,extended_l2=on,backing_file=base.qcow2,backing_fmt=qcow2", "", true, true,
     4 * MiB},
    {"lazy", "size=4M,lazy_refcounts=on,cluster_size=4k", "", false, true, 4 * MiB},
    {"zstd", "size=4M,compression_type=zstd,cluster_size=16k", "", false, true, 4 * MiB},
    {"refcount-1", "size=2M,refcount_bits=1,cluster_size=4k", "", false, true, 2 * MiB},
    {"refcount-2", "size=2M,refcount_bits=2,cluster_size=4k", "", false, true, 2 * MiB},
    {"refcount-8", "size=2M,refcount_bits=8,cluster_size=4k", "", false, true, 2 * MiB},
    {"refcount-64-512", "size=1M,refcount_bits=64,cluster_size=512", "", false, true, 1 * MiB},
    {"preallocated", "size=4M,preallocation=metadata,cluster_size=4k", "", false, true, 4 * MiB},
    {"preallocated-falloc", "size=4M,preallocation=falloc,cluster_size=16k,extended_l2=on", "", false, true, 4 * MiB},
    {"no-unref", "size=4M,cluster_size=4k", ", 'discard-no-unref': true", false, true, 4 * MiB},
    {"overlap-all", "size=4M,cluster_size=4k", ", 'overlap-check': 'all'", false, true, 4 * MiB},
    {"odd-size", "size=3147264,cluster_size=64k", "", false, true, 3147264},
    {"luks", "size=4M," LUKS, KEY, false, false, 4 * MiB},
    {"luks-2m", "size=9M,cluster_size=2M," LUKS, KEY, false, false, 9 * MiB},
    {"luks-extended-backing", "size=4M,cluster_size=16k,extended_l2=on,backing_file=base.qcow2,backing_fmt=qcow2," LUKS,
     KEY, true, false, 4 * MiB},
    {"luks-refcount-64-512", "size=1M,refcount_bits=64,cluster_size=512," LUKS, KEY, false, false, 1 * MiB},
    {"luks-preallocated", "size=4M,preallocation=metadata,cluster_size=4k," LUKS, KEY, false, false, 4 * MiB},
    {"luks-data-file", "size=4M,cluster_size=4k,data_file=data.bin," LUKS, KEY, false, false, 4 * MiB},
    {"aes", "size=4M,cluster_size=4k," AES, KEY, false, false, 4 * MiB},
    {"aes-v2-backing", "size=4M,compat=0.10,backing_file=base.qcow2,backing_fmt=qcow2," AES, KEY, true, false, 4 * MiB},
    {"aes-odd-size", "size=3147264,cluster_size=64k,lazy_refcounts=on," AES, KEY, false, false, 3147264},
};

static void test_models(void **state)
{
    const char *only = getenv("SPINDLE_TEST_ONLY");
    const char *seeds = getenv("SPINDLE_TEST_SEEDS");
    for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
        for (uint64_t seed = 1; seed <= (seeds ? strtoull(seeds, NULL, 0) : 1); seed++) {
            if (!only || strcmp(only, setups[i].name) == 0)
                in_world(seed, run_model, (void *)(uintptr_t)&setups[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
