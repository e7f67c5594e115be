/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS between an NBD client and the server, with somebody in between. The input is the bytes that a client sends
 * instead of TLS once the server has agreed to it; or a script for the one in between, who passes on what an honest
 * client and the server say, and at places of either stream changes, leaves out, inserts and repeats bytes, waits, or
 * hangs up. Credentials are anonymous (TLS 1.2) or of a shared key (TLS 1.3).
 *
 * Nothing but the handshake's own errors may come of it: the server is there for the next client, who is honest and
 * undisturbed; whoever was disturbed inside TLS reads what is on the disk, or nothing. And undisturbed ones are served.
 *
 * links: nbd protocol crypto
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "crypto/objects.h"
#include "crypto/tls_creds.h"
#include "crypto/tls_stream.h"
#include "nbd/internal.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"
#include "tests/fuzz/common/fuzz.h"

enum { HEAD = 1, RAW_BYTES = 1, SHARED_KEY = 2, STEPS_MAX = 16, PIECE = 4096, DISK = 65536 };
enum { PLAIN_FROM_CLIENT = 4 + NBD_OPTION_SIZE, PLAIN_FROM_SERVER = 18 + 20 }; /* bytes that are said before TLS */
#define PATIENCE_NS (60 * 1000000000ull)

/* ---- steps: direction and kind, position in the stream (2), value ---- */

enum step_kind { STEP_CHANGE, STEP_LEAVE_OUT, STEP_INSERT, STEP_REPEAT, STEP_WAIT, STEP_HANG_UP, STEP_KINDS };
enum { FROM_SERVER = 128 };

static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    bytes[0] = (uint8_t)(fuzz_draw(random, STEP_KINDS) | (fuzz_draw(random, 2) ? FROM_SERVER : 0));
    /* The negotiation is 24 bytes and more; hellos, keys and finished messages are within some hundred. */
    store_le16(bytes + 1, (uint16_t)fuzz_draw(random, fuzz_draw(random, 3) ? 700 : 5000));
    bytes[3] = (uint8_t)fuzz_draw(random, fuzz_draw(random, 2) ? 256 : 8);
    return 4 + fuzz_draw(random, 20);
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

struct play {
    struct loop *loop;
    const uint8_t *data;
    size_t size;
    bool is_raw;
    struct object_set *objects;
    struct nbd_server *server;
    struct object *client_creds;
    struct stream *client; /* for the honest one, who takes it */
    struct co_group group;
    bool disturbed, served;
    bool
        misled; /* what is said before TLS was changed: nothing protects the client's flags (proto.md, "TLS support") */
};

/* ---- the one in between ---- */

struct relay {
    struct play *play;
    struct stream *from, *to;
    uint8_t direction;
    uint64_t position;
};

static bool send_on(struct relay *relay, const uint8_t *bytes, size_t size)
{
    return !size || !stream_send_all(relay->to, bytes, size);
}

static void note_position(struct relay *relay, uint64_t at)
{
    if (at < (relay->direction == FROM_SERVER ? PLAIN_FROM_SERVER : PLAIN_FROM_CLIENT))
        relay->play->misled = true;
}

/* Carries one step out before `bytes`, of which *used are passed over. false: it hung up. */
static bool disturb(struct relay *relay, const struct record *step, uint8_t *bytes, size_t size, size_t *used)
{
    size_t value = (size_t)record_number(step, 3, 1);
    *used = 0;
    relay->play->disturbed = true;
    switch (record_number(step, 0, 1) % FROM_SERVER % STEP_KINDS) {
    case STEP_CHANGE: bytes[0] ^= (uint8_t)(value ? value : 1); return true;
    case STEP_LEAVE_OUT: *used = MIN(size, value + 1); return true;
    case STEP_INSERT: return step->size < 5 || send_on(relay, step->bytes + 4, step->size - 4);
    case STEP_REPEAT: return send_on(relay, bytes, MIN(size, value + 1));
    case STEP_WAIT: co_sleep_ns(value * 100000000); return true;
    default: return false;
    }
}

/* The first step of this direction at a position from `from` to `to` - 1. */
static bool find_step(const struct relay *relay, uint64_t from, uint64_t to, struct record *found, uint64_t *position)
{
    struct records records = records_after(relay->play->data, relay->play->size, HEAD);
    struct record step;
    bool is_found = false;
    *position = to;
    for (int i = 0; i < STEPS_MAX && record_next(&records, &step); i++) {
        uint64_t at = record_number(&step, 1, 2);
        if ((record_number(&step, 0, 1) & FROM_SERVER) != relay->direction || at < from || at >= *position)
            continue;
        *found = step;
        *position = at;
        is_found = true;
    }
    return is_found;
}

static bool pass_on(struct relay *relay, uint8_t *bytes, size_t size)
{
    size_t done = 0;
    uint64_t next = relay->position;
    while (done < size) {
        struct record step;
        uint64_t at, end = relay->position + size;
        if (!find_step(relay, next, end, &step, &at))
            break;
        size_t before = (size_t)(at - relay->position), used;
        note_position(relay, at);
        if (before > done && !send_on(relay, bytes + done, before - done))
            return false;
        done = MAX(done, before);
        if (!disturb(relay, &step, bytes + done, size - done, &used))
            return false;
        done += used;
        next = at + 1;
    }
    relay->position += size;
    return send_on(relay, bytes + done, size - done);
}

static void relay_run(void *arg)
{
    struct relay *relay = arg;
    uint8_t bytes[PIECE];
    ssize_t n;
    while ((n = stream_recv(relay->from, bytes, sizeof bytes)) > 0 && pass_on(relay, bytes, (size_t)n))
        ;
    stream_shutdown(relay->from);
    stream_shutdown(relay->to);
}

/* ---- clients ---- */

static bool ask_for_tls(struct stream *stream)
{
    uint8_t greeting[18], request[4 + NBD_OPTION_SIZE], reply[20];
    store_be32(request, 3);
    store_be64(request + 4, NBD_OPTION_MAGIC);
    store_be32(request + 12, NBD_OPT_STARTTLS);
    store_be32(request + 16, 0);
    return !stream_recv_all(stream, greeting, sizeof greeting) && !stream_send_all(stream, request, sizeof request) &&
           !stream_recv_all(stream, reply, sizeof reply) && load_be32(reply + 12) == NBD_REP_ACK;
}

/* Reads the disk by the oldest way into transmission. */
static bool read_disk(const struct play *play, struct stream *stream)
{
    static const char name[] = "d";
    uint8_t option[NBD_OPTION_SIZE + 1], export[10], request[NBD_REQUEST_SIZE] = {0}, reply[16], data[512];
    store_be64(option, NBD_OPTION_MAGIC);
    store_be32(option + 8, NBD_OPT_EXPORT_NAME);
    store_be32(option + 12, 1);
    option[NBD_OPTION_SIZE] = (uint8_t)name[0];
    store_be32(request, NBD_REQUEST_MAGIC);
    store_be16(request + 6, NBD_CMD_READ);
    store_be32(request + 24, sizeof data);
    if (stream_send_all(stream, option, sizeof option) || stream_recv_all(stream, export, sizeof export) ||
        stream_send_all(stream, request, sizeof request) || stream_recv_all(stream, reply, sizeof reply) ||
        stream_recv_all(stream, data, sizeof data))
        return false;
    FUZZ_CHECK(play->misled || (load_be64(export) == DISK && load_be32(reply + 4) == 0));
    for (size_t i = 0; i < sizeof data; i++)
        FUZZ_CHECK(play->misled || data[i] == 0);
    return true;
}

static void honest_client(void *arg)
{
    struct play *play = arg;
    struct stream *stream = TAKE(play->client);
    if (ask_for_tls(stream)) {
        stream = tls_connect(stream, play->client_creds, NULL, NULL);
        play->served = stream && read_disk(play, stream);
    }
    if (stream) {
        stream_shutdown(stream);
        stream_close(stream);
    }
}

static void throw_away(void *arg)
{
    uint8_t buffer[PIECE];
    while (stream_recv(arg, buffer, sizeof buffer) > 0)
        ;
}

/* ---- scenes ---- */

static void lose_patience(void *arg)
{
    struct play *play = arg;
    co_group_cancel(&play->group);
}

static void wait_for_all(struct play *play)
{
    struct loop_timer timer = {.fn = lose_patience, .arg = play};
    loop_timer_arm(play->loop, &timer, loop_now_ns(play->loop) + PATIENCE_NS);
    co_group_wait(&play->group);
    loop_timer_cancel(&timer);
}

static void send_bytes(struct play *play)
{
    struct stream *pair[2];
    FUZZ_CHECK(stream_pair(play->loop, pair, NULL));
    nbd_server_serve(play->server, pair[0]);
    co_group_init(&play->group);
    if (ask_for_tls(pair[1])) {
        co_spawn(play->loop, &play->group, throw_away, pair[1]);
        for (size_t at = HEAD, piece = 1; at < play->size; at += piece, piece = piece * 3 % 97 + 1) {
            piece = MIN(piece, play->size - at);
            if (stream_send_all(pair[1], play->data + at, piece) < 0)
                break;
        }
    }
    stream_shutdown(pair[1]);
    wait_for_all(play);
    stream_close(pair[1]);
}

static void go_between(struct play *play, bool disturbs)
{
    struct stream *near[2], *far[2];
    FUZZ_CHECK(stream_pair(play->loop, near, NULL) && stream_pair(play->loop, far, NULL));
    nbd_server_serve(play->server, far[0]);
    co_group_init(&play->group);
    play->client = near[0];
    play->disturbed = play->served = play->misled = false;
    struct relay up = {play, near[1], far[1], 0, disturbs ? 0 : UINT64_MAX / 2};
    struct relay down = {play, far[1], near[1], FROM_SERVER, disturbs ? 0 : UINT64_MAX / 2};
    co_spawn(play->loop, &play->group, relay_run, &up);
    co_spawn(play->loop, &play->group, relay_run, &down);
    co_spawn(play->loop, &play->group, honest_client, play);
    wait_for_all(play);
    if (play->client)
        stream_close(TAKE(play->client));
    stream_close(near[1]);
    stream_close(far[1]);
    FUZZ_CHECK(play->disturbed || play->served);
}

/* Both ends' credentials; keys of a shared secret come from a file, which the library reads when a client comes. */
static void make_keys(char *dir)
{
    static const char keys[] = "me:00112233445566778899aabbccddeeff\n";
    FUZZ_CHECK(mkdtemp(dir));
    auto_free char *path = xasprintf("%s/keys.psk", dir);
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    FUZZ_CHECK(write(fd, keys, sizeof keys - 1) == sizeof keys - 1);
}

static void remove_keys(const char *dir)
{
    auto_free char *path = xasprintf("%s/keys.psk", dir);
    unlink(path);
    rmdir(dir);
}

static void make_credentials(struct play *play, const char *dir)
{
    play->objects = object_set_new(play->loop);
    object_set_add_kinds(play->objects, crypto_object_kinds);
    auto_free char *server = dir ? xasprintf("tls-creds-psk,id=server,endpoint=server,dir=%s", dir)
                                 : xstrdup("tls-creds-anon,id=server,endpoint=server");
    auto_free char *client = dir ? xasprintf("tls-creds-psk,id=client,endpoint=client,username=me,dir=%s", dir)
                                 : xstrdup("tls-creds-anon,id=client,endpoint=client");
    FUZZ_CHECK(object_add_text(play->objects, server, NULL) && object_add_text(play->objects, client, NULL));
}

static int serve(void *arg)
{
    struct play *play = arg;
    auto_error err = {0};
    char dir[] = "/tmp/fuzz-tls-XXXXXX";
    bool shared_key = play->data[0] & SHARED_KEY;
    if (shared_key)
        make_keys(dir);
    make_credentials(play, shared_key ? dir : NULL);
    struct graph *graph = graph_new(play->loop, protocol_table);
    struct blockdev_options *node = NULL;
    FUZZ_CHECK(
        blockdev_options_from_keyval("driver=null-co,node-name=d,size=65536,read-zeroes=on", NULL, &node, &err) &&
        graph_add(graph, node, &err));
    blockdev_options_free(node);
    struct edge *edge =
        edge_attach(NULL, "fuzz", graph_find(graph, "d"), BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, &err);
    const struct nbd_server_limits limits = {.handshake_seconds = 10};
    const struct nbd_export_options options = {.name = "d"};
    play->server = nbd_server_new(play->loop, NULL, &limits, &err);
    struct nbd_export *export = nbd_export_new(play->server, &options, edge, &err);
    nbd_server_set_tls(play->server, tls_creds_hold(play->objects, "server", TLS_CREDS_ENDPOINT_SERVER, &err), NULL);
    play->client_creds = tls_creds_hold(play->objects, "client", TLS_CREDS_ENDPOINT_CLIENT, &err);
    FUZZ_CHECK(export && play->client_creds);
    if (play->is_raw)
        send_bytes(play);
    else
        go_between(play, true);
    go_between(play, false);
    object_release(play->client_creds);
    nbd_export_free(export);
    nbd_server_free(play->server);
    edge_detach(edge);
    graph_del(graph, "d", NULL);
    graph_free(graph);
    object_set_free(play->objects);
    if (shared_key)
        remove_keys(dir);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct play play = {
        .loop = loop_new(LOOP_SIMULATED, data[0], NULL), .data = data, .size = size, .is_raw = data[0] & RAW_BYTES};
    loop_run_main(play.loop, serve, &play);
    loop_run_until_idle(play.loop);
    loop_free(play.loop);
    return 0;
}
