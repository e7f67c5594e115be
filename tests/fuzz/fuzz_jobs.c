/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators who send any commands in any order: jobs on every node of a chain, what moves them along, bitmaps,
 * transactions, snapshots, resizes, while a guest writes. The daemon is the whole one, with its command line and its
 * monitor, in a simulated loop with simulated disks that do not fail. A step of the script is the number of a template
 * below and a byte for each of its choices; or the guest's; or a pause.
 *
 * Each command is answered, and refused with a reason if it is; the daemon ends when it is asked to; the guest reads
 * what it wrote, whatever jobs did meanwhile; and afterwards every image is without corruption.
 *
 * links: storage-daemon
 *
 * parts: ../sim/qmp_client.c
 */
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/sim.h"
#include "base/strbuf.h"
#include "block/create.h"
#include "block/request.h"
#include "formats/qcow2/qcow2.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"
#include "storage-daemon/daemon.h"
#include "tests/fuzz/common/fuzz.h"
#include "tests/sim/qmp_client.h"

enum { HEAD = 1, STEPS_MAX = 48, DISK = 256 * KiB, WRITE_MAX = 32 * KiB };
#define HANG_NS (3600ull * 1000000000ull)

/* ---- templates: %X is replaced by what the next byte of the step chooses ---- */

static const char *const actions[] = {
    "{'type':'block-dirty-bitmap-add','data':{'node':%n,'name':%b,'persistent':%t}}",
    "{'type':'block-dirty-bitmap-clear','data':{'node':%n,'name':%b}}",
    "{'type':'block-dirty-bitmap-enable','data':{'node':%n,'name':%b}}",
    "{'type':'block-dirty-bitmap-disable','data':{'node':%n,'name':%b}}",
    "{'type':'block-dirty-bitmap-merge','data':{'node':%n,'target':%b,'bitmaps':[%b]}}",
    "{'type':'block-dirty-bitmap-remove','data':{'node':%n,'name':%b}}",
    "{'type':'blockdev-backup','data':{'job-id':%j,'device':%n,'target':%n,'sync':%y,'speed':%v}}",
    "{'type':'blockdev-snapshot-internal-sync','data':{'device':%n,'name':%s}}",
    "{'type':'blockdev-snapshot-sync','data':{'node-name':%n,'snapshot-file':%s,'snapshot-node-name':%s}}",
    "{'type':'abort','data':{}}",
};

#define ENDS "'auto-finalize':%t,'auto-dismiss':%t"
static const char *const commands[] = {
    "{'execute':'blockdev-backup','arguments':{'job-id':%j,'device':%n,'target':%n,'sync':%y,'speed':%v," ENDS "}}",
    "{'execute':'blockdev-backup','arguments':{'job-id':%j,'device':%n,'target':%n,'sync':'bitmap','bitmap':%b,"
    "'bitmap-mode':%m," ENDS "}}",
    "{'execute':'blockdev-mirror','arguments':{'job-id':%j,'device':%n,'target':%n,'sync':'full','speed':%v,"
    "'copy-mode':%c," ENDS "}}",
    "{'execute':'blockdev-mirror','arguments':{'job-id':%j,'device':%n,'target':%n,'sync':%y,'copy-mode':%c}}",
    "{'execute':'block-commit','arguments':{'job-id':%j,'device':%n,'top-node':%n,'base-node':%n,'speed':%v," ENDS "}}",
    "{'execute':'block-commit','arguments':{'job-id':%j,'device':%n}}",
    "{'execute':'block-stream','arguments':{'job-id':%j,'device':%n,'base-node':%n,'speed':%v," ENDS "}}",
    "{'execute':'block-stream','arguments':{'job-id':%j,'device':%n}}",
    "{'execute':'job-pause','arguments':{'id':%j}}",
    "{'execute':'job-resume','arguments':{'id':%j}}",
    "{'execute':'job-cancel','arguments':{'id':%j}}",
    "{'execute':'job-complete','arguments':{'id':%j}}",
    "{'execute':'job-finalize','arguments':{'id':%j}}",
    "{'execute':'job-dismiss','arguments':{'id':%j}}",
    "{'execute':'block-job-cancel','arguments':{'device':%j,'force':%t}}",
    "{'execute':'block-job-set-speed','arguments':{'device':%j,'speed':%v}}",
    "{'execute':'block-job-change','arguments':{'id':%j,'type':'mirror','copy-mode':%c}}",
    "{'execute':'block-dirty-bitmap-add','arguments':{'node':%n,'name':%b,'persistent':%t,'disabled':%t}}",
    "{'execute':'block-dirty-bitmap-remove','arguments':{'node':%n,'name':%b}}",
    "{'execute':'block-dirty-bitmap-clear','arguments':{'node':%n,'name':%b}}",
    "{'execute':'block-dirty-bitmap-merge','arguments':{'node':%n,'target':%b,'bitmaps':[%b,%b]}}",
    "{'execute':'block-dirty-bitmap-merge','arguments':{'node':%n,'target':%b,'bitmaps':[{'node':%n,'name':%b}]}}",
    "{'execute':'transaction','arguments':{'actions':[%a,%a,%a],'properties':{'completion-mode':%g}}}",
    "{'execute':'transaction','arguments':{'actions':[%a,%a]}}",
    "{'execute':'blockdev-snapshot-sync','arguments':{'node-name':%n,'snapshot-file':%s,'snapshot-node-name':%s}}",
    "{'execute':'blockdev-snapshot-internal-sync','arguments':{'device':%n,'name':%s}}",
    "{'execute':'blockdev-snapshot-delete-internal-sync','arguments':{'device':%n,'name':%s}}",
    "{'execute':'block_resize','arguments':{'node-name':%n,'size':%z}}",
    "{'execute':'x-blockdev-amend','arguments':{'job-id':%j,'node-name':%n,'options':{'driver':'qcow2',"
    "'lazy_refcounts':%t}}}",
    "{'execute':'blockdev-del','arguments':{'node-name':%n}}",
    "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':%n,'file':{'driver':'file','filename':%f},"
    "'backing':null}}",
    "{'execute':'block-export-add','arguments':{'type':'nbd','id':%e,'node-name':%n,'writable':%t}}",
    "{'execute':'block-export-del','arguments':{'id':%e,'mode':%h}}",
    "{'execute':'query-jobs'}",
    "{'execute':'query-block-jobs'}",
    "{'execute':'query-named-block-nodes'}",
    "{'execute':'x-debug-query-block-graph'}",
    "{'execute':'blockdev-check','arguments':{'job-id':%j,'node-name':%n,'repair':%r,'speed':%v," ENDS "}}",
};

static const char *const nodes[] = {"'top'", "'mid'", "'base'", "'copy'", "'raw'", "'top-file'", "'new0'", "'new1'"};
static const char *const jobs[] = {"'j0'", "'j1'", "'j2'"};
static const char *const bitmaps[] = {"'b0'", "'b1'", "'b2'"};
static const char *const new_names[] = {"'new0'", "'new1'", "'new2'"};
static const char *const files[] = {"'top'", "'mid'", "'base'", "'copy'", "'new0'", "'new1'"};
static const char *const syncs[] = {"'full'", "'top'", "'none'", "'incremental'"};
static const char *const modes[] = {"'on-success'", "'never'", "'always'"};
static const char *const copy_modes[] = {"'background'", "'write-blocking'"};
static const char *const speeds[] = {"0", "4096", "65536", "1048576"};
static const char *const groupings[] = {"'individual'", "'grouped'"};
static const char *const booleans[] = {"false", "true"};
static const char *const hardness[] = {"'safe'", "'hard'"};
static const char *const exports[] = {"'e0'", "'e1'"};
static const char *const repairs[] = {"'none'", "'leaks'", "'all'"};
static const char *const sizes[] = {"262144", "327680", "524288", "131072", "1048576"};

static const struct {
    char letter;
    const char *const *values;
    size_t count;
} choices[] = {
    {'n', nodes, ARRAY_SIZE(nodes)},       {'j', jobs, ARRAY_SIZE(jobs)},
    {'b', bitmaps, ARRAY_SIZE(bitmaps)},   {'s', new_names, ARRAY_SIZE(new_names)},
    {'f', files, ARRAY_SIZE(files)},       {'y', syncs, ARRAY_SIZE(syncs)},
    {'m', modes, ARRAY_SIZE(modes)},       {'c', copy_modes, ARRAY_SIZE(copy_modes)},
    {'v', speeds, ARRAY_SIZE(speeds)},     {'g', groupings, ARRAY_SIZE(groupings)},
    {'t', booleans, ARRAY_SIZE(booleans)}, {'h', hardness, ARRAY_SIZE(hardness)},
    {'e', exports, ARRAY_SIZE(exports)},   {'z', sizes, ARRAY_SIZE(sizes)},
    {'a', actions, ARRAY_SIZE(actions)},   {'r', repairs, ARRAY_SIZE(repairs)},
};

/* Appends the template; *at is the next byte of the step. */
static void fill_in(struct strbuf *out, const char *template, const struct record *step, size_t *at)
{
    for (const char *c = template; *c; c++) {
        if (*c != '%') {
            strbuf_append_char(out, *c);
            continue;
        }
        c++;
        for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
            if (choices[i].letter == *c) {
                const char *value = choices[i].values[record_number(step, (*at)++, 1) % choices[i].count];
                fill_in(out, value, step, at);
            }
        }
    }
}

/* ---- steps ---- */

enum { STEP_WRITE = 200, STEP_ZERO = 225, STEP_PAUSE = 240 }; /* below: commands */

static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    /* Mostly the chain's own nodes: what is asked of others is refused at once. */
    for (unsigned i = 0; i < 16; i++)
        bytes[i] = (uint8_t)fuzz_draw(random, fuzz_draw(random, 3) ? 4 : 256);
    bytes[0] = fuzz_draw(random, 4) ? (uint8_t)fuzz_draw(random, ARRAY_SIZE(commands))
                                    : (uint8_t)(STEP_WRITE + fuzz_draw(random, 256 - STEP_WRITE));
    return 16;
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

struct play {
    struct loop *loop;
    const uint8_t *data;
    size_t size;
    struct daemon daemon;
    struct qmp_client *qmp;
    struct edge *guest;
    uint8_t *model; /* of what the guest sees: DISK bytes; nobody can resize its node while it uses it */
    bool is_known;  /* no command was carried out that may change what the guest sees */
};

/* ---- the guest ---- */

static void check_content(struct play *play)
{
    uint8_t buffer[16 * KiB];
    if (!play->is_known)
        return;
    FUZZ_CHECK(play->guest->child->size == DISK);
    for (uint64_t at = 0; at < DISK; at += sizeof buffer) {
        FUZZ_CHECK(block_read_buffer(play->guest, at, buffer, sizeof buffer) == 0);
        FUZZ_CHECK(memcmp(buffer, play->model + at, sizeof buffer) == 0);
    }
}

/* One byte for the place, one for the length, one for what is written. */
static void guest_writes(struct play *play, const struct record *step, bool zeroes)
{
    uint64_t at = record_number(step, 1, 1) * (DISK / 256);
    uint64_t length = MIN(DISK - at, (record_number(step, 2, 1) % 64 + 1) * 512);
    int fill = zeroes ? 0 : (int)record_number(step, 3, 1);
    uint8_t buffer[WRITE_MAX];
    memset(buffer, fill, sizeof buffer);
    int result = zeroes ? block_zero(play->guest, at, length, REQUEST_MAY_UNMAP)
                        : block_write_buffer(play->guest, at, buffer, length, 0);
    if (result)
        play->is_known = false; /* a target that is too small or read-only may break a guest's write */
    else
        memset(play->model + at, fill, length);
}

/* ---- the operator ---- */

static bool call(struct play *play, const char *text)
{
    auto_error err = {0};
    auto_free char *line = xasprintf("%s\n", text);
    auto_json *value = qmp_client_call(play->qmp, line, &err);
    FUZZ_CHECK(value || (err.code != ENOTCONN && err.message && *err.message));
    return value;
}

/* Copies that are not full show other content once they take the disk's place; so may a node that is added anew. */
static bool may_change_content(const char *text)
{
    bool is_copy = strstr(text, "blockdev-mirror") && !strstr(text, "'sync':'full'");
    return is_copy || strstr(text, "blockdev-add");
}

static void command(struct play *play, const struct record *step)
{
    struct strbuf text = {0};
    size_t at = 1;
    fill_in(&text, commands[record_number(step, 0, 1) % ARRAY_SIZE(commands)], step, &at);
    bool is_done = call(play, strbuf_text(&text));
    if (is_done && may_change_content(strbuf_text(&text)))
        play->is_known = false;
    strbuf_free(&text);
}

static void take_step(struct play *play, const struct record *step)
{
    uint64_t kind = record_number(step, 0, 1);
    if (kind < STEP_WRITE)
        command(play, step);
    else if (kind < STEP_PAUSE)
        guest_writes(play, step, kind >= STEP_ZERO);
    else
        co_sleep_ns(record_number(step, 1, 1) * record_number(step, 2, 1) * 100000);
}

/* ---- the daemon ---- */

static void daemon_life(void *arg)
{
    struct play *play = arg;
    auto_error err = {0};
    daemon_open(&play->daemon);
    FUZZ_CHECK(daemon_run_options(&play->daemon, &err));
    while (!play->daemon.quitting)
        co_queue_wait_uncancellable(&play->daemon.quit);
    daemon_close(&play->daemon);
    free(play->daemon.options);
}

static void start_daemon(struct play *play, struct co_group *group)
{
    static const char *const line[] = {"spindle-storage-daemon",
                                       "--chardev",
                                       "socket,id=m,path=qmp.sock,server=on,wait=off",
                                       "--monitor",
                                       "m",
                                       "--nbd-server",
                                       "addr.type=unix,addr.path=nbd.sock"};
    char *argv[ARRAY_SIZE(line) + 1] = {0};
    int status;
    for (size_t i = 0; i < ARRAY_SIZE(line); i++)
        argv[i] = (char *)line[i];
    optind = 0; /* getopt begins anew */
    play->daemon = (struct daemon){.loop = play->loop, .ready_fd = -1};
    co_queue_init(&play->daemon.quit);
    FUZZ_CHECK(daemon_parse(&play->daemon, (int)ARRAY_SIZE(line), argv, &status));
    co_group_init(group);
    co_spawn(play->loop, group, daemon_life, play);
    while (!(play->qmp = qmp_client_new(play->loop, "qmp.sock", NULL)))
        co_sleep_ns(1000000);
}

/* The layers differ before anything happens: a guest of each writes, and goes. */
static void fill_layer(struct play *play, const char *name, uint64_t at, int fill)
{
    uint8_t buffer[20 * KiB];
    memset(buffer, fill, sizeof buffer);
    struct node *node = graph_find(play->daemon.graph, name);
    struct edge *edge = edge_attach(NULL, "fuzz", node, BLOCK_PERM_WRITE, BLOCK_PERM_ALL, NULL);
    FUZZ_CHECK(edge && block_write_buffer(edge, at, buffer, sizeof buffer, 0) == 0);
    edge_detach(edge);
    memset(play->model + at, fill, sizeof buffer);
}

static void add_nodes(struct play *play)
{
    static const char *const lines[] = {
        "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':'base','file':{'driver':'file',"
        "'filename':'base'}}}",
        "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':'mid','file':{'driver':'file',"
        "'filename':'mid'},'backing':'base'}}",
        "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':'top','discard':'unmap','file':{"
        "'driver':'file','node-name':'top-file','filename':'top'},'backing':'mid'}}",
        "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':'copy','file':{'driver':'file',"
        "'filename':'copy'}}}",
        "{'execute':'blockdev-add','arguments':{'driver':'file','node-name':'raw','filename':'raw'}}",
    };
    static const char *const layers[] = {"base", "mid", "top"};
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        FUZZ_CHECK(call(play, lines[i]));
        if (i < ARRAY_SIZE(layers))
            fill_layer(play, layers[i], i * 12 * KiB, 1 + (int)i);
    }
}

static void make_images(struct play *play)
{
    static const char *const options[][2] = {
        {"base", "size=256k,cluster_size=4k"},
        {"mid", "size=256k,cluster_size=16k,backing_file=base,backing_fmt=qcow2"},
        {"top", "size=256k,cluster_size=4k,backing_file=mid,backing_fmt=qcow2"},
        {"copy", "size=256k,cluster_size=64k"},
    };
    struct graph *graph = graph_new(play->loop, protocol_table);
    graph_add_drivers(graph, formats_table);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        auto_qcow2_create_options *typed = NULL;
        FUZZ_CHECK(qcow2_create_options_from_keyval(options[i][1], NULL, &typed, NULL) &&
                   image_create(graph, options[i][0], &qcow2_driver, typed, NULL));
    }
    graph_free(graph);
    auto_free uint8_t *zeroes = xcalloc(1, DISK);
    sim_file_put(play->loop, "raw", zeroes, DISK);
}

static void check_images(struct play *play)
{
    static const char *const names[] = {"base", "mid", "top", "copy", "new0", "new1", "new2"};
    struct graph *graph = graph_new(play->loop, protocol_table);
    graph_add_drivers(graph, formats_table);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        auto_free char *text = xasprintf("{'driver':'qcow2','read-only':true,'file':{'driver':'file','read-only':true,"
                                         "'filename':'%s'},'backing':null}",
                                         names[i]);
        auto_json *json = json_parse(text, strlen(text), NULL);
        auto_blockdev_options *options = NULL;
        FUZZ_CHECK(blockdev_options_from_json(json, &options, NULL));
        struct node *node = node_open(graph, options, NULL);
        FUZZ_CHECK(node || i >= 4); /* those of snapshots need not be there */
        if (!node)
            continue;
        struct image_check result = {0};
        FUZZ_CHECK(qcow2_driver.check(node, 0, &result, NULL) == 0);
        FUZZ_CHECK(!result.corruptions && !result.check_errors);
        node_unref(node);
    }
    graph_free(graph);
}

static void on_hang(void *arg)
{
    FUZZ_CHECK(!arg && "the daemon ends");
}

static int play_all(void *arg)
{
    struct play *play = arg;
    struct co_group group;
    struct loop_timer hang = {.fn = on_hang, .arg = play};
    loop_timer_arm(play->loop, &hang, loop_now_ns(play->loop) + HANG_NS);
    make_images(play);
    start_daemon(play, &group);
    add_nodes(play);
    play->guest =
        edge_attach(NULL, "guest", graph_find(play->daemon.graph, "top"), BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE,
                    BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED | BLOCK_PERM_RESIZE, NULL);
    FUZZ_CHECK(play->guest);
    struct records records = records_after(play->data, play->size, HEAD);
    struct record step;
    for (int i = 0; i < STEPS_MAX && record_next(&records, &step); i++) {
        take_step(play, &step);
        if (i % 8 == 7)
            check_content(play);
    }
    check_content(play);
    edge_detach(play->guest);
    call(play, "{'execute':'quit'}");
    co_group_wait(&group);
    qmp_client_free(play->qmp);
    check_images(play);
    loop_timer_cancel(&hang);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct play play = {.loop = loop_new(LOOP_SIMULATED, data[0], NULL),
                        .data = data,
                        .size = size,
                        .model = xcalloc(1, DISK),
                        .is_known = true};
    loop_run_main(play.loop, play_all, &play);
    loop_free(play.loop);
    free(play.model);
    return 0;
}
