/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile qcow2 images. The input is the bytes of a whole file, or one of several good images and steps that change it
 * (common/image.h): entries of its tables, refcounts, snapshots, bitmaps, header extensions, names. The image is
 * mapped, read, described, checked and converted read-only; then written to, snapshots are made, taken and removed,
 * options amended, and it is repaired, resized and closed. Whatever the image says: no crash, no endless loop, what was
 * converted reads as its source did, and what was repaired is clean.
 *
 * Some kinds are encrypted, and opened with the passphrase. How slow a LUKS header may make the derivation of its keys
 * is its own choice: headers that ask for much are opened for their metadata alone.
 *
 * links: protocol formats formats/qcow2 crypto objects
 *
 * parts: common/image.c
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/sim.h"
#include "block/create.h"
#include "block/name.h"
#include "block/query.h"
#include "block/request.h"
#include "crypto/objects.h"
#include "formats/qcow2/qcow2.h"
#include "formats/table.h"
#include "objects/object.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"
#include "tests/fuzz/common/image.h"

#define IMAGE "fuzz.qcow2"
#define COPY "copy.qcow2"
enum { READ_SIZE = 16 * 1024, STEPS_MAX = 64, FILE_MAX = 1 << 20, CONVERTED = 256 * 1024, HEAD = 2 };
enum { ENCRYPTED = 250, WHOLE_FILE = 255 }; /* kinds of input */
enum { ROUNDS_MAX = 4000 };                 /* of key derivation */
enum { WITH_BACKING = 1, WITH_METADATA_CHANGES = 2, FULL_OVERLAP_CHECK = 4 };

struct input {
    struct loop *loop;
    struct graph *graph;
    const uint8_t *data;
    size_t size;
    uint8_t kind, flags;
};

static const char *const kinds[] = {
    "size=256k,cluster_size=512",
    "size=256k,cluster_size=512,compat=0.10",
    "size=256k,cluster_size=4k,refcount_bits=1",
    "size=1M,cluster_size=16k,extended_l2=on",
    "size=256k,cluster_size=4k,lazy_refcounts=on,refcount_bits=64",
    "size=256k,cluster_size=4k,compression_type=zstd",
    "size=64k,cluster_size=512,preallocation=metadata",
};

static const char *const encrypted_kinds[] = {
    "size=256k,cluster_size=512,encrypt.format=aes,encrypt.key-secret=key",
    "size=256k,cluster_size=4k,extended_l2=off,encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1,"
    "encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.hash-alg=sha1",
    "size=256k,cluster_size=4k,compat=0.10,encrypt.format=aes,encrypt.key-secret=key",
};

/* ---- the input and its mutator ---- */

static const struct record_shape shape = {HEAD, fuzz_image_fresh_step};

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random random = {seed};
    struct fuzz_image image = {data + HEAD, size - MIN(size, (size_t)HEAD), max_size - MIN(max_size, (size_t)HEAD)};
    if (size < HEAD || data[0] < WHOLE_FILE)
        return records_mutate(&shape, data, size, max_size, seed);
    if (!fuzz_draw(&random, 4))
        return LLVMFuzzerMutate(data, size, max_size);
    for (uint64_t left = 1 + fuzz_draw(&random, 3); left; left--) {
        uint8_t bytes[RECORD_MAX];
        struct record step = {bytes, fuzz_image_fresh_step(&random, bytes)};
        fuzz_image_step(&image, &step);
    }
    return HEAD + image.size;
}

static bool is_encrypted(const struct input *input)
{
    return input->kind >= ENCRYPTED && input->kind < WHOLE_FILE;
}

/* Does the file have a LUKS header that wants to be opened slowly? Wherever it lies: anything that looks like one. */
static bool is_slow(struct input *input)
{
    size_t size;
    auto_free uint8_t *bytes = sim_file_get(input->loop, IMAGE, &size);
    for (size_t at = 0; at + 592 <= size; at += 512) {
        if (memcmp(bytes + at, "LUKS\xba\xbe", 6))
            continue;
        bool slow = load_be32(bytes + at + 164) > ROUNDS_MAX;
        for (size_t slot = 0; slot < 8; slot++)
            slow |= load_be32(bytes + at + 208 + 48 * slot + 4) > ROUNDS_MAX;
        if (slow)
            return true;
    }
    return false;
}

static struct edge *open_image(struct input *input, const char *name, bool writable)
{
    const char *read_only = writable ? "false" : "true";
    bool has_key = is_encrypted(input) && !strcmp(name, IMAGE);
    auto_free char *text = xasprintf(
        "{'driver': 'qcow2', 'read-only': %s, 'discard': 'unmap', 'file': {'driver': 'file', 'read-only': %s, "
        "'discard': 'unmap', 'filename': '%s'}, 'overlap-check': '%s'%s%s}",
        read_only, read_only, name, input->flags & FULL_OVERLAP_CHECK ? "all" : "cached",
        input->flags & WITH_BACKING ? "" : ", 'backing': null", has_key ? ", 'encrypt': {'key-secret': 'key'}" : "");
    auto_json *json = json_parse(text, strlen(text), NULL);
    auto_blockdev_options *options = NULL;
    FUZZ_CHECK(blockdev_options_from_json(json, &options, NULL));
    auto_error err = {0};
    struct node *node = node_open(input->graph, options, &err);
    if (!node) {
        FUZZ_CHECK(err.message && *err.message); /* a refusal says why */
        return NULL;
    }
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (writable ? BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE : 0);
    struct edge *edge = edge_attach(NULL, "fuzz", node, perm, BLOCK_PERM_ALL, NULL);
    node_unref(node);
    return edge;
}

static bool make_image(struct input *input, const char *name, const char *keyval)
{
    auto_qcow2_create_options *options = NULL;
    return qcow2_create_options_from_keyval(keyval, NULL, &options, NULL) &&
           image_create(input->graph, name, &qcow2_driver, options, NULL);
}

static void make_good_image(struct input *input)
{
    const char *kind = is_encrypted(input) ? encrypted_kinds[input->kind % ARRAY_SIZE(encrypted_kinds)]
                                           : kinds[input->kind % ARRAY_SIZE(kinds)];
    FUZZ_CHECK(make_image(input, IMAGE, kind));
    struct edge *edge = open_image(input, IMAGE, true);
    uint8_t buffer[READ_SIZE];
    memset(buffer, 7, sizeof buffer);
    struct iovec iov = {buffer, sizeof buffer};
    (void)block_write_buffer(edge, 0, buffer, sizeof buffer, 0);
    (void)block_write(edge, 2 * READ_SIZE, READ_SIZE, buffers_of(&iov, 1), REQUEST_COMPRESSED);
    (void)block_zero(edge, 4096, 4096, 0);
    edge_detach(edge);
}

static void change_image(struct input *input)
{
    size_t size;
    auto_free uint8_t *bytes = sim_file_get(input->loop, IMAGE, &size);
    auto_free uint8_t *room = xcalloc(1, size + 128 * 1024);
    memcpy(room, bytes, size);
    struct fuzz_image image = {room, size, size + 128 * 1024};
    struct records records = records_after(input->data, input->size, 0);
    struct record step;
    for (int i = 0; i < STEPS_MAX && record_next(&records, &step); i++)
        fuzz_image_step(&image, &step);
    sim_file_put(input->loop, IMAGE, image.bytes, image.size);
}

/* ---- what is done with it ---- */

static void describe(struct edge *edge)
{
    auto_error err = {0};
    image_info_free(node_query_image(edge->child, true, &err));
    struct image_facts facts = {0};
    if (qcow2_driver.info(edge->child, &facts, &err)) {
        free(facts.backing_filename);
        free(facts.full_backing_filename);
        free(facts.backing_format);
        image_info_specific_free(facts.specific);
    }
}

/* Random access by map and read must agree with what a copy of the image gets. */
static void convert(struct input *input, struct edge *edge)
{
    uint64_t size = MIN(edge->child->size, (uint64_t)CONVERTED);
    if (!make_image(input, COPY, "size=256k,cluster_size=4k"))
        return;
    struct edge *copy = open_image(input, COPY, true);
    FUZZ_CHECK(copy);
    if (block_copy(edge, 0, copy, 0, size, input->flags & 8 ? BLOCK_COPY_COMPRESS : BLOCK_COPY_TARGET_IS_ZERO) == 0) {
        uint8_t one[4096], other[4096];
        for (uint64_t offset = 0; offset + sizeof one <= size; offset += sizeof one) {
            /* What lies in one piece for the copy may end in the middle of a bad cluster for us, or the reverse. */
            if (block_read_buffer(edge, offset, one, sizeof one) == 0) {
                FUZZ_CHECK(block_read_buffer(copy, offset, other, sizeof other) == 0);
                FUZZ_CHECK(memcmp(one, other, sizeof one) == 0);
            }
        }
    }
    edge_detach(copy);
}

static void list_snapshots(struct edge *edge)
{
    const struct snapshot_ops *ops = qcow2_driver.snapshots;
    struct internal_snapshot *list = NULL;
    size_t count = 0;
    auto_error err = {0};
    if (!ops || !ops->list || !ops->list(edge->child, &list, &count, &err))
        return;
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(list[i].id && list[i].name);
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

static void look(struct input *input, struct edge *edge)
{
    uint64_t offset = 0;
    for (int i = 0; i < STEPS_MAX && offset < edge->child->size; i++) {
        struct block_status status;
        if (block_status(edge, offset, edge->child->size - offset, BLOCK_STATUS_PRECISE, &status))
            break;
        FUZZ_CHECK(status.length && status.length <= edge->child->size - offset);
        offset += status.length;
    }
    uint8_t buffer[READ_SIZE];
    offset = 0;
    for (int i = 0; i < STEPS_MAX && offset < edge->child->size; i++, offset += READ_SIZE)
        (void)block_read_buffer(edge, offset, buffer, MIN(edge->child->size - offset, (uint64_t)READ_SIZE));
    describe(edge);
    list_snapshots(edge);
    struct image_check result = {0};
    (void)qcow2_driver.check(edge->child, 0, &result, NULL);
    convert(input, edge);
    if (qcow2_driver.snapshots && qcow2_driver.snapshots->load && qcow2_driver.snapshots->load(edge->child, "1", NULL))
        (void)block_read_buffer(edge, 0, buffer, MIN(edge->child->size, (uint64_t)READ_SIZE));
}

static void change_metadata(struct edge *edge)
{
    const struct snapshot_ops *ops = qcow2_driver.snapshots;
    uint8_t buffer[4096];
    memset(buffer, 3, sizeof buffer);
    if (!ops || !ops->create || !ops->apply || !ops->remove)
        return;
    (void)ops->create(edge->child, "new", NULL);
    (void)block_write_buffer(edge, 0, buffer, MIN(edge->child->size, (uint64_t)sizeof buffer), 0);
    (void)ops->apply(edge->child, "1", NULL);
    (void)block_read_buffer(edge, 0, buffer, MIN(edge->child->size, (uint64_t)sizeof buffer));
    (void)ops->remove(edge->child, "1", NULL);
    (void)ops->remove(edge->child, "2", NULL);
    list_snapshots(edge);
}

static void no_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
}

static void repair(struct edge *edge)
{
    struct image_check result = {0};
    int status = qcow2_driver.check(edge->child, CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS, &result, NULL);
    if (status || result.corruptions || result.check_errors || edge->child->corrupt)
        return;
    /* What was repaired must be clean, or the repair lies. */
    struct image_check again = {0};
    if (!qcow2_driver.check(edge->child, 0, &again, NULL))
        FUZZ_CHECK(!again.corruptions && !again.leaks);
}

/* Without the key: described and checked, no more. */
static void look_without_key(struct input *input)
{
    struct open_mode mode = {.read_only = true, .metadata_only = true, .no_backing = true};
    struct node *node = node_open_filename(input->graph, IMAGE, "qcow2", &mode, NULL);
    struct edge *edge = node ? edge_attach(NULL, "fuzz", node, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, NULL) : NULL;
    struct image_check result = {0};
    uint8_t buffer[512];
    if (node)
        node_unref(node);
    if (!edge)
        return;
    describe(edge);
    (void)qcow2_driver.check(edge->child, 0, &result, NULL);
    (void)block_read_buffer(edge, 0, buffer, MIN(edge->child->size, (uint64_t)sizeof buffer));
    edge_detach(edge);
}

static void change_slots(struct edge *edge)
{
    char key[] = "key", other[] = "other";
    struct qcow2_encryption_amend_options slots = {
        .state = LUKS_SLOT_STATE_ACTIVE, .new_secret = other, .secret = key, .has_iter_time = true, .iter_time = 1};
    struct qcow2_amend_options options = {.encrypt = &slots};
    (void)qcow2_driver.amend->amend(edge->child, &options, false, no_progress, NULL, NULL);
    slots = (struct qcow2_encryption_amend_options){.state = LUKS_SLOT_STATE_INACTIVE, .old_secret = other};
    (void)qcow2_driver.amend->amend(edge->child, &options, false, no_progress, NULL, NULL);
}

static void change(struct input *input, struct edge *edge)
{
    uint8_t buffer[READ_SIZE];
    memset(buffer, 9, sizeof buffer);
    uint64_t size = edge->child->size;
    if (input->flags & WITH_METADATA_CHANGES)
        change_metadata(edge);
    for (uint64_t offset = 0; offset < MIN(size, 8ull * READ_SIZE); offset += READ_SIZE)
        (void)block_write_buffer(edge, offset, buffer, MIN(size - offset, 5000ull), 0);
    (void)block_zero(edge, 0, MIN(size, 6000ull), REQUEST_MAY_UNMAP);
    (void)block_discard(edge, 0, MIN(size, 3ull * READ_SIZE));
    (void)block_flush(edge);
    if (is_encrypted(input))
        change_slots(edge);
    repair(edge);
    (void)node_resize(edge, size / 2 / 512 * 512, PREALLOCATION_OFF, true, NULL);
}

static int try_input(void *arg)
{
    struct input *input = arg;
    auto_free uint8_t *base = xmalloc(64 * KiB);
    memset(base, 0x5a, 64 * KiB);
    sim_file_put(input->loop, "base", base, 64 * KiB);
    input->graph = graph_new(input->loop, protocol_table);
    graph_add_drivers(input->graph, formats_table);
    struct object_set *objects = object_set_new(input->loop);
    object_set_add_kinds(objects, crypto_object_kinds);
    FUZZ_CHECK(object_add_text(objects, "secret,id=key,data=the passphrase", NULL) &&
               object_add_text(objects, "secret,id=other,data=another passphrase", NULL));
    graph_set_objects(input->graph, objects);
    if (input->kind < WHOLE_FILE) {
        make_good_image(input);
        change_image(input);
    } else {
        sim_file_put(input->loop, IMAGE, input->data, MIN(input->size, (size_t)FILE_MAX));
    }
    look_without_key(input);
    for (int writable = 0; writable < 2 && !is_slow(input); writable++) {
        struct edge *edge = open_image(input, IMAGE, writable);
        if (edge)
            (writable ? change : look)(input, edge);
        if (edge)
            edge_detach(edge);
    }
    graph_free(input->graph);
    object_set_free(objects);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct input input = {.loop = loop_new(LOOP_SIMULATED, 1, NULL),
                          .data = data + HEAD,
                          .size = size - HEAD,
                          .kind = data[0],
                          .flags = data[1]};
    loop_run_main(input.loop, try_input, &input);
    loop_free(input.loop);
    return 0;
}
