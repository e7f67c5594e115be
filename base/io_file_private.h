/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files inside base: one table of functions for each way of reaching the bytes. Private to base.
 *
 * The engines (uring, threads, native) differ in reading, writing and syncing; what is rare (truncate, fallocate,
 * ioctl) goes to the worker pool for all of them. A simulated file has a table of its own for everything.
 */
#ifndef BASE_IO_FILE_PRIVATE_H
#define BASE_IO_FILE_PRIVATE_H

#include "base/io_file.h"

/* One attempt, which may be short. */
struct io_engine_ops {
    const char *name;
    int64_t (*readv)(struct io_file *file, const struct iovec *iov, int count, uint64_t offset);
    int64_t (*writev)(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable);
    int (*datasync)(struct io_file *file);
};

/* Everything else that a file can do; kernel files use the one in io_file.c. */
struct io_file_ops {
    void (*close)(struct io_file *file);
    int (*fallocate)(struct io_file *file, int mode, uint64_t offset, uint64_t length);
    int (*truncate)(struct io_file *file, uint64_t size);
    int64_t (*copy_range)(struct io_file *from, uint64_t from_offset, struct io_file *to, uint64_t to_offset,
                          uint64_t length);
    int (*stat)(struct io_file *file, struct stat *st);
    int64_t (*seek)(struct io_file *file, uint64_t offset, int whence);
    int (*lock)(struct io_file *file, uint64_t start, uint64_t length, int type, bool test); /* type: F_RDLCK ... */
    int (*device_range)(struct io_file *file, unsigned long request, uint64_t offset, uint64_t length);
};

struct io_file {
    const struct io_engine_ops *engine;
    const struct io_file_ops *ops;
    struct loop *loop;
    int fd; /* -1: simulated */
    bool is_block_device;
    bool is_direct;      /* O_DIRECT: offsets must be aligned, so an odd short read is the end of the file */
    bool may_try_nowait; /* RWF_NOWAIT has not been refused so far */
};

extern const struct io_engine_ops io_engine_uring, io_engine_threads, io_engine_native;

/* What the page cache has, at once, perhaps short; or -EAGAIN. */
ssize_t io_file_read_cached(struct io_file *file, const struct iovec *iov, int count, uint64_t offset);

/* libaio on this loop; NULL and an error when the kernel has none to give. */
bool aio_start(struct loop *loop, struct error *err);

/* A file of the simulated disks (sim_disk.c). */
struct io_file *sim_file_open(struct loop *loop, const char *path, int flags, struct error *err);

#endif
