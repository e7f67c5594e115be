/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening files: choice of engine, O_DIRECT and its alignment, what to do when writing is not possible, and changing
 * all that while the node lives. The kernel's file may have to be replaced (read-only to read-write, buffered to
 * direct); the new one takes the same locks before the old one lets go of them.
 */
#include "protocol/file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/math.h"
#include "objects/fds.h"
#include "objects/object.h"
#include "qmp/schema/types.h"

static const struct blockdev_options_file *options_of(const struct blockdev_options *options)
{
    return options->driver == BLOCKDEV_DRIVER_HOST_DEVICE ? &options->u.host_device : &options->u.file;
}

static bool choose_engine(const struct blockdev_options *options, enum io_engine *engine, struct error *err)
{
    const struct blockdev_options_file *file = options_of(options);
    bool direct = options->cache && options->cache->direct;
    *engine = IO_ENGINE_AUTO;
    if (!file->has_aio)
        return true;
    switch (file->aio) {
    case BLOCKDEV_AIO_OPTIONS__COUNT: break;
    case BLOCKDEV_AIO_OPTIONS_THREADS: *engine = IO_ENGINE_THREADS; break;
    case BLOCKDEV_AIO_OPTIONS_IO_URING: *engine = IO_ENGINE_URING; break;
    case BLOCKDEV_AIO_OPTIONS_NATIVE:
        if (!direct)
            return fail(err, EINVAL, "aio=native needs cache.direct=on, which was not specified for '%s'",
                        file->filename);
        *engine = IO_ENGINE_NATIVE;
        break;
    }
    return true;
}

/* Neither driver wants pipes, sockets or folders, and opening a pipe would wait for its other end. */
static bool check_kind(const struct node *node, const char *filename, bool want_device, struct error *err)
{
    struct stat st;
    struct loop *loop = node->loop;
    if (graph_serves_path(node->graph, filename)) /* stat() would wait for ourselves */
        return fail(err, EDEADLK, "'%s' is an export of this very program: use the exported node instead", filename);
    if (loop_backend(loop) == LOOP_SIMULATED || stat(filename, &st) < 0)
        return true; /* open() says what is wrong */
    bool is_device = S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode);
    if (want_device && !is_device)
        return fail(err, ENOTBLK, "'host_device' driver requires '%s' to be either a character or block device",
                    filename);
    if (!want_device && !S_ISREG(st.st_mode))
        return fail(err, EINVAL, "'file' driver requires '%s' to be a regular file", filename);
    return true;
}

/* A path of the host, or a set of descriptors that a client has handed over. */
static struct io_file *open_name(struct node *node, const char *filename, int flags, enum io_engine engine,
                                 struct error *err)
{
    int64_t set;
    if (!fds_is_path(filename, &set))
        return io_file_open(node->loop, filename, flags, 0, engine, err);
    struct object_set *objects = graph_objects(node->graph);
    int fd = fds_open(objects ? object_set_fds(objects) : NULL, filename, flags, err);
    return fd < 0 ? NULL : io_file_from_fd(node->loop, fd, engine, err);
}

static struct io_file *open_file(struct node *node, const struct blockdev_options *options, bool writable,
                                 struct error *err)
{
    enum io_engine engine;
    if (!choose_engine(options, &engine, err))
        return NULL;
    bool direct = options->cache && options->cache->direct;
    int flags = (writable ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0);
    const char *filename = options_of(options)->filename;
    auto_error cause = {0};
    struct io_file *file = open_name(node, filename, flags, engine, &cause);
    if (!file && direct && cause.code == EINVAL)
        return fail_null(err, EINVAL,
                         "Could not open '%s': its file system does not support O_DIRECT (cache.direct=on)", filename);
    if (!file)
        error_move(err, &cause);
    return file;
}

static bool means_not_writable(const struct error *err)
{
    return err->code == EACCES || err->code == EPERM || err->code == EROFS || err->code == ETXTBSY;
}

/* Opens as the options say; with auto-read-only, read-only where writing is not possible. */
static struct io_file *open_as_possible(struct node *node, const struct blockdev_options *options, bool *writable,
                                        struct error *err)
{
    *writable = !options->read_only;
    auto_error cause = {0};
    struct io_file *file = open_file(node, options, *writable, &cause);
    if (!file && *writable && options->auto_read_only && means_not_writable(&cause)) {
        *writable = false;
        return open_file(node, options, false, err);
    }
    if (!file)
        error_move(err, &cause);
    return file;
}

/* A device has sectors. O_DIRECT wants offsets and memory aligned to something between 512 bytes and a page. There is
 * no portable way to ask but to try. */
static uint32_t probe_alignment(int fd)
{
    int sector;
    if (ioctl(fd, BLKSSZGET, &sector) == 0 && is_power_of_two((uint64_t)sector))
        return (uint32_t)sector;
    auto_free uint8_t *buffer = try_aligned_alloc(8192, 8192);
    for (uint32_t alignment = 512; buffer && alignment < 4096; alignment *= 2) {
        if (pread(fd, buffer + alignment, alignment, alignment) >= 0)
            return alignment;
    }
    return 4096;
}

static void set_limits(struct node *node)
{
    struct file_state *state = node->state;
    int fd = io_file_fd(state->file);
    uint32_t alignment = node->direct || state->is_device ? (fd >= 0 ? probe_alignment(fd) : 512) : 1;
    /* Through the page cache bytes may be read and written anywhere; discards and zeroes of a device never. */
    node->limits.request_alignment = node->limits.memory_alignment = node->direct ? alignment : 1;
    node->limits.discard_alignment = node->limits.zero_alignment = state->is_device ? alignment : 0;
    node->growable = !state->is_device;
    node->write_flags = REQUEST_FUA;
}

static bool learn_identity(struct node *node, const char *filename, struct error *err)
{
    struct file_state *state = node->state;
    int64_t size = io_file_size(state->file);
    if (size < 0)
        return fail_errno(err, (int)-size, "Could not get the size of '%s'", filename);
    node->size = (uint64_t)size;
    struct stat st;
    if (io_file_stat(state->file, &st) == 0) {
        node->host_device = state->is_device ? st.st_rdev : st.st_dev;
        node->host_inode = state->is_device ? UINT64_MAX : st.st_ino;
    }
    return true;
}

static bool open_kind(struct node *node, bool is_device, struct error *err)
{
    struct file_state *state = node->state;
    const struct blockdev_options_file *options = options_of(node->options);
    if (!check_kind(node, options->filename, is_device, err))
        return false;
    state->is_device = is_device;
    state->use_locks = options->locking != ON_OFF_AUTO_OFF;
    state->locks_optional = options->locking == ON_OFF_AUTO_AUTO;
    state->file = open_as_possible(node, node->options, &state->is_writable, err);
    if (!state->file)
        return false;
    if (!state->is_writable)
        node->read_only = true;
    if (!learn_identity(node, options->filename, err)) {
        io_file_close(TAKE(state->file));
        return false;
    }
    node->filename = xstrdup(options->filename);
    set_limits(node);
    return true;
}

bool file_open(struct node *node, struct error *err)
{
    return open_kind(node, false, err);
}

bool host_device_open(struct node *node, struct error *err)
{
    return open_kind(node, true, err);
}

/* The client's descriptor of a set stays open, and our locks with it: they are let go by hand. */
void file_close(struct node *node)
{
    struct file_state *state = node->state;
    int64_t set;
    if (state->use_locks && fds_is_path(options_of(node->options)->filename, &set))
        file_locks_drop(state->file, state->locks, (struct file_locks){0});
    io_file_close(TAKE(state->file));
}

/* Permissions ----------------------------------------------------------------------------------------------------- */

static struct file_locks locks_for(const struct node *node, uint32_t perm, uint32_t shared)
{
    const struct file_state *state = node->state;
    if (!state->use_locks || node->force_share)
        return (struct file_locks){0};
    return (struct file_locks){.held = perm, .unshared = ~shared & BLOCK_PERM_ALL};
}

/* Puts `file` in the place of the one in use; it holds the same locks already. Closing lets go of the old one's, unless
 * it is a copy of a client's descriptor, and the new one perhaps another copy of the same. */
static void replace_file(struct node *node, struct io_file *file, bool writable)
{
    struct file_state *state = node->state;
    int64_t set;
    if (state->use_locks && fds_is_path(options_of(node->options)->filename, &set)) {
        file_locks_drop(state->file, state->locks, (struct file_locks){0});
        file_locks_take(file, node->filename, (struct file_locks){0}, state->locks, false, true, NULL);
    }
    io_file_close(state->file);
    state->file = file;
    state->is_writable = writable;
}

/* A node with auto-read-only that was opened for reading becomes writable when somebody asks for it. */
static bool become_writable(struct node *node, struct error *err)
{
    struct file_state *state = node->state;
    struct io_file *file = open_file(node, node->options, true, err);
    if (!file)
        return fail_prefix(err, "Block node '%s' is read-only and cannot be made writable: ", node->name);
    if (!file_locks_take(file, node->filename, (struct file_locks){0}, state->locks, false, true, err)) {
        io_file_close(file);
        return false;
    }
    replace_file(node, file, true);
    node->read_only = false;
    return true;
}

enum { MODIFY = BLOCK_PERM_WRITE | BLOCK_PERM_WRITE_UNCHANGED | BLOCK_PERM_RESIZE };

/* The last who could write has gone: with auto-read-only the file is not held open for writing any more. Where that
 * cannot be done it stays as it is. To its users the node is what it was, since it becomes writable again by itself. */
static void stop_writing(struct node *node)
{
    struct file_state *state = node->state;
    struct io_file *file = open_file(node, node->options, false, NULL);
    if (!file)
        return;
    if (!node->in_flight && /* still */
        file_locks_take(file, node->filename, (struct file_locks){0}, state->locks, false, true, NULL)) {
        replace_file(node, file, false);
        state->had_writer = false;
    } else {
        io_file_close(file);
    }
}

bool file_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    struct file_state *state = node->state;
    if ((perm & MODIFY) && !state->is_writable && !become_writable(node, err))
        return false;
    struct file_locks want = locks_for(node, perm, shared);
    if (!file_locks_take(state->file, node->filename, state->locks, want, true, state->locks_optional, err))
        return false;
    state->locks.held |= want.held;
    state->locks.unshared |= want.unshared;
    return true;
}

void file_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    struct file_state *state = node->state;
    struct file_locks want = locks_for(node, perm, shared);
    file_locks_drop(state->file, state->locks, want);
    state->locks.held &= want.held;
    state->locks.unshared &= want.unshared;
    if (perm & MODIFY)
        state->had_writer = true;
    else if (state->had_writer && state->is_writable && node->auto_read_only && !node->in_flight)
        stop_writing(node);
}

/* Reopen ---------------------------------------------------------------------------------------------------------- */

struct reopen_state {
    struct io_file *file;
    bool writable;
};

bool file_reopen_prepare(struct node *node, const struct blockdev_options *options, struct reopen_state **out,
                         struct error *err)
{
    const struct blockdev_options_file *old = options_of(node->options), *wanted = options_of(options);
    if (strcmp(old->filename, wanted->filename))
        return fail(err, EINVAL, "Cannot change the option 'filename' of node '%s'", node->name);
    if (old->locking != wanted->locking)
        return fail(err, EINVAL, "Cannot change the option 'locking' of node '%s'", node->name);
    bool writable;
    struct io_file *file = open_as_possible(node, options, &writable, err);
    if (!file)
        return false;
    *out = new (struct reopen_state);
    **out = (struct reopen_state){file, writable};
    return true;
}

/* Only now does the new file take the locks: until here parents' needs may have changed them, and locks that we had
 * through two descriptors would be in our own way. All are shared ones, so taking them again cannot fail. */
void file_reopen_commit(struct node *node, struct reopen_state *reopen)
{
    const struct file_state *state = node->state;
    file_locks_take(reopen->file, node->filename, (struct file_locks){0}, state->locks, false, true, NULL);
    replace_file(node, reopen->file, reopen->writable);
    if (!reopen->writable)
        node->read_only = true;
    set_limits(node);
    free(reopen);
}

void file_reopen_abort(struct node *node, struct reopen_state *reopen)
{
    io_file_close(reopen->file);
    free(reopen);
}
