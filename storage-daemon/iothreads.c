/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Iothreads, and the commands about them.
 *
 * An iothread runs the front of exports: sockets, TLS, protocols, virtqueues. The nodes stay on the daemon's main loop,
 * where a request that has been taken apart is carried out. So any number of iothreads may serve one node, and nothing
 * that is about nodes knows of them.
 *
 * Behind the walls no io_uring can be made (walls/calls.c), so these loops wait by epoll, unless the daemon runs
 * without walls.
 */
#include "storage-daemon/iothreads.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/loop.h"
#include "base/loop_thread.h"
#include "base/pool.h"
#include "objects/object.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/daemon.h"

/* The object ------------------------------------------------------------------------------------------------------ */

struct iothread {
    struct loop_thread *thread;
};

static struct iothread *state_of(const struct object *object)
{
    return object->state;
}

static bool check(const struct iothread_properties *properties, struct error *err)
{
    if (properties->aio_max_batch)
        return fail(err, ENOTSUP,
                    "aio-max-batch=%lld: an iothread does no I/O on files here, so there are no batches to limit; "
                    "only 0 is possible",
                    (long long)properties->aio_max_batch);
    if (properties->thread_pool_min > properties->thread_pool_max)
        return fail(err, EINVAL, "thread-pool-min %lld is more than thread-pool-max %lld",
                    (long long)properties->thread_pool_min, (long long)properties->thread_pool_max);
    return true;
}

struct settings {
    struct loop *loop;
    struct loop_polling polling;
    size_t thread_pool_min, thread_pool_max;
};

/* On the iothread. */
static void apply(void *arg)
{
    struct settings *settings = arg;
    loop_set_polling(settings->loop, &settings->polling);
    pool_set_limits(loop_pool(settings->loop), settings->thread_pool_min, settings->thread_pool_max);
    free(settings);
}

/* In the simulation there is no such thread, and the settings of the one loop are not ours. */
static void set(struct iothread *iothread, const struct iothread_properties *properties)
{
    struct loop *loop = loop_thread_loop(iothread->thread);
    if (loop_backend(loop) == LOOP_SIMULATED)
        return;
    struct settings *settings = new (struct settings);
    *settings = (struct settings){
        .loop = loop,
        .polling = {.max_ns = (uint64_t)properties->poll_max_ns,
                    .grow = (unsigned)properties->poll_grow,
                    .shrink = (unsigned)properties->poll_shrink},
        .thread_pool_min = (size_t)properties->thread_pool_min,
        .thread_pool_max = (size_t)properties->thread_pool_max,
    };
    loop_post(loop, apply, settings);
}

static bool iothread_change(struct object *object, const struct object_options *options, struct error *err)
{
    if (!check(&options->u.iothread, err))
        return false;
    set(object->state, &options->u.iothread);
    return true;
}

static bool iothread_open(struct object *object, struct error *err)
{
    struct iothread *iothread = object->state;
    if (!check(&object->options->u.iothread, err))
        return false;
    iothread->thread = loop_thread_new(object_set_loop(object->set), object->id, err);
    if (!iothread->thread)
        return false;
    set(iothread, &object->options->u.iothread);
    return true;
}

static void iothread_close(struct object *object)
{
    loop_thread_free(state_of(object)->thread);
}

const struct object_kind iothread_kind = {
    .type = OBJECT_TYPE_IOTHREAD,
    .state_size = sizeof(struct iothread),
    .open = iothread_open,
    .close = iothread_close,
    .change = iothread_change,
};

/* Orders for nodes ------------------------------------------------------------------------------------------------ */

struct order {
    struct list link;
    char *node_name;
    struct object *iothread; /* held */
};

struct iothreads {
    struct object_set *objects;
    struct list orders;
};

struct iothreads *iothreads_new(struct object_set *objects)
{
    struct iothreads *iothreads = new (struct iothreads);
    iothreads->objects = objects;
    list_init(&iothreads->orders);
    return iothreads;
}

static struct order *find_order(const struct iothreads *iothreads, const char *node_name)
{
    struct order *order;
    list_for_each (order, &iothreads->orders, link)
        if (!strcmp(order->node_name, node_name))
            return order;
    return NULL;
}

static void forget(struct order *order)
{
    list_remove(&order->link);
    object_release(order->iothread);
    free(order->node_name);
    free(order);
}

void iothreads_forget_node(struct iothreads *iothreads, const char *node_name)
{
    struct order *order = find_order(iothreads, node_name);
    if (order)
        forget(order);
}

void iothreads_free(struct iothreads *iothreads)
{
    struct order *order;
    list_for_each_safe (order, &iothreads->orders, link)
        forget(order);
    free(iothreads);
}

/* For exports ----------------------------------------------------------------------------------------------------- */

static bool hold(void *user, const char *id, const struct node *node, struct loop **loop, void **iothread,
                 struct error *err)
{
    struct iothreads *iothreads = user;
    const struct order *order = id ? NULL : find_order(iothreads, node->name);
    if (order)
        id = order->iothread->id;
    if (!id)
        return true;
    struct object *object = object_hold(iothreads->objects, id, &iothread_kind, err);
    if (!object)
        return false;
    *iothread = object;
    *loop = loop_thread_loop(state_of(object)->thread);
    return true;
}

static void release(void *iothread)
{
    object_release(iothread);
}

struct export_iothreads iothreads_for_exports(struct iothreads *iothreads)
{
    return (struct export_iothreads){.hold = hold, .release = release, .user = iothreads};
}

/* Commands -------------------------------------------------------------------------------------------------------- */

bool qmp_query_iothreads(struct qmp_context *context, struct io_thread_info_list **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    (void)err;
    *ret = io_thread_info_list_new();
    for (struct object *object = object_next(daemon->objects, NULL); object;
         object = object_next(daemon->objects, object)) {
        if (object->kind != &iothread_kind)
            continue;
        const struct iothread_properties *properties = &object->options->u.iothread;
        struct io_thread_info *info = new (struct io_thread_info);
        *info = (struct io_thread_info){
            .id = xstrdup(object->id),
            .thread_id = loop_thread_id(state_of(object)->thread),
            .poll_max_ns = properties->poll_max_ns,
            .poll_grow = properties->poll_grow,
            .poll_shrink = properties->poll_shrink,
            .aio_max_batch = properties->aio_max_batch,
        };
        io_thread_info_list_append(*ret, info);
    }
    return true;
}

static const struct block_export *find_export_of(const struct daemon *daemon, const struct node *node)
{
    const struct block_export *export = NULL;
    while ((export = export_next(daemon->exports, export)) && (!export->edge || export->edge->child != node))
        ;
    return export;
}

bool qmp_x_blockdev_set_iothread(struct qmp_context *context, struct q_x_blockdev_set_iothread_arg *arg,
                                 struct error *err)
{
    struct daemon *daemon = context->app;
    const struct node *node = graph_find(daemon->graph, arg->node_name);
    if (!node)
        return fail(err, ENOENT, "Cannot find a node with node-name '%s'", arg->node_name);
    const struct block_export *export = find_export_of(daemon, node);
    if (export && !arg->force)
        return fail(err, EBUSY, "node '%s' is in use by export '%s', which would stay where it is: say force=true",
                    node->name, export->id);
    struct object *iothread = NULL;
    if (arg->iothread->kind == STR_OR_NULL_KIND_S &&
        !(iothread = object_hold(daemon->objects, arg->iothread->u.s, &iothread_kind, err)))
        return false;
    iothreads_forget_node(daemon->iothreads, node->name);
    if (!iothread)
        return true;
    struct order *order = new (struct order);
    *order = (struct order){.node_name = xstrdup(node->name), .iothread = iothread};
    list_append(&daemon->iothreads->orders, &order->link);
    return true;
}
