/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of internal snapshots, and loading one. */
#include "image-tools/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/cleanup.h"
#include "base/printable.h"
#include "base/size.h"
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
    auto_free char *id = printable(snapshot->id), *name = printable(snapshot->name);
    printf("%-9s %-16s %8s%20s %12s %10s\n", id, name, format_size(size, snapshot->vm_state_size), date, clock, icount);
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
