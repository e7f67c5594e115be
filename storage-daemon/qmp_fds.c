/* SPDX-License-Identifier: Apache-2.0 */
/* The commands about descriptors that clients hand over. */
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "objects/fds.h"
#include "objects/object.h"
#include "qmp/schema/commands.h"
#include "qmp/server.h"
#include "storage-daemon/daemon.h"

static struct fds *fds_of(struct qmp_context *context)
{
    const struct daemon *daemon = context->app;
    return object_set_fds(daemon->objects);
}

static int received_fd(struct qmp_context *context, struct error *err)
{
    int fd = context->monitor ? qmp_monitor_take_fd(context->monitor) : -1;
    if (fd < 0)
        fail(err, EINVAL, "No file descriptor supplied via SCM_RIGHTS");
    return fd;
}

bool qmp_getfd(struct qmp_context *context, struct q_getfd_arg *arg, struct error *err)
{
    int fd = received_fd(context, err);
    return fd >= 0 && fds_put_name(fds_of(context), arg->fdname, fd, err);
}

bool qmp_closefd(struct qmp_context *context, struct q_closefd_arg *arg, struct error *err)
{
    return fds_close_name(fds_of(context), arg->fdname, err);
}

bool qmp_add_fd(struct qmp_context *context, struct q_add_fd_arg *arg, struct addfd_info **ret, struct error *err)
{
    int fd = received_fd(context, err);
    if (fd < 0)
        return false;
    const struct fd_set_entry *set =
        fds_add(fds_of(context), arg->has_fdset_id ? arg->fdset_id : -1, fd, arg->opaque, err);
    if (!set)
        return false;
    *ret = addfd_info_new();
    (*ret)->fdset_id = set->id;
    (*ret)->fd = fd;
    return true;
}

bool qmp_remove_fd(struct qmp_context *context, struct q_remove_fd_arg *arg, struct error *err)
{
    if (arg->has_fd && (arg->fd < 0 || arg->fd > INT32_MAX))
        return fail(err, EINVAL, "fd %lld is not the number of a descriptor", (long long)arg->fd);
    return fds_remove(fds_of(context), arg->fdset_id, arg->has_fd ? (int)arg->fd : -1, err);
}

static struct fdset_info *describe(const struct fd_set_entry *set)
{
    struct fdset_info *info = fdset_info_new();
    const struct fd_member *member;
    size_t count = 0;
    list_for_each (member, &set->members, link)
        count++;
    info->fdset_id = set->id;
    info->fds = new_array(struct fdset_fd_info *, count);
    list_for_each (member, &set->members, link) {
        struct fdset_fd_info *fd = fdset_fd_info_new();
        fd->fd = member->fd;
        fd->opaque = xstrdup(member->opaque);
        info->fds[info->n_fds++] = fd;
    }
    return info;
}

bool qmp_query_fdsets(struct qmp_context *context, struct fdset_info_list **ret, struct error *err)
{
    (void)err;
    *ret = fdset_info_list_new();
    const struct fds *fds = fds_of(context);
    for (const struct fd_set_entry *set = fds_next(fds, NULL); set; set = fds_next(fds, set))
        fdset_info_list_append(*ret, describe(set));
    return true;
}
