/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any sequence of requests to a good image, against a plain array of bytes: writes (plain, durable, compressed),
 * zeroes, discards, reads, flushes, resizes, internal snapshots, checks and reopening, several at once where they do
 * not overlap, on raw and qcow2 images of many kinds. Whatever the order: what is read is what the array says, block
 * status agrees with the content, and the image is clean whenever it is closed.
 *
 * links: protocol formats formats/qcow2
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/sim.h"
#include "block/create.h"
#include "block/request.h"
#include "formats/qcow2/qcow2.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"
#include "tests/fuzz/common/fuzz.h"

#define IMAGE "image"
enum { HEAD = 1, SIZE = 256 * 1024, SIZE_MAX_BYTES = 2 * SIZE, STEPS_MAX = 120, FLIGHT_MAX = 4, SNAPSHOTS_MAX = 3 };

static const struct kind {
    const char *create, *open; /* create NULL: raw */
    bool compresses, has_snapshots;
} kinds[] = {
    {NULL, "", false, false},
    {NULL, ", 'offset': 4096, 'size': 262144", false, false},
    {"size=256k", "", true, true},
    {"size=256k,cluster_size=512", ", 'l2-cache-size': 1024, 'l2-cache-entry-size': 512", true, true},
    {"size=256k,cluster_size=4k,compat=0.10", "", true, true},
    {"size=256k,cluster_size=512,refcount_bits=1", "", true, false},
    {"size=256k,cluster_size=4k,lazy_refcounts=on", "", true, true},
    {"size=256k,cluster_size=16k,extended_l2=on", "", true, true},
    {"size=256k,cluster_size=4k,compression_type=zstd", ", 'discard-no-unref': true", true, true},
    {"size=256k,cluster_size=4k,backing_file=base,backing_fmt=raw", "", true, true},
    {"size=256k,cluster_size=16k,extended_l2=on,backing_file=base,backing_fmt=raw", ", 'overlap-check': 'all'", true,
     true},
    {"size=256k,cluster_size=4k,preallocation=metadata", "", true, true},
};

enum step_kind {
    WRITE,
    WRITE_COMPRESSED,
    ZERO,
    DISCARD,
    READ,
    FLUSH,
    RESIZE,
    SNAPSHOT,
    APPLY,
    REMOVE,
    CHECK,
    REOPEN,
    STATUS,
    STEP_KINDS
};
enum { IN_BACKGROUND = 1, DURABLE = 2, UNMAP = 4, NOISE = 8 };

struct model {
    struct loop *loop;
    struct graph *graph;
    struct edge *edge;
    const struct kind *kind;
    uint8_t bytes[SIZE_MAX_BYTES];
    uint64_t size;
    struct co_group group;
    struct flight {
        struct model *model;
        uint64_t offset, length;
        struct record step;
        bool is_busy;
    } flight[FLIGHT_MAX];
    struct {
        uint8_t *bytes;
        uint64_t size;
        char *id;
    } snapshots[SNAPSHOTS_MAX];
};

/* ---- the input: kind, flags, offset (3), length (3), seed of the data ---- */

static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    static const uint32_t units[] = {1, 512, 4096, 16384, 65536};
    uint32_t unit = units[fuzz_draw(random, ARRAY_SIZE(units))];
    uint32_t offset = (uint32_t)fuzz_draw(random, SIZE / unit) * unit;
    uint32_t length =
        fuzz_draw(random, 4) ? unit * (1 + (uint32_t)fuzz_draw(random, 4)) : (uint32_t)fuzz_draw(random, 70000);
    bytes[0] = (uint8_t)fuzz_draw(random, fuzz_draw(random, 2) ? READ + 1 : STEP_KINDS);
    bytes[1] = (uint8_t)fuzz_draw(random, 16);
    memcpy(bytes + 2, &offset, 3);
    memcpy(bytes + 5, &length, 3);
    bytes[8] = (uint8_t)fuzz_draw(random, 256);
    return 9;
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

/* ---- the image ---- */

static void open_image(struct model *model)
{
    bool is_raw = !model->kind->create;
    auto_free char *text =
        xasprintf("{'driver': '%s', 'discard': 'unmap', 'file': {'driver': 'file', 'discard': 'unmap', "
                  "'filename': '" IMAGE "'}%s}",
                  is_raw ? "raw" : "qcow2", model->kind->open);
    auto_json *json = json_parse(text, strlen(text), NULL);
    auto_blockdev_options *options = NULL;
    auto_error err = {0};
    FUZZ_CHECK(blockdev_options_from_json(json, &options, &err));
    struct node *node = node_open(model->graph, options, &err);
    FUZZ_CHECK(node);
    model->edge = edge_attach(NULL, "fuzz", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE,
                              BLOCK_PERM_ALL, &err);
    node_unref(node);
    FUZZ_CHECK(model->edge && model->edge->child->size == model->size);
}

static void make_image(struct model *model)
{
    auto_free uint8_t *base = xcalloc(1, SIZE + 8192);
    model->size = SIZE;
    if (!model->kind->create) {
        sim_file_put(model->loop, IMAGE, base, *model->kind->open ? SIZE + 8192 : SIZE);
        return;
    }
    /* Shorter than the image, and not of whole clusters. */
    if (strstr(model->kind->create, "backing")) {
        for (unsigned i = 0; i < SIZE / 2 + 512; i++)
            model->bytes[i] = (uint8_t)(i / 512 + 1);
        sim_file_put(model->loop, "base", model->bytes, SIZE / 2 + 512);
    }
    auto_qcow2_create_options *options = NULL;
    FUZZ_CHECK(qcow2_create_options_from_keyval(model->kind->create, NULL, &options, NULL) &&
               image_create(model->graph, IMAGE, &qcow2_driver, options, NULL));
}

static void check_image(struct model *model, bool leaks_allowed, uint32_t repair)
{
    struct image_check result = {0};
    if (!model->kind->create)
        return;
    FUZZ_CHECK(qcow2_driver.check(model->edge->child, repair, &result, NULL) == 0);
    FUZZ_CHECK(!result.corruptions && !result.corruptions_fixed && !result.check_errors);
    FUZZ_CHECK(leaks_allowed || !result.leaks);
}

/* ---- requests, in coroutines of their own ---- */

static void make_data(const struct record *step, uint8_t *data, uint64_t length)
{
    struct fuzz_random random = {record_number(step, 8, 1)};
    bool is_noise = record_number(step, 1, 1) & NOISE;
    for (uint64_t i = 0; i < length; i++)
        data[i] = is_noise ? (uint8_t)fuzz_draw(&random, 256) : (uint8_t)(random.state + i / 512);
}

static void write_span(struct model *model, const struct flight *f, uint32_t flags)
{
    auto_free uint8_t *data = xmalloc(f->length);
    struct iovec iov = {data, f->length};
    make_data(&f->step, data, f->length);
    FUZZ_CHECK(block_write(model->edge, f->offset, f->length, buffers_of(&iov, 1), flags) == 0);
    memcpy(model->bytes + f->offset, data, f->length);
}

static void read_span(struct model *model, uint64_t offset, uint64_t length)
{
    auto_free uint8_t *data = xmalloc(length);
    FUZZ_CHECK(block_read_buffer(model->edge, offset, data, length) == 0);
    FUZZ_CHECK(memcmp(data, model->bytes + offset, length) == 0);
}

/* Each sector reads as before or as zeroes, and the model learns which. */
static void discard_span(struct model *model, uint64_t offset, uint64_t length)
{
    static const uint8_t zeroes[512];
    FUZZ_CHECK(block_discard(model->edge, offset, length) == 0);
    auto_free uint8_t *data = xmalloc(length);
    FUZZ_CHECK(block_read_buffer(model->edge, offset, data, length) == 0);
    for (uint64_t at = 0, piece; at < length; at += piece) {
        piece = MIN(length - at, 512 - (offset + at) % 512);
        FUZZ_CHECK(!memcmp(data + at, model->bytes + offset + at, piece) || !memcmp(data + at, zeroes, piece));
    }
    memcpy(model->bytes + offset, data, length);
}

static void run_request(void *arg)
{
    struct flight *f = arg;
    struct model *model = f->model;
    unsigned flags = (unsigned)record_number(&f->step, 1, 1);
    switch (record_number(&f->step, 0, 1) % STEP_KINDS) {
    case WRITE: write_span(model, f, flags & DURABLE ? REQUEST_FUA : 0); break;
    case WRITE_COMPRESSED: write_span(model, f, model->kind->compresses ? REQUEST_COMPRESSED : 0); break;
    case ZERO:
        FUZZ_CHECK(block_zero(model->edge, f->offset, f->length,
                              (flags & UNMAP ? REQUEST_MAY_UNMAP : 0) | (flags & DURABLE ? REQUEST_FUA : 0)) == 0);
        memset(model->bytes + f->offset, 0, f->length);
        break;
    case DISCARD: discard_span(model, f->offset, f->length); break;
    default: read_span(model, f->offset, f->length); break;
    }
    f->is_busy = false;
}

static void settle(struct model *model)
{
    co_group_wait(&model->group);
}

/* Requests that share a sector wait for each other: a read-modify-write of half a sector would not be ours alone. */
static struct flight *find_place(struct model *model, uint64_t offset, uint64_t length)
{
    uint64_t granule = 64 * KiB; /* of the largest cluster: compressed writes are of whole clusters */
    struct flight *place = NULL;
    for (unsigned i = 0; i < FLIGHT_MAX; i++) {
        struct flight *f = &model->flight[i];
        if (!f->is_busy)
            place = f;
        else if (offset / granule <= (f->offset + f->length) / granule &&
                 f->offset / granule <= (offset + length) / granule)
            settle(model);
    }
    if (!place)
        settle(model);
    return place ? place : &model->flight[0];
}

static uint64_t cluster_of(const struct model *model)
{
    struct image_facts facts = {0};
    if (!model->kind->create || !qcow2_driver.info(model->edge->child, &facts, NULL))
        return 512;
    free(facts.backing_filename);
    free(facts.full_backing_filename);
    free(facts.backing_format);
    image_info_specific_free(facts.specific);
    return facts.cluster_size;
}

static void request(struct model *model, const struct record *step)
{
    uint64_t offset = record_number(step, 2, 3) % (model->size + 1), length = record_number(step, 5, 3) % (96 * KiB);
    if (record_number(step, 0, 1) % STEP_KINDS == WRITE_COMPRESSED && model->kind->compresses) {
        uint64_t cluster = cluster_of(model);
        offset = round_down(offset, cluster);
        length = round_up(length, cluster);
    }
    length = MIN(length, model->size - offset);
    if (!length)
        return;
    struct flight *f = find_place(model, offset, length);
    *f = (struct flight){model, offset, length, *step, true};
    co_spawn(model->loop, &model->group, run_request, f);
    if (!(record_number(step, 1, 1) & IN_BACKGROUND))
        settle(model);
}

/* ---- steps that stand alone ---- */

static void resize(struct model *model, const struct record *step)
{
    static const enum preallocation modes[] = {PREALLOCATION_OFF, PREALLOCATION_METADATA, PREALLOCATION_FALLOC,
                                               PREALLOCATION_FULL};
    uint64_t size = round_down(record_number(step, 2, 3) % SIZE_MAX_BYTES, 512);
    enum preallocation mode = size > model->size ? modes[record_number(step, 1, 1) % 4] : PREALLOCATION_OFF;
    if (!size || !node_resize(model->edge, size, mode, true, NULL))
        return; /* not possible with snapshots in version 2, with a window of a raw file ... */
    if (size > model->size)
        memset(model->bytes + model->size, 0, size - model->size);
    model->size = size;
    FUZZ_CHECK(model->edge->child->size == size);
}

static void reopen(struct model *model)
{
    check_image(model, false, 0);
    edge_detach(TAKE(model->edge));
    open_image(model);
    check_image(model, false, 0);
}

/* The ID of the newest snapshot. */
static char *newest_id(struct model *model)
{
    struct internal_snapshot *list = NULL;
    size_t count = 0;
    char *id = NULL;
    FUZZ_CHECK(qcow2_driver.snapshots->list(model->edge->child, &list, &count, NULL) && count);
    for (size_t i = 0; i < count; i++) {
        if (i == count - 1)
            id = TAKE(list[i].id);
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
    return id;
}

static void snapshot(struct model *model, unsigned kind, unsigned which)
{
    const struct snapshot_ops *ops = qcow2_driver.snapshots;
    if (!model->kind->has_snapshots || !ops)
        return;
    __typeof__(&model->snapshots[0]) s = &model->snapshots[which % SNAPSHOTS_MAX];
    if (kind == SNAPSHOT && !s->id && ops->create(model->edge->child, "s", NULL)) {
        s->id = newest_id(model);
        s->size = model->size;
        s->bytes = xmalloc(model->size);
        memcpy(s->bytes, model->bytes, model->size);
    } else if (kind == APPLY && s->id && ops->apply(model->edge->child, s->id, NULL)) {
        memcpy(model->bytes, s->bytes, s->size);
        model->size = s->size;
        FUZZ_CHECK(model->edge->child->size == model->size);
        read_span(model, 0, model->size);
    } else if (kind == REMOVE && s->id) {
        FUZZ_CHECK(ops->remove(model->edge->child, s->id, NULL));
        free(TAKE(s->id));
        free(TAKE(s->bytes));
    }
}

/* What is said to read as zeroes must. */
static void status(struct model *model)
{
    static const uint8_t zeroes[512];
    for (uint64_t offset = 0; offset < model->size;) {
        struct block_status status;
        FUZZ_CHECK(block_status(model->edge, offset, model->size - offset, BLOCK_STATUS_PRECISE, &status) == 0);
        FUZZ_CHECK(status.length && status.length <= model->size - offset);
        for (uint64_t at = 0; status.zero && at < status.length; at += 512)
            FUZZ_CHECK(!memcmp(model->bytes + offset + at, zeroes, MIN(status.length - at, (uint64_t)512)));
        offset += status.length;
    }
}

static void play(struct model *model, const struct record *step)
{
    unsigned kind = (unsigned)record_number(step, 0, 1) % STEP_KINDS;
    if (kind <= READ) {
        request(model, step);
        return;
    }
    settle(model);
    switch (kind) {
    case FLUSH: FUZZ_CHECK(block_flush(model->edge) == 0); break;
    case RESIZE: resize(model, step); break;
    case CHECK: /* a repair of what needs none changes nothing */
        check_image(model, true, record_number(step, 1, 1) & DURABLE ? CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS : 0);
        break;
    case REOPEN: reopen(model); break;
    case STATUS: status(model); break;
    default: snapshot(model, kind, (unsigned)record_number(step, 8, 1)); break;
    }
}

struct run {
    struct model *model;
    struct records records;
};

static int run(void *arg)
{
    struct run *run = arg;
    struct model *model = run->model;
    struct record step;
    model->graph = graph_new(model->loop, protocol_table);
    graph_add_drivers(model->graph, formats_table);
    co_group_init(&model->group);
    make_image(model);
    open_image(model);
    for (int i = 0; i < STEPS_MAX && record_next(&run->records, &step); i++)
        play(model, &step);
    settle(model);
    read_span(model, 0, model->size);
    reopen(model);
    read_span(model, 0, model->size);
    status(model);
    edge_detach(model->edge);
    graph_free(model->graph);
    for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
        free(model->snapshots[i].id);
        free(model->snapshots[i].bytes);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct model *model = xcalloc(1, sizeof *model);
    struct run arg = {model, records_after(data, size, HEAD)};
    model->loop = loop_new(LOOP_SIMULATED, data[0] / ARRAY_SIZE(kinds), NULL);
    model->kind = &kinds[data[0] % ARRAY_SIZE(kinds)];
    loop_run_main(model->loop, run, &arg);
    loop_free(model->loop);
    free(model);
    return 0;
}
