/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that users make by name (--object, object-add). One kind so far: the settings of the event loop. */
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/pool.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/daemon.h"

static bool add_main_loop(struct daemon *daemon, const char *id, const struct main_loop_properties *properties,
                          struct error *err)
{
    if (daemon->main_loop_id)
        return fail(err, EEXIST, "object '%s': there is already a main-loop object, '%s'", id, daemon->main_loop_id);
    if (properties->thread_pool_min > properties->thread_pool_max)
        return fail(err, EINVAL, "object '%s': thread-pool-min %lld is more than thread-pool-max %lld", id,
                    (long long)properties->thread_pool_min, (long long)properties->thread_pool_max);
    pool_set_limits(loop_pool(daemon->loop), (size_t)properties->thread_pool_min, (size_t)properties->thread_pool_max);
    daemon->main_loop_id = xstrdup(id);
    return true;
}

bool daemon_add_object(struct daemon *daemon, const struct object_options *options, struct error *err)
{
    switch (options->qom_type) {
    case OBJECT_TYPE_MAIN_LOOP: return add_main_loop(daemon, options->id, &options->u.main_loop, err);
    default: return fail(err, EINVAL, "object '%s' is of an unknown type", options->id);
    }
}

bool daemon_remove_object(struct daemon *daemon, const char *id, struct error *err)
{
    if (!daemon->main_loop_id || strcmp(daemon->main_loop_id, id))
        return fail(err, ENOENT, "there is no object '%s'", id);
    pool_set_limits(loop_pool(daemon->loop), 0, 0);
    free(TAKE(daemon->main_loop_id));
    return true;
}

bool qmp_object_add(struct qmp_context *context, struct object_options *arg, struct error *err)
{
    return daemon_add_object(context->app, arg, err);
}

bool qmp_object_del(struct qmp_context *context, struct q_object_del_arg *arg, struct error *err)
{
    return daemon_remove_object(context->app, arg->id, err);
}
