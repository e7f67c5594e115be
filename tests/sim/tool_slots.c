/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What spindle-img amend does with the key slots of an image that is encrypted by LUKS, qcow2 or bare. The passphrase
 * that every examination opens the image with stays; another one comes and goes, and from its answer on it must open
 * the image, or must not, whatever happens to the power. What is under way may be done or not.
 */
#include <errno.h>
#include "base/cleanup.h"
#include "base/math.h"
#include "qmp/schema/types.h"
#include "tests/sim/operations.h"

static struct node *open_with(struct graph *graph, const struct world *world, const char *secret, bool read_only,
                              struct error *err)
{
    bool is_qcow2 = world->kind->traits & TRAIT_QCOW2;
    const char *mode = read_only ? "'read-only': true, 'force-share': true, " : "";
    return world_open(
        graph, err, "{'driver': '%s', %s%s'key-secret': '%s'%s, 'file': {'driver': 'file', %s'filename': '" IMAGE "'}}",
        is_qcow2 ? "qcow2" : "luks", mode, is_qcow2 ? "'encrypt': {" : "", secret, is_qcow2 ? "}" : "", mode);
}

static void no_progress(void *user, uint64_t done, uint64_t total)
{
}

static bool change_slots(const struct world *world, struct node *node, bool adds, struct error *err)
{
    char other[] = "other";
    struct luks_amend_options bare = {.state = adds ? LUKS_SLOT_STATE_ACTIVE : LUKS_SLOT_STATE_INACTIVE,
                                      .new_secret = adds ? other : NULL,
                                      .old_secret = adds ? NULL : other,
                                      .has_iter_time = adds,
                                      .iter_time = 1};
    struct qcow2_encryption_amend_options inner = {.state = bare.state,
                                                   .new_secret = bare.new_secret,
                                                   .old_secret = bare.old_secret,
                                                   .has_iter_time = adds,
                                                   .iter_time = 1};
    struct qcow2_amend_options outer = {.encrypt = &inner};
    void *options = world->kind->traits & TRAIT_QCOW2 ? (void *)&outer : &bare;
    node_drain_begin(node);
    bool good = node->driver->amend->amend(node, options, false, no_progress, NULL, err);
    node_drain_end(node);
    return good;
}

bool tool_slots(struct actor *actor)
{
    struct world *world = actor->world;
    struct slots_state *state = (struct slots_state *)actor->state;
    auto_error err = {0};
    struct node *node = open_with(world->tool, world, "key", false, &err);
    struct edge *edge =
        node ? edge_attach(NULL, "tool", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE, BLOCK_PERM_ALL, &err)
             : NULL;
    if (node)
        node_unref(node);
    if (!edge) {
        world_expect(world, false, &err, "opening the image");
        return true;
    }
    if (!state->is_used)
        state->other = OTHER_CLOSED;
    state->is_used = true;
    bool adds = state->other == OTHER_CLOSED || (state->other == OTHER_OPENS && world_random(world, 3) == 0);
    world_trace(world, "tool %s a passphrase", adds ? "adds" : "erases");
    int before = (int)state->other;
    state->other = adds && before == OTHER_OPENS ? OTHER_OPENS : OTHER_UNKNOWN;
    bool good = change_slots(world, edge->child, adds, &err);
    bool is_full = adds && err.code == ENOSPC && before == OTHER_OPENS;
    bool is_gone = !adds && err.code == EPERM && before == OTHER_UNKNOWN;
    if (!is_full && !is_gone)
        world_expect(world, good, &err, "a change of key slots");
    if ((good || is_gone) && !world->is_cut)
        state->other = adds ? OTHER_OPENS : OTHER_CLOSED;
    edge_detach(edge);
    return true;
}

void tool_slots_examine(struct examination *e, void *state)
{
    const struct slots_state *slots = (const struct slots_state *)state;
    auto_error err = {0};
    if (!slots->is_used || slots->other == OTHER_UNKNOWN)
        return;
    struct node *node = open_with(e->graph, e->world, "other", true, &err);
    if (!node != (slots->other == OTHER_CLOSED))
        examine_fail(e, "a passphrase that was %s image%s%s", node ? "erased opens the" : "added does not open the",
                     node ? "" : ": ", node ? "" : err.message);
    if (node)
        node_unref(node);
}
