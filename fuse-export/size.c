/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The size of the file. A disk has a fixed one, so clients change it only where the export is growable; otherwise they
 * are told EPERM, as ftruncate(2) says of files that cannot be extended. Drains come with each change, which is why a
 * request must not be inside the graph when it asks for one.
 */
#include "block/create.h"
#include "fuse-export/internal.h"

enum { SECTOR = 512 };

void served_touch(struct served_file *file)
{
    clock_gettime(CLOCK_REALTIME, &file->mtime);
    file->ctime = file->mtime;
}

static int resize(struct served_file *file, uint64_t size, enum preallocation preallocation)
{
    auto_error err = {0};
    if (!node_resize(file->edge, size, preallocation, true, &err))
        return err.code == ENOTSUP ? -EOPNOTSUPP : -err.code;
    served_touch(file);
    return 0;
}

int served_set_size(struct served_file *file, uint64_t size)
{
    if (!file->export->writable)
        return -EROFS;
    with_co_lock (&file->size_lock) {
        if (size == file->edge->child->size)
            return 0;
        return file->growable ? resize(file, size, PREALLOCATION_OFF) : -EPERM;
    }
    return 0;
}

int served_grow(struct served_file *file, uint64_t size, bool allocate)
{
    if (!file->growable)
        return -ENOSPC; /* as a disk says beyond its end */
    enum preallocation preallocation = allocate ? PREALLOCATION_FALLOC : PREALLOCATION_OFF;
    with_co_lock (&file->size_lock) {
        if (size <= file->edge->child->size)
            return 0;
        int result = resize(file, size, preallocation);
        if (result == -EINVAL) /* formats count in sectors */
            result = resize(file, round_up(size, SECTOR), preallocation);
        return result;
    }
    return 0;
}
