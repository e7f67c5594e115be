/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk as an emulated device sees it: a size, some limits, and asynchronous requests. The emulator has no image code;
 * the one implementation (emulator/storage) speaks NBD to a storage daemon.
 *
 * Threads: everything here happens on the main loop's thread. A device submits with the machine lock held, so an
 * implementation never takes that lock inside submit() and never completes a request from inside it. `done` is called
 * later, on the same thread, without the machine lock; the device takes it.
 *
 * Memory: the iovecs point into guest memory (or a device's buffer) and stay valid until `done`.
 */
#ifndef EMULATOR_HW_DISK_H
#define EMULATOR_HW_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "base/error.h"
#include "base/list.h"

enum disk_operation { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES };

struct disk_request {
    enum disk_operation operation;
    uint64_t offset, length; /* bytes, inside the disk, multiples of block_size; 0, 0 for a flush */
    struct iovec *iov;       /* READ, WRITE: `length` bytes in all */
    uint32_t iov_count;
    bool durable;                                           /* WRITE, WRITE_ZEROES: on stable storage when done (FUA) */
    bool may_unmap;                                         /* WRITE_ZEROES: space may be deallocated */
    void (*done)(struct disk_request *request, int result); /* 0 or -errno */
    void *owner;
    /* For the implementation while the request is in flight. */
    struct list link;
    void *private_data;
};

struct disk;

struct disk_ops {
    void (*submit)(struct disk *disk, struct disk_request *request); /* cannot fail: `done` says so */
    void (*close)(struct disk *disk);                                /* nothing is in flight; frees */
};

struct disk {
    const struct disk_ops *ops;
    const char *id; /* of the -drive or -blockdev, for messages */
    uint64_t size_bytes;
    uint32_t block_size;          /* logical, at least 512 */
    uint32_t physical_block_size; /* 0: as block_size */
    uint32_t optimal_io_size;     /* bytes, 0: not known */
    uint32_t max_transfer;        /* bytes in one READ or WRITE, 0: no limit worth naming */
    uint32_t discard_granularity; /* bytes, 0: as block_size */
    bool read_only, can_discard, can_write_zeroes, can_flush;
    const char *serial; /* NULL: none */

    /* Set by the device that took the disk; called on the main loop's thread without the machine lock when size_bytes
     * has changed (block_resize). */
    void (*resized)(void *owner);
    void *owner;
};

#endif
