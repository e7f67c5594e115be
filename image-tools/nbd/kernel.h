/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's NBD client: telling it what socket is which disk, and to let go. Blocks the thread; needs CAP_SYS_ADMIN.
 */
#ifndef IMAGE_TOOLS_NBD_KERNEL_H
#define IMAGE_TOOLS_NBD_KERNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/error.h"

struct kernel_device {
    const char *path; /* "/dev/nbd0" */
    unsigned index;   /* 0 */
    /* While it is connected the old way: who waits in the kernel for its end. 0: nobody. */
    pid_t waiter;
};

struct kernel_disk {
    uint64_t size, block_size; /* bytes; size is a multiple of block_size */
    uint64_t flags;            /* transmission flags of the NBD protocol */
};

/* Is this a device of the NBD client? Fills it in. */
bool kernel_device_find(const char *path, struct kernel_device *device, struct error *err);
bool kernel_device_is_connected(const struct kernel_device *device);

/* `socket` is connected to a server that has negotiated: transmission begins. The kernel holds it from then on. */
bool kernel_device_connect(struct kernel_device *device, const struct kernel_disk *disk, int socket, struct error *err);
/* What is in flight fails, the server is told. No error if there was nothing to disconnect. */
bool kernel_device_disconnect(struct kernel_device *device, struct error *err);

#endif
