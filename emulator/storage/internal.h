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
    size_t endpoint;      /* of the private daemon, for a vhost-user export */
    bool is_nbd;          /* we speak to its server ourselves, unless another source stands on it */
    bool read_only, writethrough;
    bool handed_over, is_exported;
};

struct storage {
    struct loop *loop;
    struct list sources;
    struct list disks;             /* NBD disks that are open */
    struct private_daemon *daemon; /* NULL: none needed so far */
    bool has_nbd_server;           /* the daemon's */
    void (*lost)(void *arg);
    void *lost_arg;
};

/* private_daemon.c: a storage daemon of our own. */
struct private_daemon_settings {
    struct loop *loop;
    size_t endpoints;                             /* how many sockets it may listen on */
    bool network;                                 /* its images lie on other machines */
    void (*on_death)(void *arg, const char *how); /* on the loop; private_daemon_stop() does not call it */
    void *arg;
};
struct private_daemon *private_daemon_start(const struct private_daemon_settings *settings, struct error *err);
void private_daemon_stop(struct private_daemon *daemon);
/* Executes a QMP command and returns its answer (owned); takes `arguments`. NULL: the daemon refused or is gone. */
struct json *private_daemon_command(struct private_daemon *daemon, const char *name, struct json *arguments,
                                    struct error *err);
/* An endpoint as the daemon names it (address type fd), and as we connect to it; owned. */
char *private_daemon_listen_fd(size_t endpoint);
char *private_daemon_connect_path(const struct private_daemon *daemon, size_t endpoint);
char *storage_program_path(const char *name); /* a program of ours, beside this one; owned */

/* drive.c: what -blockdev would say for this -drive (owned), and whether every write is to be flushed. */
struct json *storage_drive_options(const struct storage_drive *drive, bool *writethrough, struct error *err);

/* nbd_disk.c */
struct nbd_disk_settings {
    const char *id;
    const struct json *options; /* of driver=nbd (server, export, reconnect-delay, open-timeout) */
    bool read_only, auto_read_only;
    bool is_private; /* the server is a child of ours: when it is gone, it is gone for good */
};
/* The disk stands in the list until it is closed. */
struct disk *nbd_disk_open(struct loop *loop, struct list *disks, const struct nbd_disk_settings *settings,
                           struct error *err);
/* Requests of these disks that wait for a server fail now, and so do later ones that would have to. */
void nbd_disks_give_up(struct list *disks);

/* vhost_user.c. `is_private`: as above. */
struct vhost_backend *vhost_user_open(struct loop *loop, const char *id, const char *path, bool is_private,
                                      struct error *err);

#endif
