/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD clients that send anything. The first byte says how far the harness itself leads the client: not at all, through
 * the greeting, into transmission, or into transmission with everything negotiated that there is. The second says
 * whether the rest is sent as it is, in pieces of changing size, or is a script of records: options and requests whose
 * frame is good and whose fields are anything, bytes, pauses. What comes back is thrown away. Then the client leaves,
 * and nothing may be left of it.
 *
 * links: nbd protocol
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/co.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/sim.h"
#include "nbd/internal.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"
#include "tests/fuzz/common/fuzz.h"

enum { HEAD = 2, STEPS_MAX = 200, DATA_MAX = 4096, EXTENDED_HEADERS = 11, EXTENDED_MAGIC = 0x21e41c71 };

struct input {
    struct loop *loop;
    const uint8_t *data;
    size_t size;
    uint8_t how_far;
    bool is_script;
    struct stream *client;
};

/* ---- steps of a script ---- */

enum step_kind {
    STEP_OPTION,
    STEP_REQUEST,
    STEP_EXTENDED_REQUEST,
    STEP_BYTES,
    STEP_PAUSE,
    STEP_CONTEXTS,
    STEP_GO,
    STEP_KINDS
};

static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    static const uint16_t lengths[] = {0, 1, 511, 512, 4096, 65535};
    bytes[0] = (uint8_t)fuzz_draw(random, STEP_KINDS);
    for (unsigned i = 1; i < 24; i++)
        bytes[i] = (uint8_t)fuzz_draw(random, fuzz_draw(random, 2) ? 256 : 4);
    if (bytes[0] == STEP_OPTION || bytes[0] == STEP_CONTEXTS || bytes[0] == STEP_GO) {
        bytes[1] = (uint8_t)(1 + fuzz_draw(random, 12));
        return 2 + fuzz_draw(random, 22);
    }
    if (bytes[0] == STEP_REQUEST || bytes[0] == STEP_EXTENDED_REQUEST) {
        uint64_t offset = fuzz_draw(random, 3) ? fuzz_draw(random, 256) * 4096 : fuzz_interesting(random);
        uint32_t length =
            fuzz_draw(random, 3) ? lengths[fuzz_draw(random, ARRAY_SIZE(lengths))] : (uint32_t)fuzz_interesting(random);
        bytes[1] = (uint8_t)fuzz_draw(random, 9);
        memcpy(bytes + 3, &offset, 8);
        memcpy(bytes + 11, &length, 4);
        return 16;
    }
    return 1 + fuzz_draw(random, 8);
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

static void put_option(struct stream *client, uint32_t number, const void *data, uint32_t length)
{
    uint8_t head[NBD_OPTION_SIZE];
    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, number);
    store_be32(head + 12, length);
    stream_send_all(client, head, sizeof head);
    stream_send_all(client, data, length);
}

/* kind, command, flags, offset (8), length (4): a write is followed by its data, when that is not too much for us. */
static void put_request(struct stream *client, const struct record *step)
{
    uint8_t head[NBD_REQUEST_SIZE + 4], data[DATA_MAX] = {1, 2, 3};
    bool is_extended = step->bytes[0] % STEP_KINDS == STEP_EXTENDED_REQUEST;
    uint16_t command = (uint16_t)record_number(step, 1, 1);
    uint64_t length = record_number(step, 11, 4);
    store_be32(head, is_extended ? (uint32_t)EXTENDED_MAGIC : NBD_REQUEST_MAGIC);
    store_be16(head + 4, (uint16_t)(record_number(step, 2, 1)));
    store_be16(head + 6, command);
    store_be64(head + 8, record_number(step, 15, 1));
    store_be64(head + 16, record_number(step, 3, 8));
    if (is_extended)
        store_be64(head + 24, length | record_number(step, 16, 1) << 32);
    else
        store_be32(head + 24, (uint32_t)length);
    stream_send_all(client, head, is_extended ? NBD_REQUEST_SIZE + 4 : NBD_REQUEST_SIZE);
    for (uint64_t left = command == NBD_CMD_WRITE && length <= 65536 ? length : 0, piece; left; left -= piece) {
        piece = MIN(left, (uint64_t)DATA_MAX);
        if (stream_send_all(client, data, piece) < 0)
            return;
    }
}

/* A list of contexts to be set, with one query of the record's own. */
static void put_contexts(struct stream *client, const struct record *step)
{
    uint8_t data[512] = "\0\0\0\1d\0\0\0\2\0\0\0\17base:allocation";
    size_t at = 4 + 1 + 4 + 4 + 15, own = step->size - MIN(step->size, (size_t)2);
    store_be32(data + at, (uint32_t)own);
    memcpy(data + at + 4, step->bytes + MIN(step->size, (size_t)2), own);
    put_option(client, record_number(step, 1, 1) & 1 ? NBD_OPT_SET_META_CONTEXT : NBD_OPT_LIST_META_CONTEXT, data,
               (uint32_t)(at + 4 + own));
}

static void play(struct input *input, const struct record *step)
{
    static const char go[] = "\0\0\0\1d\0\0";
    size_t skip = MIN(step->size, (size_t)2);
    switch (step->size ? step->bytes[0] % STEP_KINDS : (unsigned)STEP_PAUSE) {
    case STEP_OPTION:
        put_option(input->client, (uint32_t)record_number(step, 1, 1), step->bytes + skip,
                   (uint32_t)(step->size - skip));
        break;
    case STEP_REQUEST:
    case STEP_EXTENDED_REQUEST: put_request(input->client, step); break;
    case STEP_CONTEXTS: put_contexts(input->client, step); break;
    case STEP_GO: put_option(input->client, NBD_OPT_GO, go, sizeof go - 1); break;
    case STEP_BYTES: stream_send_all(input->client, step->bytes + 1, step->size - 1); break;
    default: co_sleep_ns(record_number(step, 1, 4)); break;
    }
}

/* ---- the client ---- */

static void throw_away(void *arg)
{
    struct input *input = arg;
    uint8_t buffer[4096];
    while (stream_recv(input->client, buffer, sizeof buffer) > 0)
        ;
}

static void lead(struct stream *client, unsigned how_far)
{
    static const char context[] = "\0\0\0\1d\0\0\0\1\0\0\0\17base:allocation", go[] = "\0\0\0\1d\0\0";
    uint8_t flags[4];
    if (!how_far)
        return;
    store_be32(flags, 3);
    stream_send_all(client, flags, sizeof flags);
    if (how_far == 1)
        return;
    put_option(client, how_far == 3 ? EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    put_option(client, NBD_OPT_SET_META_CONTEXT, context, sizeof context - 1);
    put_option(client, NBD_OPT_GO, go, sizeof go - 1);
}

static void send_script(struct input *input)
{
    struct records records = records_after(input->data, input->size, 0);
    struct record step;
    for (int i = 0; i < STEPS_MAX && record_next(&records, &step); i++)
        play(input, &step);
}

static void send_bytes(struct input *input)
{
    for (size_t at = 0, piece = 1; at < input->size; at += piece, piece = piece * 3 % 97 + 1) {
        piece = MIN(piece, input->size - at);
        if (stream_send_all(input->client, input->data + at, piece) < 0)
            break;
    }
}

static void talk(struct input *input, struct nbd_server *server)
{
    struct stream *pair[2];
    struct co_group group;
    co_group_init(&group);
    FUZZ_CHECK(stream_pair(input->loop, pair, NULL));
    nbd_server_serve(server, pair[0]);
    input->client = pair[1];
    co_spawn(input->loop, &group, throw_away, input);
    lead(input->client, input->how_far);
    (input->is_script ? send_script : send_bytes)(input);
    stream_shutdown(input->client);
    co_group_wait(&group);
    stream_close(input->client);
}

static int serve(void *arg)
{
    struct input *input = arg;
    auto_error err = {0};
    struct graph *graph = graph_new(input->loop, protocol_table);
    struct blockdev_options *node = NULL;
    FUZZ_CHECK(blockdev_options_from_keyval("driver=null-co,node-name=d,size=1048576", NULL, &node, &err) &&
               graph_add(graph, node, &err));
    blockdev_options_free(node);
    struct edge *edge = edge_attach(NULL, "fuzz", graph_find(graph, "d"), BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE,
                                    BLOCK_PERM_ALL, &err);
    const struct nbd_server_limits limits = {.handshake_seconds = 10};
    const struct nbd_export_options options = {"d", "text", true, false};
    struct nbd_server *server = nbd_server_new(input->loop, NULL, &limits, &err);
    struct nbd_export *export = nbd_export_new(server, &options, edge, &err);
    talk(input, server);
    nbd_export_free(export);
    nbd_server_free(server);
    edge_detach(edge);
    graph_del(graph, "d", NULL);
    graph_free(graph);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct input input = {.loop = loop_new(LOOP_SIMULATED, data[0], NULL),
                          .data = data + HEAD,
                          .size = size - HEAD,
                          .how_far = data[0] % 4,
                          .is_script = data[1] % 4 != 0};
    loop_run_main(input.loop, serve, &input);
    loop_run_until_idle(input.loop);
    loop_free(input.loop);
    return 0;
}
