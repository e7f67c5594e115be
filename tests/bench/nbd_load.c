/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load for NBD servers that costs little itself: `connections` threads, each with one connection over a UNIX socket
 * and `depth` requests in flight. Prints one line of JSON.
 *
 * A general client library spends about as much on a request as a good server does, and on a small machine it is then
 * the client that is measured. Here requests go out by one call for all that were answered together, and replies come
 * in by one call for as many as there are. Protocol: NBD's doc/proto.md, fixed newstyle, structured replies (when the
 * server has them, as real clients do), no TLS.
 *
 * With --stamped the first 8 bytes of whatever is read must be its own offset (little endian), as the benchmark's
 * images have it: a server that is fast and wrong is found out.
 *
 *     nbd_load SOCKET EXPORT [--write] [--sequential] [--stamped] [--block N] [--depth N] [--connections N]
 *              [--seconds S] [--operations N] [--span BYTES]
 */
#define _GNU_SOURCE
#include <endian.h>
#include <getopt.h>
#include "load.h"

#define OPTION_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define OPTION_REPLY_MAGIC 0x0003e889045565a9ull
enum { OPT_GO = 7, OPT_STRUCTURED_REPLY = 8, REP_ACK = 1, REP_INFO = 3, INFO_EXPORT = 0 };
enum { REQUEST_MAGIC = 0x25609513, SIMPLE_MAGIC = 0x67446698, CHUNK_MAGIC = 0x668e33ef };
enum { CMD_READ = 0, CMD_WRITE = 1, CMD_DISC = 2 };
enum { CHUNK_DONE = 1, CHUNK_OFFSET_DATA = 1, CHUNK_ERROR_BIT = 1 << 15 };

struct request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
} __attribute__((packed));

struct plan {
    const char *path, *export;
    bool write, sequential, stamped;
    uint32_t block, depth, connections;
    uint64_t span; /* 0: the whole export */
    struct timing timing;
};

enum { BUFFER = 256 << 10, SLOTS = 1024 };

struct connection {
    struct plan *plan;
    pthread_t thread;
    int fd;
    uint64_t size, random, next;
    uint64_t offsets[SLOTS], sent_ns[SLOTS];
    uint8_t *buffer, *outgoing;
    size_t used, filled, outgoing_size;
    struct tally tally;
};

static void send_all(struct connection *c, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = send(c->fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("send: %s", strerror(errno));
        done += (size_t)n;
    }
}

static void receive_some(struct connection *c)
{
    ssize_t n;
    do
        n = recv(c->fd, c->buffer + c->filled, BUFFER - c->filled, 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        die("the server closed the connection");
    c->filled += (size_t)n;
}

/* The next `size` (small) bytes of the stream, contiguous. */
static const uint8_t *take(struct connection *c, size_t size)
{
    if (c->filled - c->used < size && c->used) {
        memmove(c->buffer, c->buffer + c->used, c->filled - c->used);
        c->filled -= c->used;
        c->used = 0;
    }
    while (c->filled - c->used < size)
        receive_some(c);
    c->used += size;
    return c->buffer + c->used - size;
}

static void skip(struct connection *c, size_t size)
{
    for (;;) {
        size_t part = c->filled - c->used < size ? c->filled - c->used : size;
        c->used += part;
        size -= part;
        if (!size)
            return;
        c->used = c->filled = 0;
        receive_some(c);
    }
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return be64toh(v);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return be32toh(v);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* --- handshake --- */

static void send_option(struct connection *c, uint32_t option, const void *data, uint32_t length)
{
    uint8_t out[512];
    uint64_t magic = htobe64(OPTION_MAGIC);
    uint32_t fields[2] = {htobe32(option), htobe32(length)};
    memcpy(out, &magic, 8);
    memcpy(out + 8, fields, 8);
    if (length)
        memcpy(out + 16, data, length);
    send_all(c, out, 16 + length);
}

/* The replies to an option until the last one; picks the export's size up. */
static bool option_granted(struct connection *c)
{
    for (;;) {
        const uint8_t *head = take(c, 20);
        uint32_t type = get32(head + 12), length = get32(head + 16);
        if (get64(head) != OPTION_REPLY_MAGIC)
            die("not an option reply");
        if (type == REP_INFO && length >= 12) {
            const uint8_t *info = take(c, 12);
            if (get16(info) == INFO_EXPORT)
                c->size = get64(info + 2);
            skip(c, length - 12);
            continue;
        }
        skip(c, length);
        if (type == REP_ACK)
            return true;
        if (type >> 31)
            return false;
    }
}

static void handshake(struct connection *c)
{
    const uint8_t *hello = take(c, 18);
    if (get64(hello + 8) != OPTION_MAGIC)
        die("the server speaks no newstyle NBD");
    uint32_t flags = htobe32(3); /* fixed newstyle, no zeroes */
    send_all(c, &flags, 4);
    send_option(c, OPT_STRUCTURED_REPLY, NULL, 0);
    option_granted(c);
    uint8_t go[300] = {0};
    size_t length = strlen(c->plan->export);
    if (length > 256)
        die("export name too long");
    uint32_t length_be = htobe32((uint32_t)length);
    memcpy(go, &length_be, 4);
    memcpy(go + 4, c->plan->export, length);
    send_option(c, OPT_GO, go, (uint32_t)(4 + length + 2));
    if (!option_granted(c))
        die("the server has no export '%s'", c->plan->export);
}

static void connect_to_server(struct connection *c)
{
    c->fd = connect_unix(c->plan->path);
    handshake(c);
    if (c->plan->span && c->plan->span < c->size)
        c->size = c->plan->span;
    if (c->size < c->plan->block)
        die("the export has only %llu bytes", (unsigned long long)c->size);
}

/* --- load --- */

static uint64_t choose_offset(struct connection *c)
{
    uint64_t blocks = c->size / c->plan->block;
    if (c->plan->sequential)
        return c->next++ % blocks * c->plan->block;
    return random_next(&c->random) % blocks * c->plan->block;
}

static void add_request(struct connection *c, uint32_t slot)
{
    uint64_t offset = choose_offset(c);
    struct request request = {.magic = htobe32(REQUEST_MAGIC),
                              .type = htobe16(c->plan->write ? CMD_WRITE : CMD_READ),
                              .cookie = slot,
                              .offset = htobe64(offset),
                              .length = htobe32(c->plan->block)};
    uint8_t *to = c->outgoing + c->outgoing_size;
    memcpy(to, &request, sizeof request);
    c->outgoing_size += sizeof request;
    if (c->plan->write) {
        uint64_t stamp = htole64(offset);
        for (uint32_t at = 0; at < c->plan->block; at += 4096) {
            memcpy(to + sizeof request + at, &stamp, 8);
            stamp = htole64(offset + at + 4096);
        }
        c->outgoing_size += c->plan->block;
    }
    c->offsets[slot] = offset;
    c->sent_ns[slot] = now_ns();
    c->tally.issued++;
}

static void check_stamp(struct connection *c, uint64_t offset, const uint8_t *data)
{
    uint64_t stamp;
    memcpy(&stamp, data, 8);
    if (c->plan->stamped && le64toh(stamp) != offset)
        die("read at %#llx: the data are those of %#llx", (unsigned long long)offset,
            (unsigned long long)le64toh(stamp));
}

static uint32_t slot_of(const struct connection *c, uint64_t cookie)
{
    if (cookie >= c->plan->depth)
        die("reply with a wrong cookie");
    return (uint32_t)cookie;
}

/* Reads one reply or chunk. Returns the slot that it completes, or -1. */
static int receive_reply(struct connection *c)
{
    uint32_t magic = get32(take(c, 4));
    if (magic == SIMPLE_MAGIC) {
        const uint8_t *head = take(c, 12);
        uint64_t cookie;
        memcpy(&cookie, head + 4, 8);
        if (get32(head))
            die("the server answers with error %u", get32(head));
        uint32_t slot = slot_of(c, cookie);
        if (!c->plan->write) {
            check_stamp(c, c->offsets[slot], take(c, 8));
            skip(c, c->plan->block - 8);
        }
        return (int)slot;
    }
    if (magic != CHUNK_MAGIC)
        die("not a reply: %#x", magic);
    const uint8_t *head = take(c, 16);
    uint64_t cookie;
    memcpy(&cookie, head + 4, 8);
    bool done = get16(head) & CHUNK_DONE;
    uint16_t type = get16(head + 2);
    uint32_t length = get32(head + 12), slot = slot_of(c, cookie);
    if (type & CHUNK_ERROR_BIT)
        die("the server answers with error %u", get32(take(c, 4)));
    if (type == CHUNK_OFFSET_DATA && length >= 16) {
        const uint8_t *start = take(c, 16);
        check_stamp(c, get64(start), start + 8);
        length -= 16;
    }
    skip(c, length);
    return done ? (int)slot : -1;
}

static void *run(void *arg)
{
    struct connection *c = arg;
    timing_wait_for_start(&c->plan->timing);
    uint32_t in_flight = 0;
    for (; in_flight < c->plan->depth && goes_on(&c->plan->timing, &c->tally); in_flight++)
        add_request(c, in_flight);
    while (in_flight) {
        send_all(c, c->outgoing, c->outgoing_size);
        c->outgoing_size = 0;
        do {
            int slot = receive_reply(c);
            if (slot < 0)
                continue;
            tally_answer(&c->tally, now_ns() - c->sent_ns[slot]);
            if (goes_on(&c->plan->timing, &c->tally))
                add_request(c, (uint32_t)slot);
            else
                in_flight--;
        } while (in_flight && (!c->outgoing_size || c->filled - c->used >= 20 + c->plan->block));
    }
    c->tally.finished_ns = now_ns();
    struct request bye = {.magic = htobe32(REQUEST_MAGIC), .type = htobe16(CMD_DISC)};
    send_all(c, &bye, sizeof bye);
    return NULL;
}

static void parse(struct plan *plan, int argc, char **argv)
{
    static const struct option options[] = {
        {"write", no_argument, NULL, 'w'},         {"sequential", no_argument, NULL, 's'},
        {"stamped", no_argument, NULL, 'c'},       {"block", required_argument, NULL, 'b'},
        {"depth", required_argument, NULL, 'd'},   {"connections", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 't'}, {"operations", required_argument, NULL, 'o'},
        {"span", required_argument, NULL, 'S'},    {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'w': plan->write = true; break;
        case 's': plan->sequential = true; break;
        case 'c': plan->stamped = true; break;
        case 'b': plan->block = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'd': plan->depth = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'n': plan->connections = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 't': plan->timing.seconds = strtod(optarg, NULL); break;
        case 'o': plan->timing.operations = strtoull(optarg, NULL, 0); break;
        case 'S': plan->span = strtoull(optarg, NULL, 0); break;
        default: exit(2);
        }
    }
    if (argc - optind != 2 || plan->block < 16 || !plan->depth || plan->depth > SLOTS || !plan->connections)
        die("usage: nbd_load SOCKET EXPORT [options], see the head of its source");
    plan->path = argv[optind];
    plan->export = argv[optind + 1];
}

int main(int argc, char **argv)
{
    struct plan plan = {.block = 4096, .depth = 1, .connections = 1, .timing.seconds = 1};
    parse(&plan, argc, argv);
    struct connection *all = calloc(plan.connections, sizeof *all);
    if (!all)
        die("no memory");
    timing_init(&plan.timing, plan.connections);
    for (uint32_t i = 0; i < plan.connections; i++) {
        struct connection *c = &all[i];
        *c = (struct connection){.plan = &plan, .random = random_seed(i), .buffer = malloc(BUFFER)};
        c->outgoing = calloc(plan.depth, sizeof(struct request) + (plan.write ? plan.block : 0));
        if (!c->buffer || !c->outgoing)
            die("no memory");
        connect_to_server(c);
        c->next = i * (c->size / plan.block / plan.connections);
        if (pthread_create(&c->thread, NULL, run, c))
            die("no thread");
    }
    uint64_t start_ns = timing_start(&plan.timing);
    struct tally *sum = calloc(1, sizeof *sum);
    if (!sum)
        die("no memory");
    for (uint32_t i = 0; i < plan.connections; i++) {
        pthread_join(all[i].thread, NULL);
        tally_add(sum, &all[i].tally);
    }
    tally_print(sum, start_ns);
    puts("}");
    return 0;
}
