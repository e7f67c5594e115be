/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the file is like, and its being opened.
 *
 * Caching. Reads and writes go to the daemon each time (FOPEN_DIRECT_IO): the node may be written through other exports
 * and by jobs, and nobody would tell the kernel's page cache. Memory maps are of the page cache all the same; the
 * kernel keeps it in step with reads and writes through the same mount (FUSE_DIRECT_IO_ALLOW_MMAP, Linux 6.6). On older
 * kernels that would forbid shared maps, so there everything goes through the page cache, which an open() empties.
 * Attributes are never cached: sizes change by command too.
 *
 * O_TRUNC. Where the export is growable the file becomes empty, like any file. Elsewhere it is ignored, as on a disk:
 * `cp` and `dd` open what they write to in this way.
 */
#include <fcntl.h>
#include "fuse-export/internal.h"

enum { SECTOR = 512, BLOCK = 4096 };

void served_init(void *user, struct fuse_conn_info *connection)
{
    struct served_file *file = user;
    const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC;
    connection->want |= wanted & connection->capable;
    connection->want &=
        ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
    connection->max_write = MAX_TRANSFER;
    connection->max_background = BACKGROUND;
    connection->congestion_threshold = BACKGROUND;
    (void)file;
}

static void fill(struct served_file *file, struct stat *st)
{
    int64_t allocated = node_allocated_size(file->edge->child); /* waits */
    uint64_t size = file->edge->child->size;
    *st = (struct stat){
        .st_ino = FUSE_ROOT_ID,
        .st_mode = file->mode,
        .st_nlink = 1,
        .st_uid = file->uid,
        .st_gid = file->gid,
        .st_size = (off_t)size,
        .st_blocks = (blkcnt_t)((allocated < 0 ? size : (uint64_t)allocated) / SECTOR),
        .st_blksize = (blksize_t)MAX(file->edge->child->limits.optimal_transfer, (uint32_t)BLOCK),
        .st_atim = file->atime,
        .st_mtim = file->mtime,
        .st_ctim = file->ctime,
    };
}

void served_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info)
{
    struct stat st;
    (void)node, (void)info;
    fill(fuse_req_userdata(request), &st);
    fuse_reply_attr(request, &st, 0);
}

/* Who may do it at all, the kernel has checked (default_permissions). */
static int set_mode(struct served_file *file, mode_t mode)
{
    if (!file->export->writable && (mode & 0222))
        return -EROFS;
    if (mode & 07111) /* not a program, and nobody gains anything by it */
        return -EPERM;
    file->mode = S_IFREG | (mode & 0666);
    return 0;
}

static void set_times(struct served_file *file, const struct stat *values, int which)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (which & FUSE_SET_ATTR_ATIME)
        file->atime = which & FUSE_SET_ATTR_ATIME_NOW ? now : values->st_atim;
    if (which & FUSE_SET_ATTR_MTIME)
        file->mtime = which & FUSE_SET_ATTR_MTIME_NOW ? now : values->st_mtim;
    file->ctime = now;
}

void served_setattr(fuse_req_t request, fuse_ino_t node, struct stat *values, int which, struct fuse_file_info *info)
{
    struct served_file *file = fuse_req_userdata(request);
    int result = 0;
    (void)node, (void)info;
    if (which & FUSE_SET_ATTR_SIZE)
        result = served_set_size(file, (uint64_t)values->st_size);
    if (!result && which & FUSE_SET_ATTR_MODE)
        result = set_mode(file, values->st_mode);
    if (result) {
        fuse_reply_err(request, -result);
        return;
    }
    if (which & FUSE_SET_ATTR_UID)
        file->uid = values->st_uid;
    if (which & FUSE_SET_ATTR_GID)
        file->gid = values->st_gid;
    set_times(file, values, which);
    struct stat st;
    fill(file, &st);
    fuse_reply_attr(request, &st, 0);
}

void served_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info)
{
    struct served_file *file = fuse_req_userdata(request);
    bool to_write = (info->flags & O_ACCMODE) != O_RDONLY;
    int result = to_write && !file->export->writable ? -EROFS : 0;
    (void)node;
    if (!result && (info->flags & O_TRUNC) && file->growable)
        result = served_set_size(file, 0);
    if (result) {
        fuse_reply_err(request, -result);
        return;
    }
    info->direct_io = !file->mmap_needs_cache;
    info->keep_cache = 0;
    file->opened++;
    file->completion = COMPLETE_OPEN;
    if (fuse_reply_open(request, info) < 0)
        file->opened--; /* whoever asked does not wait any more, and will not release it */
    file->completion = AS_IT_IS;
}

/* The channel has counted it. */
void served_release(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)node, (void)info;
    fuse_reply_err(request, 0);
}

/* A file system with one file as large as itself: used is what it takes on the host. */
void served_statfs(fuse_req_t request, fuse_ino_t node)
{
    struct served_file *file = fuse_req_userdata(request);
    struct stat st;
    (void)node;
    fill(file, &st);
    uint64_t total = (uint64_t)st.st_size / SECTOR, used = MIN((uint64_t)st.st_blocks, total);
    fuse_reply_statfs(request, &(struct statvfs){.f_bsize = BLOCK,
                                                 .f_frsize = SECTOR,
                                                 .f_blocks = total,
                                                 .f_bfree = total - used,
                                                 .f_bavail = total - used,
                                                 .f_files = 1,
                                                 .f_namemax = 255});
}
