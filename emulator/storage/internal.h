/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. */
#ifndef EMULATOR_STORAGE_INTERNAL_H
#define EMULATOR_STORAGE_INTERNAL_H

#include <stdint.h>
#include <sys/types.h>
#include "base/list.h"
#include "emulator/hw/disk.h"
#include "emulator/hw/vhost_backend.h"
#include "emulator/storage/storage.h"
#include "qmp/schema/json.h"

struct private_daemon;

/* A -drive or -blockdev. */
struct source {
    struct list link;
    char *id;
    struct json *options; /* as the user gave it */
    bool is_nbd, read_only, handed_over;
};

struct storage {
    struct loop *loop;
    struct list sources;
    struct private_daemon *daemon; /* NULL: none needed so far */
};

/* private_daemon.c: a storage daemon of our own. */
struct private_daemon *private_daemon_start(struct error *err);
void private_daemon_stop(struct private_daemon *daemon);
/* Executes a QMP command and returns its answer (owned); takes `arguments`. NULL: the daemon refused or is gone. */
struct json *private_daemon_command(struct private_daemon *daemon, const char *name, struct json *arguments,
                                    struct error *err);
/* Path of a socket in the daemon's private folder; owned. */
char *private_daemon_path(const struct private_daemon *daemon, const char *name);
char *storage_program_path(const char *name); /* a program of ours, beside this one; owned */

/* nbd_disk.c. `options`: of driver=nbd (server, export, reconnect-delay). `read_only`: what the user wants. */
struct disk *nbd_disk_open(struct loop *loop, const char *id, const struct json *options, bool read_only,
                           struct error *err);

/* vhost_user.c */
struct vhost_backend *vhost_user_open(struct loop *loop, const char *id, const char *path, struct error *err);

#endif
