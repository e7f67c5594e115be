/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space of a file: holes, zeroes, discards, and its length. File systems differ in what they can do; what one refuses
 * once is not tried again on that node.
 *
 * SEEK_DATA can be slow on fragmented files, and callers ask extent by extent. So the last stretch of data found is
 * remembered. Only data: taking a hole for data costs a read, taking data for a hole would lose it.
 */
#include "protocol/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"

static bool is_unsupported(int result)
{
    return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENOTTY || result == -EINVAL || result == -ENODEV;
}

/* Tries an fallocate mode until the file system says that it does not know it. */
static int try_fallocate(struct file_state *state, bool *cannot, int mode, uint64_t offset, uint64_t length)
{
    if (*cannot)
        return -ENOTSUP;
    int result = io_file_fallocate(state->file, mode, offset, length);
    if (!is_unsupported(result))
        return result;
    *cannot = true;
    return -ENOTSUP;
}

static int punch(struct file_state *state, uint64_t offset, uint64_t length)
{
    state->data_end = state->data_start; /* what was known as data may be a hole now */
    return try_fallocate(state, &state->cannot_punch, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

/* A hole reads as zeroes up to the end of the file; what is behind it comes into being by making the file longer. */
static int punch_and_extend(struct node *node, uint64_t offset, uint64_t length)
{
    struct file_state *state = node->state;
    uint64_t end = offset + length;
    uint64_t inside = offset < node->size ? MIN(length, node->size - offset) : 0;
    int result = inside ? punch(state, offset, inside) : 0;
    return !result && end > node->size ? io_file_truncate(state->file, end) : result;
}

static int zero_file(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct file_state *state = node->state;
    if (flags & REQUEST_MAY_UNMAP) {
        int result = punch_and_extend(node, offset, length);
        if (result != -ENOTSUP)
            return result;
    }
    int result = try_fallocate(state, &state->cannot_zero_range, FALLOC_FL_ZERO_RANGE, offset, length);
    if (result != -ENOTSUP)
        return result;
    /* Without ZERO_RANGE: a hole, then space for it again. */
    result = punch_and_extend(node, offset, length);
    return result ? result : io_file_fallocate(state->file, 0, offset, length);
}

static int zero_device(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct file_state *state = node->state;
    if (flags & REQUEST_MAY_UNMAP) {
        int result = punch(state, offset, length);
        if (result != -ENOTSUP)
            return result;
    }
    /* BLKZEROOUT may be as slow as writing: not what a caller wants who can do better himself. */
    if ((flags & REQUEST_NO_FALLBACK) || state->cannot_zero_device)
        return -ENOTSUP;
    int result = io_file_zero_device(state->file, offset, length);
    if (!is_unsupported(result))
        return result;
    state->cannot_zero_device = true;
    return -ENOTSUP;
}

int file_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct file_state *state = node->state;
    return state->is_device ? zero_device(node, offset, length, flags) : zero_file(node, offset, length, flags);
}

int file_discard(struct node *node, uint64_t offset, uint64_t length)
{
    struct file_state *state = node->state;
    if (!state->is_device)
        return punch(state, offset, length);
    int result = io_file_discard_device(state->file, offset, length);
    return is_unsupported(result) ? -ENOTSUP : result;
}

int file_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct file_state *state = node->state;
    *extent = (struct extent){.kind = EXTENT_DATA, .length = length, .child_offset = offset, .allocated = true};
    if (state->is_device || state->cannot_seek)
        return 0;
    if (offset >= state->data_start && offset < state->data_end) {
        extent->length = MIN(length, state->data_end - offset);
        return 0;
    }
    int64_t data = io_file_seek_data(state->file, offset);
    if (data < 0 && data != -ENXIO) {
        state->cannot_seek = is_unsupported((int)data);
        return 0;
    }
    if (data == -ENXIO || (uint64_t)data > offset) {
        extent->kind = EXTENT_ZERO;
        extent->allocated = false;
        extent->length = data == -ENXIO ? length : MIN(length, (uint64_t)data - offset);
        return 0;
    }
    int64_t hole = io_file_seek_hole(state->file, offset);
    if (hole > (int64_t)offset) {
        state->data_start = offset;
        state->data_end = (uint64_t)hole;
        extent->length = MIN(length, (uint64_t)hole - offset);
    }
    return 0;
}

int64_t file_copy_range(struct node *from, uint64_t from_offset, struct node *to, uint64_t to_offset, uint64_t length)
{
    struct file_state *source = from->state, *target = to->state;
    uint64_t done = 0;
    while (done < length) {
        int64_t result =
            io_file_copy_range(source->file, from_offset + done, target->file, to_offset + done, length - done);
        if (result <= 0)
            return result == 0 || result == -EXDEV || is_unsupported((int)result) ? -ENOTSUP : result;
        done += (uint64_t)result;
    }
    return (int64_t)done;
}

/* Length ---------------------------------------------------------------------------------------------------------- */

static bool fill_with_zeroes(struct io_file *file, const char *filename, uint64_t offset, uint64_t end,
                             struct error *err)
{
    size_t size = 1 * MiB;
    auto_free void *zeroes = try_aligned_alloc(4096, size);
    if (!zeroes)
        return fail(err, ENOMEM, "Out of memory");
    memset(zeroes, 0, size);
    while (offset < end) {
        struct iovec iov = {zeroes, MIN((uint64_t)size, end - offset)};
        int64_t result = io_file_writev(file, &iov, 1, offset, false);
        if (result < 0)
            return fail_errno(err, (int)-result, "Could not write zeros for preallocation of '%s'", filename);
        offset += (uint64_t)result;
    }
    int result = io_file_datasync(file);
    return !result || fail_errno(err, -result, "Could not flush '%s'", filename);
}

static bool truncate_file(struct io_file *file, const char *filename, uint64_t size, struct error *err)
{
    int result = io_file_truncate(file, size);
    return !result || fail_errno(err, -result, "Failed to resize '%s' to %" PRIu64 " bytes", filename, size);
}

bool file_set_length(struct io_file *file, const char *filename, uint64_t old_size, uint64_t size,
                     enum preallocation preallocation, struct error *err)
{
    if (size < old_size && preallocation != PREALLOCATION_OFF)
        return fail(err, EINVAL,
                    "Preallocation can't be used for shrinking files ('%s' from %" PRIu64 " to %" PRIu64 " bytes)",
                    filename, old_size, size);
    bool ok = true;
    switch (preallocation) {
    case PREALLOCATION_OFF: return truncate_file(file, filename, size, err);
    case PREALLOCATION_METADATA: return fail(err, ENOTSUP, "Unsupported preallocation mode 'metadata'");
    case PREALLOCATION_FALLOC: {
        int result = size > old_size ? io_file_fallocate(file, 0, old_size, size - old_size) : 0;
        if (is_unsupported(result))
            ok = fail(err, ENOTSUP, "Unsupported preallocation mode 'falloc': the file system of '%s' cannot do it",
                      filename);
        else if (result)
            ok = fail_errno(err, -result, "Could not preallocate data for '%s'", filename);
        break;
    }
    case PREALLOCATION_FULL:
        ok = truncate_file(file, filename, size, err) && fill_with_zeroes(file, filename, old_size, size, err);
        break;
    }
    if (!ok)
        io_file_truncate(file, old_size);
    return ok;
}

bool file_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact, struct error *err)
{
    struct file_state *state = node->state;
    state->data_end = state->data_start;
    if (!file_set_length(state->file, node->filename, node->size, size, preallocation, err))
        return false;
    node_set_size(node, size);
    return true;
}

bool host_device_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                        struct error *err)
{
    struct file_state *state = node->state;
    if (preallocation != PREALLOCATION_OFF)
        return fail(err, ENOTSUP, "Unsupported preallocation mode for device '%s'", node->filename);
    int64_t now = io_file_size(state->file);
    if (now < 0)
        return fail_errno(err, (int)-now, "Could not get the size of '%s'", node->filename);
    if (exact && size != (uint64_t)now)
        return fail(err, ENOTSUP, "Cannot resize device files: '%s' has %" PRId64 " bytes, not %" PRIu64,
                    node->filename, now, size);
    if (size > (uint64_t)now)
        return fail(err, EINVAL, "Cannot grow device files: '%s' has %" PRId64 " bytes", node->filename, now);
    node_set_size(node, (uint64_t)now); /* it may have grown by itself */
    return true;
}

uint64_t host_device_current_size(struct node *node)
{
    struct file_state *state = node->state;
    int64_t size = io_file_size(state->file);
    return size < 0 ? 0 : (uint64_t)size;
}

int64_t file_allocated_size(struct node *node)
{
    struct file_state *state = node->state;
    struct stat st;
    int result = io_file_stat(state->file, &st);
    return result ? result : (int64_t)st.st_blocks * 512;
}
