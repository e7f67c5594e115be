/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The doorman: a process that stays outside when the program goes behind its walls (walls/walls.h). It is forked before
 * there is a loop, a thread or an image, knows two orders of fixed size, and carries out nothing else:
 *
 *   - start a confined worker: this same program, executed anew (so with an address space of its own layout and nothing
 *     of our memory), with three descriptors and limits;
 *   - mount and unmount by way of fusermount3, which gains privileges, as no child of ours could.
 *
 * It ends when its program ends. Ownership: made before the loop, freed after it.
 */
#ifndef CONFINED_DOORMAN_H
#define CONFINED_DOORMAN_H

#include <stdint.h>
#include <sys/types.h>
#include "base/error.h"

struct block_driver;
struct doorman;
struct loop;

/* Forks. NULL on error. */
struct doorman *doorman_new(struct error *err);
void doorman_free(struct doorman *doorman); /* NULL is allowed; waits for its end */

/* The driver `confined` with this doorman, for graph_add_drivers(); a table that ends with NULL. Lives as long as the
 * doorman. */
const struct block_driver *const *doorman_drivers(struct doorman *doorman);

struct doorman_worker {
    int image, socket, buffer; /* become 3, 4 and 5; stay the caller's */
    uint64_t memory_limit;     /* bytes of address space */
    uint64_t cpu_seconds;
};
/* Its process as a descriptor (pidfd), or -1; and its number. YIELDS. */
int doorman_start_worker(struct doorman *doorman, struct loop *loop, const struct doorman_worker *worker, pid_t *number,
                         struct error *err);

/* Mounts a FUSE file system; `options` as fusermount3 -o takes them. The descriptor of /dev/fuse, or -1. Hand it to
 * libfuse as the mount point "/dev/fd/N". YIELDS. */
int doorman_mount(struct doorman *doorman, struct loop *loop, const char *mount_point, const char *options,
                  struct error *err);
bool doorman_unmount(struct doorman *doorman, struct loop *loop, const char *mount_point, struct error *err);

#endif
