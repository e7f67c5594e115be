/* SPDX-License-Identifier: Apache-2.0 */
/* Objects of the type `iothread`: threads in which exports serve their clients, beside the daemon's main loop. */
#ifndef STORAGE_DAEMON_IOTHREADS_H
#define STORAGE_DAEMON_IOTHREADS_H

#include "block/export.h"

struct iothreads;
struct object_kind;
struct object_set;

extern const struct object_kind iothread_kind;

/* Which iothread was ordered for which node (x-blockdev-set-iothread). */
struct iothreads *iothreads_new(struct object_set *objects);
void iothreads_free(struct iothreads *iothreads);
void iothreads_forget_node(struct iothreads *iothreads, const char *node_name);

/* What an export_set wants to know. */
struct export_iothreads iothreads_for_exports(struct iothreads *iothreads);

#endif
