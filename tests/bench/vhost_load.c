/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load for vhost-user-blk back ends: what a guest's driver would do, without the guest, so that only the back end is
 * measured. One thread and one split ring a queue, `depth` requests in flight on each; it sleeps on the call eventfd
 * like a driver that takes interrupts, and uses event indices where the back end has them, as Linux does. Prints one
 * line of JSON.
 *
 * Specifications: QEMU's docs/interop/vhost-user.rst, Virtual I/O Device 1.2 (split virtqueues; block device).
 *
 *     vhost_load SOCKET [--write] [--stamped] [--block N] [--depth N] [--queues N] [--seconds S] [--operations N]
 */
#define _GNU_SOURCE /* memfd_create */
#include <getopt.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "load.h"

enum {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18,
    GET_CONFIG = 24,
};
#define F_PROTOCOL_FEATURES (1ull << 30)
#define P_MQ (1ull << 0)
#define P_CONFIG (1ull << 9)

#define GUEST_BASE 0x80000000ull /* where the guest has the shared memory */
enum { RING = 256, RING_BYTES = 32 << 10 };

struct message {
    uint32_t request, flags, size;
    union {
        uint64_t u64;
        struct {
            uint32_t index, number;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t descriptors, used, available, log;
        } address;
        struct {
            uint32_t count, padding;
            uint64_t guest, size, user, offset;
        } memory;
        struct {
            uint32_t offset, size, flags;
            uint8_t bytes[256];
        } config;
    };
} __attribute__((packed));
enum { HEADER = 12, VERSION = 1, REPLY = 4 };

struct plan {
    bool write, stamped;
    uint32_t block, depth, queues;
    uint64_t capacity; /* bytes */
    bool event_indices;
    struct timing timing;
};

struct queue {
    struct plan *plan;
    pthread_t thread;
    uint8_t *memory; /* ring, then a slot of header, status and data for every request */
    uint64_t guest;  /* address of `memory` */
    struct vring ring;
    uint16_t published, seen;
    int kick, call;
    uint64_t random, kicks;
    uint64_t offsets[RING], sent_ns[RING];
    struct tally tally;
};

/* --- the socket --- */

static void send_message(int sock, struct message *message, uint32_t request, uint32_t size, int fd)
{
    message->request = request;
    message->flags = VERSION;
    message->size = size;
    struct iovec iov = {message, HEADER + size};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {0};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    if (sendmsg(sock, &header, MSG_NOSIGNAL) != (ssize_t)(HEADER + size))
        die("request %u: %s", request, strerror(errno));
}

static void receive_exactly(int sock, void *to, size_t size)
{
    if (size && recv(sock, to, size, MSG_WAITALL) != (ssize_t)size)
        die("the back end closed the connection");
}

static void receive_reply(int sock, struct message *message, uint32_t request)
{
    receive_exactly(sock, message, HEADER);
    if (message->request != request || !(message->flags & REPLY) || message->size > sizeof *message - HEADER)
        die("request %u: not its reply", request);
    receive_exactly(sock, (uint8_t *)message + HEADER, message->size);
}

static uint64_t ask(int sock, uint32_t request)
{
    struct message message;
    send_message(sock, &message, request, 0, -1);
    receive_reply(sock, &message, request);
    return message.u64;
}

static void tell(int sock, uint32_t request, uint64_t value)
{
    struct message message = {.u64 = value};
    send_message(sock, &message, request, 8, -1);
}

static void tell_state(int sock, uint32_t request, uint32_t index, uint32_t number)
{
    struct message message = {.state = {index, number}};
    send_message(sock, &message, request, 8, -1);
}

static void tell_fd(int sock, uint32_t request, uint32_t index, int fd)
{
    struct message message = {.u64 = index};
    send_message(sock, &message, request, 8, fd);
}

/* The capacity is the first field of the configuration space; back ends differ in how much more they have. */
static uint64_t ask_capacity(int sock)
{
    struct message message = {.config = {.offset = 0, .size = 8}};
    send_message(sock, &message, GET_CONFIG, 12 + 8, -1);
    receive_reply(sock, &message, GET_CONFIG);
    if (message.size < 12 + 8)
        die("the back end does not tell its configuration");
    uint64_t sectors;
    memcpy(&sectors, message.config.bytes, 8);
    return sectors * 512;
}

static void negotiate(int sock, struct plan *plan)
{
    uint64_t offered = ask(sock, GET_FEATURES);
    uint64_t wanted =
        1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | F_PROTOCOL_FEATURES | 1ull << VIRTIO_BLK_F_MQ;
    if (!(offered & F_PROTOCOL_FEATURES) || !(offered & 1ull << VIRTIO_F_VERSION_1))
        die("the back end lacks protocol features or virtio 1");
    tell(sock, SET_OWNER, 0);
    tell(sock, SET_PROTOCOL_FEATURES, ask(sock, GET_PROTOCOL_FEATURES) & (P_MQ | P_CONFIG));
    plan->event_indices = offered & 1ull << VIRTIO_RING_F_EVENT_IDX;
    tell(sock, SET_FEATURES, offered & wanted);
    uint64_t queues = ask(sock, GET_QUEUE_NUM);
    if (queues < plan->queues)
        die("the back end has only %llu queues", (unsigned long long)queues);
    plan->capacity = ask_capacity(sock);
    if (plan->capacity < plan->block)
        die("the disk is too small");
}

/* --- the ring --- */

static size_t slot_bytes(const struct plan *plan)
{
    return 4096 + ((plan->block + 4095) & ~4095u); /* header and status, then the data on pages of their own */
}

static size_t queue_bytes(const struct plan *plan)
{
    return RING_BYTES + plan->depth * slot_bytes(plan);
}

static void make_chain(struct queue *queue, uint32_t slot)
{
    const struct plan *plan = queue->plan;
    uint64_t at = queue->guest + RING_BYTES + slot * slot_bytes(plan);
    uint16_t first = (uint16_t)(slot * 3);
    uint16_t data_flags = plan->write ? 0 : VRING_DESC_F_WRITE;
    queue->ring.desc[first] = (struct vring_desc){at, sizeof(struct virtio_blk_outhdr), VRING_DESC_F_NEXT, first + 1};
    queue->ring.desc[first + 1] =
        (struct vring_desc){at + 4096, plan->block, data_flags | VRING_DESC_F_NEXT, first + 2};
    queue->ring.desc[first + 2] = (struct vring_desc){at + 512, 1, VRING_DESC_F_WRITE, 0};
}

static void add_request(struct queue *queue, uint32_t slot)
{
    const struct plan *plan = queue->plan;
    uint64_t offset = random_next(&queue->random) % (plan->capacity / plan->block) * plan->block;
    uint8_t *memory = queue->memory + RING_BYTES + slot * slot_bytes(plan);
    *(struct virtio_blk_outhdr *)memory =
        (struct virtio_blk_outhdr){.type = plan->write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, .sector = offset / 512};
    memory[512] = 0xff;
    for (uint32_t at = 0; plan->write && at < plan->block; at += 4096) {
        uint64_t stamp = offset + at;
        memcpy(memory + 4096 + at, &stamp, 8);
    }
    queue->offsets[slot] = offset;
    queue->sent_ns[slot] = now_ns();
    queue->ring.avail->ring[queue->published++ % RING] = (uint16_t)(slot * 3);
    queue->tally.issued++;
}

/* Shows the back end what was added since `before`, and wakes it if it wants to be. */
static void publish(struct queue *queue, uint16_t before)
{
    __atomic_store_n(&queue->ring.avail->idx, queue->published, __ATOMIC_RELEASE);
    atomic_thread_fence(memory_order_seq_cst);
    bool wanted = queue->plan->event_indices
                      ? vring_need_event(__atomic_load_n(&vring_avail_event(&queue->ring), __ATOMIC_RELAXED),
                                         queue->published, before)
                      : !(__atomic_load_n(&queue->ring.used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
    if (wanted && eventfd_write(queue->kick, 1))
        die("kick: %s", strerror(errno));
    queue->kicks += wanted;
}

static void wait_for_answer(struct queue *queue)
{
    while (__atomic_load_n(&queue->ring.used->idx, __ATOMIC_ACQUIRE) == queue->seen) {
        __atomic_store_n(&vring_used_event(&queue->ring), queue->seen, __ATOMIC_RELAXED);
        atomic_thread_fence(memory_order_seq_cst);
        if (__atomic_load_n(&queue->ring.used->idx, __ATOMIC_ACQUIRE) != queue->seen)
            return;
        /* The back end may have made it non-blocking: an eventfd is shared with all its flags. */
        struct pollfd poll_call = {queue->call, POLLIN, 0};
        poll(&poll_call, 1, -1);
        eventfd_t value;
        if (eventfd_read(queue->call, &value) && errno != EINTR && errno != EAGAIN)
            die("call: %s", strerror(errno));
    }
}

/* Returns the slot that the next used element is about. */
static uint32_t take_answer(struct queue *queue)
{
    uint32_t id = queue->ring.used->ring[queue->seen++ % RING].id, slot = id / 3;
    if (id % 3 || slot >= queue->plan->depth)
        die("an answer to a request that was not made");
    const uint8_t *memory = queue->memory + RING_BYTES + slot * slot_bytes(queue->plan);
    if (memory[512])
        die("the back end answers with status %u", memory[512]);
    uint64_t stamp;
    memcpy(&stamp, memory + 4096, 8);
    if (queue->plan->stamped && !queue->plan->write && stamp != queue->offsets[slot])
        die("read at %#llx: the data are those of %#llx", (unsigned long long)queue->offsets[slot],
            (unsigned long long)stamp);
    tally_answer(&queue->tally, now_ns() - queue->sent_ns[slot]);
    return slot;
}

static void *run(void *arg)
{
    struct queue *queue = arg;
    timing_wait_for_start(&queue->plan->timing);
    uint32_t in_flight = 0;
    for (; in_flight < queue->plan->depth && goes_on(&queue->plan->timing, &queue->tally); in_flight++)
        add_request(queue, in_flight);
    publish(queue, 0);
    while (in_flight) {
        wait_for_answer(queue);
        uint16_t before = queue->published, used = __atomic_load_n(&queue->ring.used->idx, __ATOMIC_ACQUIRE);
        while (queue->seen != used) {
            uint32_t slot = take_answer(queue);
            if (goes_on(&queue->plan->timing, &queue->tally))
                add_request(queue, slot);
            else
                in_flight--;
        }
        if (queue->published != before)
            publish(queue, before);
    }
    queue->tally.finished_ns = now_ns();
    return NULL;
}

static void start_queue(int sock, struct queue *queue, uint32_t index)
{
    struct plan *plan = queue->plan;
    queue->kick = eventfd(0, EFD_CLOEXEC);
    queue->call = eventfd(0, EFD_CLOEXEC);
    queue->random = random_seed(index);
    vring_init(&queue->ring, RING, queue->memory, 4096);
    for (uint32_t slot = 0; slot < plan->depth; slot++)
        make_chain(queue, slot);
    tell_state(sock, SET_VRING_NUM, index, RING);
    tell_state(sock, SET_VRING_BASE, index, 0);
    struct message message = {.address = {.index = index,
                                          .descriptors = (uintptr_t)queue->ring.desc,
                                          .used = (uintptr_t)queue->ring.used,
                                          .available = (uintptr_t)queue->ring.avail}};
    send_message(sock, &message, SET_VRING_ADDR, 40, -1);
    tell_fd(sock, SET_VRING_CALL, index, queue->call);
    tell_fd(sock, SET_VRING_KICK, index, queue->kick);
    tell_state(sock, SET_VRING_ENABLE, index, 1);
}

static const char *parse(struct plan *plan, int argc, char **argv)
{
    static const struct option options[] = {
        {"write", no_argument, NULL, 'w'},
        {"stamped", no_argument, NULL, 'c'},
        {"block", required_argument, NULL, 'b'},
        {"depth", required_argument, NULL, 'd'},
        {"queues", required_argument, NULL, 'q'},
        {"seconds", required_argument, NULL, 't'},
        {"operations", required_argument, NULL, 'o'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'w': plan->write = true; break;
        case 'c': plan->stamped = true; break;
        case 'b': plan->block = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'd': plan->depth = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'q': plan->queues = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 't': plan->timing.seconds = strtod(optarg, NULL); break;
        case 'o': plan->timing.operations = strtoull(optarg, NULL, 0); break;
        default: exit(2);
        }
    }
    if (argc - optind != 1 || plan->block < 512 || plan->block % 512 || !plan->depth || plan->depth > RING / 3 ||
        !plan->queues)
        die("usage: vhost_load SOCKET [options], see the head of its source");
    return argv[optind];
}

int main(int argc, char **argv)
{
    struct plan plan = {.block = 4096, .depth = 1, .queues = 1, .timing.seconds = 1};
    const char *path = parse(&plan, argc, argv);
    int sock = connect_unix(path);
    negotiate(sock, &plan);

    size_t size = plan.queues * queue_bytes(&plan);
    int memory_fd = memfd_create("guest", MFD_CLOEXEC);
    if (memory_fd < 0 || ftruncate(memory_fd, (off_t)size))
        die("memory: %s", strerror(errno));
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory_fd, 0);
    struct queue *queues = calloc(plan.queues, sizeof *queues);
    if (memory == MAP_FAILED || !queues)
        die("no memory");
    struct message table = {.memory = {.count = 1, .guest = GUEST_BASE, .size = size, .user = (uintptr_t)memory}};
    send_message(sock, &table, SET_MEM_TABLE, 40, memory_fd);

    timing_init(&plan.timing, plan.queues);
    for (uint32_t i = 0; i < plan.queues; i++) {
        size_t at = i * queue_bytes(&plan);
        queues[i] = (struct queue){.plan = &plan, .memory = memory + at, .guest = GUEST_BASE + at};
        start_queue(sock, &queues[i], i);
        if (pthread_create(&queues[i].thread, NULL, run, &queues[i]))
            die("no thread");
    }
    uint64_t start_ns = timing_start(&plan.timing), kicks = 0;
    struct tally *sum = calloc(1, sizeof *sum);
    if (!sum)
        die("no memory");
    for (uint32_t i = 0; i < plan.queues; i++) {
        pthread_join(queues[i].thread, NULL);
        tally_add(sum, &queues[i].tally);
        kicks += queues[i].kicks;
    }
    tally_print(sum, start_ns);
    printf(", \"kicks\": %llu}\n", (unsigned long long)kicks);
    return 0;
}
