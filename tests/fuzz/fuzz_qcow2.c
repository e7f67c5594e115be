/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile qcow2 images. The first byte chooses what the rest is: the bytes of a whole file, or changes to a good image
 * of one of several kinds (10 bytes each: where, and a 64-bit number to put there), which reaches what lies behind the
 * first checks. The image is mapped, read and checked read-only, then written to, repaired and closed.
 * links: protocol formats formats/qcow2
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/sim.h"
#include "block/create.h"
#include "block/request.h"
#include "formats/qcow2/qcow2.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define IMAGE "fuzz.qcow2"
enum { READ_SIZE = 16 * 1024, STEPS_MAX = 64, FILE_MAX = 1 << 20 };

struct input {
    struct loop *loop;
    struct graph *graph;
    const uint8_t *data;
    size_t size;
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

static struct edge *open_image(struct input *input, bool writable)
{
    const char *read_only = writable ? "false" : "true";
    auto_free char *text = xasprintf(
        "{'driver': 'qcow2', 'read-only': %s, 'discard': 'unmap', 'file': {'driver': 'file', 'read-only': %s, "
        "'discard': 'unmap', 'filename': '" IMAGE "'}, 'backing': null}",
        read_only, read_only);
    auto_json *json = json_parse(text, strlen(text), NULL);
    auto_blockdev_options *options = NULL;
    if (!blockdev_options_from_json(json, &options, NULL))
        abort();
    auto_error err = {0};
    struct node *node = node_open(input->graph, options, &err);
    if (!node) {
        if (!err.message || !*err.message)
            abort(); /* a refusal says why */
        return NULL;
    }
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (writable ? BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE : 0);
    struct edge *edge = edge_attach(NULL, "fuzz", node, perm, BLOCK_PERM_ALL, NULL);
    node_unref(node);
    return edge;
}

static void make_image(struct input *input, const char *keyval)
{
    auto_qcow2_create_options *options = NULL;
    if (!qcow2_create_options_from_keyval(keyval, NULL, &options, NULL) ||
        !image_create(input->graph, IMAGE, &qcow2_driver, options, NULL))
        abort();
    struct edge *edge = open_image(input, true);
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
    for (size_t i = 0; i + 10 <= input->size; i += 10) {
        /* Metadata lies in front and is made of 8-byte entries: most changes aim there. */
        size_t at = load_le16(input->data + i);
        at = at & 1 ? at >> 1 : (size_t)(at >> 1) * 8;
        if (at + 8 <= size)
            memcpy(bytes + at, input->data + i + 2, 8);
    }
    sim_file_put(input->loop, IMAGE, bytes, size);
}

static void look(struct edge *edge)
{
    uint64_t offset = 0;
    for (int i = 0; i < STEPS_MAX && offset < edge->child->size; i++) {
        struct block_status status;
        if (block_status(edge, offset, edge->child->size - offset, BLOCK_STATUS_PRECISE, &status))
            break;
        offset += status.length;
    }
    uint8_t buffer[READ_SIZE];
    offset = 0;
    for (int i = 0; i < STEPS_MAX && offset < edge->child->size; i++, offset += READ_SIZE)
        (void)block_read_buffer(edge, offset, buffer, MIN(edge->child->size - offset, (uint64_t)READ_SIZE));
    struct image_check result = {0};
    (void)qcow2_driver.check(edge->child, 0, &result, NULL);
}

static void change(struct edge *edge)
{
    uint8_t buffer[READ_SIZE];
    memset(buffer, 9, sizeof buffer);
    uint64_t size = edge->child->size;
    for (uint64_t offset = 0; offset < MIN(size, 8ull * READ_SIZE); offset += READ_SIZE)
        (void)block_write_buffer(edge, offset, buffer, MIN(size - offset, 5000ull), 0);
    (void)block_zero(edge, 0, MIN(size, 6000ull), REQUEST_MAY_UNMAP);
    (void)block_discard(edge, 0, MIN(size, 3ull * READ_SIZE));
    (void)block_flush(edge);
    struct image_check result = {0};
    (void)qcow2_driver.check(edge->child, CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS, &result, NULL);
    if (result.corruptions == 0 && result.check_errors == 0 && !edge->child->corrupt) {
        /* What was repaired must be clean, or the repair lies. */
        struct image_check again = {0};
        if (!qcow2_driver.check(edge->child, 0, &again, NULL) && (again.corruptions || again.leaks))
            abort();
    }
    (void)node_resize(edge, size / 2 / 512 * 512, PREALLOCATION_OFF, true, NULL);
}

static int try_input(void *arg)
{
    struct input *input = arg;
    input->graph = graph_new(input->loop, protocol_table);
    graph_add_drivers(input->graph, formats_table);
    size_t kind = input->data[0];
    input->data++;
    input->size--;
    if (kind < ARRAY_SIZE(kinds)) {
        make_image(input, kinds[kind]);
        change_image(input);
    } else {
        sim_file_put(input->loop, IMAGE, input->data, MIN(input->size, (size_t)FILE_MAX));
    }
    for (int writable = 0; writable < 2; writable++) {
        struct edge *edge = open_image(input, writable);
        if (edge)
            (writable ? change : look)(edge);
        if (edge)
            edge_detach(edge);
    }
    graph_free(input->graph);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct input input = {.loop = loop_new(LOOP_SIMULATED, 1, NULL), .data = data, .size = size};
    loop_run_main(input.loop, try_input, &input);
    loop_free(input.loop);
    return 0;
}
