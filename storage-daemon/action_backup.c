/* SPDX-License-Identifier: Apache-2.0 */
/* Backups as actions: the state that is copied is that of the transaction's moment; the jobs start with its commit. */
#include "storage-daemon/action.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/jobs/jobs.h"
#include "block/node.h"
#include "storage-daemon/new_image.h"

struct backup_state {
    struct job *job;
    struct node *target; /* drive-backup's own */
};

static bool prepare(struct action *action, const struct blockdev_backup *options, struct error *err)
{
    struct backup_state *state = action->state;
    struct daemon *daemon = action->daemon;
    state->job = backup_job_new(daemon->jobs, daemon->graph, options, action->jobs, err);
    return state->job != NULL;
}

static bool backup_prepare(struct action *action, struct error *err)
{
    return prepare(action, action->data, err);
}

static void backup_commit(struct action *action)
{
    job_start(((struct backup_state *)action->state)->job);
}

static void backup_abort(struct action *action)
{
    job_drop(((struct backup_state *)action->state)->job);
}

/* The job has a reference of the target by now, and nobody else needs it. */
static void drive_clean(struct action *action)
{
    struct backup_state *state = action->state;
    if (state->target)
        node_unref(state->target);
}

static bool drive_prepare(struct action *action, struct error *err)
{
    struct backup_state *state = action->state;
    const struct drive_backup *options = action->data;
    struct node *source = daemon_find_node(action->daemon, options->device, err);
    if (!source)
        return false;
    /* What the copy does not have is in what it stands on: the source, or what that stands on. */
    struct node *below = options->sync == MIRROR_SYNC_MODE_NONE  ? source
                         : options->sync == MIRROR_SYNC_MODE_TOP ? node_backing(source)
                                                                 : NULL;
    const struct new_image image = {
        .filename = options->target,
        .format = options->format,
        .like = below ? below : source,
        .size = source->size,
        .exists = options->mode == NEW_IMAGE_MODE_EXISTING,
        .is_overlay = below != NULL,
    };
    state->target = new_image_open(&image, err);
    if (!state->target)
        return false;
    if (below && !node_set_backing(state->target, below, err))
        return false;
    /* Both types begin with the members of BackupCommon, and `target` follows. */
    struct blockdev_backup backup;
    memcpy(&backup, options, sizeof backup);
    backup.target = state->target->name;
    return prepare(action, &backup, err);
}

const struct action_type action_backup = {.state_size = sizeof(struct backup_state),
                                          .prepare = backup_prepare,
                                          .commit = backup_commit,
                                          .abort = backup_abort};
const struct action_type action_drive_backup = {.state_size = sizeof(struct backup_state),
                                                .prepare = drive_prepare,
                                                .commit = backup_commit,
                                                .abort = backup_abort,
                                                .clean = drive_clean};
