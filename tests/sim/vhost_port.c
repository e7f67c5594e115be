/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user front end with the virtio-blk driver of a guest: memory in a memfd, split or packed rings of several
 * queues, eventfds for kick and call, and the record of requests in flight. When the connection breaks, a new one
 * takes the rings and the record over, and every request that was offered must still be answered, once.
 */
#include "tests/sim/port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/endian.h"
#include "base/stream.h"
#include "tests/sim/world.h"
#include "virtio/features.h"
#include "virtio/vhost_user.h"
#include "virtio/virtio_blk.h"

enum {
    QUEUES_MAX = 3,
    RING = 16, /* entries */
    CHAIN = 3, /* header, data, status */
    SLOTS = RING / CHAIN,
    DATA_BYTES = 64 * 1024,
    SLOT_BYTES = 4096 + DATA_BYTES,
    AVAIL_AT = 4096,
    USED_AT = 8192,
    SLOTS_AT = 12288,
    QUEUE_BYTES = SLOTS_AT + SLOTS * SLOT_BYTES,
};
#define GUEST UINT64_C(0x40000000)    /* guest physical address of the memory */
#define USER UINT64_C(0x7f0000000000) /* where the front end says it has mapped it */
#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define PACKED_AVAIL (1u << 7)
#define PACKED_USED (1u << 15)

struct slot {
    bool busy, done;
    int status;
    struct co *co;
};

struct queue {
    struct vhost_port *vhost;
    unsigned index;
    uint8_t *memory;   /* QUEUE_BYTES of it */
    uint64_t place_at; /* offset in the memory */
    int kick, call;
    struct loop_watch watch;
    struct slot slots[SLOTS];
    uint16_t avail, seen;       /* split */
    uint16_t place, used_place; /* packed */
    bool wrap, used_wrap;
};

struct vhost_port {
    struct port port;
    struct stream *stream;
    struct co_group keeper;
    struct co_queue room;
    int memory_fd, inflight_fd;
    uint8_t *memory;
    struct vhost_user_inflight inflight;
    bool packed, closing;
    unsigned queue_count;
    struct queue queues[QUEUES_MAX];
};

static struct vhost_port *of(struct port *port)
{
    return container_of(port, struct vhost_port, port);
}

/* --- rings --- */

static uint64_t slot_at(const struct queue *queue, unsigned slot)
{
    return queue->place_at + SLOTS_AT + (uint64_t)slot * SLOT_BYTES;
}

static void put_split(struct queue *queue, unsigned index, uint64_t address, uint32_t length, unsigned flags)
{
    uint8_t *p = queue->memory + 16u * index;
    store_le64(p, address);
    store_le32(p + 8, length);
    store_le16(p + 12, (uint16_t)flags);
    store_le16(p + 14, (uint16_t)(index + 1));
}

static void offer_split(struct queue *queue, unsigned slot)
{
    uint8_t *avail = queue->memory + AVAIL_AT;
    store_le16(avail + 4 + 2 * (queue->avail % RING), (uint16_t)(CHAIN * slot));
    store_le16(avail + 2, ++queue->avail);
}

struct part {
    uint64_t address;
    uint32_t length;
    unsigned flags;
};

/* The head's flags last: they make the chain visible. */
static void offer_packed(struct queue *queue, unsigned slot, const struct part *parts, unsigned count)
{
    uint16_t places[CHAIN], flags[CHAIN];
    for (unsigned i = 0; i < count; i++) {
        places[i] = queue->place;
        flags[i] = (uint16_t)(parts[i].flags | (queue->wrap ? PACKED_AVAIL : PACKED_USED));
        if (++queue->place == RING) {
            queue->place = 0;
            queue->wrap = !queue->wrap;
        }
    }
    for (unsigned i = count; i-- > 0;) {
        uint8_t *p = queue->memory + 16u * places[i];
        store_le64(p, parts[i].address);
        store_le32(p + 8, parts[i].length);
        store_le16(p + 12, (uint16_t)slot);
        store_le16(p + 14, flags[i]);
    }
}

static void offer(struct queue *queue, unsigned slot, uint32_t length, bool device_writes)
{
    uint64_t at = GUEST + slot_at(queue, slot);
    struct part parts[CHAIN] = {{at, 16, DESC_NEXT}};
    unsigned count = 1;
    if (length)
        parts[count++] = (struct part){at + 4096, length, DESC_NEXT | (device_writes ? DESC_WRITE : 0)};
    parts[count++] = (struct part){at + 16, 1, DESC_WRITE};
    if (queue->vhost->packed) {
        offer_packed(queue, slot, parts, count);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        put_split(queue, CHAIN * slot + i, parts[i].address, parts[i].length, parts[i].flags);
    offer_split(queue, slot);
}

static void finish(struct queue *queue, unsigned slot)
{
    struct vhost_port *vhost = queue->vhost;
    if (slot >= SLOTS || !queue->slots[slot].busy || queue->slots[slot].done)
        world_fail(vhost->port.world, "queue %u: an answer to request %u, which is not under way", queue->index, slot);
    queue->slots[slot].status = vhost->memory[slot_at(queue, slot) + 16];
    queue->slots[slot].done = true;
    co_wake(queue->slots[slot].co);
}

static void collect_split(struct queue *queue)
{
    const uint8_t *used = queue->memory + USED_AT;
    for (; queue->seen != load_le16(used + 2); queue->seen++)
        finish(queue, load_le32(used + 4 + 8 * (queue->seen % RING)) / CHAIN);
}

static unsigned chain_length(const struct queue *queue, unsigned slot)
{
    return slot < SLOTS && queue->memory[SLOTS_AT + (size_t)slot * SLOT_BYTES + 17] ? 3 : 2;
}

static void collect_packed(struct queue *queue)
{
    for (;;) {
        const uint8_t *p = queue->memory + 16u * queue->used_place;
        unsigned flags = load_le16(p + 14), slot = load_le16(p + 12);
        bool available = flags & PACKED_AVAIL, used = flags & PACKED_USED;
        if (available != used || used != queue->used_wrap)
            return;
        queue->used_place = (uint16_t)(queue->used_place + chain_length(queue, slot));
        if (queue->used_place >= RING) {
            queue->used_place -= RING;
            queue->used_wrap = !queue->used_wrap;
        }
        finish(queue, slot);
    }
}

static void collect(struct queue *queue)
{
    if (queue->vhost->packed)
        collect_packed(queue);
    else
        collect_split(queue);
}

static void on_call(void *arg, uint32_t events)
{
    struct queue *queue = (struct queue *)arg;
    eventfd_t count;
    (void)events;
    if (!eventfd_read(queue->call, &count))
        collect(queue);
}

/* --- requests --- */

static bool take_slot(struct queue *queue, unsigned *slot)
{
    for (*slot = 0; *slot < SLOTS; ++*slot) {
        if (!queue->slots[*slot].busy)
            return true;
    }
    return false;
}

static struct queue *wait_slot(struct vhost_port *vhost, unsigned *slot)
{
    unsigned first = (unsigned)world_random(vhost->port.world, vhost->queue_count);
    for (;;) {
        for (unsigned i = 0; i < vhost->queue_count; i++) {
            struct queue *queue = &vhost->queues[(first + i) % vhost->queue_count];
            if (take_slot(queue, slot))
                return queue;
        }
        co_queue_wait_uncancellable(&vhost->room);
    }
}

/* What lies in the request's data buffer on its way to the device. */
static uint32_t fill_request(uint8_t *memory, enum io_kind kind, unsigned flags, uint64_t offset, uint64_t length,
                             const void *data)
{
    static const uint32_t types[] = {[IO_READ] = VIRTIO_BLK_T_IN,
                                     [IO_WRITE] = VIRTIO_BLK_T_OUT,
                                     [IO_ZERO] = VIRTIO_BLK_T_WRITE_ZEROES,
                                     [IO_DISCARD] = VIRTIO_BLK_T_DISCARD,
                                     [IO_FLUSH] = VIRTIO_BLK_T_FLUSH};
    bool is_range = kind == IO_ZERO || kind == IO_DISCARD;
    store_le32(memory, types[kind]);
    store_le32(memory + 4, 0);
    store_le64(memory + 8, is_range ? 0 : offset / SECTOR);
    memory[16] = 0xff;
    if (kind == IO_WRITE)
        memcpy(memory + 4096, data, length);
    if (!is_range)
        return (uint32_t)length;
    store_le64(memory + 4096, offset / SECTOR);
    store_le32(memory + 4104, (uint32_t)(length / SECTOR));
    store_le32(memory + 4108, kind == IO_ZERO && flags & IO_MAY_UNMAP ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0);
    return 16;
}

static int vhost_io(struct port *port, enum io_kind kind, unsigned flags, uint64_t offset, uint64_t length, void *data)
{
    struct vhost_port *vhost = of(port);
    unsigned number;
    struct queue *queue = wait_slot(vhost, &number);
    struct slot *slot = &queue->slots[number];
    uint8_t *memory = vhost->memory + slot_at(queue, number);
    uint32_t bytes = fill_request(memory, kind, flags, offset, length, data);
    memory[17] = bytes != 0; /* for us: how long the chain is */
    *slot = (struct slot){.busy = true, .co = co_self()};
    offer(queue, number, bytes, kind == IO_READ);
    eventfd_write(queue->kick, 1);
    while (!slot->done && !vhost->closing)
        co_suspend();
    int result = !slot->done                           ? -ENOTCONN
                 : slot->status == VIRTIO_BLK_S_OK     ? 0
                 : slot->status == VIRTIO_BLK_S_UNSUPP ? -ENOTSUP
                                                       : -EIO;
    if (!result && kind == IO_READ)
        memcpy(data, memory + 4096, length);
    slot->busy = false;
    co_queue_wake_one(&vhost->room);
    return result;
}

/* --- the conversation --- */

static bool send_message(struct vhost_port *vhost, uint32_t request, uint32_t flags, const void *payload, uint32_t size,
                         int fd)
{
    struct vhost_user_message message = {.header = {request, VHOST_USER_VERSION | flags, size}};
    if (size)
        memcpy(message.payload.bytes, payload, size);
    return !stream_send_fds(vhost->stream, &message, sizeof message.header + size, &fd, fd >= 0);
}

/* The answer to `request`; *fd: what came with it, -1 for none. */
static bool receive(struct vhost_port *vhost, uint32_t request, void *payload, uint32_t size, int *fd)
{
    struct vhost_user_header header;
    int n_fds = 0, got_fd = -1;
    ssize_t got = stream_recv_fds(vhost->stream, &header, sizeof header, &got_fd, 1, &n_fds);
    if (fd)
        *fd = n_fds ? got_fd : -1;
    if (got <= 0 || stream_recv_all(vhost->stream, (uint8_t *)&header + got, sizeof header - (size_t)got))
        return false;
    if (header.request != request || !(header.flags & VHOST_USER_REPLY) || header.size != size)
        world_fail(vhost->port.world, "vhost: request %u is answered by %u of %u bytes", request, header.request,
                   header.size);
    return !stream_recv_all(vhost->stream, payload, size);
}

static bool ask(struct vhost_port *vhost, uint32_t request, uint64_t *number)
{
    return send_message(vhost, request, 0, NULL, 0, -1) && receive(vhost, request, number, sizeof *number, NULL);
}

static bool acknowledged(struct vhost_port *vhost, uint32_t request, const void *payload, uint32_t size, int fd)
{
    uint64_t code;
    if (!send_message(vhost, request, VHOST_USER_NEED_REPLY, payload, size, fd) ||
        !receive(vhost, request, &code, sizeof code, NULL))
        return false;
    if (code && !vhost->port.world->is_cut)
        world_fail(vhost->port.world, "vhost: request %u is refused", request);
    return !code;
}

static bool negotiate(struct vhost_port *vhost)
{
    uint64_t offered = 0, protocol = 0;
    uint64_t wanted = VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES) |
                      VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |
                      VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES) | (vhost->packed ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0);
    if (!ask(vhost, VHOST_USER_GET_FEATURES, &offered) || !ask(vhost, VHOST_USER_GET_PROTOCOL_FEATURES, &protocol))
        return false;
    if (wanted & ~offered)
        world_fail(vhost->port.world, "vhost: features %#llx are not offered", (unsigned long long)(wanted & ~offered));
    protocol &= VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
    return send_message(vhost, VHOST_USER_SET_PROTOCOL_FEATURES, 0, &protocol, sizeof protocol, -1) &&
           send_message(vhost, VHOST_USER_SET_OWNER, 0, NULL, 0, -1) &&
           send_message(vhost, VHOST_USER_SET_FEATURES, 0, &wanted, sizeof wanted, -1);
}

static bool share_memory(struct vhost_port *vhost)
{
    struct vhost_user_memory table = {.count = 1};
    table.regions[0] = (struct vhost_user_region){GUEST, (uint64_t)vhost->queue_count * QUEUE_BYTES, USER, 0};
    return acknowledged(vhost, VHOST_USER_SET_MEM_TABLE, &table,
                        offsetof(struct vhost_user_memory, regions) + sizeof table.regions[0], vhost->memory_fd);
}

static bool share_record(struct vhost_port *vhost)
{
    uint32_t size = offsetof(struct vhost_user_inflight, queue_size) + 2;
    if (vhost->inflight_fd < 0) {
        struct vhost_user_inflight wish = {.num_queues = (uint16_t)vhost->queue_count, .queue_size = RING};
        if (!send_message(vhost, VHOST_USER_GET_INFLIGHT_FD, 0, &wish, size, -1) ||
            !receive(vhost, VHOST_USER_GET_INFLIGHT_FD, &vhost->inflight, sizeof vhost->inflight, &vhost->inflight_fd))
            return false;
    }
    return acknowledged(vhost, VHOST_USER_SET_INFLIGHT_FD, &vhost->inflight, sizeof vhost->inflight,
                        vhost->inflight_fd);
}

/* Where the device goes on: behind what it has published. */
static uint32_t base_of(const struct queue *queue)
{
    uint32_t position = queue->used_place | (uint32_t)queue->used_wrap << 15;
    return queue->vhost->packed ? position | position << 16 : load_le16(queue->memory + USED_AT + 2);
}

static bool start_queue(struct vhost_port *vhost, struct queue *queue)
{
    uint64_t index = queue->index, at = USER + queue->place_at;
    struct vhost_user_vring_state number = {queue->index, RING}, base = {queue->index, 0}, enable = {queue->index, 1};
    struct vhost_user_vring_addresses addresses = {queue->index, 0, at, at + USED_AT, at + AVAIL_AT, 0};
    collect(queue);
    base.number = base_of(queue);
    return send_message(vhost, VHOST_USER_SET_VRING_NUM, 0, &number, sizeof number, -1) &&
           send_message(vhost, VHOST_USER_SET_VRING_BASE, 0, &base, sizeof base, -1) &&
           send_message(vhost, VHOST_USER_SET_VRING_ADDR, 0, &addresses, sizeof addresses, -1) &&
           send_message(vhost, VHOST_USER_SET_VRING_KICK, 0, &index, sizeof index, queue->kick) &&
           send_message(vhost, VHOST_USER_SET_VRING_CALL, 0, &index, sizeof index, queue->call) &&
           acknowledged(vhost, VHOST_USER_SET_VRING_ENABLE, &enable, sizeof enable, -1);
}

static bool set_up(struct vhost_port *vhost)
{
    const struct stream_address address = {.kind = SOCKET_UNIX, .path = "vhost.sock"};
    vhost->stream = stream_connect(vhost->port.world->loop, &address, NULL);
    if (!vhost->stream || !negotiate(vhost) || !share_memory(vhost) || !share_record(vhost))
        return false;
    for (unsigned i = 0; i < vhost->queue_count; i++) {
        if (!start_queue(vhost, &vhost->queues[i]))
            return false;
    }
    return true;
}

/* Nothing comes on the connection any more; when it ends, the next one is made. */
static void keep(void *arg)
{
    struct vhost_port *vhost = (struct vhost_port *)arg;
    uint8_t byte;
    for (;;) {
        while (stream_recv(vhost->stream, &byte, 1) > 0)
            ;
        do {
            stream_close(TAKE(vhost->stream));
            if (vhost->closing)
                return;
            co_sleep_ns(100000);
            world_trace(vhost->port.world, "vhost connects again");
        } while (!set_up(vhost));
    }
}

/* --- life --- */

static bool vhost_connect(struct port *port)
{
    return port->connected;
}

static void vhost_break(struct port *port)
{
    if (of(port)->stream)
        sim_stream_break(of(port)->stream);
}

static void vhost_free(struct port *port)
{
    struct vhost_port *vhost = of(port);
    vhost->closing = true;
    if (vhost->stream)
        stream_shutdown(vhost->stream);
    co_group_wait(&vhost->keeper);
    stream_close(vhost->stream);
    for (unsigned i = 0; i < vhost->queue_count; i++) {
        loop_unwatch(&vhost->queues[i].watch);
        close(vhost->queues[i].kick);
        close(vhost->queues[i].call);
    }
    munmap(vhost->memory, (size_t)vhost->queue_count * QUEUE_BYTES);
    close(vhost->memory_fd);
    if (vhost->inflight_fd >= 0)
        close(vhost->inflight_fd);
    free(vhost);
}

static void make_queue(struct vhost_port *vhost, unsigned index)
{
    struct queue *queue = &vhost->queues[index];
    *queue = (struct queue){.vhost = vhost,
                            .index = index,
                            .place_at = (uint64_t)index * QUEUE_BYTES,
                            .memory = vhost->memory + (size_t)index * QUEUE_BYTES,
                            .kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                            .call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                            .wrap = true,
                            .used_wrap = true};
    loop_watch(vhost->port.world->loop, &queue->watch, queue->call, EPOLLIN, on_call, queue);
}

static const struct port_ops vhost_ops = {
    .io = vhost_io, .connect = vhost_connect, .break_line = vhost_break, .free = vhost_free};

struct port *vhost_port_new(struct world *world, unsigned queues, bool packed)
{
    struct vhost_port *vhost = new (struct vhost_port);
    size_t bytes = (size_t)queues * QUEUE_BYTES;
    *vhost = (struct vhost_port){.port = {.ops = &vhost_ops,
                                          .world = world,
                                          .name = "vhost",
                                          .connected = true,
                                          .flags = IO_MAY_UNMAP,
                                          .max_request = DATA_BYTES,
                                          .hands = 2 * queues},
                                 .memory_fd = memfd_create("guest", MFD_CLOEXEC),
                                 .inflight_fd = -1,
                                 .packed = packed,
                                 .queue_count = queues};
    co_group_init(&vhost->keeper);
    co_queue_init(&vhost->room);
    if (vhost->memory_fd < 0 || ftruncate(vhost->memory_fd, (off_t)bytes) < 0)
        world_fail(world, "no memory for a guest: %s", strerror(errno));
    vhost->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vhost->memory_fd, 0);
    if (vhost->memory == MAP_FAILED)
        world_fail(world, "no memory for a guest: %s", strerror(errno));
    for (unsigned i = 0; i < queues; i++)
        make_queue(vhost, i);
    if (!set_up(vhost)) {
        vhost_free(&vhost->port);
        return NULL;
    }
    co_spawn(world->loop, &vhost->keeper, keep, vhost);
    return &vhost->port;
}
