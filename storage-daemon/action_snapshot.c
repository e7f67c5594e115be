/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots as actions: overlays that take the place of a node, and snapshots inside an image. An overlay is put in
 * place when it is prepared, and taken out again when the transaction fails; so is an internal snapshot.
 */
#include "storage-daemon/action.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/job.h"
#include "block/node.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/new_image.h"

/* Overlays -------------------------------------------------------------------------------------------------------- */

struct snapshot_state {
    struct node *node, *overlay;
    bool is_ours; /* the overlay's node was made by the command */
    bool has_backing, in_place;
};

static bool check_overlay(const struct node *overlay, struct error *err)
{
    if (!overlay->driver->change_backing)
        return fail(err, ENOTSUP, "The overlay '%s' does not support backing images: its format is '%s'", overlay->name,
                    overlay->driver->name);
    if (overlay->backing)
        return fail(err, EBUSY, "The overlay '%s' already has a backing image", overlay->name);
    if (!list_empty(&overlay->parents))
        return fail(err, EBUSY, "The overlay '%s' is already in use", overlay->name);
    return true;
}

static bool put_in_place(struct snapshot_state *state, struct error *err)
{
    if (!check_overlay(state->overlay, err) || !job_check_unclaimed(state->node, err))
        return false;
    if (node_is_below(state->node, state->overlay))
        return fail(err, ELOOP, "Making '%s' a backing child of '%s' would create a cycle", state->node->name,
                    state->overlay->name);
    if (!node_set_backing(state->overlay, state->node, err))
        return false;
    state->has_backing = true;
    if (!node_replace(state->node, state->overlay, err))
        return false;
    return state->in_place = true;
}

static void take_out(struct action *action)
{
    struct snapshot_state *state = action->state;
    auto_error err = {0};
    if (state->in_place && !node_replace(state->overlay, state->node, &err))
        log_error("%s", err.message);
    else if (state->has_backing)
        node_set_backing(state->overlay, NULL, NULL);
    state->in_place = state->has_backing = false;
}

static bool snapshot_prepare(struct action *action, struct error *err)
{
    struct snapshot_state *state = action->state;
    const struct blockdev_snapshot *arg = action->data;
    state->node = daemon_find_node(action->daemon, arg->node, err);
    state->overlay = state->node ? daemon_find_node(action->daemon, arg->overlay, err) : NULL;
    if (!state->overlay)
        return false;
    if (put_in_place(state, err))
        return true;
    take_out(action);
    return false;
}

const struct action_type action_snapshot = {
    .state_size = sizeof(struct snapshot_state), .prepare = snapshot_prepare, .abort = take_out};

static bool open_overlay(struct snapshot_state *state, const struct blockdev_snapshot_sync *arg, struct error *err)
{
    const struct new_image image = {
        .filename = arg->snapshot_file,
        .format = arg->format,
        .node_name = arg->snapshot_node_name,
        .like = state->node,
        .exists = arg->mode == NEW_IMAGE_MODE_EXISTING,
        .is_overlay = true,
    };
    state->overlay = new_image_open(&image, err);
    return state->overlay != NULL;
}

static bool sync_prepare(struct action *action, struct error *err)
{
    struct snapshot_state *state = action->state;
    const struct blockdev_snapshot_sync *arg = action->data;
    if (!arg->device == !arg->node_name)
        return fail(err, EINVAL, "Need exactly one of 'device' and 'node-name'");
    if (arg->node_name && !arg->snapshot_node_name)
        return fail(err, EINVAL, "New overlay node-name missing");
    state->node = daemon_find_node(action->daemon, arg->device ? arg->device : arg->node_name, err);
    if (!state->node || !open_overlay(state, arg, err))
        return false;
    if (put_in_place(state, err))
        return true;
    take_out(action);
    return false;
}

/* Those who used the node have references now. A name that the user gave is his to delete. */
static void sync_commit(struct action *action)
{
    struct snapshot_state *state = action->state;
    const struct blockdev_snapshot_sync *arg = action->data;
    if (arg->snapshot_node_name) {
        node_ref(state->overlay);
        state->overlay->monitor_owned = true;
    }
}

static void sync_clean(struct action *action)
{
    struct snapshot_state *state = action->state;
    if (state->overlay)
        node_unref(state->overlay);
}

const struct action_type action_snapshot_sync = {.state_size = sizeof(struct snapshot_state),
                                                 .prepare = sync_prepare,
                                                 .commit = sync_commit,
                                                 .abort = take_out,
                                                 .clean = sync_clean};

/* Inside an image ------------------------------------------------------------------------------------------------- */

struct internal_state {
    struct node *node;
    char *id; /* of the snapshot that was made */
};

static void list_free(struct internal_snapshot *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

static struct node *find_image(struct daemon *daemon, const char *name, struct error *err)
{
    struct node *node = daemon_find_node(daemon, name, err);
    while (node && node->driver->kind == DRIVER_FILTER && node->file)
        node = node->file->child;
    if (node && !node->driver->snapshots)
        return fail_null(err, ENOTSUP, "Block format '%s' used by device '%s' does not support internal snapshots",
                         node->driver->name, name);
    if (node && node->read_only)
        return fail_null(err, EROFS, "Device '%s' is read only", name);
    return node;
}

/* By both, or by what of them is given. Owned strings go to the caller. */
static bool find_snapshot(struct node *node, const char *id, const char *name, struct internal_snapshot *found,
                          struct error *err)
{
    struct internal_snapshot *list;
    size_t count;
    if (!node->driver->snapshots->list(node, &list, &count, err))
        return false;
    bool is_found = false;
    for (size_t i = 0; i < count && !is_found; i++) {
        is_found = (!id || !strcmp(list[i].id, id)) && (!name || !strcmp(list[i].name, name));
        if (is_found) {
            *found = list[i];
            found->id = xstrdup(found->id);
            found->name = xstrdup(found->name);
        }
    }
    list_free(list, count);
    return is_found;
}

static bool internal_prepare(struct action *action, struct error *err)
{
    struct internal_state *state = action->state;
    const struct blockdev_snapshot_internal *arg = action->data;
    struct internal_snapshot there;
    struct node *node = find_image(action->daemon, arg->device, err);
    if (!node)
        return false;
    if (!arg->name[0])
        return fail(err, EINVAL, "Name is empty");
    if (find_snapshot(node, NULL, arg->name, &there, NULL)) {
        free(there.id);
        free(there.name);
        return fail(err, EEXIST, "Snapshot with name '%s' already exists on device '%s'", arg->name, arg->device);
    }
    if (!node->driver->snapshots->create(node, arg->name, err))
        return false;
    state->node = node;
    if (find_snapshot(node, NULL, arg->name, &there, NULL)) {
        state->id = there.id;
        free(there.name);
    }
    return true;
}

static void internal_abort(struct action *action)
{
    struct internal_state *state = action->state;
    auto_error err = {0};
    if (state->id && !state->node->driver->snapshots->remove(state->node, state->id, &err))
        log_error("%s", err.message);
}

static void internal_clean(struct action *action)
{
    free(((struct internal_state *)action->state)->id);
}

const struct action_type action_snapshot_internal = {.state_size = sizeof(struct internal_state),
                                                     .prepare = internal_prepare,
                                                     .abort = internal_abort,
                                                     .clean = internal_clean};

/* Commands -------------------------------------------------------------------------------------------------------- */

bool qmp_blockdev_snapshot(struct qmp_context *context, struct blockdev_snapshot *arg, struct error *err)
{
    return action_run(context->app, &action_snapshot, arg, err);
}

bool qmp_blockdev_snapshot_sync(struct qmp_context *context, struct blockdev_snapshot_sync *arg, struct error *err)
{
    return action_run(context->app, &action_snapshot_sync, arg, err);
}

bool qmp_blockdev_snapshot_internal_sync(struct qmp_context *context, struct blockdev_snapshot_internal *arg,
                                         struct error *err)
{
    return action_run(context->app, &action_snapshot_internal, arg, err);
}

static struct snapshot_info *describe(const struct internal_snapshot *snapshot)
{
    struct snapshot_info *info = snapshot_info_new();
    info->id = xstrdup(snapshot->id);
    info->name = xstrdup(snapshot->name);
    info->vm_state_size = snapshot->vm_state_size;
    info->date_sec = snapshot->date_s;
    info->date_nsec = snapshot->date_ns;
    info->vm_clock_sec = (int64_t)(snapshot->vm_clock_ns / 1000000000u);
    info->vm_clock_nsec = (int64_t)(snapshot->vm_clock_ns % 1000000000u);
    info->has_icount = snapshot->icount != UINT64_MAX;
    info->icount = info->has_icount ? (int64_t)snapshot->icount : 0;
    return info;
}

bool qmp_blockdev_snapshot_delete_internal_sync(struct qmp_context *context,
                                                struct q_blockdev_snapshot_delete_internal_sync_arg *arg,
                                                struct snapshot_info **ret, struct error *err)
{
    struct internal_snapshot snapshot;
    if (!arg->id && !arg->name)
        return fail(err, EINVAL, "Name or id must be provided");
    struct node *node = find_image(context->app, arg->device, err);
    if (!node)
        return false;
    if (!find_snapshot(node, arg->id, arg->name, &snapshot, err))
        return fail(err, ENOENT, "Snapshot with id '%s' and name '%s' does not exist on device '%s'",
                    arg->id ? arg->id : "null", arg->name ? arg->name : "null", arg->device);
    node_drain_begin(node);
    bool ok = node->driver->snapshots->remove(node, snapshot.id, err);
    node_drain_end(node);
    if (ok)
        *ret = describe(&snapshot);
    free(snapshot.id);
    free(snapshot.name);
    return ok;
}
