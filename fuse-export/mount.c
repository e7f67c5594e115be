/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting. The daemon is behind its walls and may not mount; the doorman, which stands outside, has fusermount3 do it
 * and sends back the descriptor of /dev/fuse. So the same way serves root and others.
 *
 * Looking at the mount point may ask a file system that this very loop serves: an export is mounted over a file that
 * another export of ours covers, or we look at our own. So every look happens on a worker thread, and the loop goes on.
 *
 * A daemon that was killed leaves a mount behind that answers ENOTCONN. Whoever exports to that place next takes it
 * away. Unmounting is lazy (users may still have the file open), and only of what is ours: somebody else may have
 * unmounted it, or mounted something on top.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "confined/doorman.h"
#include "fuse-export/internal.h"

enum { STALE_MOUNTS = 32 /* on top of each other; more are somebody's joke */ };

/* Looking, on a worker thread ------------------------------------------------------------------------------------ */

struct look {
    const char *path;
    bool sync; /* first, what is in the kernel's page cache comes down to us */
    int code;  /* 0 or an errno value */
    struct stat st;
};

static void look_now(void *arg)
{
    struct look *look = arg;
    int fd = look->sync ? open(look->path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        syncfs(fd);
        close(fd);
    }
    look->code = stat(look->path, &look->st) < 0 ? errno : 0;
}

static struct look look_at(const char *path)
{
    struct look look = {.path = path};
    co_offload(look_now, &look);
    return look;
}

/* Stale mounts end in different errors, by what was the last thing that happened to them. */
static bool is_stale(int code)
{
    return code == ENOTCONN || code == ECONNABORTED;
}

static char *absolute(const char *path)
{
    auto_free char *here = *path == '/' ? NULL : getcwd(NULL, 0);
    return here ? xasprintf("%s/%s", here, path) : xstrdup(path);
}

bool mount_point_prepare(struct served_file *file, const char *mount_point, struct error *err)
{
    file->path = absolute(mount_point);
    struct look look = look_at(file->path);
    for (int i = 0; i < STALE_MOUNTS && is_stale(look.code); i++) {
        if (!doorman_unmount(file->doorman, file->loop, file->path, err))
            return fail_prefix(err, "mountpoint '%s' was left behind by a program that is gone: ", mount_point);
        look = look_at(file->path);
    }
    if (look.code)
        return fail_errno(err, look.code, "mountpoint '%s' must be an existing regular file", mount_point);
    if (!S_ISREG(look.st.st_mode))
        return fail(err, EINVAL, "mountpoint '%s' must be a regular file, which the export then covers", mount_point);
    return true;
}

/* Mounting ------------------------------------------------------------------------------------------------------- */

static int mount_with(struct served_file *file, bool allow_other, struct error *err)
{
    auto_free char *options =
        xasprintf("%s,nosuid,nodev,noexec,default_permissions,max_read=%d,fsname=spindle,subtype=export%s",
                  file->export->writable ? "rw" : "ro", MAX_TRANSFER, allow_other ? ",allow_other" : "");
    return doorman_mount(file->doorman, file->loop, file->path, options, err);
}

int mount_point_mount(struct served_file *file, bool allow_other, bool *auto_other, struct error *err)
{
    auto_error cause = {0};
    int fd = mount_with(file, allow_other, &cause);
    if (fd < 0 && allow_other && *auto_other && cause.code != ENOENT) {
        *auto_other = false; /* not everybody may share; see user_allow_other in fuse.conf(5) */
        return mount_with(file, false, err);
    }
    if (fd < 0 && allow_other && geteuid() != 0)
        fail_hint(&cause, "allow-other=on needs the line user_allow_other in /etc/fuse.conf, or root");
    if (fd < 0)
        error_move(err, &cause);
    return fd;
}

/* From now on, this program's nodes cannot be opened through the mount. */
void mount_point_find_device(struct served_file *file)
{
    struct look look = look_at(file->path);
    if (look.code || look.st.st_ino != FUSE_ROOT_ID)
        return;
    file->device = look.st.st_dev;
    graph_serve_device(file->edge->child->graph, file->device);
}

void mount_point_unmount(struct served_file *file)
{
    struct look look = {.path = file->path, .sync = file->export->writable};
    auto_error err = {0};
    if (!file->mounted)
        return;
    if (!file->gone)
        co_offload(look_now, &look);
    /* A connection that was ended through /sys/fs/fuse leaves a mount that is as stale as after a crash. */
    if (file->gone)
        look = look_at(file->path);
    if (is_stale(look.code) || (!look.code && look.st.st_dev == file->device)) {
        if (!doorman_unmount(file->doorman, file->loop, file->path, &err))
            log_warning("export '%s': %s", file->export->id, err.message);
    }
    file->mounted = false;
    if (file->device)
        graph_stop_serving_device(file->edge->child->graph, file->device);
}
