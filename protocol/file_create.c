/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New files. An existing file is emptied only after its locks say that nobody uses it: creating over the image of a
 * running guest must fail, not truncate.
 */
#include "protocol/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/cleanup.h"
#include "base/loop.h"
#include "qmp/schema/types.h"

/* Copy on write of the host's file system below a disk image makes it slow (btrfs). Others do not know the flag. */
static void switch_cow_off(int fd)
{
    int attributes;
    if (ioctl(fd, FS_IOC_GETFLAGS, &attributes) == 0) {
        attributes |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &attributes);
    }
}

/* Larger allocation units keep images from fragmenting (XFS). A hint: a file system without it is no error. */
static void set_extent_size_hint(int fd, uint64_t hint)
{
    struct fsxattr attributes;
    if (hint > UINT32_MAX || ioctl(fd, FS_IOC_FSGETXATTR, &attributes) < 0)
        return;
    attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
    attributes.fsx_extsize = (uint32_t)hint;
    ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
}

static enum preallocation preallocation_of(enum prealloc_mode mode)
{
    switch (mode) {
    case PREALLOC_MODE_OFF:
    case PREALLOC_MODE__COUNT: break;
    case PREALLOC_MODE_METADATA: return PREALLOCATION_METADATA;
    case PREALLOC_MODE_FALLOC: return PREALLOCATION_FALLOC;
    case PREALLOC_MODE_FULL: return PREALLOCATION_FULL;
    }
    return PREALLOCATION_OFF;
}

static bool fill_new_file(struct io_file *file, const char *filename, const struct raw_create_options *options,
                          struct error *err)
{
    struct file_locks none = {0};
    struct file_locks want = {.held = BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE,
                              .unshared = BLOCK_PERM_ALL & ~(uint32_t)BLOCK_PERM_CONSISTENT_READ};
    if (!file_locks_take(file, filename, none, want, true, true, err))
        return false;
    int result = io_file_truncate(file, 0);
    if (result)
        return fail_errno(err, -result, "Could not empty '%s'", filename);
    int fd = io_file_fd(file);
    if (fd >= 0 && options->nocow)
        switch_cow_off(fd);
    if (fd >= 0 && options->extent_size_hint)
        set_extent_size_hint(fd, options->extent_size_hint);
    return file_set_length(file, filename, 0, options->size, preallocation_of(options->preallocation), err);
}

static bool create_file(struct graph *graph, const char *filename, void *create_options, struct error *err)
{
    const struct raw_create_options *options = create_options;
    if (options->preallocation == PREALLOC_MODE_METADATA)
        return fail(err, ENOTSUP, "Unsupported preallocation mode 'metadata'");
    struct io_file *file = io_file_open(graph_loop(graph), filename, O_RDWR | O_CREAT, 0644, IO_ENGINE_THREADS, err);
    if (!file)
        return false;
    bool ok = fill_new_file(file, filename, options, err);
    io_file_close(file);
    return ok;
}

/* A device is there already; it only has to be large enough. */
static bool create_device(struct graph *graph, const char *filename, void *create_options, struct error *err)
{
    const struct raw_create_options *options = create_options;
    struct io_file *file = io_file_open(graph_loop(graph), filename, O_RDWR, 0, IO_ENGINE_THREADS, err);
    if (!file)
        return false;
    int64_t size = io_file_size(file);
    io_file_close(file);
    if (size < 0)
        return fail_errno(err, (int)-size, "Could not get the size of '%s'", filename);
    if ((uint64_t)size < options->size)
        return fail(err, ENOSPC, "Device '%s' has %" PRId64 " bytes, too small for an image of %" PRIu64, filename,
                    size, options->size);
    return true;
}

const struct create_ops file_create_ops = {.options_type = &raw_create_options_type, .create_file = create_file};
const struct create_ops host_device_create_ops = {.options_type = &raw_create_options_type,
                                                  .create_file = create_device};
