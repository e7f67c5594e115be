/* SPDX-License-Identifier: Apache-2.0 */
/* The course of a world; see the header. */
#include "tests/sim/world.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "base/strbuf.h"
#include "block/create.h"
#include "crypto/objects.h"
#include "formats/qcow2/qcow2.h"
#include "formats/table.h"
#include "objects/object.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"
#include "tests/sim/operations.h"
#include "tests/sim/qmp_client.h"
#include "tests/sim/report.h"

#define MS UINT64_C(1000000)
#define HANG_NS (600 * 1000 * MS) /* virtual time after which a life that has not ended hangs */

uint64_t world_random(struct world *world, uint64_t limit)
{
    return rng_below(&world->rng, limit);
}

uint32_t world_stamp(struct world *world)
{
    return ++world->last_stamp;
}

/* Random numbers that belong to a place of the run, and take none from it: which operations are cut, and how, is no
 * part of what happens. */
static uint64_t lot_of(const struct world *world, uint64_t operation, uint64_t number)
{
    uint64_t mix = world->seed * UINT64_C(0x9e3779b97f4a7c15) ^ operation << 20 ^ number;
    return splitmix64(&mix);
}

/* --- images and tools --- */

struct node *world_open(struct graph *graph, struct error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    auto_json *json = json_parse(text, strlen(text), err);
    auto_blockdev_options *options = NULL;
    if (!json || !blockdev_options_from_json(json, &options, err))
        return NULL;
    return node_open(graph, options, err);
}

char *world_image_options(const struct world *world, const char *name)
{
    const struct image_kind *kind = world->kind;
    if (name && kind->daemon)
        return xstrdup(kind->daemon);
    auto_free char *own_name = name ? xasprintf("'node-name': '%s', ", name) : xstrdup("");
    auto_free char *file_name = name ? xasprintf("'node-name': '%s-file', ", name) : xstrdup("");
    return xasprintf("{'driver': '%s', %s'discard': 'unmap'%s%s, "
                     "'file': {'driver': 'file', %s'discard': 'unmap', 'filename': '" IMAGE "'}}",
                     kind->traits & TRAIT_QCOW2 ? "qcow2"
                     : kind->create             ? "luks"
                                                : "raw",
                     own_name, *kind->open ? ", " : "", kind->open, file_name);
}

bool world_create(struct graph *graph, const char *filename, const char *options, struct error *err)
{
    auto_qcow2_create_options *typed = NULL;
    return qcow2_create_options_from_keyval(options, NULL, &typed, err) &&
           image_create(graph, filename, &qcow2_driver, typed, err);
}

static bool create_raw(struct graph *graph, const char *filename, uint64_t size, struct error *err)
{
    struct raw_create_options options = {.size = size};
    return image_create(graph, filename, &raw_driver, &options, err);
}

/* Encrypted noise at first, which nobody could predict. */
static bool create_luks(struct graph *graph, const char *keyval, struct error *err)
{
    auto_luks_image_create_options *options = NULL;
    if (!luks_image_create_options_from_keyval(keyval, NULL, &options, err) ||
        !image_create(graph, IMAGE, &luks_driver, options, err))
        return false;
    struct node *node = world_open(
        graph, err, "{'driver': 'luks', 'key-secret': 'key', 'file': {'driver': 'file', 'filename': '" IMAGE "'}}");
    struct edge *edge = node ? edge_attach(NULL, "tool", node, BLOCK_PERM_WRITE, BLOCK_PERM_ALL, err) : NULL;
    int result = edge ? block_zero(edge, 0, node->size, 0) : 0;
    if (edge && !result)
        result = block_flush(edge);
    bool good = edge && (!result || fail_errno(err, result, "filling the disk with zeroes"));
    edge_detach(edge);
    if (node)
        node_unref(node);
    return good;
}

static const char *const secrets[] = {"secret,id=key,data=the passphrase", "secret,id=other,data=another passphrase"};

struct graph *world_graph(struct loop *loop)
{
    struct graph *graph = graph_new(loop, protocol_table);
    struct object_set *objects = object_set_new(loop);
    graph_add_drivers(graph, formats_table);
    object_set_add_kinds(objects, crypto_object_kinds);
    for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
        (void)object_add_text(objects, secrets[i], NULL);
    graph_set_objects(graph, objects);
    return graph;
}

void world_graph_free(struct graph *graph)
{
    struct object_set *objects = graph_objects(graph);
    graph_free(graph);
    object_set_free(objects);
}

/* A backing image with something in most clusters of its first three quarters. */
static bool fill_backing(struct world *world, struct graph *graph, struct error *err)
{
    uint64_t size = world->kind->size / 4 * 3;
    auto_free char *options = xasprintf("size=%" PRIu64 ",cluster_size=4k", size);
    if (!world_create(graph, BACKING, options, err))
        return false;
    struct node *node =
        world_open(graph, err, "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '%s'}}", BACKING);
    struct edge *edge = node ? edge_attach(NULL, "tool", node, BLOCK_PERM_WRITE, BLOCK_PERM_ALL, err) : NULL;
    int result = edge ? 0 : -EIO;
    uint8_t bytes[8 * SECTOR];
    for (uint64_t at = 0; !result && at < size; at += sizeof bytes) {
        uint32_t stamp = world_stamp(world);
        if (world_random(world, 5) == 0)
            continue;
        model_begin_change(world->model, at, sizeof bytes, stamp);
        model_fill(bytes, at, sizeof bytes, stamp);
        result = block_write_buffer(edge, at, bytes, sizeof bytes, 0);
        model_end_change(world->model, at, sizeof bytes, MODEL_DURABLE);
    }
    if (!result)
        result = block_flush(edge);
    if (edge)
        edge_detach(edge);
    if (node)
        node_unref(node);
    return !result || fail_errno(err, -result, "filling the backing image");
}

static void prepare(struct world *world)
{
    auto_error err = {0};
    struct graph *graph = world_graph(world->loop);
    const struct image_kind *kind = world->kind;
    world->model = model_new(kind->size, kind->size * 2, !kind->create);
    bool good = !(kind->traits & TRAIT_BACKING) || fill_backing(world, graph, &err);
    if (good && kind->traits & TRAIT_QCOW2)
        good = world_create(graph, IMAGE, kind->create, &err);
    else if (good)
        good = kind->create ? create_luks(graph, kind->create, &err) : create_raw(graph, IMAGE, kind->size, &err);
    if (good && kind->with_copy)
        good = create_raw(graph, SECOND_FILE, kind->create ? 0 : kind->size, &err);
    if (!good)
        world_fail(world, "cannot prepare the image: %s", err.message);
    world_graph_free(graph);
}

/* --- cuts --- */

static void examine_copy(struct world *world, uint64_t operation, unsigned number)
{
    uint64_t lot = lot_of(world, operation, number);
    enum sim_cut kind = lot % 8 || !world->settings->kills ? SIM_POWER_CUT : SIM_KILL;
    char name[64];
    snprintf(name, sizeof name, "%s at operation %" PRIu64 ".%u", kind == SIM_KILL ? "a kill" : "a power cut",
             operation, number);
    world->stats->cuts++;
    world->stats->kills += kind == SIM_KILL;
    sim_cut_copy(world->second, world->loop, kind, lot);
    unsigned flags = kind == SIM_KILL ? EXAMINE_KILLED : 0;
    examine(world, name, lot, flags | (lot / 8 % world->settings->thorough ? 0 : EXAMINE_THOROUGHLY));
}

static void end_life(struct world *world, uint64_t operation)
{
    switch (lot_of(world, operation, 1000) % (world->settings->kills ? 4 : 3)) {
    case 0: world_trace(world, "an orderly end begins"); break;
    case 3:
        world_trace(world, "killed");
        world->is_cut = world->was_killed = true;
        sim_kill(world->loop);
        break;
    default:
        world_trace(world, "power cut");
        world->is_cut = true;
        sim_crash(world->loop, lot_of(world, operation, 1001));
        break;
    }
    world->ending = true;
}

/* After every step in which file operations have begun. */
static void observe(void *arg)
{
    struct world *world = (struct world *)arg;
    const struct settings *settings = world->settings;
    uint64_t operation = sim_operations(world->loop);
    if (world->is_cut)
        return;
    bool chosen = settings->only_at ? operation == settings->only_at
                                    : settings->every && lot_of(world, operation, 999) % settings->every == 0;
    for (unsigned number = 0; chosen && number < settings->lots; number++)
        examine_copy(world, operation, number);
    if (operation >= world->life_ends_at && !world->ending)
        end_life(world, operation);
}

/* --- QMP --- */

static struct json *call(struct world *world, struct error *err, const char *format, va_list args)
{
    auto_free char *text = xvasprintf(format, args);
    struct qmp_client *client = world->qmp;
    if (!client)
        return fail_null(err, ENOTCONN, "the daemon does not run");
    world_trace(world, "qmp %s", text);
    auto_free char *line = xasprintf("%s\n", text);
    struct json *value = qmp_client_call(client, line, err);
    world_trace(world, "qmp: %s", value ? "good" : err && err->message ? err->message : "refused");
    world->stats->commands++;
    return value;
}

struct json *world_query(struct world *world, struct error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct json *value = call(world, err, format, args);
    va_end(args);
    return value;
}

bool world_command(struct world *world, struct error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    auto_json *value = call(world, err, format, args);
    va_end(args);
    return value;
}

void world_expect(struct world *world, bool good, const struct error *err, const char *what)
{
    if (!good && !world->is_cut && !world->faulty)
        world_fail(world, "%s: %s", what, err && err->message ? err->message : "failed");
}

/* --- the daemon --- */

static void daemon_life(void *arg)
{
    struct world *world = (struct world *)arg;
    struct daemon *daemon = &world->daemon;
    auto_error err = {0};
    daemon_open(daemon);
    if (!daemon_run_options(daemon, &err))
        world_fail(world, "the daemon does not start: %s", err.message);
    while (!daemon->quitting)
        co_queue_wait_uncancellable(&daemon->quit);
    daemon_close(daemon);
    free(daemon->options);
}

static void start_daemon(struct world *world, struct co_group *group)
{
    static const char *const line[] = {"spindle-storage-daemon",
                                       "--chardev",
                                       "socket,id=m,path=qmp.sock,server=on,wait=off",
                                       "--monitor",
                                       "m",
                                       "--nbd-server",
                                       "addr.type=unix,addr.path=nbd.sock",
                                       "--object",
                                       secrets[0],
                                       "--object",
                                       secrets[1]};
    char *argv[ARRAY_SIZE(line) + 1] = {0};
    int status;
    for (size_t i = 0; i < ARRAY_SIZE(line); i++)
        argv[i] = (char *)line[i];
    optind = 0; /* getopt begins anew */
    world->daemon = (struct daemon){.loop = world->loop, .ready_fd = -1};
    co_queue_init(&world->daemon.quit);
    if (!daemon_parse(&world->daemon, (int)ARRAY_SIZE(line), argv, &status))
        world_fail(world, "the daemon does not take its command line");
    co_group_init(group);
    co_spawn(world->loop, group, daemon_life, world);
}

static bool configure(struct world *world, struct error *err)
{
    auto_free char *image = world_image_options(world, NODE);
    const char *through = world->kind->writethrough ? ", 'writethrough': true" : "";
    return world_command(world, err, "{'execute': 'blockdev-add', 'arguments': %s}", image) &&
           world_command(world, err,
                         "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', 'id': 'nbd', 'node-name': '" NODE
                         "', 'writable': true%s}}",
                         through) &&
           world_command(world, err,
                         "{'execute': 'block-export-add', 'arguments': {'type': 'vhost-user-blk', 'id': 'vhost', "
                         "'node-name': '" NODE "', 'writable': true, 'num-queues': 3, "
                         "'addr': {'type': 'unix', 'path': 'vhost.sock'}%s}}",
                         through);
}

/* --- actors --- */

struct hand {
    struct world *world;
    struct port *port;
};

static void hand_run(void *arg)
{
    struct hand hand = *(struct hand *)arg;
    struct world *world = hand.world;
    free(arg);
    while (!world->ending) {
        if (!hand.port->connected && !hand.port->ops->connect(hand.port)) {
            co_sleep_ns(MS);
            continue;
        }
        bool done = operation_run(world, BY_GUEST, hand.port);
        world->stats->requests += done;
        if (!done || !world_random(world, 4))
            co_sleep_ns(1000 + world_random(world, done ? 300000 : 30000));
    }
}

static void operator_run(void *arg)
{
    struct world *world = (struct world *)arg;
    while (!world->ending) {
        co_sleep_ns(world_random(world, 4 * MS));
        if (!world->ending)
            operation_run(world, BY_OPERATOR, NULL);
    }
}

enum { PORTS_MAX = 4 };

static unsigned open_ports(struct world *world, struct port **ports)
{
    unsigned count = 0, connections = 1 + (unsigned)world_random(world, 3);
    for (unsigned i = 0; i < connections; i++) {
        if ((ports[count] = nbd_port_new(world, i)))
            count++;
    }
    if ((ports[count] = vhost_port_new(world, 1 + (unsigned)world_random(world, 3), world_random(world, 2))))
        count++;
    if (count != connections + 1 && !world->is_cut && !world->faulty)
        world_fail(world, "the daemon does not take its clients");
    return count;
}

/* Guests and operator work until the life ends. */
static void act(struct world *world)
{
    struct port *ports[PORTS_MAX];
    unsigned count = open_ports(world, ports);
    struct co_group actors;
    co_group_init(&actors);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned h = 0; h < ports[i]->hands; h++) {
            struct hand *hand = new (struct hand);
            *hand = (struct hand){world, ports[i]};
            co_spawn(world->loop, &actors, hand_run, hand);
        }
    }
    co_spawn(world->loop, &actors, operator_run, world);
    co_group_wait(&actors);
    for (unsigned i = 0; i < count; i++)
        ports[i]->ops->free(ports[i]);
}

static void run_daemon(struct world *world)
{
    auto_error err = {0};
    struct co_group group;
    start_daemon(world, &group);
    while (!(world->qmp = qmp_client_new(world->loop, "qmp.sock", &err))) {
        error_clear(&err);
        co_sleep_ns(MS);
    }
    bool good = configure(world, &err);
    world_expect(world, good, &err, "the daemon does not take the image");
    if (good)
        act(world);
    world->ending = true;
    world_command(world, NULL, "{'execute': 'quit'}");
    co_group_wait(&group);
    qmp_client_free(TAKE(world->qmp));
}

static void run_tools(struct world *world)
{
    world->tool = world_graph(world->loop);
    for (uint64_t left = world_random(world, 3); left && !world->ending; left--)
        operation_run(world, BY_TOOL, NULL);
    world_graph_free(TAKE(world->tool));
}

/* --- lives --- */

static void on_hang(void *arg)
{
    struct world *world = (struct world *)arg;
    world_fail(world, "nothing ends: %u virtual seconds have gone by since this life began",
               (unsigned)(HANG_NS / (1000 * MS)));
}

/* The disks of this life: quick or slow, steady or stalling, failing, full. */
static void draw_conditions(struct world *world)
{
    struct sim_config *config = sim_config(world->loop);
    uint64_t first = 1 + world_random(world, world->settings->operations);
    uint64_t kind = world_random(world, 12);
    config->disk_stall_one_in = world_random(world, 2) ? 0 : 20 + world_random(world, 200);
    config->stream_stall_one_in = world_random(world, 2) ? 0 : 20 + world_random(world, 200);
    config->stream_chunk = world_random(world, 4) ? 64 * KiB : 1 + world_random(world, 100);
    config->disk_capacity = UINT64_MAX;
    config->sync_failure_loses = false;
    world->faulty = world->settings->faults && kind < 5;
    if (!world->faulty)
        return;
    static const unsigned failing[] = {SIM_READ, SIM_WRITE, SIM_SYNC, SIM_ANY};
    if (kind < ARRAY_SIZE(failing))
        sim_fail(world->loop, NULL, failing[kind], first / 4 + 1, 1 + world_random(world, 4), EIO);
    else
        sim_fail(world->loop, NULL, SIM_WRITE | SIM_FALLOCATE, first / 2 + 1, 1 + world_random(world, 40), ENOSPC);
    world_trace(world, "disks fail in this life");
}

static int live(void *arg)
{
    struct world *world = (struct world *)arg;
    struct loop_timer hang = {.fn = on_hang, .arg = world};
    world->ending = world->is_cut = world->was_killed = false;
    draw_conditions(world);
    world->life_ends_at = sim_operations(world->loop) + 1 + world->settings->operations / 2 +
                          world_random(world, world->settings->operations);
    loop_timer_arm(world->loop, &hang, loop_now_ns(world->loop) + HANG_NS);
    sim_observe(world->loop, observe, world);
    run_tools(world);
    sim_config(world->loop)->sync_failure_loses =
        true; /* not before: the daemon could not know of a tool's failed sync */
    if (!world->ending)
        run_daemon(world);
    sim_observe(world->loop, NULL, NULL);
    sim_fail_clear(world->loop);
    loop_timer_cancel(&hang);
    return 0;
}

/* An orderly end has flushed everything, so that a power cut behind it takes nothing away. */
static void end_in_good_order(struct world *world)
{
    if (!world->faulty)
        model_end_flush(world->model, model_begin_flush(world->model));
    sim_crash(world->loop, lot_of(world, sim_operations(world->loop), 1002));
}

static bool look(struct world *world, unsigned flags)
{
    sim_cut_copy(world->second, world->loop, SIM_KILL, 0);
    return examine(world, "the end of a life", lot_of(world, sim_operations(world->loop), 1003),
                   flags | (world->life % 2 ? EXAMINE_THOROUGHLY : 0));
}

/* What a life has left, and what the next one may rely on. After a kill, a power cut may come before anybody flushes.
 * But after a sync that failed the cache shows what will never be on the disk, and nobody can know: then it is emptied.
 */
static void look_back(struct world *world)
{
    if (!world->is_cut)
        end_in_good_order(world);
    if (world->was_killed && !world->faulty && look(world, EXAMINE_KILLED | EXAMINE_OBSERVE))
        return;
    if (world->was_killed)
        sim_crash(world->loop, lot_of(world, sim_operations(world->loop), 1004));
    look(world, EXAMINE_SETTLE);
}

static int prepare_main(void *arg)
{
    prepare((struct world *)arg);
    return 0;
}

void world_run(const struct image_kind *kind, uint64_t seed, const struct settings *settings, struct life_stats *stats,
               uint64_t *trace_hash)
{
    struct world world = {.kind = kind, .seed = seed, .settings = settings, .stats = stats};
    uint64_t mix = seed;
    for (const char *c = kind->name; *c; c++)
        mix = mix * 31 + (unsigned char)*c;
    rng_seed(&world.rng, mix);
    report_begin(&world);
    world.loop = loop_new(LOOP_SIMULATED, mix + 1, NULL);
    world.second = loop_new(LOOP_SIMULATED, mix + 2, NULL);
    if (!world.loop || !world.second)
        world_fail(&world, "no simulated loop can be made");
    operations_begin(&world);
    loop_run_main(world.loop, prepare_main, &world);
    sim_sync(world.loop);
    sim_cut_copy(world.second, world.loop, SIM_KILL, 0);
    examine(&world, "the beginning", 0, EXAMINE_SETTLE);
    for (world.life = 0; world.life < settings->lives; world.life++) {
        loop_run_main(world.loop, live, &world);
        look_back(&world);
        operations_settle(&world);
        stats->lives++;
    }
    stats->worlds++;
    stats->operations += sim_operations(world.loop);
    operations_end(&world);
    model_free(world.model);
    loop_free(world.second);
    loop_free(world.loop);
    report_end(&world);
    if (trace_hash)
        *trace_hash = world.trace_hash;
}
