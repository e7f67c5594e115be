/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and block devices for coroutines. An io_file hides where its bytes are (kernel file, or a simulated disk that
 * loses, tears and reorders what was not flushed) and how the kernel is asked (io_uring, libaio with O_DIRECT, worker
 * threads).
 *
 * Data functions return the number of bytes or 0, or -errno; they YIELD. Short reads happen only at the end of the file
 * and are reported as such; short writes are continued inside. Any number of operations may be in flight at once; their
 * order is not kept.
 */
#ifndef BASE_IO_FILE_H
#define BASE_IO_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "base/error.h"

struct loop;
struct io_file;

enum io_engine {
    IO_ENGINE_AUTO,    /* io_uring on an io_uring loop, else threads */
    IO_ENGINE_THREADS, /* the worker pool */
    IO_ENGINE_NATIVE,  /* libaio; needs O_DIRECT */
    IO_ENGINE_URING,
};

/* `flags` are those of open(2); O_CLOEXEC is added. A path of the form /dev/fdset/N or an fd handed in uses
 * io_file_from_fd(). The error names the path and the errno text. May block shortly (open is done on the worker pool:
 * YIELDS). */
struct io_file *io_file_open(struct loop *loop, const char *path, int flags, mode_t mode, enum io_engine engine,
                             struct error *err);
struct io_file *io_file_from_fd(struct loop *loop, int fd, enum io_engine engine,
                                struct error *err); /* takes the fd over */
void io_file_close(struct io_file *file);           /* nothing may be in flight */

/* The kernel's descriptor, or -1 for a simulated file. */
int io_file_fd(const struct io_file *file);

int64_t io_file_readv(struct io_file *file, const struct iovec *iov, int count, uint64_t offset);
/* `durable`: the data is on stable storage when it returns (RWF_DSYNC). */
int64_t io_file_writev(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable);
int io_file_datasync(struct io_file *file);
int io_file_fallocate(struct io_file *file, int mode, uint64_t offset, uint64_t length); /* mode as in fallocate(2) */
int io_file_truncate(struct io_file *file, uint64_t size);
int64_t io_file_copy_range(struct io_file *from, uint64_t from_offset, struct io_file *to, uint64_t to_offset,
                           uint64_t length);
int io_file_discard_device(struct io_file *file, uint64_t offset, uint64_t length); /* BLKDISCARD */
int io_file_zero_device(struct io_file *file, uint64_t offset, uint64_t length);    /* BLKZEROOUT */

/* Quick questions; they do not yield. Size of a block device is asked from the device. */
int64_t io_file_size(struct io_file *file);
int io_file_stat(struct io_file *file, struct stat *st);
/* SEEK_DATA / SEEK_HOLE: the offset, -ENXIO beyond the last data, or another -errno. */
int64_t io_file_seek_data(struct io_file *file, uint64_t offset);
int64_t io_file_seek_hole(struct io_file *file, uint64_t offset);
/* Open-file-description locks (F_OFD_*) on bytes [start, start + length). 0, -EAGAIN when somebody else holds a
 * conflicting one. */
int io_file_lock(struct io_file *file, uint64_t start, uint64_t length, bool exclusive);
int io_file_unlock(struct io_file *file, uint64_t start, uint64_t length);
int io_file_lock_test(struct io_file *file, uint64_t start, uint64_t length, bool exclusive);

#endif
