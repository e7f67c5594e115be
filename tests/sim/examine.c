/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The examination after a cut. The image must open for writing, as the next daemon will open it; the check must find no
 * corruption (leaks are allowed); the size and every sector must be possible (model.h); and each row of the table looks
 * after what it has made. A thorough one repairs the leaks, looks again, writes, and leaves an image that is clean.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "tests/sim/operations.h"

static bool has_check(const struct examination *e)
{
    return e->edge->child->driver->check;
}

static struct image_check check(struct examination *e, uint32_t repair, const char *when)
{
    struct image_check result = {0};
    auto_error err = {0};
    int status = e->edge->child->driver->check(e->edge->child, repair, &result, &err);
    if (status)
        examine_fail(e, "%s: the check fails: %s", when, err.message ? err.message : strerror(-status));
    if (result.corruptions || result.check_errors)
        examine_fail(e, "%s: the check finds %" PRId64 " corruptions, %" PRId64 " errors", when, result.corruptions,
                     result.check_errors);
    return result;
}

static void open_image(struct examination *e)
{
    auto_error err = {0};
    auto_free char *options = world_image_options(e->world, NULL);
    struct node *node = world_open(e->graph, &err, "%s", options);
    if (!node)
        examine_fail(e, "the image does not open: %s", err.message);
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE;
    e->edge = edge_attach(NULL, "examination", node, perm, BLOCK_PERM_ALL, &err);
    node_unref(node);
    if (!e->edge)
        examine_fail(e, "the image cannot be written: %s", err.message);
}

static void close_image(struct examination *e)
{
    edge_detach(TAKE(e->edge));
}

static void read_all(struct examination *e, uint8_t *bytes, uint64_t size)
{
    int result = block_read_buffer(e->edge, 0, bytes, size);
    if (result)
        examine_fail(e, "reading fails: %s", strerror(-result));
}

static void compare(struct examination *e, const uint8_t *bytes, uint64_t size)
{
    const struct model *model = e->world->model;
    if (!model_size_is_possible(model, size) || size > model_max_size(model))
        examine_fail(e, "the disk has %" PRIu64 " bytes, which it never had", size);
    bool answered = e->flags & EXAMINE_KILLED && e->world->kind->traits & TRAIT_KEEPS && !e->world->faulty;
    uint64_t wrong = answered ? model_examine_answered(model, bytes, 0, size) : model_examine(model, bytes, 0, size);
    if (wrong == UINT64_MAX)
        return;
    auto_free char *text = model_describe(model, wrong, bytes + wrong);
    examine_fail(e, "%s", text);
}

/* The image serves on: leaks can be repaired, it can be written, and is right afterwards. */
static void use_again(struct examination *e, uint8_t *bytes, uint64_t size)
{
    if (has_check(e) && check(e, CHECK_REPAIR_LEAKS, "repairing leaks").leaks)
        examine_fail(e, "leaks are left after their repair");
    uint64_t at = e->lot % (size / SECTOR) * SECTOR, length = MIN(16 * SECTOR, size - at);
    model_fill(bytes + at, at, length, UINT32_MAX);
    int result = block_write_buffer(e->edge, at, bytes + at, length, 0);
    result = result ? result : block_flush(e->edge);
    if (result)
        examine_fail(e, "the image cannot be written any more: %s", strerror(-result));
    close_image(e);
    open_image(e);
    auto_free uint8_t *again = xmalloc(size);
    read_all(e, again, size);
    if (memcmp(again, bytes, size))
        examine_fail(e, "something else is read after writing on");
    struct image_check result_check = has_check(e) ? check(e, 0, "after writing on") : (struct image_check){0};
    if (result_check.leaks)
        examine_fail(e, "writing on leaks %" PRId64 " clusters", result_check.leaks);
}

static int examine_main(void *arg)
{
    struct examination *e = (struct examination *)arg;
    e->graph = world_graph(e->loop);
    open_image(e);
    if (has_check(e))
        check(e, 0, "at first");
    uint64_t size = e->edge->child->size;
    auto_free uint8_t *bytes = xmalloc(size);
    read_all(e, bytes, size);
    compare(e, bytes, size);
    operations_examine(e);
    if (e->flags & EXAMINE_SETTLE)
        model_settle(e->world->model, bytes, size);
    if (e->flags & EXAMINE_OBSERVE)
        e->good = model_observe(e->world->model, bytes, size);
    if (e->flags & EXAMINE_THOROUGHLY)
        use_again(e, bytes, size);
    close_image(e);
    world_graph_free(e->graph);
    return 0;
}

bool examine(struct world *world, const char *cut, uint64_t lot, unsigned flags)
{
    struct examination e = {
        .world = world, .loop = world->second, .cut = cut, .lot = lot, .flags = flags, .good = true};
    loop_run_main(world->second, examine_main, &e);
    return e.good;
}
