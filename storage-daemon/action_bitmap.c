/* SPDX-License-Identifier: Apache-2.0 */
/* Actions and commands on dirty bitmaps. */
#include "storage-daemon/action.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "crypto/hash.h"
#include "qmp/schema/commands.h"

struct bitmap_state {
    struct dirty_bitmap *bitmap;
    uint64_t *saved;
    bool was_recording;
};

static struct dirty_bitmap *find_bitmap(struct daemon *daemon, const char *node_name, const char *name,
                                        struct error *err)
{
    struct node *node = daemon_find_node(daemon, node_name, err);
    if (!node)
        return NULL;
    struct dirty_bitmap *bitmap = dirty_bitmap_find(node, name);
    return bitmap ? bitmap : fail_null(err, ENOENT, "Dirty bitmap '%s' not found", name);
}

/* The bitmap of an action, if the user may do with it what he wishes. */
static struct dirty_bitmap *find_for(struct action *action, unsigned wishes, struct error *err)
{
    struct bitmap_state *state = action->state;
    const struct block_dirty_bitmap *arg = action->data;
    struct dirty_bitmap *bitmap = find_bitmap(action->daemon, arg->node, arg->name, err);
    if (!bitmap || !dirty_bitmap_check(bitmap, wishes, err))
        return NULL;
    return state->bitmap = bitmap;
}

/* What the image must know even if this process dies now. */
static void changed_commit(struct action *action)
{
    const struct bitmap_state *state = action->state;
    struct node *node = state->bitmap->node;
    const struct bitmap_ops *ops = node->driver->bitmaps;
    auto_error err = {0};
    if (state->bitmap->persistent && ops && ops->changed && !ops->changed(node, &err))
        log_error("%s", err.message); /* the change holds in memory, and is stored when the node is closed */
}

/* Add ------------------------------------------------------------------------------------------------------------- */

static bool check_storable(struct node *node, const char *name, uint32_t granularity, struct error *err)
{
    if (!node->driver->bitmaps)
        return fail(err, ENOTSUP, "Cannot store dirty bitmaps in format '%s' of node '%s'", node->driver->name,
                    node->name);
    return node->driver->bitmaps->can_store(node, name, granularity, err);
}

static bool add_prepare(struct action *action, struct error *err)
{
    struct bitmap_state *state = action->state;
    const struct block_dirty_bitmap_add *arg = action->data;
    struct node *node = daemon_find_node(action->daemon, arg->node, err);
    if (!node)
        return false;
    if (arg->has_granularity && arg->granularity < DIRTY_BITMAP_MIN_GRANULARITY)
        return fail(err, EINVAL, "Granularity must be a power of 2 and at least %d", DIRTY_BITMAP_MIN_GRANULARITY);
    struct dirty_bitmap *bitmap = dirty_bitmap_new(node, arg->name, arg->granularity, err);
    if (!bitmap)
        return false;
    if (arg->persistent && !check_storable(node, arg->name, bitmap->granularity, err)) {
        dirty_bitmap_free(bitmap);
        return false;
    }
    bitmap->persistent = arg->persistent;
    bitmap->recording = !arg->disabled;
    state->bitmap = bitmap;
    return true;
}

static void add_abort(struct action *action)
{
    struct bitmap_state *state = action->state;
    dirty_bitmap_free(state->bitmap);
}

const struct action_type action_bitmap_add = {
    .state_size = sizeof(struct bitmap_state), .prepare = add_prepare, .commit = changed_commit, .abort = add_abort};

/* Remove ---------------------------------------------------------------------------------------------------------- */

/* Out of the node's list, so that later actions of the transaction do not find it; the image is changed last. */
static bool remove_prepare(struct action *action, struct error *err)
{
    struct dirty_bitmap *bitmap = find_for(action, DIRTY_BITMAP_REMOVABLE, err);
    if (!bitmap)
        return false;
    list_remove(&bitmap->link);
    return true;
}

static void put_back(struct action *action)
{
    struct bitmap_state *state = action->state;
    list_append(&state->bitmap->node->bitmaps, &state->bitmap->link);
}

static bool remove_stored(struct dirty_bitmap *bitmap, struct error *err)
{
    const struct bitmap_ops *ops = bitmap->node->driver->bitmaps;
    return !bitmap->persistent || !ops || ops->remove(bitmap->node, bitmap, err);
}

static void remove_commit(struct action *action)
{
    struct bitmap_state *state = action->state;
    struct dirty_bitmap *bitmap = state->bitmap;
    auto_error err = {0};
    put_back(action);
    if (remove_stored(bitmap, &err))
        dirty_bitmap_free(bitmap);
    else
        log_error("%s", err.message); /* it is there still, and says so */
}

const struct action_type action_bitmap_remove = {
    .state_size = sizeof(struct bitmap_state), .prepare = remove_prepare, .commit = remove_commit, .abort = put_back};

/* Clear, enable, disable ------------------------------------------------------------------------------------------ */

static bool clear_prepare(struct action *action, struct error *err)
{
    struct bitmap_state *state = action->state;
    struct dirty_bitmap *bitmap = find_for(action, DIRTY_BITMAP_DEFAULT, err);
    if (!bitmap)
        return false;
    state->saved = dirty_bitmap_save(bitmap);
    if (!state->saved)
        return fail(err, ENOMEM, "No memory to keep the content of bitmap '%s'", bitmap->name);
    dirty_bitmap_clear(bitmap);
    return true;
}

static void restore(struct action *action)
{
    struct bitmap_state *state = action->state;
    dirty_bitmap_restore(state->bitmap, TAKE(state->saved));
}

static void drop_saved(struct action *action)
{
    struct bitmap_state *state = action->state;
    free(state->saved);
}

const struct action_type action_bitmap_clear = {.state_size = sizeof(struct bitmap_state),
                                                .prepare = clear_prepare,
                                                .commit = changed_commit,
                                                .abort = restore,
                                                .clean = drop_saved};

static bool set_recording(struct action *action, bool on, struct error *err)
{
    struct bitmap_state *state = action->state;
    struct dirty_bitmap *bitmap = find_for(action, DIRTY_BITMAP_DEFAULT, err);
    if (!bitmap)
        return false;
    state->was_recording = bitmap->recording;
    bitmap->recording = on;
    return true;
}

static bool enable_prepare(struct action *action, struct error *err)
{
    return set_recording(action, true, err);
}

static bool disable_prepare(struct action *action, struct error *err)
{
    return set_recording(action, false, err);
}

static void restore_recording(struct action *action)
{
    struct bitmap_state *state = action->state;
    state->bitmap->recording = state->was_recording;
}

const struct action_type action_bitmap_enable = {.state_size = sizeof(struct bitmap_state),
                                                 .prepare = enable_prepare,
                                                 .commit = changed_commit,
                                                 .abort = restore_recording};
const struct action_type action_bitmap_disable = {.state_size = sizeof(struct bitmap_state),
                                                  .prepare = disable_prepare,
                                                  .commit = changed_commit,
                                                  .abort = restore_recording};

/* Merge ----------------------------------------------------------------------------------------------------------- */

static bool merge_one(struct action *action, const struct block_dirty_bitmap_or_str *from, struct error *err)
{
    struct bitmap_state *state = action->state;
    const struct block_dirty_bitmap_merge *arg = action->data;
    bool is_local = from->kind == BLOCK_DIRTY_BITMAP_OR_STR_KIND_LOCAL;
    struct dirty_bitmap *source = find_bitmap(action->daemon, is_local ? arg->node : from->u.external->node,
                                              is_local ? from->u.local : from->u.external->name, err);
    return source && dirty_bitmap_check(source, DIRTY_BITMAP_CONSISTENT, err) &&
           dirty_bitmap_merge(state->bitmap, source, err);
}

static bool merge_prepare(struct action *action, struct error *err)
{
    struct bitmap_state *state = action->state;
    const struct block_dirty_bitmap_merge *arg = action->data;
    struct dirty_bitmap *target = find_bitmap(action->daemon, arg->node, arg->target, err);
    if (!target || !dirty_bitmap_check(target, DIRTY_BITMAP_DEFAULT, err))
        return false;
    state->bitmap = target;
    uint64_t *saved = dirty_bitmap_save(target);
    if (!saved)
        return fail(err, ENOMEM, "No memory to keep the content of bitmap '%s'", target->name);
    for (size_t i = 0; i < arg->n_bitmaps; i++) {
        if (!merge_one(action, arg->bitmaps[i], err)) {
            dirty_bitmap_restore(target, saved);
            return false;
        }
    }
    state->saved = saved;
    return true;
}

const struct action_type action_bitmap_merge = {.state_size = sizeof(struct bitmap_state),
                                                .prepare = merge_prepare,
                                                .commit = changed_commit,
                                                .abort = restore,
                                                .clean = drop_saved};

/* Commands -------------------------------------------------------------------------------------------------------- */

bool qmp_block_dirty_bitmap_add(struct qmp_context *context, struct block_dirty_bitmap_add *arg, struct error *err)
{
    return action_run(context->app, &action_bitmap_add, arg, err);
}

/* Alone, the change of the image may fail and say so. */
bool qmp_block_dirty_bitmap_remove(struct qmp_context *context, struct block_dirty_bitmap *arg, struct error *err)
{
    struct dirty_bitmap *bitmap = find_bitmap(context->app, arg->node, arg->name, err);
    if (!bitmap || !dirty_bitmap_check(bitmap, DIRTY_BITMAP_REMOVABLE, err))
        return false;
    bitmap->busy++; /* for the others, while it yields */
    bool ok = remove_stored(bitmap, err);
    bitmap->busy--;
    if (ok)
        dirty_bitmap_free(bitmap);
    return ok;
}

bool qmp_block_dirty_bitmap_clear(struct qmp_context *context, struct block_dirty_bitmap *arg, struct error *err)
{
    return action_run(context->app, &action_bitmap_clear, arg, err);
}

bool qmp_block_dirty_bitmap_enable(struct qmp_context *context, struct block_dirty_bitmap *arg, struct error *err)
{
    return action_run(context->app, &action_bitmap_enable, arg, err);
}

bool qmp_block_dirty_bitmap_disable(struct qmp_context *context, struct block_dirty_bitmap *arg, struct error *err)
{
    return action_run(context->app, &action_bitmap_disable, arg, err);
}

bool qmp_block_dirty_bitmap_merge(struct qmp_context *context, struct block_dirty_bitmap_merge *arg, struct error *err)
{
    return action_run(context->app, &action_bitmap_merge, arg, err);
}

bool qmp_x_debug_block_dirty_bitmap_sha256(struct qmp_context *context, struct block_dirty_bitmap *arg,
                                           struct block_dirty_bitmap_sha256 **ret, struct error *err)
{
    struct dirty_bitmap *bitmap = find_bitmap(context->app, arg->node, arg->name, err);
    uint8_t digest[32];
    if (!bitmap || !dirty_bitmap_check(bitmap, DIRTY_BITMAP_CONSISTENT, err) ||
        !crypto_hash_digest(CRYPTO_HASH_SHA256, bitmap->bits, BITMAP_WORDS(dirty_bitmap_bits(bitmap)) * 8, digest, err))
        return false;
    struct block_dirty_bitmap_sha256 *answer = block_dirty_bitmap_sha256_new();
    answer->sha256 = xmalloc(2 * sizeof digest + 1);
    for (size_t i = 0; i < sizeof digest; i++)
        sprintf(answer->sha256 + 2 * i, "%02x", digest[i]);
    *ret = answer;
    return true;
}
