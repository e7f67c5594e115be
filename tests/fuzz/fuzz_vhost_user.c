/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user front ends that send anything, over one shared memory. The input is a script: messages whose frame is good
 * and whose payload, flags and descriptors are anything; bytes written into the memory; whole virtio-blk requests put
 * into the ring with fields of the input's choice; kicks. The first byte says whether the harness first leads to a
 * running queue, with a split or a packed ring. The export must outlive it all, and let nothing of the front end
 * behind.
 *
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
#include "base/math.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"
#include "tests/fuzz/common/fuzz.h"
#include "vhost-user/export.h"
#include "vhost-user/internal.h"
#include "virtio/virtio_blk.h"

enum { HEAD = 1, MEMORY = 1 << 20, STEPS_MAX = 60, RING = 64, AVAILABLE = 1024, USED = 2048, BUFFERS = 8192 };
enum { LEAD = 1, PACKED = 2 };
#define USER_BASE 0x10000000ull

struct input {
    struct loop *loop;
    struct records steps;
    uint8_t flags;
    int memory, event;
    uint8_t *shared; /* our mapping of the memory */
    uint16_t next;   /* descriptor, and the count of requests made */
    uint16_t requests;
};

/* ---- steps ---- */

enum step_kind { STEP_MESSAGE, STEP_KICK, STEP_WRITE, STEP_REQUEST, STEP_KINDS };

static size_t put32(uint8_t *at, uint32_t one, uint32_t other)
{
    memcpy(at, &one, 4);
    memcpy(at + 4, &other, 4);
    return 8;
}

/* A payload as an honest front end would send it, with at most one field made up. */
static size_t fresh_payload(struct fuzz_random *random, unsigned request, uint8_t *at)
{
    uint32_t index = (uint32_t)fuzz_draw(random, 3);
    uint64_t number = fuzz_draw(random, 2) ? fuzz_interesting(random) : fuzz_draw(random, 0);
    switch (request) {
    case VHOST_USER_SET_MEM_TABLE:
    case VHOST_USER_ADD_MEM_REG:
    case VHOST_USER_REM_MEM_REG: {
        struct vhost_user_region region = {fuzz_draw(random, 2) * MEMORY, MEMORY,
                                           USER_BASE + fuzz_draw(random, 2) * MEMORY, 0};
        uint64_t *fields = &region.guest_address;
        if (fuzz_draw(random, 2))
            fields[fuzz_draw(random, 4)] = number;
        put32(at, 1, 0);
        memcpy(at + 8, &region, sizeof region);
        return 8 + sizeof region;
    }
    case VHOST_USER_SET_VRING_NUM: return put32(at, index, 1u << fuzz_draw(random, 12));
    case VHOST_USER_SET_VRING_BASE:
    case VHOST_USER_GET_VRING_BASE:
    case VHOST_USER_SET_VRING_ENABLE: return put32(at, index, (uint32_t)fuzz_draw(random, 3));
    case VHOST_USER_SET_VRING_ADDR: {
        struct vhost_user_vring_addresses addresses = {index, 0, USER_BASE, USER_BASE + USED, USER_BASE + AVAILABLE, 0};
        uint64_t *fields = &addresses.descriptors;
        if (fuzz_draw(random, 2))
            fields[fuzz_draw(random, 4)] = USER_BASE + fuzz_interesting(random);
        memcpy(at, &addresses, sizeof addresses);
        return sizeof addresses;
    }
    case VHOST_USER_GET_INFLIGHT_FD:
    case VHOST_USER_SET_INFLIGHT_FD: {
        struct vhost_user_inflight inflight = {fuzz_draw(random, 2) ? 4096 : number, 0, 2, RING};
        memcpy(at, &inflight, sizeof inflight);
        return 20;
    }
    case VHOST_USER_GET_CONFIG:
    case VHOST_USER_SET_CONFIG: {
        uint32_t size = (uint32_t)fuzz_draw(random, 80);
        put32(at, (uint32_t)fuzz_draw(random, 64), size);
        memset(at + 8, 0, 4 + size);
        return 12 + size;
    }
    case VHOST_USER_SET_LOG_BASE:
        memset(at, 0, 16);
        memcpy(at, &number, 8);
        return 16;
    default: memcpy(at, &number, 8); return fuzz_draw(random, 8) ? 8 : 0;
    }
}

static size_t fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    bytes[0] = (uint8_t)fuzz_draw(random, STEP_KINDS);
    for (unsigned i = 1; i < 16; i++)
        bytes[i] = (uint8_t)fuzz_draw(random, fuzz_draw(random, 2) ? 256 : 3);
    switch (bytes[0]) {
    case STEP_MESSAGE:
        bytes[1] = (uint8_t)(1 + fuzz_draw(random, 40));
        bytes[2] = fuzz_draw(random, 2) ? VHOST_USER_NEED_REPLY : 0;
        bytes[3] = (uint8_t)(fuzz_draw(random, 2) | fuzz_draw(random, 2) << 3);
        return 4 + fresh_payload(random, bytes[1], bytes + 4);
    case STEP_KICK: return 1;
    case STEP_WRITE: return 3 + fuzz_draw(random, 13);
    default: return 12;
    }
}

static const struct record_shape shape = {HEAD, fresh_step};
FUZZ_RECORDS(shape)

/* ---- the ring, as an honest driver fills it ---- */

static void put_descriptor(struct input *input, uint16_t index, uint64_t address, uint32_t length, uint16_t flags,
                           uint16_t last)
{
    uint8_t *at = input->shared + (size_t)(index % RING) * 16;
    memcpy(at, &address, 8);
    memcpy(at + 8, &length, 4);
    memcpy(at + 12, &flags, 2);
    memcpy(at + 14, &last, 2);
}

/* type, sector (2), length (2), which descriptor differs, its flags, what is added to its address (2) and length (2) */
static void put_request(struct input *input, const struct record *step)
{
    bool is_packed = input->flags & PACKED;
    unsigned odd = (unsigned)record_number(step, 6, 1) % 4;
    uint16_t odd_flags = (uint16_t)record_number(step, 7, 1);
    uint64_t place = BUFFERS + (uint64_t)(input->requests % 64) * 8192;
    uint64_t header[2] = {record_number(step, 1, 1), record_number(step, 2, 2)};
    bool is_write = header[0] & 1;
    uint16_t first = input->next;
    memcpy(input->shared + place, header, sizeof header);
    for (uint16_t i = 0; i < 3; i++) {
        uint32_t length = i == 0 ? 16 : i == 1 ? (uint32_t)record_number(step, 4, 2) : 1;
        uint64_t address = place + (i == 0 ? 0 : i == 1 ? 512 : 16);
        uint16_t flags = (i < 2 ? 1 : 0) | (i == 2 || (i == 1 && !is_write) ? 2 : 0);
        if (odd == i + 1u) {
            flags ^= odd_flags;
            address += record_number(step, 8, 2) << 4;
            length += (uint32_t)record_number(step, 10, 2);
        }
        uint16_t index = (uint16_t)(input->next++ % RING);
        if (is_packed) /* available in this round of the ring */
            flags |= (input->next - 1) / RING % 2 ? 1 << 15 : 1 << 7;
        put_descriptor(input, index, address, length, flags, is_packed ? first % RING : (uint16_t)((index + 1) % RING));
    }
    input->requests++;
    if (is_packed)
        return;
    uint16_t head = first % RING;
    memcpy(input->shared + AVAILABLE + 4 + (size_t)((input->requests - 1) % RING) * 2, &head, 2);
    memcpy(input->shared + AVAILABLE + 2, &input->requests, 2);
}

/* A good conversation up to a running queue, so that the input's messages and kicks reach what lies behind it. */
static void send_good_start(struct input *input, struct stream *stream, bool packed)
{
    struct vhost_user_message m[8] = {
        {.header = {VHOST_USER_SET_FEATURES, 1, 8}},    {.header = {VHOST_USER_SET_MEM_TABLE, 1, 40}},
        {.header = {VHOST_USER_SET_VRING_NUM, 1, 8}},   {.header = {VHOST_USER_SET_VRING_BASE, 1, 8}},
        {.header = {VHOST_USER_SET_VRING_ADDR, 1, 40}}, {.header = {VHOST_USER_SET_VRING_KICK, 1, 8}},
        {.header = {VHOST_USER_SET_VRING_CALL, 1, 8}},  {.header = {VHOST_USER_SET_VRING_ENABLE, 1, 8}},
    };
    m[0].payload.number = VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |
                          (packed ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0);
    m[1].payload.memory.count = 1;
    m[1].payload.memory.regions[0] = (struct vhost_user_region){0, MEMORY, USER_BASE, 0};
    m[2].payload.state.number = RING;
    m[3].payload.state.number = packed ? 0x80008000 : 0;
    m[4].payload.addresses =
        (struct vhost_user_vring_addresses){0, 0, USER_BASE, USER_BASE + USED, USER_BASE + AVAILABLE, 0};
    m[7].payload.state.number = 1;
    for (int i = 0; i < 8; i++) {
        int fd = i == 1 ? input->memory : i == 5 || i == 6 ? input->event : -1;
        stream_send_fds(stream, &m[i], sizeof m[i].header + m[i].header.size, &fd, fd >= 0);
    }
}

/* request, flags, kinds of the descriptors that travel along, payload */
static bool send_message(struct input *input, struct stream *stream, const struct record *step)
{
    size_t size = step->size - MIN(step->size, (size_t)4);
    struct vhost_user_message message = {.header = {(uint32_t)record_number(step, 1, 1),
                                                    VHOST_USER_VERSION | (uint32_t)record_number(step, 2, 1),
                                                    (uint32_t)size}};
    unsigned passed = (unsigned)record_number(step, 3, 1);
    size = MIN(size, sizeof message.payload.bytes);
    memcpy(message.payload.bytes, step->bytes + step->size - size, size);
    int fds[VHOST_USER_MAX_FDS], count = passed & 7;
    for (int i = 0; i < count; i++)
        fds[i] = passed >> (3 + i) & 1 ? input->event : input->memory;
    return stream_send_fds(stream, &message, sizeof message.header + size, fds, count) == 0;
}

static bool play(struct input *input, struct stream *stream, const struct record *step)
{
    switch (record_number(step, 0, 1) % STEP_KINDS) {
    case STEP_MESSAGE: return send_message(input, stream, step);
    case STEP_WRITE: {
        size_t at = record_number(step, 1, 2) % BUFFERS, size = step->size - MIN(step->size, (size_t)3);
        memcpy(input->shared + at, step->bytes + step->size - size, size);
        return true;
    }
    case STEP_REQUEST: put_request(input, step); return true;
    default: /* a kick and a moment's time */
        eventfd_write(input->event, 1);
        co_sleep_ns(10000);
        return true;
    }
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
    FUZZ_CHECK(stream);
    struct co_group group;
    co_group_init(&group);
    co_spawn(input->loop, &group, throw_away, stream);
    if (input->flags & LEAD)
        send_good_start(input, stream, input->flags & PACKED);
    struct record step;
    for (int i = 0; i < STEPS_MAX && record_next(&input->steps, &step) && play(input, stream, &step); i++)
        ;
    eventfd_write(input->event, 1);
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
    FUZZ_CHECK(blockdev_options_from_keyval("driver=null-co,node-name=d,size=1048576", NULL, &node, &err) &&
               graph_add(graph, node, &err) && block_export_options_from_keyval(text, NULL, &options, &err) &&
               export_add(set, options, &err));
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
    if (size < HEAD)
        return 0;
    struct input input = {.steps = records_after(data, size, HEAD),
                          .flags = data[0],
                          .memory = memfd_create("fuzz", MFD_CLOEXEC),
                          .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    FUZZ_CHECK(input.memory >= 0 && ftruncate(input.memory, MEMORY) == 0);
    input.shared = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, input.memory, 0);
    FUZZ_CHECK(input.shared != MAP_FAILED);
    input.loop = loop_new(LOOP_EPOLL, 0, NULL);
    loop_run_main(input.loop, serve, &input);
    loop_run_until_idle(input.loop);
    loop_free(input.loop);
    munmap(input.shared, MEMORY);
    close(input.memory);
    close(input.event);
    return 0;
}
