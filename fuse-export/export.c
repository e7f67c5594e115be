/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The export type `fuse`: a file of the host shows the disk. It covers an existing regular file, which may be the image
 * itself: the image was opened before, and nothing here looks for it by its name.
 *
 * Life: the mount point is looked at, mounted over, and answered for; at the end it is unmounted while we still answer,
 * then those requests are waited for that are in flight, and the connection is closed. Whoever has the file open then
 * gets ENOTCONN. When somebody else unmounts the file, the export goes too.
 */
#include "fuse-export/export.h"

#include <stdlib.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "fuse-export/internal.h"

static void set_attributes(struct served_file *file)
{
    file->mode = S_IFREG | (file->export->writable ? 0600 : 0400);
    file->uid = geteuid();
    file->gid = getegid();
    clock_gettime(CLOCK_REALTIME, &file->mtime);
    file->atime = file->ctime = file->mtime;
}

static bool want_resizing(struct block_export *export, struct error *err)
{
    struct edge *edge = export->edge;
    if (!export->writable)
        return fail(err, EINVAL, "growable=on needs writable=on");
    return edge_set_perm(edge, edge->perm | BLOCK_PERM_RESIZE, edge->shared, err);
}

static bool start(struct served_file *file, const struct block_export_options_fuse *options, struct error *err)
{
    bool is_auto = !options->has_allow_other || options->allow_other == FUSE_EXPORT_ALLOW_OTHER_AUTO;
    bool other = is_auto || options->allow_other == FUSE_EXPORT_ALLOW_OTHER_ON;
    if (!mount_point_prepare(file, options->mountpoint, err))
        return false;
    int fd = mount_point_mount(file, other, &is_auto, err);
    if (fd < 0)
        return false;
    file->mounted = true;
    if (!channel_open(file, fd, err))
        return false;
    mount_point_find_device(file);
    return true;
}

static void stop(struct served_file *file)
{
    mount_point_unmount(file);
    channel_close(file);
    free(TAKE(file->path));
}

static bool open_export(struct block_export *export, const struct block_export_options *options, struct error *err)
{
    const struct block_export_options_fuse *own = &options->u.fuse;
    struct served_file *file = export->state;
    *file = (struct served_file){.export = export,
                                 .edge = export->edge,
                                 .loop = export->edge->child->loop,
                                 .front = export->loop,
                                 .doorman = export->server,
                                 .growable = own->growable,
                                 .fd = -1};
    if (!file->doorman)
        return fail(err, ENOTSUP, "FUSE exports are for daemons of their own: this one lives inside another program");
    co_group_init(&file->requests);
    co_mutex_init(&file->size_lock);
    co_rwlock_init(&file->content_lock);
    list_init(&file->free_messages);
    list_init(&file->handled);
    set_attributes(file);
    if ((own->growable && !want_resizing(export, err)) || !start(file, own, err)) {
        stop(file);
        return false;
    }
    return true;
}

static void close_export(struct block_export *export)
{
    stop(export->state);
}

/* Who has just closed it must not be told that it is in use. */
static void look(struct block_export *export)
{
    struct served_file *file = export->state;
    if (file->opened)
        channel_look(file);
}

static bool in_use(const struct block_export *export)
{
    const struct served_file *file = export->state;
    return file->opened > 0;
}

static uint32_t clients(const struct block_export *export)
{
    const struct served_file *file = export->state;
    return (uint32_t)file->opened;
}

const struct export_driver fuse_export_driver = {
    .type = BLOCK_EXPORT_TYPE_FUSE,
    .state_size = sizeof(struct served_file),
    .open = open_export,
    .close = close_export,
    .in_use = in_use,
    .clients = clients,
    .look = look,
};
