/* SPDX-License-Identifier: Apache-2.0 */
/* img snapshot: states of the disk that are kept inside the image itself. */
#include "image-tools/snapshot.h"

#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "block/request.h"
#include "image-tools/img/command.h"

struct snapshot_options {
    const char *format;
    struct actions actions;
    bool quiet, force_share, image_opts;
    struct texts objects;
};

static const struct tool_option snapshot_options[] = {
    OPTION_ROW_ACTION('l', "list", NULL, struct snapshot_options, actions, "list the snapshots (the default)"),
    OPTION_ROW_ACTION('c', "create", "NAME", struct snapshot_options, actions, "take a snapshot"),
    OPTION_ROW_ACTION('a', "apply", "SNAPSHOT", struct snapshot_options, actions,
                      "go back to a snapshot, given by ID or name: what was written since is lost"),
    OPTION_ROW_ACTION('d', "delete", "SNAPSHOT", struct snapshot_options, actions, "delete a snapshot"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct snapshot_options, format, "format of the image (default: probed)"),
    OPTION_ROW_FLAG('q', "quiet", struct snapshot_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG('U', "force-share", struct snapshot_options, force_share,
                    "list even if another program is writing to the image"),
    OPTION_ROW_FLAG(0, "image-opts", struct snapshot_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct snapshot_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static bool apply_or_delete(struct edge *edge, const struct action *action, bool is_delete, struct error *err)
{
    const struct snapshot_ops *snapshots = edge->child->driver->snapshots;
    struct snapshot_list list;
    if (!snapshot_list_read(edge, &list, err))
        return false;
    const struct internal_snapshot *found = snapshot_list_find(&list, action->argument);
    bool ok = found ? (is_delete ? snapshots->remove : snapshots->apply)(edge->child, found->id, err)
                    : fail(err, ENOENT, "snapshot not found");
    snapshot_list_free(&list);
    return ok;
}

static bool change(struct edge *edge, const struct action *action, struct error *err)
{
    const struct snapshot_ops *snapshots = edge->child->driver->snapshots;
    bool is_create = !strcmp(action->name, "create"), is_delete = !strcmp(action->name, "delete"), ok;
    if (!snapshots)
        ok = fail(err, ENOTSUP, "Operation not supported (format '%s' has no internal snapshots)",
                  edge->child->driver->name);
    else if (is_create)
        ok = snapshots->create(edge->child, action->argument, err);
    else
        ok = apply_or_delete(edge, action, is_delete, err);
    return ok || fail_prefix(err, "Could not %s snapshot '%s': ", action->name, action->argument);
}

static int list_snapshots(struct edge *edge)
{
    auto_error err = {0};
    struct snapshot_list list;
    if (!edge->child->driver->snapshots)
        return 0; /* an image that cannot have any has none */
    if (!snapshot_list_read(edge, &list, &err))
        return img_fail(&err, 1);
    snapshot_list_print(&list);
    snapshot_list_free(&list);
    return 0;
}

static int snapshot_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct snapshot_options *options = values;
    auto_error err = {0};
    const struct action list = {"list", NULL};
    const struct action *action = options->actions.count ? &options->actions.items[0] : &list;
    bool is_list = !strcmp(action->name, "list");
    if (options->actions.count > 1) {
        log_error("Cannot mix '-l', '-a', '-c', '-d'");
        return 1;
    }
    if (options->force_share && !is_list) {
        log_error("-U is only for -l: an image that another program writes to must not be changed");
        return 1;
    }
    struct open_mode mode = {.read_only = is_list, .force_share = options->force_share, .unmap = true};
    mode.no_backing = is_list;
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (is_list ? 0 : BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
    struct edge *edge = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode, perm, &err);
    if (!edge)
        return img_fail(&err, 1);
    int status = 0;
    if (is_list) {
        status = list_snapshots(edge);
    } else {
        node_drain_begin(edge->child);
        bool ok = change(edge, action, &err);
        node_drain_end(edge->child);
        int result = ok ? block_flush(edge) : 0;
        if (result < 0)
            ok = fail_errno(&err, -result, "Could not flush the image");
        if (!ok)
            status = img_fail(&err, 1);
    }
    tool_close(edge);
    return status;
}

const struct img_command img_snapshot = {
    .name = "snapshot",
    .arguments = "FILE",
    .summary = "List, take, apply or delete the snapshots inside an image",
    .options = snapshot_options,
    .values_size = sizeof(struct snapshot_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = snapshot_run,
};
