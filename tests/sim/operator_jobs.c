/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs and bitmaps while guests write. That a filter in the path of writes loses nothing, and takes itself out again,
 * is what the model of the disk shows; the copies are opened and checked by the next job's blockdev-add.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/node.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "tests/sim/operations.h"

#define COPY "job-copy"

static bool make_copy(struct world *world, uint64_t size, struct error *err)
{
    struct graph *graph = graph_new(world->loop, protocol_table);
    graph_add_drivers(graph, formats_table);
    auto_free char *options =
        xasprintf("size=%" PRIu64 ",cluster_size=%s", size, world_random(world, 2) ? "64k" : "4k");
    bool good = world_create(graph, COPY ".qcow2", options, err);
    graph_free(graph);
    return good && world_command(world, err,
                                 "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': '" COPY
                                 "', 'file': {'driver': 'file', 'filename': '" COPY ".qcow2'}}}");
}

/* The state of the job, "" when it is gone or the cut has come. To be freed. */
static char *status_of_job(struct world *world)
{
    auto_json *jobs = world_query(world, NULL, "{'execute': 'query-jobs'}");
    const struct json *first = jobs && json_length(jobs) ? json_at(jobs, 0) : NULL;
    return xstrdup(first ? json_string(json_get(first, "status")) : "");
}

/* Until the job has this state, or has ended, or the cut has come. */
static bool wait_for_job(struct world *world, const char *wanted)
{
    while (!world->is_cut) {
        auto_free char *status = status_of_job(world);
        if (!strcmp(status, wanted))
            return true;
        if (!*status || !strcmp(status, "concluded"))
            return false;
        co_sleep_ns(500000);
    }
    return false;
}

static bool tell_job(struct world *world, const char *verb)
{
    return world_command(world, NULL, "{'execute': '%s', 'arguments': {'id': 'job'}}", verb);
}

static void end_job(struct world *world)
{
    wait_for_job(world, "concluded");
    tell_job(world, "job-dismiss");
    world_command(world, NULL, "{'execute': 'blockdev-del', 'arguments': {'node-name': '" COPY "'}}");
}

/* Both kinds of copies: to a good end, or cancelled at any time. */
static bool copy_disk(struct actor *actor, const char *command, bool is_mirror)
{
    struct world *world = actor->world;
    auto_error err = {0};
    struct node *node = graph_find(world->daemon.graph, NODE);
    if (!node || !node->size)
        return false;
    bool is_endless = !world_random(world, 4);
    bool good = make_copy(world, node->size, &err) &&
                world_command(world, &err,
                              "{'execute': '%s', 'arguments': {'job-id': 'job', 'device': '" NODE "', 'target': '" COPY
                              "', 'sync': '%s', 'auto-dismiss': false}}",
                              command, is_endless ? "none" : "full");
    world_expect(world, good, &err, command);
    if (!good)
        return true;
    co_sleep_ns(world_random(world, 20000000));
    if (is_mirror && world_random(world, 3) && wait_for_job(world, "ready"))
        world_command(world, NULL, "{'execute': 'block-job-cancel', 'arguments': {'device': 'job'}}");
    else if (is_mirror || is_endless || world_random(world, 2))
        tell_job(world, "job-cancel");
    end_job(world);
    return true;
}

bool operator_backup(struct actor *actor)
{
    return copy_disk(actor, "blockdev-backup", false);
}

bool operator_mirror(struct actor *actor)
{
    return copy_disk(actor, "blockdev-mirror", true);
}

/* A persistent bitmap comes and goes; in between writes set its bits. */
bool operator_bitmap(struct actor *actor)
{
    struct world *world = actor->world;
    auto_error err = {0};
    static const char where[] = "'node': '" NODE "', 'name': 'row'";
    struct node *node = graph_find(world->daemon.graph, NODE);
    if (!node || !node->size)
        return false;
    world_command(world, NULL, "{'execute': 'block-dirty-bitmap-remove', 'arguments': {%s}}",
                  where); /* of a life before */
    bool good = world_command(world, &err,
                              "{'execute': 'block-dirty-bitmap-add', 'arguments': {%s, 'persistent': true, "
                              "'granularity': 4096}}",
                              where);
    world_expect(world, good, &err, "block-dirty-bitmap-add");
    co_sleep_ns(world_random(world, 10000000));
    if (good && world_random(world, 2))
        good = world_command(world, &err, "{'execute': 'block-dirty-bitmap-clear', 'arguments': {%s}}", where);
    world_expect(world, good, &err, "block-dirty-bitmap-clear");
    if (good && world_random(world, 2))
        good = world_command(world, &err, "{'execute': 'block-dirty-bitmap-remove', 'arguments': {%s}}", where);
    world_expect(world, good, &err, "block-dirty-bitmap-remove");
    return true;
}

/* Leaks that the cuts of earlier lives left are there to be repaired; corruptions are not. What guests have under way
 * is neither, which the examination of each cut shows: a repair that freed it would lose data. */
bool operator_check(struct actor *actor)
{
    static const char *const repairs[] = {"none", "leaks", "all", "all"};
    struct world *world = actor->world;
    auto_error err = {0};
    bool good = world_command(world, &err,
                              "{'execute': 'blockdev-check', 'arguments': {'job-id': 'job', 'node-name': '" NODE
                              "', 'repair': '%s', 'speed': %d}}",
                              repairs[world_random(world, ARRAY_SIZE(repairs))],
                              world_random(world, 2) ? 0 : (int)(world->kind->cluster * 2000));
    world_expect(world, good, &err, "blockdev-check");
    if (!good)
        return true;
    if (!world_random(world, 4)) {
        co_sleep_ns(world_random(world, 10000000));
        tell_job(world, "job-cancel");
    }
    wait_for_job(world, "concluded");
    auto_json *jobs = world_query(world, NULL, "{'execute': 'query-jobs'}");
    const struct json *found = jobs && json_length(jobs) ? json_get(json_at(jobs, 0), "check") : NULL;
    int64_t corruptions = 0;
    if (found && json_int64(json_get(found, "corruptions"), &corruptions) && corruptions && !world->is_cut &&
        !world->faulty)
        world_fail(world, "a check in use finds %" PRId64 " corruptions", corruptions);
    tell_job(world, "job-dismiss");
    return true;
}
