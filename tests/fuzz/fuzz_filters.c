/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What filters read that strangers may have written. The first byte says which: a log of writes that blklogwrites shall
 * go on with, made of records (a superblock, entries) or as it is; a rule file of blkdebug; a name with a prefix of a
 * filter. A log that was taken must still be one after a write: it is taken again.
 *
 * links: image-tools
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/sim.h"
#include "block/filters/table.h"
#include "block/name.h"
#include "block/request.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "tests/fuzz/common/fuzz.h"

enum { HEAD = 2, DISK_SIZE = 64 << 10, LOG_MAX = 256 << 10 };
#define LOG_MAGIC UINT64_C(0x6a736677736872)

/* A step: the first is the superblock (count, sector size), others are entries (sectors, flags, inline length). */
static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    for (size_t i = 0; i < 24; i += 8)
        store_le64(bytes + i, fuzz_draw(random, 3) ? fuzz_draw(random, 8) : fuzz_interesting(random));
    return 24;
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

struct input {
    struct loop *loop;
    struct graph *graph;
    const uint8_t *data;
    size_t size;
};

static size_t make_log(const struct input *input, uint8_t *log)
{
    uint32_t sector = 32u << input->data[1] % 8;
    struct records records = records_after(input->data, input->size, HEAD);
    struct record record;
    size_t at = sector;
    for (unsigned n = 0; record_next(&records, &record) && at + sector <= LOG_MAX; n++) {
        if (n == 0) {
            store_le64(log, LOG_MAGIC);
            store_le64(log + 8, 1);
            store_le64(log + 16, record_number(&record, 0, 8));
            store_le32(log + 24, record_number(&record, 8, 1) & 1 ? sector : (uint32_t)record_number(&record, 8, 8));
            continue;
        }
        store_le64(log + at + 8, record_number(&record, 0, 8));
        store_le64(log + at + 16, record_number(&record, 8, 8));
        store_le64(log + at + 24, record_number(&record, 16, 8));
        at += sector + MIN(record_number(&record, 0, 8), UINT64_C(16)) * sector;
    }
    return MIN(at, (size_t)LOG_MAX);
}

static struct node *open_log(const struct input *input)
{
    auto_error err = {0};
    struct node *node = node_open_image_opts(input->graph,
                                             "driver=blklogwrites,log-append=on,file.driver=file,file.filename=disk,"
                                             "log.driver=file,log.filename=log",
                                             &(struct open_mode){0}, &err);
    FUZZ_CHECK(node || (err.message && *err.message));
    return node;
}

/* false: the log was refused, or has no room. */
static bool write_with_log(const struct input *input)
{
    struct node *node = open_log(input);
    if (!node)
        return false;
    struct edge *edge = edge_attach(NULL, "test", node, BLOCK_PERM_WRITE, BLOCK_PERM_ALL, NULL);
    uint8_t bytes[700];
    memset(bytes, 7, sizeof bytes);
    FUZZ_CHECK(edge);
    int result = block_write_buffer(edge, 100, bytes, sizeof bytes, 0);
    if (!result)
        result = block_zero(edge, 4096, 5000, 0);
    if (!result)
        result = block_flush(edge);
    edge_detach(edge);
    node_unref(node);
    return !result;
}

static void try_log(const struct input *input)
{
    uint8_t *log = xcalloc(1, LOG_MAX);
    uint8_t disk[512] = {0};
    bool as_it_is = input->data[1] & 0x80;
    size_t size = as_it_is ? MIN(input->size - HEAD, (size_t)LOG_MAX) : make_log(input, log);
    if (as_it_is)
        memcpy(log, input->data + HEAD, size);
    sim_file_put(input->loop, "log", log, size);
    sim_file_put(input->loop, "disk", disk, sizeof disk);
    free(log);
    if (!write_with_log(input))
        return;
    struct node *again = open_log(input);
    FUZZ_CHECK(again);
    node_unref(again);
}

/* Rule files are read with the C library, so this one is a file of the host. */
static void try_rules(const struct input *input)
{
    char path[] = "/tmp/spindle-fuzz-rules.XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return;
    size_t size = MIN(input->size - HEAD, (size_t)65536);
    FUZZ_CHECK(write(fd, input->data + HEAD, size) == (ssize_t)size);
    close(fd);
    auto_error err = {0};
    auto_free char *options = xasprintf("driver=blkdebug,config=%s,image.driver=null-co", path);
    struct node *node = node_open_image_opts(input->graph, options, &(struct open_mode){0}, &err);
    FUZZ_CHECK(node || (err.message && *err.message));
    if (node)
        node_unref(node);
    unlink(path);
}

static void try_name(const struct input *input)
{
    auto_error err = {0};
    auto_free char *rest = xstrndup((const char *)input->data + HEAD, MIN(input->size - HEAD, (size_t)1000));
    auto_free char *name = xasprintf("%s:%s", input->data[1] & 1 ? "blkverify" : "blkdebug", rest);
    struct node *node = node_open_filename(input->graph, name, NULL, &(struct open_mode){.read_only = true}, &err);
    FUZZ_CHECK(node || (err.message && *err.message));
    if (node)
        node_unref(node);
}

static int try_input(void *arg)
{
    const struct input *input = arg;
    switch (input->data[0] % 4) {
    case 0: try_rules(input); break;
    case 1: try_name(input); break;
    default: try_log(input); break;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct input input = {.loop = loop_new(LOOP_SIMULATED, 1, NULL), .data = data, .size = size};
    input.graph = graph_new(input.loop, protocol_table);
    graph_add_drivers(input.graph, formats_table);
    graph_add_drivers(input.graph, filters_table);
    loop_run_main(input.loop, try_input, &input);
    graph_free(input.graph);
    loop_free(input.loop);
    return 0;
}
