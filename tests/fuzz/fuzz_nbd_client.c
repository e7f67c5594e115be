/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD servers that answer anything, to the emulator's NBD disk: an honest server whose answers deviate as the input
 * says (common/peer.h), in the handshake and in replies to requests. Whatever it answers: opening ends, every request
 * completes exactly once at the latest when the disk is given up, and closing leaves nothing behind.
 *
 * links: emulator/storage
 *
 * parts: common/peer.c
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/math.h"
#include "emulator/storage/internal.h"
#include "tests/fuzz/common/peer.h"

enum { HEAD = 3, REQUESTS = 8, PIECE = 1024, DISK_SIZE = 1 << 20 };
enum { OPTION_REPLY = 20, CHUNK = 20, SIMPLE_REPLY = 16, REQUEST = 28, OPTION = 16 };
#define OPTION_REPLY_MAGIC 0x3e889045565a9ull
enum setting { STRUCTURED = 1, MULTI_CONN = 2, BLOCK_SIZES = 4, NO_FUA = 8 };

static const struct record_shape shape = {HEAD, fuzz_peer_fresh_deviation};
FUZZ_RECORDS(shape)

/* ---- the server: doc/proto.md of the NetworkBlockDevice project ---- */

struct server {
    uint8_t settings;
    bool structured; /* of this connection */
};

static bool reply_option(struct fuzz_peer *peer, int fd, uint32_t option, uint32_t type, const void *data,
                         uint32_t size)
{
    uint8_t message[OPTION_REPLY + 64];
    store_be64(message, OPTION_REPLY_MAGIC);
    store_be32(message + 8, option);
    store_be32(message + 12, type);
    store_be32(message + 16, size);
    if (size)
        memcpy(message + OPTION_REPLY, data, size);
    return fuzz_peer_send(peer, fd, message, OPTION_REPLY + size, -1);
}

static bool describe_export(struct fuzz_peer *peer, int fd, uint32_t option)
{
    struct server *server = peer->arg;
    uint8_t info[12] = {0}, sizes[14] = {0, 3};
    store_be64(info + 2, DISK_SIZE);
    store_be16(info + 10,
               (uint16_t)(0x65 | (server->settings & NO_FUA ? 0 : 8) | (server->settings & MULTI_CONN ? 0x100 : 0)));
    store_be32(sizes + 2, 512);
    store_be32(sizes + 6, 4096);
    store_be32(sizes + 10, 65536);
    if (server->settings & BLOCK_SIZES && !reply_option(peer, fd, option, 3, sizes, sizeof sizes))
        return false;
    return reply_option(peer, fd, option, 3, info, sizeof info) && reply_option(peer, fd, option, 1, NULL, 0);
}

/* 1: go on, 0: the connection ends, 2: transmission begins */
static int serve_option(struct fuzz_peer *peer, int fd)
{
    struct server *server = peer->arg;
    uint8_t head[OPTION], data[4096];
    if (!fuzz_peer_receive(fd, head, sizeof head))
        return 0;
    uint32_t option = load_be32(head + 8), size = load_be32(head + 12);
    if (size > sizeof data || !fuzz_peer_receive(fd, data, size))
        return 0;
    switch (option) {
    case 2: return 0;
    case 6: return describe_export(peer, fd, option);
    case 7: return describe_export(peer, fd, option) ? 2 : 0;
    case 8:
        server->structured = server->settings & STRUCTURED;
        return reply_option(peer, fd, option, server->structured ? 1 : 0x80000001u, NULL, 0);
    default: return reply_option(peer, fd, option, 0x80000001u, NULL, 0);
    }
}

static bool reply_request(struct fuzz_peer *peer, int fd, const uint8_t *request)
{
    struct server *server = peer->arg;
    bool is_read = load_be16(request + 6) == 0;
    uint32_t length = is_read ? MIN(load_be32(request + 24), (uint32_t)PIECE) : 0;
    uint8_t message[CHUNK + 8 + PIECE] = {0};
    if (!server->structured) {
        store_be32(message, 0x67446698);
        memcpy(message + 8, request + 8, 8);
        return fuzz_peer_send(peer, fd, message, SIMPLE_REPLY + length, -1);
    }
    store_be32(message, 0x668e33ef);
    store_be16(message + 4, 1); /* done */
    store_be16(message + 6, is_read);
    memcpy(message + 8, request + 8, 8);
    store_be32(message + 16, is_read ? 8 + length : 0);
    memcpy(message + CHUNK, request + 16, 8);
    return fuzz_peer_send(peer, fd, message, CHUNK + (is_read ? 8 + length : 0), -1);
}

static bool serve_request(struct fuzz_peer *peer, int fd)
{
    uint8_t request[REQUEST], data[4096];
    if (!fuzz_peer_receive(fd, request, sizeof request) || load_be16(request + 6) == 2)
        return false;
    uint32_t left = load_be16(request + 6) == 1 ? load_be32(request + 24) : 0;
    for (uint32_t piece; left; left -= piece) {
        piece = MIN(left, (uint32_t)sizeof data);
        if (!fuzz_peer_receive(fd, data, piece))
            return false;
    }
    return reply_request(peer, fd, request);
}

static void serve(struct fuzz_peer *peer, int fd)
{
    uint8_t greeting[18], flags[4];
    int state = 1;
    ((struct server *)peer->arg)->structured = false;
    store_be64(greeting, 0x4e42444d41474943);
    store_be64(greeting + 8, 0x49484156454f5054);
    store_be16(greeting + 16, 3);
    if (!fuzz_peer_send(peer, fd, greeting, sizeof greeting, -1) || !fuzz_peer_receive(fd, flags, sizeof flags))
        return;
    while (state == 1)
        state = serve_option(peer, fd);
    while (state == 2 && serve_request(peer, fd))
        ;
}

/* ---- the client ---- */

struct client {
    struct loop *loop;
    struct loop_timer timer;
    unsigned under_way;
};

struct job {
    struct disk_request request;
    struct client *client;
    struct iovec iov[2];
    uint8_t data[2 * PIECE];
    bool is_done;
};

static void on_done(struct disk_request *request, int result)
{
    struct job *job = request->owner;
    FUZZ_CHECK(!job->is_done && result <= 0);
    job->is_done = true;
    if (!--job->client->under_way)
        loop_stop(job->client->loop);
}

static void on_time(void *arg)
{
    loop_stop(arg);
}

static void run_for(struct client *client, uint64_t ms)
{
    if (!client->under_way)
        return;
    client->timer = (struct loop_timer){.fn = on_time, .arg = client->loop};
    loop_timer_arm(client->loop, &client->timer, loop_now_ns(client->loop) + ms * 1000000);
    loop_run(client->loop);
    loop_timer_cancel(&client->timer);
}

static void submit(struct client *client, struct disk *disk, struct job *job, unsigned choice)
{
    static const enum disk_operation operations[] = {DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD,
                                                     DISK_WRITE_ZEROES};
    uint32_t block = disk->block_size;
    *job = (struct job){.client = client};
    job->iov[0] = (struct iovec){job->data, PIECE};
    job->iov[1] = (struct iovec){job->data + PIECE, PIECE};
    job->request = (struct disk_request){.operation = operations[choice % ARRAY_SIZE(operations)],
                                         .iov = job->iov,
                                         .done = on_done,
                                         .owner = job,
                                         .durable = choice & 8,
                                         .may_unmap = choice & 16};
    struct disk_request *request = &job->request;
    bool moves = request->operation == DISK_READ || request->operation == DISK_WRITE;
    request->iov_count = moves ? 1 + (choice >> 5 & 1) : 0;
    request->length = request->operation == DISK_FLUSH ? 0 : moves ? request->iov_count * PIECE : 64 * KiB;
    if (request->operation == DISK_FLUSH) {
        request->durable = false;
    } else if (disk->size_bytes < 64 * KiB || block > PIECE || PIECE % block || (disk->read_only && choice % 5)) {
        return; /* a device would not ask for that */
    }
    client->under_way++;
    disk->ops->submit(disk, request);
}

static void use(struct client *client, struct disk *disk, struct list *disks, const uint8_t *head)
{
    struct job *jobs = xcalloc(REQUESTS, sizeof *jobs);
    for (unsigned i = 0; i < REQUESTS; i++)
        submit(client, disk, &jobs[i], head[1] * (i + 1) + head[2]);
    run_for(client, 30);
    nbd_disks_give_up(disks);
    run_for(client, 20000); /* ends with the last request */
    FUZZ_CHECK(!client->under_way);
    free(jobs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    struct server server = {.settings = data[0]};
    struct fuzz_peer peer = {.script = records_after(data, size, HEAD), .serve = serve, .arg = &server};
    struct client client = {.loop = loop_new(LOOP_EPOLL, 0, NULL)};
    struct list disks;
    auto_error err = {0};
    list_init(&disks);
    fuzz_peer_start(&peer);
    auto_free char *text = xasprintf("{'driver': 'nbd', 'server': {'type': 'unix', 'path': '%s'}}", peer.path);
    auto_json *options = json_parse(text, strlen(text), NULL);
    const struct nbd_disk_settings settings = {.id = "d", .options = options, .auto_read_only = true};
    struct disk *disk = nbd_disk_open(client.loop, &disks, &settings, &err);
    FUZZ_CHECK(disk || err.message);
    if (disk) {
        use(&client, disk, &disks, data);
        disk->ops->close(disk);
    }
    fuzz_peer_stop(&peer);
    loop_free(client.loop);
    return 0;
}
