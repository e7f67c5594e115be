/* SPDX-License-Identifier: Apache-2.0 */
/* The table; operations.h says how to add a row. */
#include "tests/sim/operations.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"

const struct operation operations[] = {
    /* Guests: the data path, and the metadata it changes on its way. */
    {"write", "sectors anywhere: allocation, copy on write, writes in place", BY_GUEST, 30, .run = guest_write},
    {"write-clusters", "whole clusters", BY_GUEST, 12, .run = guest_write_clusters},
    {"write-durable", "forced unit access", BY_GUEST, 6, .run = guest_write_durable},
    {"read", "compared with the model", BY_GUEST, 12, .run = guest_read},
    {"zero", "write zeroes that may deallocate", BY_GUEST, 10, .run = guest_zero},
    {"zero-keep", "write zeroes that must not deallocate", BY_GUEST, 5, .run = guest_zero_keep},
    {"discard", "which may do anything between nothing and zeroes", BY_GUEST, 10, .run = guest_discard},
    {"flush", "from then on, what was answered before is there", BY_GUEST, 10, .run = guest_flush},
    {"break", "the connection is cut in the middle of requests, and made again", BY_GUEST, 1, .run = guest_break},

    /* The operator, while guests write. */
    {"write-compressed", "a compressed cluster", BY_OPERATOR, 6, TRAIT_COMPRESSES, .run = operator_write_compressed},
    {"resize", "larger or smaller", BY_OPERATOR, 4, TRAIT_RESIZES, .run = operator_resize},
    {"allocate", "space in advance, as FUSE's plain fallocate asks for it", BY_OPERATOR, 6, TRAIT_QCOW2,
     TRAIT_EXTERNAL_DATA, .run = operator_allocate},
    {"reopen", "blockdev-reopen with other options", BY_OPERATOR, 3, TRAIT_QCOW2, .run = operator_reopen},
    {"export", "block-export-add and -del beside the one in use", BY_OPERATOR, 3, .run = operator_export},
    {"second-node", "blockdev-add and -del of an image that was just made", BY_OPERATOR, 2,
     .run = operator_second_node},
    {"query", "questions, which change nothing", BY_OPERATOR, 2, .run = operator_query},
    {"backup", "a copy of one moment, to its end or cancelled", BY_OPERATOR, 3, .run = operator_backup},
    {"mirror", "a copy that keeps up, ended or cancelled", BY_OPERATOR, 3, .run = operator_mirror},
    {"bitmap", "a persistent dirty bitmap comes and goes", BY_OPERATOR, 4, TRAIT_QCOW2 | TRAIT_V3,
     .run = operator_bitmap},
    {"check-in-use", "blockdev-check with repair, while guests write, to its end or cancelled", BY_OPERATOR, 5,
     TRAIT_QCOW2, .run = operator_check},

    /* Tools on the closed image. */
    {"check", "without repair", BY_TOOL, 2, TRAIT_QCOW2, .run = tool_check},
    {"repair", "check -r all: leaks of earlier cuts go", BY_TOOL, 4, TRAIT_QCOW2, .run = tool_repair},
    {"tool-resize", "resize of a closed image", BY_TOOL, 3, TRAIT_RESIZES, .run = tool_resize},
    {"tool-compress", "compressed clusters, as convert -c writes them", BY_TOOL, 3, TRAIT_COMPRESSES,
     .run = tool_write_compressed},
    {"tool-snapshot", "internal snapshots are created and deleted", BY_TOOL, 4, TRAIT_V3, TRAIT_EXTERNAL_DATA,
     .run = tool_snapshot},
    {"tool-apply", "a snapshot is taken, the disk changes, and goes back", BY_TOOL, 3, TRAIT_V3, TRAIT_EXTERNAL_DATA,
     .run = tool_apply},
    {"tool-amend", "the width of refcounts and lazy refcounts change", BY_TOOL, 3, TRAIT_V3, .run = tool_amend},
    {"tool-slots", "LUKS passphrases come and go", BY_TOOL, 4, TRAIT_SLOTS, .run = tool_slots,
     .state_size = sizeof(struct slots_state), .examine = tool_slots_examine},
    {"tool-commit", "img commit: into the backing file, and emptied", BY_TOOL, 4, TRAIT_QCOW2 | TRAIT_BACKING,
     .run = tool_commit},
    {"tool-rebase", "img rebase: to another backing file, and back", BY_TOOL, 4, TRAIT_QCOW2 | TRAIT_BACKING,
     .run = tool_rebase},
    {"map", "block status of every byte agrees with what is read", BY_TOOL, 1, .run = tool_map},
    {"create", "a new image, opened and checked", BY_TOOL, 2, .run = tool_create},
    {"convert", "a copy of the disk, flushed and compared", BY_TOOL, 2, .run = tool_convert,
     .state_size = sizeof(struct convert_state), .examine = tool_convert_examine, .end = tool_convert_end},
};
const size_t operation_count = ARRAY_SIZE(operations);

static bool is_possible(const struct world *world, const struct operation *row, enum actor_kind by)
{
    uint32_t traits = world->kind->traits;
    const char *only = world->settings->only_operation;
    if (row->by != by || (row->needs & ~traits) || (row->without & traits))
        return false;
    /* Guests go on writing and flushing beside the one row that is asked for. */
    return !only || !strcmp(row->name, only) || !strcmp(row->name, "write") || !strcmp(row->name, "flush");
}

static const struct operation *draw(struct world *world, enum actor_kind by)
{
    uint64_t total = 0;
    for (size_t i = 0; i < operation_count; i++)
        total += is_possible(world, &operations[i], by) ? operations[i].weight : 0;
    if (!total)
        return NULL;
    uint64_t ticket = world_random(world, total);
    for (size_t i = 0;; i++) {
        uint64_t weight = is_possible(world, &operations[i], by) ? operations[i].weight : 0;
        if (ticket < weight)
            return &operations[i];
        ticket -= weight;
    }
}

bool operation_run(struct world *world, enum actor_kind by, struct port *port)
{
    const struct operation *row = draw(world, by);
    if (!row)
        return false;
    size_t index = (size_t)(row - operations);
    struct actor actor = {world, port, world->state[index]};
    bool done = row->run(&actor);
    if (done)
        world->stats->by_operation[index]++;
    return done;
}

void operations_begin(struct world *world)
{
    world->state = new_array(void *, operation_count);
    for (size_t i = 0; i < operation_count; i++)
        world->state[i] = operations[i].state_size ? xcalloc(1, operations[i].state_size) : NULL;
}

void operations_examine(struct examination *e)
{
    for (size_t i = 0; i < operation_count; i++) {
        if (operations[i].examine)
            operations[i].examine(e, e->world->state[i]);
    }
}

void operations_settle(struct world *world)
{
    for (size_t i = 0; i < operation_count; i++) {
        if (operations[i].settle)
            operations[i].settle(world, world->state[i]);
    }
}

void operations_end(struct world *world)
{
    for (size_t i = 0; i < operation_count; i++) {
        if (operations[i].end)
            operations[i].end(world->state[i]);
        free(world->state[i]);
    }
    free(world->state);
}
