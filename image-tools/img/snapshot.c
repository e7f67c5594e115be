/* SPDX-License-Identifier: Apache-2.0 */
/* img snapshot: states of the disk that are kept inside the image itself. */
#include "image-tools/img/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/size.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"

/* Lists ----------------------------------------------------------------------------------------------------------- */

bool snapshot_list_read(struct edge *edge, struct snapshot_list *list, struct error *err)
{
    const struct snapshot_ops *snapshots = edge->child->driver->snapshots;
    *list = (struct snapshot_list){0};
    if (!snapshots)
        return fail(err, ENOTSUP, "Images of format '%s' have no internal snapshots", edge->child->driver->name);
    return snapshots->list(edge->child, &list->items, &list->count, err);
}

void snapshot_list_free(struct snapshot_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].id);
        free(list->items[i].name);
    }
    free(list->items);
    *list = (struct snapshot_list){0};
}

const struct internal_snapshot *snapshot_list_find(const struct snapshot_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!strcmp(list->items[i].id, name))
            return &list->items[i];
    }
    for (size_t i = 0; i < list->count; i++) {
        if (!strcmp(list->items[i].name, name))
            return &list->items[i];
    }
    return NULL;
}

/* The columns are read by programs. */
static void print_line(const struct internal_snapshot *snapshot)
{
    char size[FORMAT_SIZE_MAX], date[64], clock[64], icount[24] = "";
    time_t when = snapshot->date_s;
    struct tm tm;
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", localtime_r(&when, &tm));
    uint64_t seconds = snapshot->vm_clock_ns / 1000000000, milliseconds = snapshot->vm_clock_ns / 1000000 % 1000;
    snprintf(clock, sizeof clock, "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, seconds / 3600,
             seconds / 60 % 60, seconds % 60, milliseconds);
    if (snapshot->icount != UINT64_MAX)
        snprintf(icount, sizeof icount, "%" PRIu64, snapshot->icount);
    printf("%-9s %-16s %8s%20s %12s %10s\n", snapshot->id, snapshot->name, format_size(size, snapshot->vm_state_size),
           date, clock, icount);
}

void snapshot_list_print(const struct snapshot_list *list)
{
    if (!list->count)
        return;
    printf("Snapshot list:\n%-9s %-16s %8s%20s %12s %10s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < list->count; i++)
        print_line(&list->items[i]);
}

/* Loading --------------------------------------------------------------------------------------------------------- */

/* "snapshot.id=1,snapshot.name=a": what is given must all be true of the snapshot. */
static const struct internal_snapshot *find_by_parts(const struct snapshot_list *list, const char *selector,
                                                     struct error *err)
{
    auto_json *parts = keyval_parse(selector, NULL, err);
    if (!parts)
        return NULL;
    const struct json *wanted = json_get(parts, "snapshot");
    const char *id = wanted ? json_string(json_get(wanted, "id")) : NULL;
    const char *name = wanted ? json_string(json_get(wanted, "name")) : NULL;
    if (!id && !name)
        return fail_null(err, EINVAL, "'%s' names no snapshot: give snapshot.id or snapshot.name", selector);
    for (size_t i = 0; i < list->count; i++) {
        const struct internal_snapshot *snapshot = &list->items[i];
        if ((!id || !strcmp(snapshot->id, id)) && (!name || !strcmp(snapshot->name, name)))
            return snapshot;
    }
    return fail_null(err, ENOENT, "there is no such snapshot");
}

bool snapshot_load(struct edge *edge, const char *selector, struct error *err)
{
    struct node *node = edge->child;
    struct snapshot_list list;
    if (!snapshot_list_read(edge, &list, err))
        return false;
    bool in_parts = !strncmp(selector, "snapshot.", 9);
    const struct internal_snapshot *found =
        in_parts ? find_by_parts(&list, selector, err) : snapshot_list_find(&list, selector);
    if (!found && !in_parts)
        fail(err, ENOENT, "there is no such snapshot");
    node_drain_begin(node);
    bool ok = found && node->driver->snapshots->load(node, found->id, err);
    node_drain_end(node);
    snapshot_list_free(&list);
    return ok || fail_prefix(err, "Failed to load snapshot '%s': ", selector);
}

/* The command ----------------------------------------------------------------------------------------------------- */

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
