/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD clients that send anything. The first byte says how far the harness itself leads the client: not at all, through
 * the greeting, or into transmission (with structured replies and block status). The rest is sent in pieces of changing
 * size; what comes back is thrown away. Then the client leaves, and nothing may be left of it.
 * links: nbd protocol
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/loop.h"
#include "base/sim.h"
#include "nbd/internal.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    struct loop *loop;
    const uint8_t *data;
    size_t size;
    struct stream *client;
};

static void throw_away(void *arg)
{
    struct input *input = arg;
    uint8_t buffer[4096];
    while (stream_recv(input->client, buffer, sizeof buffer) > 0)
        ;
}

static void put_option(struct stream *client, uint32_t number, const void *data, uint32_t length)
{
    uint8_t head[NBD_OPTION_SIZE];
    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, number);
    store_be32(head + 12, length);
    stream_send_all(client, head, sizeof head);
    stream_send_all(client, data, length);
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
    put_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    put_option(client, NBD_OPT_SET_META_CONTEXT, context, sizeof context - 1);
    put_option(client, NBD_OPT_GO, go, sizeof go - 1);
}

static void talk(struct input *input, struct nbd_server *server)
{
    struct stream *pair[2];
    struct co_group group;
    co_group_init(&group);
    if (!stream_pair(input->loop, pair, NULL))
        abort();
    nbd_server_serve(server, pair[0]);
    input->client = pair[1];
    co_spawn(input->loop, &group, throw_away, input);
    lead(input->client, input->data[0] % 3);
    for (size_t at = 1, piece = 1; at < input->size; at += piece, piece = piece * 3 % 97 + 1) {
        piece = MIN(piece, input->size - at);
        if (stream_send_all(input->client, input->data + at, piece) < 0)
            break;
    }
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
    if (!blockdev_options_from_keyval("driver=null-co,node-name=d,size=1048576", NULL, &node, &err) ||
        !graph_add(graph, node, &err))
        abort();
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
    if (!size)
        return 0;
    struct input input = {.loop = loop_new(LOOP_SIMULATED, data[0], NULL), .data = data, .size = size};
    loop_run_main(input.loop, serve, &input);
    loop_run_until_idle(input.loop);
    loop_free(input.loop);
    return 0;
}
