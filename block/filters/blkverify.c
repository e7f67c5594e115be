/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blkverify: tests of a driver against one that is known to be right. Everything goes to both children, `test` and
 * `raw`, which began with the same content. Where the two do not end in the same way, or do not read the same bytes, a
 * line on standard error says where, and the request fails: who reads wrong data must not go on with it.
 *
 * As a name: blkverify:RAW:TEST, where RAW is a file, and TEST an image whose format is probed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "block/filters/copies.h"
#include "block/name.h"
#include "qmp/schema/types.h"

enum { TEST, RAW }; /* turns of a round: the children in this order */

struct verify {
    struct copies copies;
};

static struct verify *verify_of(const struct node *node)
{
    return node->state;
}

/* What both did. */
static int result_of(const struct round *round)
{
    static const char *const names[] = {
        [ROUND_READ] = "read", [ROUND_PREFETCH] = "read", [ROUND_WRITE] = "write", [ROUND_ZERO] = "write"};
    int test = round->turns[TEST].result, raw = round->turns[RAW].result;
    if ((test < 0) == (raw < 0))
        return test < 0 ? test : 0;
    fprintf(stderr, "blkverify: %s offset=%" PRIu64 " bytes=%" PRIu64 " return value mismatch %d != %d\n",
            names[round->kind], round->offset, round->length, test, raw);
    return -EIO;
}

static int verify_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    enum round_kind kind = flags & REQUEST_PREFETCH ? ROUND_PREFETCH : ROUND_READ;
    struct round round = {.node = node, .kind = kind, .offset = offset, .length = length, .flags = flags};
    int result = round_run(&verify_of(node)->copies, &round);
    if (result)
        return result;
    result = result_of(&round);
    uint64_t where;
    if (!result && kind == ROUND_READ && !turns_agree(&round.turns[TEST], &round.turns[RAW], &where)) {
        fprintf(stderr,
                "blkverify: read offset=%" PRIu64 " bytes=%" PRIu64 " contents mismatch at offset %" PRIu64 "\n",
                offset, length, where);
        result = -EIO;
    }
    if (!result && kind == ROUND_READ)
        iov_from_buffer(to.iov, (int)to.count, to.skip, round.turns[TEST].buffer, length);
    round_end(&round);
    return result;
}

static int change(struct round *round)
{
    int result = round_run(&verify_of(round->node)->copies, round);
    if (result)
        return result;
    result = result_of(round);
    round_end(round);
    return result;
}

static int verify_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct round round = {
        .node = node, .kind = ROUND_WRITE, .offset = offset, .length = length, .from = from, .flags = flags};
    return change(&round);
}

static int verify_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct round round = {.node = node, .kind = ROUND_ZERO, .offset = offset, .length = length, .flags = flags};
    return change(&round);
}

/* Nobody needs the other one after a crash. */
static int verify_flush(struct node *node)
{
    return block_flush(list_first(&node->children, struct edge, parent_link));
}

static int verify_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    *extent = (struct extent){.kind = EXTENT_DATA,
                              .length = length,
                              .child = list_first(&node->children, struct edge, parent_link),
                              .child_offset = offset,
                              .allocated = true,
                              .follow = true};
    return 0;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool verify_open(struct node *node, struct error *err)
{
    const struct blockdev_options_blkverify *options = &node->options->u.blkverify;
    struct copies *copies = &verify_of(node)->copies;
    copies_init(copies, 0);
    const struct edge *test = copies_open(copies, node, "test", options->test, err);
    const struct edge *raw = test ? copies_open(copies, node, "raw", options->raw, err) : NULL;
    if (!raw)
        return false;
    node->size = test->child->size;
    node->read_only = node->options_read_only || test->child->read_only || raw->child->read_only;
    node->write_flags = node->zero_flags = REQUEST_FUA;
    return raw->child->size >= node->size ||
           fail(err, EINVAL, "'%s' has %" PRIu64 " bytes, and cannot be compared with the %" PRIu64 " bytes of '%s'",
                raw->child->name, raw->child->size, node->size, test->child->name);
}

static void refer_to(struct blockdev_ref **ref, const struct node *node)
{
    *ref = blockdev_ref_new();
    (*ref)->kind = BLOCKDEV_REF_KIND_REFERENCE;
    (*ref)->u.reference = xstrdup(node->name);
}

static bool verify_open_parts(struct graph *graph, const char *name, const struct open_mode *mode,
                              struct blockdev_options *options, struct node *parts[2], struct error *err)
{
    const char *raw = strchr(name, ':') + 1, *test = strchr(raw, ':');
    if (!test)
        return fail(err, EINVAL, "blkverify requires a raw copy and an image: blkverify:RAW:TEST");
    struct open_mode below = *mode;
    below.node_name = NULL;
    auto_free char *raw_name = xasprintf("%.*s", (int)(test - raw), raw);
    parts[RAW] = node_open_protocol(graph, raw_name, &below, err);
    parts[TEST] = parts[RAW] ? node_open_filename(graph, test + 1, NULL, &below, err) : NULL;
    if (!parts[TEST])
        return false;
    options->driver = BLOCKDEV_DRIVER_BLKVERIFY;
    refer_to(&options->u.blkverify.test, parts[TEST]);
    refer_to(&options->u.blkverify.raw, parts[RAW]);
    return true;
}

static bool verify_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return copies_check_perm(&verify_of(node)->copies, node, perm, shared, err);
}

static void verify_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    copies_set_perm(&verify_of(node)->copies, node, perm, shared);
}

static const char *const prefixes[] = {"blkverify", NULL};

const struct block_driver blkverify_driver = {
    .name = "blkverify",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct verify),
    .open = verify_open,
    .prefixes = prefixes,
    .open_parts = verify_open_parts,
    .read = verify_read,
    .write = verify_write,
    .zero = verify_zero,
    .flush = verify_flush,
    .flushes_children = true,
    .extents = verify_extents,
    .check_perm = verify_check_perm,
    .set_perm = verify_set_perm,
};
