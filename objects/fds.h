/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors that a client of the monitor has handed over (SCM_RIGHTS), so that the program needs no right to
 * open what they stand for. Two ways to keep them:
 *
 *   by name (getfd), for what is used once: a socket in an address of type `fd`;
 *   in sets (add-fd), for files: "/dev/fdset/N" as a file name opens a copy of that descriptor of the set which has the
 *   access that is asked for. A set goes when its last descriptor is removed and no copy is open.
 */
#ifndef OBJECTS_FDS_H
#define OBJECTS_FDS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/list.h"

struct fds;
struct object_set;

struct fds *fds_new(void);
void fds_free(struct fds *fds); /* closes them all. NULL is allowed */

/* Both take `fd` over. A name that is in use gets the new one. */
bool fds_put_name(struct fds *fds, const char *name, int fd, struct error *err);
bool fds_close_name(struct fds *fds, const char *name, struct error *err);
/* The descriptor, which is the caller's from now on, and the name's no more; -1: no such name. */
int fds_take_name(struct fds *fds, const char *name);

struct fd_member {
    struct list link;
    int fd;
    char *opaque; /* the client's note, or NULL */
};
struct fd_set_entry {
    struct list link;
    int64_t id;
    struct list members; /* of struct fd_member */
};
/* `id` -1: the first that is free. Takes `fd` over. */
struct fd_set_entry *fds_add(struct fds *fds, int64_t id, int fd, const char *opaque, struct error *err);
/* `fd` -1: all of the set. */
bool fds_remove(struct fds *fds, int64_t id, int fd, struct error *err);
struct fd_set_entry *fds_next(const struct fds *fds, const struct fd_set_entry *after);

/* Is this the name of a set? Then *id is its number. */
bool fds_is_path(const char *path, int64_t *id);
/* A copy of a descriptor with this access mode (O_RDONLY, O_WRONLY, O_RDWR), with O_DIRECT as in `flags`; -1 and an
 * error when there is none. `fds` may be NULL: there are no sets. */
int fds_open(const struct fds *fds, const char *path, int flags, struct error *err);

#endif
