/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user front ends that send anything: a sequence of messages (request, flags, payload length, kinds of the
 * descriptors that travel along; then the payload), in front of one shared memory that the input has filled. Kicks come
 * as the input says. The export must outlive it all, and let nothing of the front end behind.
 * links: vhost-user protocol
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"
#include "vhost-user/export.h"
#include "vhost-user/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 1 << 20, FILLED = 4096, MESSAGES_MAX = 40 };

struct input {
    struct loop *loop;
    const uint8_t *data;
    size_t size;
    int memory, event;
};

static const uint8_t *take(struct input *input, size_t size)
{
    if (size > input->size)
        return NULL;
    const uint8_t *at = input->data;
    input->data += size;
    input->size -= size;
    return at;
}

/* A good conversation up to a running queue, so that the input's messages and kicks reach what lies behind it. */
static void send_good_start(struct input *input, struct stream *stream, bool packed)
{
    const uint64_t user = 0x10000000;
    struct vhost_user_message m[8] = {
        {.header = {VHOST_USER_SET_FEATURES, 1, 8}},    {.header = {VHOST_USER_SET_MEM_TABLE, 1, 40}},
        {.header = {VHOST_USER_SET_VRING_NUM, 1, 8}},   {.header = {VHOST_USER_SET_VRING_BASE, 1, 8}},
        {.header = {VHOST_USER_SET_VRING_ADDR, 1, 40}}, {.header = {VHOST_USER_SET_VRING_KICK, 1, 8}},
        {.header = {VHOST_USER_SET_VRING_CALL, 1, 8}},  {.header = {VHOST_USER_SET_VRING_ENABLE, 1, 8}},
    };
    m[0].payload.number = VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |
                          (packed ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0);
    m[1].payload.memory.count = 1;
    m[1].payload.memory.regions[0] = (struct vhost_user_region){0, MEMORY, user, 0};
    m[2].payload.state.number = 64;
    m[3].payload.state.number = packed ? 0x80008000 : 0;
    m[4].payload.addresses = (struct vhost_user_vring_addresses){0, 0, user, user + 2048, user + 1024, 0};
    m[7].payload.state.number = 1;
    for (int i = 0; i < 8; i++) {
        int fd = i == 1 ? input->memory : i == 5 || i == 6 ? input->event : -1;
        stream_send_fds(stream, &m[i], sizeof m[i].header + m[i].header.size, &fd, fd >= 0);
    }
}

static bool send_next(struct input *input, struct stream *stream)
{
    const uint8_t *head = take(input, 4);
    if (!head)
        return false;
    if (head[0] == 0) { /* a kick and a moment's time */
        eventfd_write(input->event, 1);
        co_sleep_ns(10000);
        return true;
    }
    struct vhost_user_message message = {.header = {head[0], head[1] ? 9 : 1, head[2]}};
    const uint8_t *payload = take(input, head[2]);
    if (!payload)
        return false;
    memcpy(message.payload.bytes, payload, MIN((size_t)head[2], sizeof message.payload.bytes));
    int fds[VHOST_USER_MAX_FDS], count = head[3] & 7;
    for (int i = 0; i < count; i++)
        fds[i] = head[3] >> (3 + i) & 1 ? input->event : input->memory;
    return stream_send_fds(stream, &message, sizeof message.header + head[2], fds, count) == 0;
}

static void throw_away(void *arg)
{
    uint8_t buffer[4096];
    int fds[VHOST_USER_MAX_FDS], count;
    while (stream_recv_fds(arg, buffer, sizeof buffer, fds, VHOST_USER_MAX_FDS, &count) > 0) {
        for (int i = 0; i < count; i++)
            close(fds[i]);
    }
}

static void talk(struct input *input, const char *path)
{
    auto_error err = {0};
    const struct stream_address where = {.kind = SOCKET_UNIX, .path = path};
    struct stream *stream = stream_connect(input->loop, &where, &err);
    if (!stream)
        abort();
    struct co_group group;
    co_group_init(&group);
    co_spawn(input->loop, &group, throw_away, stream);
    const uint8_t *kind = take(input, 1);
    if (kind && *kind & 1)
        send_good_start(input, stream, *kind & 2);
    for (int i = 0; i < MESSAGES_MAX && send_next(input, stream); i++)
        ;
    co_sleep_ns(50000);
    stream_shutdown(stream);
    co_group_wait(&group);
    stream_close(stream);
}

static int serve(void *arg)
{
    struct input *input = arg;
    auto_error err = {0};
    const struct export_type types[] = {{&vhost_user_blk_export_driver, NULL}, {NULL, NULL}};
    struct graph *graph = graph_new(input->loop, protocol_table);
    struct export_set *set = export_set_new(graph, types, NULL, NULL);
    struct blockdev_options *node = NULL;
    struct block_export_options *options = NULL;
    auto_free char *path = xasprintf("/tmp/fuzz-vhost-user.%d", (int)getpid());
    auto_free char *text =
        xasprintf("type=vhost-user-blk,id=e,node-name=d,writable=on,num-queues=2,addr.type=unix,addr.path=%s", path);
    if (!blockdev_options_from_keyval("driver=null-co,node-name=d,size=1048576", NULL, &node, &err) ||
        !graph_add(graph, node, &err) || !block_export_options_from_keyval(text, NULL, &options, &err) ||
        !export_add(set, options, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    talk(input, path);
    export_close_all(set);
    export_set_free(set);
    graph_del(graph, "d", NULL);
    graph_free(graph);
    block_export_options_free(options);
    blockdev_options_free(node);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};
    const uint8_t *fill = take(&input, size / 2 < FILLED ? size / 2 : FILLED);
    input.memory = memfd_create("fuzz", MFD_CLOEXEC);
    input.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (input.memory < 0 || ftruncate(input.memory, MEMORY) < 0 ||
        write(input.memory, fill, (size_t)(input.data - data)) < 0)
        abort();
    input.loop = loop_new(LOOP_EPOLL, 0, NULL);
    loop_run_main(input.loop, serve, &input);
    loop_run_until_idle(input.loop);
    loop_free(input.loop);
    close(input.memory);
    close(input.event);
    return 0;
}
