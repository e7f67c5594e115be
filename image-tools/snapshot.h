/* SPDX-License-Identifier: Apache-2.0 */
/* Internal snapshots of an image, as commands name and show them. */
#ifndef IMAGE_TOOLS_SNAPSHOT_H
#define IMAGE_TOOLS_SNAPSHOT_H

#include "block/driver.h"

struct snapshot_list {
    struct internal_snapshot *items;
    size_t count;
};

/* NULL and an error when the format has no snapshots or they cannot be read. YIELDS. */
bool snapshot_list_read(struct edge *edge, struct snapshot_list *list, struct error *err);
void snapshot_list_free(struct snapshot_list *list);
/* By ID, else by name; NULL: none. */
const struct internal_snapshot *snapshot_list_find(const struct snapshot_list *list, const char *name);
/* The table that `snapshot -l` and `info` show. */
void snapshot_list_print(const struct snapshot_list *list);

/* A read-only image shows this snapshot from now on: an ID or name, or "snapshot.id=ID,snapshot.name=NAME" (one of both
 * suffices). YIELDS. */
bool snapshot_load(struct edge *edge, const char *selector, struct error *err);

#endif
