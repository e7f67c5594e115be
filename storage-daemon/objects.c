/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of objects that are about the daemon itself, and object-add and object-del. */
#include "objects/object.h"

#include "base/loop.h"
#include "base/pool.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/iothreads.h"

/* Worker threads: how many there are, and how many may work. Two of these objects would contradict each other. */
static bool main_loop_change(struct object *object, const struct object_options *options, struct error *err)
{
    const struct main_loop_properties *properties = &options->u.main_loop;
    if (properties->thread_pool_min > properties->thread_pool_max)
        return fail(err, EINVAL, "thread-pool-min %lld is more than thread-pool-max %lld",
                    (long long)properties->thread_pool_min, (long long)properties->thread_pool_max);
    pool_set_limits(loop_pool(object_set_loop(object->set)), (size_t)properties->thread_pool_min,
                    (size_t)properties->thread_pool_max);
    return true;
}

static bool main_loop_open(struct object *object, struct error *err)
{
    for (struct object *other = object_next(object->set, NULL); other; other = object_next(object->set, other))
        if (other->kind == object->kind)
            return fail(err, EEXIST, "there is already a main-loop object, '%s'", other->id);
    return main_loop_change(object, object->options, err);
}

static void main_loop_close(struct object *object)
{
    pool_set_limits(loop_pool(object_set_loop(object->set)), 0, 0);
}

static const struct object_kind main_loop_kind = {
    .type = OBJECT_TYPE_MAIN_LOOP,
    .open = main_loop_open,
    .close = main_loop_close,
    .change = main_loop_change,
};

const struct object_kind *const daemon_object_kinds[] = {&iothread_kind, &main_loop_kind, NULL};

bool qmp_object_add(struct qmp_context *context, struct object_options *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return object_add(daemon->objects, arg, err) != NULL;
}

bool qmp_object_del(struct qmp_context *context, struct q_object_del_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return object_remove(daemon->objects, arg->id, err);
}
