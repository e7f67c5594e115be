/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only door to disks. This process opens no image and links no image format; every disk is an export of a storage
 * daemon:
 *
 *     -blockdev driver=nbd,...                  an NBD export of any server, reached by libnbd from here
 *     -chardev socket,... -device vhost-user-blk   a vhost-user-blk export of a daemon that is already there
 *     -drive, -blockdev of any other driver     a private daemon, a child process with no network (unless its images
 *                                               lie there) and no new privileges, that gets the option's JSON untouched
 *
 * All of it belongs to the main loop's thread. Functions block until the daemon has answered; they are called while the
 * machine is built and torn down, never while it runs.
 */
#ifndef EMULATOR_STORAGE_STORAGE_H
#define EMULATOR_STORAGE_STORAGE_H

#include <stdbool.h>
#include "base/error.h"

struct disk;
struct loop;
struct storage;
struct vhost_backend;

struct storage *storage_new(struct loop *loop);
/* After the disks and backends are closed. Ends the private daemon and waits for its last flush. */
void storage_free(struct storage *storage);

/* fn(arg) is called on the loop when the private daemon has ended by itself: the machine has lost its disks for good.
 */
void storage_on_lost(struct storage *storage, void (*fn)(void *arg), void *arg);
/* The machine is about to end: requests that wait for a server that is away fail now instead of holding it up. */
void storage_give_up(struct storage *storage);

/* -blockdev: `key=value,...` or JSON. It must have a node-name. */
bool storage_add_blockdev(struct storage *storage, const char *text, struct error *err);

/* -drive: what of it concerns storage. Strings may be NULL where it was not given. */
struct storage_drive {
    const char *id;
    const char *file;
    const char *format;  /* NULL: the image tool is asked what it is */
    const char *cache;   /* writeback (default), none, unsafe, directsync, writethrough */
    const char *discard; /* ignore or off (default), unmap or on */
    const char *aio;     /* threads, native, io_uring */
    bool read_only;
    const char *detect_zeroes; /* off (default), on, unmap */
};
bool storage_add_drive(struct storage *storage, const struct storage_drive *drive, struct error *err);

bool storage_has(const struct storage *storage, const char *id);

/* Opens a -drive or -blockdev by its id, for any disk device. `disk_ops.close` ends it. */
struct disk *storage_open_disk(struct storage *storage, const char *id, struct error *err);

/* Opens one for virtio-blk by shared memory. NULL without an error: that disk cannot be had this way (driver=nbd), take
 * storage_open_disk(). */
struct vhost_backend *storage_open_vhost(struct storage *storage, const char *id, unsigned queues, struct error *err);

/* A daemon that is already there: `path` of its vhost-user socket; `id` for messages. Reconnects when the daemon comes
 * back. */
struct vhost_backend *storage_connect_vhost(struct storage *storage, const char *id, const char *path,
                                            struct error *err);

#endif
