/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, the emulator's vhost-user front end does not work with a daemon, ours or another vendor's, or loses
 * requests when the daemon is killed and comes back.
 * labels: full interop
 *
 * The test is the device model and the driver in one: a split ring in shared memory, every slot with one request of a
 * header, data and a status byte.
 */
#include <sys/eventfd.h>
#include <sys/mman.h>
#include "base/endian.h"
#include "tests/unit/emulator/storage/bench.h"
#include "virtio/features.h"
#include "virtio/vhost_user.h"
#include "virtio/virtio_blk.h"

enum {
    SLOTS = 32,
    SLOT_SIZE = 16 << 10,
    DISK_SIZE = SLOTS * SLOT_SIZE,
    RING_SIZE = 128,
    DESC_AT = 0,
    AVAIL_AT = 0x4000,
    USED_AT = 0x8000,
    HEADERS_AT = 0x10000, /* 16 bytes a slot */
    STATUS_AT = 0x14000,  /* one byte a slot */
    DATA_AT = 0x100000,
    MEMORY_SIZE = DATA_AT + SLOTS * SLOT_SIZE,
};
#define GUEST_BASE 0x80000000u

struct slot {
    bool busy;
    uint32_t type, content, wanted;
};

struct driver {
    struct bench *bench;
    struct vhost_backend *backend;
    struct error err;
    uint8_t *memory;
    int fd, kick, call;
    struct loop_watch watch;
    uint64_t features;
    uint16_t avail, used;
    struct slot slots[SLOTS];
    struct rng rng;
    uint32_t next_content;
    unsigned in_flight, started, completed, limit;
    unsigned lost, back, config_changes;
    bool is_up;
};

/* --- the ring --- */

static void put_descriptor(struct driver *driver, unsigned index, uint64_t at, uint32_t length, unsigned flags)
{
    uint8_t *p = driver->memory + DESC_AT + 16 * index;
    store_le64(p, GUEST_BASE + at);
    store_le32(p + 8, length);
    store_le16(p + 12, (uint16_t)flags);
    store_le16(p + 14, (uint16_t)(index + 1));
}

static void kick(struct driver *driver)
{
    assert_int_equal(write(driver->kick, &(uint64_t){1}, 8), 8);
}

static uint32_t *data_of(struct driver *driver, unsigned slot)
{
    return (uint32_t *)(driver->memory + DATA_AT + slot * SLOT_SIZE);
}

static void submit(struct driver *driver, unsigned index, uint32_t type)
{
    enum { NEXT = 1, WRITE = 2 };
    struct slot *slot = &driver->slots[index];
    uint8_t *header = driver->memory + HEADERS_AT + 16 * index;
    unsigned first = 3 * index;
    bool has_data = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT;
    slot->busy = true;
    slot->type = type;
    driver->in_flight++;
    store_le32(header, type);
    store_le32(header + 4, 0);
    store_le64(header + 8, has_data ? index * (SLOT_SIZE / 512u) : 0);
    driver->memory[STATUS_AT + index] = 0xff;
    put_descriptor(driver, first, HEADERS_AT + 16 * index, 16, NEXT);
    if (has_data)
        put_descriptor(driver, first + 1, DATA_AT + index * SLOT_SIZE, SLOT_SIZE,
                       NEXT | (type == VIRTIO_BLK_T_IN ? WRITE : 0));
    put_descriptor(driver, first + 2, STATUS_AT + index, 1, WRITE);
    if (!has_data)
        store_le16(driver->memory + DESC_AT + 16 * first + 14, (uint16_t)(first + 2));
    store_le16(driver->memory + AVAIL_AT + 4 + 2 * (driver->avail % RING_SIZE), (uint16_t)first);
    driver->avail++;
    __atomic_store_n((uint16_t *)(driver->memory + AVAIL_AT + 2), htole16(driver->avail), __ATOMIC_SEQ_CST);
}

/* --- the load --- */

static void fill(uint32_t *data, uint32_t content)
{
    for (unsigned i = 0; i < SLOT_SIZE / 4; i++)
        data[i] = content ? content * 2654435761u + i : 0;
}

static void check_slot(const uint32_t *data, uint32_t content, unsigned index)
{
    for (unsigned i = 0; i < SLOT_SIZE / 4; i++) {
        if (data[i] != (content ? content * 2654435761u + i : 0))
            fail_msg("slot %u does not hold %u", index, content);
    }
}

static bool next(struct driver *driver, unsigned index)
{
    struct slot *slot = &driver->slots[index];
    if (driver->started == driver->limit)
        return false;
    driver->started++;
    switch (rng_below(&driver->rng, 8)) {
    case 0: submit(driver, index, VIRTIO_BLK_T_FLUSH); break;
    case 1:
    case 2:
    case 3:
        slot->wanted = ++driver->next_content;
        fill(data_of(driver, index), slot->wanted);
        submit(driver, index, VIRTIO_BLK_T_OUT);
        break;
    default:
        memset(data_of(driver, index), 0xee, SLOT_SIZE);
        submit(driver, index, VIRTIO_BLK_T_IN);
        break;
    }
    return true;
}

static bool collect(struct driver *driver)
{
    bool more = false;
    while (driver->used != le16toh(__atomic_load_n((uint16_t *)(driver->memory + USED_AT + 2), __ATOMIC_SEQ_CST))) {
        uint32_t head = load_le32(driver->memory + USED_AT + 4 + 8 * (driver->used % RING_SIZE));
        driver->used++;
        assert_true(head < 3 * SLOTS && head % 3 == 0);
        unsigned index = head / 3;
        struct slot *slot = &driver->slots[index];
        assert_true(slot->busy); /* nothing comes twice */
        slot->busy = false;
        driver->in_flight--;
        driver->completed++;
        assert_int_equal(driver->memory[STATUS_AT + index], VIRTIO_BLK_S_OK);
        if (slot->type == VIRTIO_BLK_T_OUT)
            slot->content = slot->wanted;
        else if (slot->type == VIRTIO_BLK_T_IN)
            check_slot(data_of(driver, index), slot->content, index);
        more = next(driver, index) || more;
    }
    return more;
}

static void on_call(void *arg, uint32_t events)
{
    struct driver *driver = arg;
    uint64_t count;
    if (read(driver->call, &count, sizeof count) == sizeof count && collect(driver))
        kick(driver);
}

static bool is_over(void *arg)
{
    struct driver *driver = arg;
    return !driver->in_flight;
}

static void run_load(struct driver *driver, unsigned limit)
{
    driver->limit = driver->started + limit;
    for (unsigned i = 0; i < SLOTS; i++)
        next(driver, i);
    kick(driver);
}

/* --- the device model --- */

static void start(struct driver *driver)
{
    struct error *err = &driver->err;
    const struct vhost_backend_ops *ops = driver->backend->ops;
    struct vhost_memory_region region = {GUEST_BASE, MEMORY_SIZE, driver->memory, driver->fd, 0};
    struct vhost_queue queue = {.size = RING_SIZE,
                                .base = driver->used,
                                .descriptors = driver->memory + DESC_AT,
                                .driver = driver->memory + AVAIL_AT,
                                .device = driver->memory + USED_AT,
                                .kick_fd = driver->kick,
                                .call_fd = driver->call};
    driver->is_up = ops->set_features(driver->backend, driver->features, err) &&
                    ops->set_memory(driver->backend, &region, 1, err) &&
                    ops->queue_start(driver->backend, 0, 1, &queue, err);
    if (driver->is_up)
        kick(driver);
}

static void on_config_changed(void *owner)
{
    ((struct driver *)owner)->config_changes++;
}

static void on_disconnected(void *owner)
{
    struct driver *driver = owner;
    driver->lost++;
    driver->is_up = false;
    assert_false(driver->backend->is_connected);
}

static void on_connected(void *owner)
{
    struct driver *driver = owner;
    uint64_t features;
    driver->back++;
    error_clear(&driver->err);
    if (!driver->backend->ops->get_features(driver->backend, &features, &driver->err))
        return; /* killed again meanwhile: there will be another call */
    assert_int_equal(driver->features & ~features, 0);
    start(driver);
    on_call(driver, 0); /* what the old daemon finished without saying so */
    if (collect(driver))
        kick(driver);
}

static const struct vhost_backend_events events = {on_config_changed, on_disconnected, on_connected};

static void driver_open(struct driver *driver, struct bench *bench)
{
    *driver = (struct driver){.bench = bench};
    rng_seed(&driver->rng, 99);
    driver->backend = vhost_user_open(bench->loop, "v0", bench->socket, false, &driver->err);
    if (!driver->backend)
        fail_msg("%s", driver->err.message);
    driver->backend->owner = driver;
    driver->backend->events = &events;
    driver->fd = memfd_create("guest", MFD_CLOEXEC);
    assert_int_equal(ftruncate(driver->fd, MEMORY_SIZE), 0);
    driver->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, driver->fd, 0);
    assert_true(driver->memory != MAP_FAILED);
    driver->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    driver->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop_watch(bench->loop, &driver->watch, driver->call, 1 /* EPOLLIN */, on_call, driver);
    uint64_t offered;
    assert_true(driver->backend->ops->get_features(driver->backend, &offered, NULL));
    assert_true(offered & VIRTIO_BIT(VIRTIO_F_VERSION_1));
    driver->features = offered & (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
                                  VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC));
    start(driver);
    if (!driver->is_up)
        fail_msg("%s", driver->err.message);
}

static uint32_t driver_stop(struct driver *driver)
{
    uint32_t base;
    if (!driver->backend->ops->queue_stop(driver->backend, 0, &base, &driver->err))
        fail_msg("%s", driver->err.message);
    return base;
}

static void driver_close(struct driver *driver)
{
    driver->backend->ops->close(driver->backend);
    loop_unwatch(&driver->watch);
    munmap(driver->memory, MEMORY_SIZE);
    close(driver->fd);
    close(driver->kick);
    close(driver->call);
    error_clear(&driver->err);
}

static void check_file(struct driver *driver)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        uint8_t *found = read_file(driver->bench->image, i * SLOT_SIZE, SLOT_SIZE);
        check_slot((uint32_t *)found, driver->slots[i].content, i);
        free(found);
    }
}

/* --- the daemons --- */

struct daemon_command {
    char *words[8];
    char text[2][256];
};

static void daemon_command(struct daemon_command *command, char *program, const struct bench *bench)
{
    snprintf(command->text[0], 256, "driver=file,node-name=f,filename=%s", bench->image);
    snprintf(command->text[1], 256, "type=vhost-user-blk,id=e,node-name=d,writable=on,addr.type=unix,addr.path=%s",
             bench->socket);
    char *const words[] = {
        program,          "--blockdev", command->text[0], "--blockdev", "driver=raw,node-name=d,file=f", "--export",
        command->text[1], NULL};
    memcpy(command->words, words, sizeof words);
}

/* --- tests --- */

static void check_daemon(struct bench *bench, char *program)
{
    struct daemon_command command;
    struct driver driver;
    uint8_t config[VIRTIO_BLK_CONFIG_SIZE];
    daemon_command(&command, program, bench);
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    driver_open(&driver, bench);
    const struct vhost_backend_ops *ops = driver.backend->ops;
    assert_true(ops->get_config(driver.backend, config, sizeof config, &driver.err));
    assert_int_equal(load_le64(config), DISK_SIZE / 512);
    assert_in_range(ops->max_queues(driver.backend), 1, 256);
    run_load(&driver, 2000);
    bench_run(bench, is_over, &driver);
    assert_int_equal(driver.completed, 2000);
    check_file(&driver);

    /* Stopped, the daemon names the place where it would go on; started again there, it does. */
    assert_int_equal(driver_stop(&driver), driver.used);
    run_load(&driver, 200);
    bench_run_for(bench, 50000000);
    assert_int_equal(driver.completed, 2000);
    start(&driver);
    bench_run(bench, is_over, &driver);
    assert_int_equal(driver.completed, 2200);
    driver_stop(&driver);
    check_file(&driver);
    assert_int_equal(driver.lost, 0);
    driver_close(&driver);
}

static void test_our_daemon(void **state)
{
    check_daemon(*state, "spindle-storage-daemon");
}

static void test_qemu_storage_daemon(void **state)
{
    check_daemon(*state, "qemu-storage-daemon");
}

struct progress {
    const struct driver *driver;
    unsigned wanted;
};

static bool has_progressed(void *arg)
{
    const struct progress *progress = arg;
    return progress->driver->completed >= progress->wanted || !progress->driver->in_flight;
}

/* Killed with requests in flight: each is answered once, by this daemon or the next, and what was answered is there. */
static void test_killed_under_load(void **state)
{
    enum { REQUESTS = 6000, KILLS = 10 };
    struct bench *bench = *state;
    struct daemon_command command;
    struct driver driver;
    daemon_command(&command, "spindle-storage-daemon", bench);
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    driver_open(&driver, bench);
    run_load(&driver, REQUESTS);
    for (unsigned i = 0; i < KILLS; i++) {
        struct progress progress = {&driver,
                                    driver.completed + 50 + (unsigned)rng_below(&driver.rng, REQUESTS / KILLS - 100)};
        bench_run(bench, has_progressed, &progress);
        assert_true(driver.in_flight);
        server_kill(bench, SIGKILL);
        server_launch(bench);
    }
    bench_run(bench, is_over, &driver);
    assert_int_equal(driver.completed, REQUESTS);
    assert_int_equal(driver.lost, KILLS);
    assert_int_equal(driver.back, KILLS);
    driver_stop(&driver);
    check_file(&driver);
    driver_close(&driver);
}

/* The other vendor's daemon keeps no record of requests in flight, so it may only go while there are none. */
static void test_their_daemon_comes_back(void **state)
{
    struct bench *bench = *state;
    struct daemon_command command;
    struct driver driver;
    daemon_command(&command, "qemu-storage-daemon", bench);
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    driver_open(&driver, bench);
    for (unsigned i = 1; i <= 3; i++) {
        run_load(&driver, 300);
        bench_run(bench, is_over, &driver);
        server_kill(bench, SIGKILL);
        server_launch(bench);
        run_load(&driver, 100); /* available before anybody is there */
        bench_run(bench, is_over, &driver);
        assert_int_equal(driver.completed, 400 * i);
        assert_int_equal(driver.back, i);
    }
    driver_stop(&driver);
    check_file(&driver);
    driver_close(&driver);
}

/* A driver that was reset while the daemon was away has new rings: nothing of the old ones may be done in them. */
static void test_reset_while_away(void **state)
{
    struct bench *bench = *state;
    struct daemon_command command;
    struct driver driver;
    daemon_command(&command, "spindle-storage-daemon", bench);
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    driver_open(&driver, bench);
    run_load(&driver, SLOTS);
    kill(bench->server, SIGSTOP); /* some are in flight for good */
    server_kill(bench, SIGKILL);
    bench_run_for(bench, 200000000);
    assert_int_equal(driver.lost, 1);

    driver.backend->ops->forget(driver.backend);
    memset(driver.memory, 0, DATA_AT);
    memset(driver.slots, 0, sizeof driver.slots);
    driver.avail = driver.used = 0;
    driver.in_flight = driver.started = driver.completed = 0;
    driver.limit = 1; /* one flush, and nothing else is answered */
    driver.started = 1;
    submit(&driver, 5, VIRTIO_BLK_T_FLUSH);
    server_launch(bench);
    bench_run(bench, is_over, &driver);
    bench_run_for(bench, 100000000);
    assert_int_equal(driver.completed, 1);
    driver_close(&driver);
}

/* A daemon that accepts and then says nothing must not stop the machine that tries to reconnect. */
static void test_mute_daemon_blocks_nobody(void **state)
{
    struct bench *bench = *state;
    struct daemon_command command;
    struct driver driver;
    daemon_command(&command, "spindle-storage-daemon", bench);
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    driver_open(&driver, bench);
    server_kill(bench, SIGKILL);
    unlink(bench->socket);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", bench->socket);
    int mute = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(mute, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(mute, 1), 0);
    uint64_t begin = loop_now_ns(bench->loop);
    bench_run_for(bench, SECONDS(1));
    assert_true(loop_now_ns(bench->loop) - begin < SECONDS(2));
    assert_int_equal(driver.back, 0);
    close(mute);
    server_launch(bench);
    run_load(&driver, 100);
    bench_run(bench, is_over, &driver);
    assert_int_equal(driver.back, 1);
    driver_close(&driver);
}

/* A daemon of a few lines, for what the real ones do not do (yet): it announces a new size when it is asked for its
 * configuration the first time, and wants to hear that this was understood. `lies` makes it answer that with nonsense.
 */
static int receive_message(int fd, struct vhost_user_message *message, int *passed)
{
    char control[CMSG_SPACE(sizeof(int) * VHOST_USER_MAX_FDS)];
    struct iovec iov = {&message->header, sizeof message->header};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &header, MSG_WAITALL);
    struct cmsghdr *ancillary = got > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    *passed = -1;
    if (ancillary)
        memcpy(passed, CMSG_DATA(ancillary), sizeof *passed);
    size_t size = message->header.size;
    return got == sizeof message->header && size <= sizeof message->payload &&
           (!size || recv(fd, &message->payload, size, MSG_WAITALL) == (ssize_t)size);
}

static void reply(int fd, struct vhost_user_message *message, uint32_t size)
{
    message->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    message->header.size = size;
    if (send(fd, message, sizeof message->header + size, MSG_NOSIGNAL) < 0)
        _exit(1);
}

/* Returns when the front end has answered; its answer must be 0. */
static void announce_change(int channel)
{
    struct vhost_user_header header = {VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, 0};
    struct vhost_user_message answer;
    int passed;
    if (send(channel, &header, sizeof header, MSG_NOSIGNAL) < 0 || !receive_message(channel, &answer, &passed) ||
        answer.header.request != VHOST_USER_BACKEND_CONFIG_CHANGE || answer.payload.number != 0)
        _exit(2);
}

_Noreturn static void small_daemon(int listening, bool lies)
{
    struct vhost_user_message message;
    int fd = accept(listening, NULL, NULL), channel = -1, passed;
    unsigned asked = 0;
    while (receive_message(fd, &message, &passed)) {
        switch (message.header.request) {
        case VHOST_USER_GET_FEATURES:
            message.payload.number = VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
            reply(fd, &message, 8);
            continue;
        case VHOST_USER_GET_PROTOCOL_FEATURES:
            message.payload.number =
                VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ);
            reply(fd, &message, 8);
            continue;
        case VHOST_USER_SET_BACKEND_REQ_FD: channel = passed; continue;
        case VHOST_USER_GET_CONFIG:
            memset(message.payload.config.data, 0, VHOST_USER_MAX_CONFIG);
            message.payload.config.data[0] = (uint8_t)(asked + 1);
            reply(fd, &message, lies && asked ? 4 : message.header.size);
            if (!asked++)
                announce_change(channel);
            continue;
        default: continue; /* without REPLY_ACK, settings have no answers */
        }
    }
    _exit(0);
}

static struct vhost_backend *open_small_daemon(struct bench *bench, struct driver *driver, bool lies)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", bench->socket);
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listening, 1), 0);
    bench->server = fork();
    if (!bench->server)
        small_daemon(listening, lies);
    close(listening);
    struct error err = {0};
    struct vhost_backend *backend = vhost_user_open(bench->loop, "v0", bench->socket, false, &err);
    if (!backend)
        fail_msg("%s", err.message);
    *driver = (struct driver){.bench = bench, .backend = backend};
    backend->owner = driver;
    backend->events = &events;
    return backend;
}

static bool config_has_changed(void *arg)
{
    return ((struct driver *)arg)->config_changes > 0;
}

static void test_config_changes(void **state)
{
    struct driver driver;
    uint8_t config[8];
    struct vhost_backend *backend = open_small_daemon(*state, &driver, false);
    assert_true(backend->ops->get_config(backend, config, sizeof config, NULL));
    assert_int_equal(config[0], 1);
    bench_run(*state, config_has_changed, &driver);
    assert_true(backend->ops->get_config(backend, config, sizeof config, NULL));
    assert_int_equal(config[0], 2);
    assert_int_equal(driver.lost, 0);
    backend->ops->close(backend);
}

static bool is_lost(void *arg)
{
    return ((struct driver *)arg)->lost > 0;
}

/* After an answer that does not fit, no later one can be trusted: the connection ends, calls fail at once. */
static void test_nonsense_ends_the_connection(void **state)
{
    struct driver driver;
    struct error err = {0};
    uint8_t config[8];
    struct vhost_backend *backend = open_small_daemon(*state, &driver, true);
    assert_true(backend->ops->get_config(backend, config, sizeof config, NULL));
    bench_run(*state, config_has_changed, &driver);
    assert_false(backend->ops->get_config(backend, config, sizeof config, &err));
    assert_false(backend->is_connected);
    error_clear(&err);
    assert_false(backend->ops->get_config(backend, config, sizeof config, &err));
    assert_non_null(strstr(err.message, "v0"));
    error_clear(&err);
    bench_run(*state, is_lost, &driver);
    backend->ops->close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BENCH_TEST(test_our_daemon),        BENCH_TEST(test_qemu_storage_daemon),
        BENCH_TEST(test_killed_under_load), BENCH_TEST(test_their_daemon_comes_back),
        BENCH_TEST(test_reset_while_away),  BENCH_TEST(test_mute_daemon_blocks_nobody),
        BENCH_TEST(test_config_changes),    BENCH_TEST(test_nonsense_ends_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
