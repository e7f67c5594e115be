/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throttle groups; see the header. One scheduler for all members and both directions: whenever something may have
 * changed (a request comes, the timer fires, limits change, somebody leaves), grant() hands out what the buckets allow,
 * in turns, and arms the timer for the moment when there will be more. Turns go round the members, and between reading
 * and writing, so that neither a busy member nor a direction can keep another one waiting for ever.
 *
 * A request that finds nobody waiting and room in the buckets costs a few additions, no switch.
 */
#include "block/filters/throttle_group.h"

#include "base/loop.h"
#include "block/filters/table.h"
#include "block/filters/throttle_limits.h"
#include "objects/object.h"
#include "qmp/schema/types.h"

struct group {
    struct throttle_limits_state limits;
    struct list members; /* of struct throttle_member; whose turn is next comes first */
    size_t waiting[2];   /* requests, by direction */
    enum throttle_direction turn;
    struct loop_timer timer;
    uint64_t leaked_ns; /* until when the buckets have leaked */
};

struct request {
    struct list link;
    struct co *co;
    uint64_t bytes;
    bool granted;
};

/* Buckets --------------------------------------------------------------------------------------------------------- */

/* Each direction drinks from its own buckets and from those for both. */
static const enum throttle_rate rates_of[2][4] = {
    [THROTTLE_READ] = {RATE_BPS_TOTAL, RATE_BPS_READ, RATE_IOPS_TOTAL, RATE_IOPS_READ},
    [THROTTLE_WRITE] = {RATE_BPS_TOTAL, RATE_BPS_WRITE, RATE_IOPS_TOTAL, RATE_IOPS_WRITE},
};

static void leak(struct group *group)
{
    uint64_t now = loop_now_ns(group->timer.loop);
    for (size_t rate = 0; rate < N_RATES; rate++)
        leaky_bucket_leak(&group->limits.buckets[rate], now - group->leaked_ns);
    group->leaked_ns = now;
}

static void pour(struct group *group, enum throttle_direction direction, uint64_t bytes)
{
    uint64_t size = group->limits.iops_size;
    double operations = size && bytes > size ? (double)bytes / (double)size : 1;
    for (size_t i = 0; i < 4; i++) {
        enum throttle_rate rate = rates_of[direction][i];
        leaky_bucket_pour(&group->limits.buckets[rate], rate < RATE_IOPS_TOTAL ? (double)bytes : operations);
    }
}

static uint64_t wait_ns(const struct group *group, enum throttle_direction direction)
{
    uint64_t wait = 0;
    for (size_t i = 0; i < 4; i++)
        wait = MAX(wait, leaky_bucket_wait_ns(&group->limits.buckets[rates_of[direction][i]]));
    return wait;
}

/* Scheduling ------------------------------------------------------------------------------------------------------ */

static void let_through(struct group *group, struct throttle_member *member, enum throttle_direction direction)
{
    struct request *request = list_first(&member->requests[direction], struct request, link);
    list_remove(&request->link);
    group->waiting[direction]--;
    pour(group, direction, request->bytes);
    request->granted = true;
    co_wake(request->co);
}

/* The member that has waited for its turn the longest, and something to do in that direction. */
static void serve(struct group *group, enum throttle_direction direction)
{
    struct throttle_member *member;
    list_for_each (member, &group->members, link) {
        if (list_empty(&member->requests[direction]))
            continue;
        list_remove(&member->link);
        list_append(&group->members, &member->link);
        let_through(group, member, direction);
        return;
    }
}

static bool may_go(const struct group *group, enum throttle_direction direction)
{
    return group->waiting[direction] && !wait_ns(group, direction);
}

static void grant(struct group *group)
{
    leak(group);
    for (;;) {
        enum throttle_direction direction = group->turn;
        if (!may_go(group, direction))
            direction = !direction;
        if (!may_go(group, direction))
            break;
        serve(group, direction);
        group->turn = !direction;
    }
    uint64_t next = UINT64_MAX;
    for (enum throttle_direction direction = THROTTLE_READ; direction <= THROTTLE_WRITE; direction++)
        if (group->waiting[direction])
            next = MIN(next, wait_ns(group, direction));
    if (next == UINT64_MAX)
        loop_timer_cancel(&group->timer);
    else
        loop_timer_arm(group->timer.loop, &group->timer, group->leaked_ns + next);
}

static void on_timer(void *arg)
{
    grant(arg);
}

/* Members --------------------------------------------------------------------------------------------------------- */

void throttle_request(struct throttle_member *member, enum throttle_direction direction, uint64_t bytes)
{
    struct group *group = member->group->state;
    leak(group);
    if (member->unlimited || (!group->waiting[0] && !group->waiting[1] && !wait_ns(group, direction))) {
        pour(group, direction, bytes);
        return;
    }
    struct request request = {.co = co_self(), .bytes = bytes};
    list_append(&member->requests[direction], &request.link);
    group->waiting[direction]++;
    grant(group);
    while (!request.granted)
        co_suspend();
}

static void let_all_through(struct throttle_member *member)
{
    struct group *group = member->group->state;
    for (enum throttle_direction direction = THROTTLE_READ; direction <= THROTTLE_WRITE; direction++)
        while (!list_empty(&member->requests[direction]))
            let_through(group, member, direction);
    grant(group);
}

void throttle_set_unlimited(struct throttle_member *member, bool unlimited)
{
    member->unlimited = unlimited;
    if (unlimited && member->group)
        let_all_through(member);
}

static const struct object_kind throttle_group_kind;

struct object *throttle_group_hold(struct object_set *objects, const char *id, struct error *err)
{
    struct object *object = objects ? object_find(objects, id) : NULL;
    if (!object || object->kind != &throttle_group_kind)
        return fail_null(err, ENOENT, "Throttle group '%s' does not exist", id);
    return object_hold(objects, id, &throttle_group_kind, err);
}

void throttle_join(struct throttle_member *member, struct object *object)
{
    struct group *group = object->state;
    member->group = object;
    list_init(&member->requests[THROTTLE_READ]);
    list_init(&member->requests[THROTTLE_WRITE]);
    list_append(&group->members, &member->link);
}

void throttle_leave(struct throttle_member *member)
{
    if (!member->group)
        return;
    let_all_through(member);
    list_remove(&member->link);
    object_release(member->group);
    member->group = NULL;
}

/* The object ------------------------------------------------------------------------------------------------------ */

static bool group_complete(struct object_options *options, const struct object_options *before, struct error *err)
{
    return throttle_complete(&options->u.throttle_group, before ? &before->u.throttle_group : NULL, err);
}

static bool group_open(struct object *object, struct error *err)
{
    struct group *group = object->state;
    list_init(&group->members);
    group->timer = (struct loop_timer){.loop = object_set_loop(object->set), .fn = on_timer, .arg = group};
    group->leaked_ns = loop_now_ns(group->timer.loop);
    return throttle_limits(&object->options->u.throttle_group, &group->limits, err);
}

static void group_close(struct object *object)
{
    struct group *group = object->state;
    loop_timer_cancel(&group->timer);
}

/* With new limits everybody begins anew: what was taken under the old ones is forgiven. */
static bool group_change(struct object *object, const struct object_options *options, struct error *err)
{
    struct group *group = object->state;
    if (!throttle_limits(&options->u.throttle_group, &group->limits, err))
        return false;
    grant(group);
    return true;
}

static const struct object_kind throttle_group_kind = {
    .type = OBJECT_TYPE_THROTTLE_GROUP,
    .state_size = sizeof(struct group),
    .complete = group_complete,
    .open = group_open,
    .close = group_close,
    .change = group_change,
};

const struct object_kind *const filter_object_kinds[] = {&throttle_group_kind, NULL};
