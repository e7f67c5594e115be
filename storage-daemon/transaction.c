/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions: all actions or none, at a moment when no request is in flight. */
#include "storage-daemon/action.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/vec.h"
#include "block/job.h"
#include "block/node.h"
#include "qmp/schema/commands.h"

struct node *daemon_find_node(struct daemon *daemon, const char *name, struct error *err)
{
    struct node *node = graph_find(daemon->graph, name);
    return node ? node : fail_null(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", name, name);
}

static bool abort_prepare(struct action *action, struct error *err)
{
    return fail(err, ECANCELED, "Transaction aborted using Abort action");
}

const struct action_type action_abort = {.prepare = abort_prepare};

/* Drain ----------------------------------------------------------------------------------------------------------- */

vec_of(drained_nodes, struct node *);

/* One drain for each connected part of the graph. */
static void drain_all(struct graph *graph, struct drained_nodes *drained)
{
    for (struct node *node = graph_next(graph, NULL); node;) {
        if (node->quiesced) {
            node = graph_next(graph, node);
            continue;
        }
        vec_push(drained, node);
        node_drain_begin(node);
        node = graph_next(graph, NULL); /* it yielded: the list may have changed */
    }
}

static void end_drains(struct drained_nodes *drained)
{
    struct node **node;
    vec_for_each (node, drained)
        node_drain_end(*node);
    vec_free(drained);
}

/* Actions --------------------------------------------------------------------------------------------------------- */

static bool run(struct action *actions, size_t count, struct error *err)
{
    size_t prepared = 0;
    bool ok = true;
    while (ok && prepared < count) {
        struct action *action = &actions[prepared];
        action->state = xcalloc(1, action->type->state_size ? action->type->state_size : 1);
        ok = action->type->prepare(action, err);
        prepared += ok;
    }
    for (size_t i = 0; ok && i < count; i++) {
        if (actions[i].type->commit)
            actions[i].type->commit(&actions[i]);
    }
    for (size_t i = prepared; !ok && i > 0; i--) {
        if (actions[i - 1].type->abort)
            actions[i - 1].type->abort(&actions[i - 1]);
    }
    for (size_t i = 0; i < count; i++) {
        if (actions[i].state && actions[i].type->clean)
            actions[i].type->clean(&actions[i]);
        free(actions[i].state);
    }
    return ok;
}

static bool run_drained(struct daemon *daemon, struct action *actions, size_t count, struct error *err)
{
    struct drained_nodes drained = {0};
    drain_all(daemon->graph, &drained);
    bool ok = run(actions, count, err);
    end_drains(&drained);
    return ok;
}

bool action_run(struct daemon *daemon, const struct action_type *type, const void *data, struct error *err)
{
    struct action action = {.type = type, .daemon = daemon, .data = data};
    return run_drained(daemon, &action, 1, err);
}

/* The command ----------------------------------------------------------------------------------------------------- */

static const struct action_type *const types[] = {
    [TRANSACTION_ACTION_KIND_ABORT] = &action_abort,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD] = &action_bitmap_add,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE] = &action_bitmap_remove,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR] = &action_bitmap_clear,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE] = &action_bitmap_enable,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE] = &action_bitmap_disable,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE] = &action_bitmap_merge,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_BACKUP] = &action_backup,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT] = &action_snapshot,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_INTERNAL_SYNC] = &action_snapshot_internal,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_SYNC] = &action_snapshot_sync,
    [TRANSACTION_ACTION_KIND_DRIVE_BACKUP] = &action_drive_backup,
};

/* The branches of the union all have one member, a pointer. */
static const void *data_of(const struct transaction_action *action)
{
    return *(const void *const *)&action->u;
}

bool qmp_transaction(struct qmp_context *context, struct q_transaction_arg *arg, struct error *err)
{
    bool is_grouped = arg->properties && arg->properties->completion_mode == ACTION_COMPLETION_MODE_GROUPED;
    struct job_transaction *jobs = is_grouped ? job_transaction_new() : NULL;
    auto_free struct action *actions = new_array(struct action, arg->n_actions + 1);
    for (size_t i = 0; i < arg->n_actions; i++)
        actions[i] = (struct action){.type = types[arg->actions[i]->type],
                                     .daemon = context->app,
                                     .data = data_of(arg->actions[i]),
                                     .jobs = jobs};
    bool ok = run_drained(context->app, actions, arg->n_actions, err);
    job_transaction_unref(jobs);
    return ok;
}
