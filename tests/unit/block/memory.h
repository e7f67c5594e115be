/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small real drivers for tests of the block layer. They answer to names that the schema knows.
 *
 * "null-co" is a disk in memory: it counts what it is asked, can take time, insist on alignment, lack zero and FUA, and
 * fail on order. "qcow2" is a mapper in its simplest form: a table of 4 KiB clusters in memory over a file child, with
 * an optional backing child; its map can be told to wait. "raw" is a filter that passes everything on.
 */
#ifndef TESTS_UNIT_BLOCK_MEMORY_H
#define TESTS_UNIT_BLOCK_MEMORY_H

#include "tests/unit/base/check.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/loop.h"
#include "base/sim.h"
#include "block/driver.h"
#include "block/request.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

/* The disk -------------------------------------------------------------------------------------------------------- */

struct memory {
    uint8_t *data;
    uint64_t capacity;
    uint64_t delay_ns;
    unsigned reads, writes, zeroes, discards, flushes, fua_writes;
    uint64_t largest, last_discard, last_discard_length;
    int fail_next; /* -errno of the next request, once */
    int fail_flush;
    bool refuse_zero;
    uint32_t locked_perm, locked_shared; /* what check_perm and set_perm saw last */
    int refuse_perm;                     /* check_perm fails when one of these bits is new */
};

static inline struct memory *memory_of(struct node *node)
{
    return node->state;
}

static bool memory_open(struct node *node, struct error *err)
{
    struct memory *memory = node->state;
    node->size = node->options->u.null_co.size;
    memory->capacity = node->size + 4 * MiB;
    memory->data = xcalloc(1, memory->capacity);
    node->write_flags = REQUEST_FUA;
    node->filename = xasprintf("memory:%s", node->name);
    memory->locked_shared = BLOCK_PERM_ALL;
    return true;
}

static void memory_close(struct node *node)
{
    free(memory_of(node)->data);
}

static int memory_answer(struct node *node, uint64_t length)
{
    struct memory *memory = node->state;
    memory->largest = MAX(memory->largest, length);
    if (memory->delay_ns)
        co_sleep_ns(memory->delay_ns);
    int result = memory->fail_next;
    memory->fail_next = 0;
    return result;
}

static int memory_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct memory *memory = node->state;
    memory->reads++;
    assert_true(is_aligned(offset | length, node->limits.request_alignment));
    int result = memory_answer(node, length);
    if (!result)
        iov_from_buffer(to.iov, (int)to.count, to.skip, memory->data + offset, length);
    return result;
}

static int memory_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct memory *memory = node->state;
    memory->writes++;
    memory->fua_writes += flags & REQUEST_FUA ? 1 : 0;
    assert_true(is_aligned(offset | length, node->limits.request_alignment));
    assert_true(offset + length <= memory->capacity);
    int result = memory_answer(node, length);
    uint64_t part = result ? length / 2 : length; /* a failed write leaves a part behind */
    iov_to_buffer(from.iov, (int)from.count, from.skip, memory->data + offset, part);
    return result;
}

static int memory_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct memory *memory = node->state;
    if (memory->refuse_zero)
        return -ENOTSUP;
    memory->zeroes++;
    int result = memory_answer(node, length);
    if (!result)
        memset(memory->data + offset, 0, length);
    return result;
}

static int memory_discard(struct node *node, uint64_t offset, uint64_t length)
{
    struct memory *memory = node->state;
    memory->discards++;
    memory->last_discard = offset;
    memory->last_discard_length = length;
    return memory_answer(node, length);
}

static int memory_flush(struct node *node)
{
    struct memory *memory = node->state;
    memory->flushes++;
    int result = memory_answer(node, 0);
    return memory->fail_flush ? memory->fail_flush : result;
}

static bool memory_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    struct memory *memory = node->state;
    if (memory->delay_ns)
        co_sleep_ns(memory->delay_ns);
    uint32_t more = perm & ~memory->locked_perm;
    if (more & (uint32_t)memory->refuse_perm)
        return fail(err, EAGAIN, "memory of '%s' refuses", node->name);
    memory->locked_perm |= perm;
    memory->locked_shared &= shared;
    return true;
}

static void memory_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    memory_of(node)->locked_perm = perm;
    memory_of(node)->locked_shared = shared;
}

static bool memory_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                          struct error *err)
{
    if (size > memory_of(node)->capacity)
        return fail(err, ENOSPC, "memory of '%s' is full", node->name);
    node_set_size(node, size);
    return true;
}

static const struct block_driver memory_driver = {
    .name = "null-co",
    .kind = DRIVER_PROTOCOL,
    .instance_size = sizeof(struct memory),
    .open = memory_open,
    .close = memory_close,
    .read = memory_read,
    .write = memory_write,
    .zero = memory_zero,
    .discard = memory_discard,
    .flush = memory_flush,
    .check_perm = memory_check_perm,
    .set_perm = memory_set_perm,
    .resize = memory_resize,
};

/* The mapper ------------------------------------------------------------------------------------------------------ */

#define TOY_CLUSTER 4096ull
#define TOY_UNALLOCATED UINT64_MAX
#define TOY_ZERO (UINT64_MAX - 1)

struct toy {
    uint64_t *clusters; /* guest cluster to offset in the file, or one of the two above */
    size_t count;
    uint64_t next_free;
    uint64_t gap; /* clusters left free after each allocation: makes neighbours not contiguous */
    bool *busy;   /* a plan for this cluster is in flight */
    struct co_queue released;
    unsigned prepared, committed, undone, copies;
    unsigned flushes;
};

static inline struct toy *toy_of(struct node *node)
{
    return node->state;
}

static bool toy_open(struct node *node, struct error *err)
{
    struct toy *toy = node->state;
    const struct blockdev_options_qcow2 *options = &node->options->u.qcow2;
    uint32_t modify = node->read_only ? 0 : BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE;
    if (!node_open_child(node, "file", options->file, BLOCK_PERM_CONSISTENT_READ | modify,
                         BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED, err))
        return false;
    if (options->backing && options->backing->kind != BLOCKDEV_REF_OR_NULL_KIND_NULL) {
        struct blockdev_ref ref = {.kind = (enum blockdev_ref_kind)options->backing->kind};
        ref.u.reference = options->backing->u.reference;
        if (!node_open_child(node, "backing", &ref, BLOCK_PERM_CONSISTENT_READ,
                             BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED, err))
            return false;
    }
    node->size = options->cache_size; /* an option of the schema that is not used otherwise */
    toy->count = DIV_ROUND_UP(node->size, TOY_CLUSTER);
    toy->clusters = new_array(uint64_t, toy->count + 1);
    toy->busy = new_array(bool, toy->count + 1);
    co_queue_init(&toy->released);
    for (size_t i = 0; i < toy->count; i++)
        toy->clusters[i] = TOY_UNALLOCATED;
    node->limits.zero_alignment = TOY_CLUSTER;
    return true;
}

static void toy_close(struct node *node)
{
    free(toy_of(node)->clusters);
    free(toy_of(node)->busy);
}

static int toy_map(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct toy *toy = node->state;
    uint64_t place = toy->clusters[offset / TOY_CLUSTER], inside = offset % TOY_CLUSTER;
    *extent = (struct extent){.length = MIN(length, TOY_CLUSTER - inside), .allocated = place != TOY_UNALLOCATED};
    if (place == TOY_UNALLOCATED) {
        extent->kind = EXTENT_BACKING;
    } else if (place == TOY_ZERO) {
        extent->kind = EXTENT_ZERO;
    } else {
        extent->kind = EXTENT_DATA;
        extent->child = node->file;
        extent->child_offset = place + inside;
    }
    return 0;
}

static int toy_prepare_write(struct node *node, uint64_t offset, uint64_t length, struct write_plan *plan)
{
    struct toy *toy = node->state;
    size_t index = offset / TOY_CLUSTER;
    uint64_t inside = offset % TOY_CLUSTER;
    while (toy->busy[index])
        co_queue_wait_uncancellable(&toy->released);
    plan->length = MIN(length, TOY_CLUSTER - inside);
    plan->child = node->file;
    plan->in_place = toy->clusters[index] < TOY_ZERO;
    if (plan->in_place) {
        plan->child_offset = toy->clusters[index] + inside;
        return 0;
    }
    toy->prepared++;
    toy->busy[index] = true;
    uint64_t place = toy->next_free;
    toy->next_free += TOY_CLUSTER * (1 + toy->gap);
    plan->child_offset = place + inside;
    plan->cow_before = inside;
    plan->cow_after = TOY_CLUSTER - inside - plan->length;
    toy->copies += plan->cow_before || plan->cow_after;
    plan->driver_data[0] = index;
    plan->driver_data[1] = place;
    return 0;
}

static int toy_commit_write(struct node *node, struct write_plan *plan, int result)
{
    struct toy *toy = node->state;
    if (result) {
        toy->undone++;
        toy->next_free = MIN(toy->next_free, plan->driver_data[1]); /* the space is used again */
    } else {
        toy->committed++;
        toy->clusters[plan->driver_data[0]] = plan->driver_data[1];
    }
    toy->busy[plan->driver_data[0]] = false;
    co_queue_wake_all(&toy->released);
    return result;
}

static int toy_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct toy *toy = node->state;
    for (uint64_t at = offset; at < offset + length; at += TOY_CLUSTER) {
        while (toy->busy[at / TOY_CLUSTER])
            co_queue_wait_uncancellable(&toy->released);
        toy->clusters[at / TOY_CLUSTER] = TOY_ZERO;
    }
    return 0;
}

static int toy_flush(struct node *node)
{
    toy_of(node)->flushes++;
    return 0;
}

static const struct block_driver toy_driver = {
    .name = "qcow2",
    .kind = DRIVER_FORMAT,
    .instance_size = sizeof(struct toy),
    .open = toy_open,
    .close = toy_close,
    .map = toy_map,
    .prepare_write = toy_prepare_write,
    .commit_write = toy_commit_write,
    .zero = toy_zero,
    .flush = toy_flush,
};

/* The filter ------------------------------------------------------------------------------------------------------ */

static bool filter_open(struct node *node, struct error *err)
{
    if (!node_open_child(node, "file", node->options->u.raw.file, 0, BLOCK_PERM_ALL, err))
        return false;
    node->size = node->file->child->size;
    node->write_flags = REQUEST_FUA;
    return true;
}

static int filter_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    return block_read(node->file, offset, length, to, flags);
}

static int filter_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return block_write(node->file, offset, length, from, flags);
}

static const struct block_driver filter_driver = {
    .name = "raw",
    .kind = DRIVER_FILTER,
    .open = filter_open,
    .read = filter_read,
    .write = filter_write,
    .check_perm = node_pass_check_perm,
    .set_perm = node_pass_set_perm,
};

static const struct block_driver *const test_drivers[] = {&memory_driver, &toy_driver, &filter_driver, NULL};

/* Helpers --------------------------------------------------------------------------------------------------------- */

static inline struct node *add_node(struct graph *graph, const char *keyval)
{
    auto_error err = {0};
    struct blockdev_options *options = NULL;
    if (!blockdev_options_from_keyval(keyval, NULL, &options, &err) || !graph_add(graph, options, &err)) {
        print_error("%s: %s\n", keyval, err.message);
        abort();
    }
    struct node *node = graph_find(graph, options->node_name);
    blockdev_options_free(options);
    return node;
}

/* The message with which adding a node fails; freed by the caller. */
static inline char *add_fails(struct graph *graph, const char *keyval)
{
    auto_error err = {0};
    struct blockdev_options *options = NULL;
    if (!blockdev_options_from_keyval(keyval, NULL, &options, &err) || graph_add(graph, options, &err)) {
        print_error("%s: %s\n", keyval, err.message ? err.message : "was accepted");
        abort();
    }
    blockdev_options_free(options);
    char *message = err.message;
    err.message = NULL;
    return message;
}

static inline struct edge *use_node(struct node *node)
{
    auto_error err = {0};
    struct edge *edge = edge_attach(
        NULL, "test", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, BLOCK_PERM_ALL, &err);
    if (!edge) {
        print_error("%s\n", err.message);
        abort();
    }
    return edge;
}

static inline void delete_node(struct graph *graph, const char *name)
{
    auto_error err = {0};
    if (!graph_del(graph, name, &err)) {
        print_error("%s\n", err.message);
        abort();
    }
}

static inline int write_pattern(struct edge *edge, uint64_t offset, size_t length, int byte)
{
    uint8_t *buffer = xmalloc(length);
    memset(buffer, byte, length);
    int result = block_write_buffer(edge, offset, buffer, length, 0);
    free(buffer);
    return result;
}

/* Are all these bytes `byte`? */
static inline bool has_pattern(struct edge *edge, uint64_t offset, size_t length, int byte)
{
    uint8_t *buffer = xmalloc(length);
    memset(buffer, ~byte, length);
    bool same = block_read_buffer(edge, offset, buffer, length) == 0;
    for (size_t i = 0; same && i < length; i++)
        same = buffer[i] == (uint8_t)byte;
    free(buffer);
    return same;
}

/* Each test is the main coroutine of a simulated loop, so every run is the same and time costs nothing. */
static inline void run_simulated(int (*fn)(void *arg), uint64_t seed)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_SIMULATED, seed, &err);
    assert_non_null(loop);
    struct graph *graph = graph_new(loop, test_drivers);
    assert_int_equal(loop_run_main(loop, fn, graph), 0);
    loop_run_until_idle(loop);
    graph_free(graph);
    loop_free(loop);
}

#define SIMULATED(fn)                                                                                                  \
    static void fn##_simulated(void **state)                                                                           \
    {                                                                                                                  \
        run_simulated(fn, 1);                                                                                          \
    }

#endif
