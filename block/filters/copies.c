/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filters/copies.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"

void copies_init(struct copies *copies, uint32_t more)
{
    copies->more = more;
    list_init(&copies->changes);
    list_init(&copies->comparisons);
    copies->shared = BLOCK_PERM_ALL;
}

size_t copies_count(const struct node *node)
{
    size_t count = 0;
    const struct edge *edge;
    list_for_each (edge, &node->children, parent_link)
        count++;
    return count;
}

/* Rounds ---------------------------------------------------------------------------------------------------------- */

static int take_turn(const struct round *round, struct turn *turn)
{
    struct iovec iov = {turn->buffer, round->length};
    switch (round->kind) {
    case ROUND_READ: return block_read(turn->edge, round->offset, round->length, buffers_of(&iov, 1), round->flags);
    case ROUND_PREFETCH: return block_read(turn->edge, round->offset, round->length, (struct buffers){0}, round->flags);
    case ROUND_WRITE: return block_write(turn->edge, round->offset, round->length, round->from, round->flags);
    case ROUND_ZERO: return block_zero(turn->edge, round->offset, round->length, round->flags);
    case ROUND_FLUSH: return block_flush(turn->edge);
    }
    return -EINVAL;
}

static void run_turn(void *arg)
{
    struct turn *turn = arg;
    turn->result = take_turn(turn->round, turn);
}

static bool is_change(const struct round *round)
{
    return round->kind == ROUND_WRITE || round->kind == ROUND_ZERO;
}

/* Waiting for one list lets time pass in which the other may have filled. */
static void hold_off_others(struct copies *copies, struct round *round)
{
    bool waited;
    do {
        waited = ranges_wait(&copies->changes, round->offset, round->length);
        if (is_change(round))
            waited |= ranges_wait(&copies->comparisons, round->offset, round->length);
    } while (waited);
    range_begin(is_change(round) ? &copies->changes : &copies->comparisons, &round->range, round->offset,
                round->length);
}

static bool prepare(struct round *round)
{
    round->count = copies_count(round->node);
    round->turns = try_calloc(round->count, sizeof *round->turns);
    if (!round->turns)
        return false;
    struct turn *turn = round->turns;
    struct edge *edge;
    list_for_each (edge, &round->node->children, parent_link) {
        *turn = (struct turn){.round = round, .edge = edge};
        if (round->kind == ROUND_READ && !(turn->buffer = block_alloc_buffer(edge, round->length)))
            return false;
        turn++;
    }
    return true;
}

static void free_turns(struct round *round)
{
    for (size_t i = 0; round->turns && i < round->count; i++)
        free(round->turns[i].buffer);
    free(round->turns);
}

int round_run(struct copies *copies, struct round *round)
{
    if (!prepare(round)) {
        free_turns(round);
        return -ENOMEM;
    }
    list_init(&round->range.link);
    if (is_change(round) || round->kind == ROUND_READ)
        hold_off_others(copies, round);
    struct co_group group;
    co_group_init(&group);
    for (size_t i = 1; i < round->count; i++)
        co_spawn(round->node->loop, &group, run_turn, &round->turns[i]);
    run_turn(&round->turns[0]);
    co_group_wait(&group);
    return 0;
}

void round_end(struct round *round)
{
    if (list_linked(&round->range.link))
        range_end(&round->range);
    free_turns(round);
}

bool turns_agree(const struct turn *one, const struct turn *other, uint64_t *where)
{
    uint64_t length = one->round->length;
    if (!memcmp(one->buffer, other->buffer, length))
        return true;
    *where = one->round->offset;
    for (uint64_t i = 0; one->buffer[i] == other->buffer[i]; i++)
        ++*where;
    return false;
}

/* Permissions ----------------------------------------------------------------------------------------------------- */

static void needs_of_children(const struct copies *copies, const struct node *node, uint32_t *perm, uint32_t *shared)
{
    *perm |= copies->more;
    if (!node->force_share)
        *shared &= ~(uint32_t)(BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
}

bool copies_check_perm(struct copies *copies, struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    needs_of_children(copies, node, &perm, &shared);
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        if (!edge_check_perm(edge, perm, shared, err)) {
            copies_set_perm(copies, node, copies->perm, copies->shared);
            return false;
        }
    }
    return true;
}

void copies_set_perm(struct copies *copies, struct node *node, uint32_t perm, uint32_t shared)
{
    copies->perm = perm;
    copies->shared = shared;
    needs_of_children(copies, node, &perm, &shared);
    bool read_only = node->options_read_only;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        edge_apply_perm(edge, perm, shared);
        read_only |= edge->child->read_only;
    }
    node->read_only = read_only;
}

struct edge *copies_attach(struct copies *copies, struct node *node, const char *role, struct node *child,
                           struct error *err)
{
    uint32_t perm = copies->perm, shared = copies->shared;
    needs_of_children(copies, node, &perm, &shared);
    return edge_attach(node, role, child, perm, shared, err);
}

struct edge *copies_open(struct copies *copies, struct node *node, const char *role, const struct blockdev_ref *ref,
                         struct error *err)
{
    uint32_t perm = copies->perm, shared = copies->shared;
    needs_of_children(copies, node, &perm, &shared);
    return node_open_child(node, role, ref, perm, shared, err);
}
