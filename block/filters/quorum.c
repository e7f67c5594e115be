/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quorum: a disk of which each child has a copy. Writes go to all of them, and succeed where at least `vote-threshold`
 * children do. A read asks all of them and takes what most say, if that are at least as many as the threshold (read
 * pattern "quorum"), or takes the answer of the first child that has one ("fifo").
 *
 *        guest  --->  quorum  ---+---> children.0     1 1 1
 *                                +---> children.1     1 9 1   <- outvoted: QUORUM_REPORT_BAD, and rewritten if asked
 * for
 *                                +---> children.2     1 1 1
 *
 * Children vote by content, byte for byte, on each request as a whole; among equals the version that was met last wins,
 * as with the peer. A child that fails has no vote. Every failure and every child that is outvoted is an event; a
 * request that finds no quorum is one, too, and fails.
 *
 * Discards end here: what is left behind by one is not the same in every child. Neither can the disk change its size. A
 * child that has missed a write keeps its vote until somebody takes it away (x-blockdev-change): repairing children is
 * the business of who adds them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "block/filters/copies.h"
#include "block/internal.h"
#include "qmp/schema/types.h"

#define MOST_CHILDREN 64

struct quorum {
    struct copies copies;
    size_t threshold;
    size_t next_index; /* of a child that is added */
    bool fifo, rewrite, verify;
};

static struct quorum *quorum_of(const struct node *node)
{
    return node->state;
}

/* Events ---------------------------------------------------------------------------------------------------------- */

static void report_bad(const struct round *round, const struct turn *turn, int result)
{
    const struct graph_events *events = &round->node->graph->events;
    enum quorum_op_type type = round->kind == ROUND_FLUSH                                ? QUORUM_OP_TYPE_FLUSH
                               : round->kind == ROUND_WRITE || round->kind == ROUND_ZERO ? QUORUM_OP_TYPE_WRITE
                                                                                         : QUORUM_OP_TYPE_READ;
    if (events->quorum_bad)
        events->quorum_bad(events->user, turn->edge->child, type, result, round->offset, round->length);
}

static void report_failures(const struct round *round)
{
    for (size_t i = 0; i < round->count; i++) {
        if (round->turns[i].result < 0)
            report_bad(round, &round->turns[i], round->turns[i].result);
    }
}

static int no_quorum(const struct round *round, int result)
{
    const struct graph_events *events = &round->node->graph->events;
    if (events->quorum_failure && round->kind != ROUND_FLUSH) /* that has no place on the disk */
        events->quorum_failure(events->user, round->node, round->offset, round->length);
    return result;
}

/* Votes ----------------------------------------------------------------------------------------------------------- */

/* The ballot of a round: who says the same as whom. versions[i] is the first turn that says what turn i says; turns
 * that do not vote are at `count`. */
struct ballot {
    size_t *versions, *votes; /* count entries each; votes[v] of version v */
    size_t winner;            /* version; `count` when nobody has voted */
};

static bool ballot_init(struct ballot *ballot, size_t count)
{
    *ballot = (struct ballot){.versions = try_calloc(2 * count, sizeof(size_t)), .winner = count};
    if (!ballot->versions)
        return false;
    ballot->votes = ballot->versions + count;
    return true;
}

static void ballot_count(struct ballot *ballot, const struct round *round,
                         bool (*same)(const struct turn *one, const struct turn *other),
                         bool (*votes)(const struct turn *turn))
{
    for (size_t i = 0; i < round->count; i++) {
        size_t version = i;
        ballot->versions[i] = round->count;
        if (!votes(&round->turns[i]))
            continue;
        for (size_t j = 0; j < i && version == i; j++) {
            if (ballot->versions[j] == j && same(&round->turns[j], &round->turns[i]))
                version = j;
        }
        ballot->versions[i] = version;
        ballot->votes[version]++;
    }
    for (size_t v = 0; v < round->count; v++) {
        if (ballot->votes[v] && (ballot->winner == round->count || ballot->votes[v] >= ballot->votes[ballot->winner]))
            ballot->winner = v;
    }
}

static bool says_same(const struct turn *one, const struct turn *other)
{
    uint64_t where;
    return turns_agree(one, other, &where);
}

static bool fails_same(const struct turn *one, const struct turn *other)
{
    return one->result == other->result;
}

static bool has_failed(const struct turn *turn)
{
    return turn->result < 0;
}

static bool has_answer(const struct turn *turn)
{
    return turn->result >= 0;
}

/* Too few children have succeeded: the error is the one that most of the others had. */
static int failure_of(const struct round *round)
{
    struct ballot ballot;
    if (!ballot_init(&ballot, round->count))
        return -ENOMEM;
    ballot_count(&ballot, round, fails_same, has_failed);
    int result = ballot.winner < round->count ? round->turns[ballot.winner].result : -EIO;
    free(ballot.versions);
    return result;
}

/* Of a round without content: as many as the threshold must have succeeded. */
static int count_successes(const struct round *round)
{
    size_t successes = 0;
    for (size_t i = 0; i < round->count; i++)
        successes += round->turns[i].result >= 0;
    if (successes == round->count)
        return 0;
    report_failures(round);
    return successes >= quorum_of(round->node)->threshold ? 0 : no_quorum(round, failure_of(round));
}

/* Reading --------------------------------------------------------------------------------------------------------- */

/* Who was outvoted is told of and, when asked for, gets what it should have had. The round still holds off writes. */
static void correct(const struct round *round, const struct ballot *ballot)
{
    const struct turn *winner = &round->turns[ballot->winner];
    for (size_t i = 0; i < round->count; i++) {
        const struct turn *turn = &round->turns[i];
        if (turn->result < 0 || ballot->versions[i] == ballot->winner)
            continue;
        report_bad(round, turn, 0);
        if (quorum_of(round->node)->rewrite && !turn->edge->child->read_only)
            (void)block_write_buffer(turn->edge, round->offset, winner->buffer, round->length,
                                     0); /* it has been told */
    }
}

static int find_winner(const struct round *round, const struct turn **winner)
{
    struct ballot ballot;
    if (!ballot_init(&ballot, round->count))
        return -ENOMEM;
    ballot_count(&ballot, round, says_same, has_answer);
    int result = 0;
    if (ballot.votes[ballot.winner] < quorum_of(round->node)->threshold) {
        result = no_quorum(round, -EIO);
    } else {
        *winner = &round->turns[ballot.winner];
        correct(round, &ballot);
    }
    free(ballot.versions);
    return result;
}

/* Two children, for tests of one of them. */
static int verify(const struct round *round)
{
    uint64_t where;
    if (turns_agree(&round->turns[0], &round->turns[1], &where))
        return 0;
    fprintf(stderr, "quorum: offset=%" PRIu64 " bytes=%" PRIu64 " contents mismatch at offset %" PRIu64 "\n",
            round->offset, round->length, where);
    return -EIO;
}

static int vote_read(struct round *round, struct buffers to)
{
    const struct quorum *quorum = quorum_of(round->node);
    int result = count_successes(round);
    const struct turn *winner = &round->turns[0];
    if (!result && quorum->verify)
        result = verify(round);
    else if (!result)
        result = find_winner(round, &winner);
    if (!result)
        iov_from_buffer(to.iov, (int)to.count, to.skip, winner->buffer, round->length);
    return result;
}

static int read_first(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct round round = {.node = node, .kind = ROUND_READ, .offset = offset, .length = length};
    int result = -EIO;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        result = block_read(edge, offset, length, to, flags);
        if (result >= 0)
            return result;
        report_bad(&round, &(struct turn){.edge = edge}, result);
    }
    return result;
}

static int run_and_count(struct round *round)
{
    int result = round_run(&quorum_of(round->node)->copies, round);
    if (result)
        return result;
    result = count_successes(round);
    round_end(round);
    return result;
}

static int quorum_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct quorum *quorum = quorum_of(node);
    if (quorum->fifo)
        return read_first(node, offset, length, to, flags);
    struct round round = {.node = node, .kind = ROUND_READ, .offset = offset, .length = length, .flags = flags};
    if (flags & REQUEST_PREFETCH) {
        round.kind = ROUND_PREFETCH;
        return run_and_count(&round);
    }
    int result = round_run(&quorum->copies, &round);
    if (result)
        return result;
    result = vote_read(&round, to);
    round_end(&round);
    return result;
}

/* Writing --------------------------------------------------------------------------------------------------------- */

static int quorum_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct round round = {
        .node = node, .kind = ROUND_WRITE, .offset = offset, .length = length, .from = from, .flags = flags};
    return run_and_count(&round);
}

static int quorum_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct round round = {.node = node, .kind = ROUND_ZERO, .offset = offset, .length = length, .flags = flags};
    return run_and_count(&round);
}

static int quorum_flush(struct node *node)
{
    struct round round = {.node = node, .kind = ROUND_FLUSH};
    return run_and_count(&round);
}

/* Block status: a span is zero when those that say so decide every vote on it. */
static int quorum_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    const struct quorum *quorum = quorum_of(node);
    size_t zeroes = 0, others = 0;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        struct block_status status;
        int result = block_status(edge, offset, length, BLOCK_STATUS_PRECISE, &status);
        bool is_zero = result >= 0 && status.zero;
        zeroes += is_zero;
        others += !is_zero;
        if (result >= 0)
            length = status.length;
        if (quorum->fifo && result >= 0)
            break;
    }
    bool is_zero = quorum->fifo ? zeroes && others == 0 : zeroes >= quorum->threshold && zeroes > others;
    *extent = (struct extent){
        .kind = is_zero ? EXTENT_ZERO : EXTENT_DATA, .length = length, .child_offset = offset, .allocated = true};
    return 0;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool check_options(const struct blockdev_options_quorum *options, struct error *err)
{
    if (options->n_children > MOST_CHILDREN || !options->n_children)
        return fail(err, EINVAL, "A quorum has 1 to %d children, not %zu", MOST_CHILDREN, options->n_children);
    if ((uint64_t)options->vote_threshold > options->n_children)
        return fail(err, EINVAL, "vote-threshold %" PRId64 " may not exceed the number of children, which is %zu",
                    options->vote_threshold, options->n_children);
    if (options->blkverify && (options->n_children != 2 || options->vote_threshold != 2))
        return fail(err, EINVAL,
                    "blkverify=on can only be set if there are exactly two children and vote-threshold is 2");
    if (options->blkverify && options->rewrite_corrupted)
        return fail(err, EINVAL, "rewrite-corrupted=on cannot be used with blkverify=on");
    return true;
}

static bool check_size(const struct node *node, const struct node *child, struct error *err)
{
    return child->size == node->size || fail(err, EINVAL,
                                             "The children of quorum '%s' must have the same size: '%s' has %" PRIu64
                                             " bytes, the first one has %" PRIu64,
                                             node->name, child->name, child->size, node->size);
}

static bool open_children(struct node *node, const struct blockdev_options_quorum *options, struct error *err)
{
    for (size_t i = 0; i < options->n_children; i++) {
        auto_free char *role = xasprintf("children.%zu", i);
        const struct edge *edge = copies_open(&quorum_of(node)->copies, node, role, options->children[i], err);
        if (!edge)
            return false;
        if (i == 0)
            node->size = edge->child->size;
        if (!check_size(node, edge->child, err))
            return false;
        node->read_only |= edge->child->read_only;
    }
    return true;
}

static bool quorum_open(struct node *node, struct error *err)
{
    const struct blockdev_options_quorum *options = &node->options->u.quorum;
    struct quorum *quorum = quorum_of(node);
    if (!check_options(options, err))
        return false;
    quorum->threshold = (size_t)options->vote_threshold;
    quorum->next_index = options->n_children;
    quorum->fifo = options->has_read_pattern && options->read_pattern == QUORUM_READ_PATTERN_FIFO;
    quorum->rewrite = options->rewrite_corrupted && !quorum->fifo && !node->options_read_only;
    quorum->verify = options->blkverify && !quorum->fifo;
    copies_init(&quorum->copies, quorum->rewrite ? BLOCK_PERM_WRITE : 0);
    node->write_flags = node->zero_flags = REQUEST_FUA;
    return open_children(node, options, err);
}

static bool quorum_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return copies_check_perm(&quorum_of(node)->copies, node, perm, shared, err);
}

static void quorum_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    copies_set_perm(&quorum_of(node)->copies, node, perm, shared);
}

/* Children that come and go --------------------------------------------------------------------------------------- */

static bool quorum_add_child(struct node *node, struct node *child, struct error *err)
{
    struct quorum *quorum = quorum_of(node);
    if (quorum->verify)
        return fail(err, EINVAL, "Quorum '%s' compares two children (blkverify=on) and cannot have a third",
                    node->name);
    if (copies_count(node) == MOST_CHILDREN)
        return fail(err, EINVAL, "Quorum '%s' has %d children already, which is the limit", node->name, MOST_CHILDREN);
    if (!check_size(node, child, err))
        return false;
    auto_free char *role = xasprintf("children.%zu", quorum->next_index);
    if (!copies_attach(&quorum->copies, node, role, child, err))
        return false;
    quorum->next_index++;
    return true;
}

static bool quorum_remove_child(struct node *node, struct edge *edge, struct error *err)
{
    struct quorum *quorum = quorum_of(node);
    if (copies_count(node) <= quorum->threshold)
        return fail(err, EBUSY, "The number of children of quorum '%s' cannot be lower than its vote-threshold %zu",
                    node->name, quorum->threshold);
    /* Names of children are used again from the end only: a role means one child as long as there are later ones. */
    auto_free char *last = xasprintf("children.%zu", quorum->next_index - 1);
    quorum->next_index -= !strcmp(edge->role, last);
    edge_detach(edge);
    return true;
}

const struct block_driver quorum_driver = {
    .name = "quorum",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct quorum),
    .open = quorum_open,
    .read = quorum_read,
    .write = quorum_write,
    .zero = quorum_zero,
    .flush = quorum_flush,
    .flushes_children = true,
    .extents = quorum_extents,
    .check_perm = quorum_check_perm,
    .set_perm = quorum_set_perm,
    .add_child = quorum_add_child,
    .remove_child = quorum_remove_child,
};
