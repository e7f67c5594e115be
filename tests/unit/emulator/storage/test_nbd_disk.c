/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, a disk over NBD loses or damages data, or hangs: in plain use, when its server is killed and comes
 * back, or when the server cannot do what the guest wants.
 * labels: full interop
 *
 * The disk is divided into slots. Each has one request at a time and a number that says what it must hold; 64 slots are
 * busy at once. Whatever was reported as done must be there when the slot is read, and in the file in the end.
 */
#include "tests/unit/emulator/storage/bench.h"

enum { SLOTS = 64, SLOT_SIZE = 64 << 10, DISK_SIZE = SLOTS * SLOT_SIZE };

struct slot {
    struct disk_request request;
    struct load *load;
    uint32_t content, wanted; /* 0: zeroes; UNKNOWN: discarded */
    uint8_t *data;
    struct iovec iov[3];
    bool busy;
};
#define UNKNOWN UINT32_MAX

struct load {
    struct disk *disk;
    struct rng rng;
    struct slot slots[SLOTS];
    unsigned in_flight, started, limit, completed;
    uint32_t next_content;
};

static void fill(uint8_t *data, uint32_t content, size_t size)
{
    uint64_t word = content;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t value = content ? word * 0x9e3779b97f4a7c15 + i : 0;
        memcpy(data + i, &value, 8);
    }
}

static bool holds(const uint8_t *data, uint32_t content, size_t size)
{
    uint8_t *wanted = xmalloc(size);
    fill(wanted, content, size);
    bool same = !memcmp(data, wanted, size);
    free(wanted);
    return same;
}

static void slot_next(struct slot *slot);

static void slot_done(struct disk_request *request, int result)
{
    struct slot *slot = request->owner;
    assert_int_equal(result, 0);
    assert_true(slot->busy);
    slot->busy = false;
    slot->load->in_flight--;
    slot->load->completed++;
    if (request->operation == DISK_READ && slot->content != UNKNOWN && !holds(slot->data, slot->content, SLOT_SIZE))
        fail_msg("slot %zd does not hold %u", slot - slot->load->slots, slot->content);
    slot->content = slot->wanted;
    slot_next(slot);
}

static void slot_submit(struct slot *slot, enum disk_operation operation)
{
    struct load *load = slot->load;
    size_t cut = 512 * (1 + rng_below(&load->rng, SLOT_SIZE / 512 - 2));
    slot->iov[0] = (struct iovec){slot->data, cut};
    slot->iov[1] = (struct iovec){slot->data + cut, SLOT_SIZE - cut};
    bool scattered = rng_below(&load->rng, 2);
    if (!scattered)
        slot->iov[0].iov_len = SLOT_SIZE;
    bool has_data = operation == DISK_READ || operation == DISK_WRITE;
    slot->request = (struct disk_request){.operation = operation,
                                          .offset = (uint64_t)(slot - load->slots) * SLOT_SIZE,
                                          .length = SLOT_SIZE,
                                          .iov = has_data ? slot->iov : NULL,
                                          .iov_count = has_data ? 1 + scattered : 0,
                                          .durable = operation == DISK_WRITE && rng_below(&load->rng, 4) == 0,
                                          .may_unmap = rng_below(&load->rng, 2),
                                          .done = slot_done,
                                          .owner = slot};
    if (operation == DISK_FLUSH)
        slot->request.offset = slot->request.length = 0;
    slot->busy = true;
    load->in_flight++;
    load->disk->ops->submit(load->disk, &slot->request);
}

static void slot_next(struct slot *slot)
{
    struct load *load = slot->load;
    if (load->started == load->limit)
        return;
    load->started++;
    switch (rng_below(&load->rng, 10)) {
    case 0:
        if (!load->disk->can_write_zeroes)
            break;
        slot->wanted = 0;
        slot_submit(slot, DISK_WRITE_ZEROES);
        return;
    case 1:
        if (!load->disk->can_discard)
            break;
        slot->wanted = UNKNOWN;
        slot_submit(slot, DISK_DISCARD);
        return;
    case 2: slot_submit(slot, DISK_FLUSH); return;
    case 3:
    case 4:
    case 5:
        slot->wanted = ++load->next_content;
        fill(slot->data, slot->wanted, SLOT_SIZE);
        slot_submit(slot, DISK_WRITE);
        return;
    default: break;
    }
    memset(slot->data, 0xee, SLOT_SIZE);
    slot_submit(slot, DISK_READ);
}

static bool load_is_over(void *arg)
{
    struct load *load = arg;
    return !load->in_flight;
}

static void load_start(struct load *load, struct disk *disk, unsigned limit)
{
    *load = (struct load){.disk = disk, .limit = limit};
    rng_seed(&load->rng, 4711);
    for (size_t i = 0; i < SLOTS; i++) {
        load->slots[i].load = load;
        load->slots[i].data = xmalloc(SLOT_SIZE);
    }
    for (size_t i = 0; i < SLOTS; i++)
        slot_next(&load->slots[i]);
    assert_int_equal(load->in_flight, SLOTS);
}

static void load_finish(struct load *load, struct bench *bench)
{
    bench_run(bench, load_is_over, load);
    assert_int_equal(load->completed, load->limit);
    for (size_t i = 0; i < SLOTS; i++) {
        uint8_t *found = read_file(bench->image, i * SLOT_SIZE, SLOT_SIZE);
        if (load->slots[i].content != UNKNOWN && !holds(found, load->slots[i].content, SLOT_SIZE))
            fail_msg("in the file, slot %zu does not hold %u", i, load->slots[i].content);
        free(found);
        free(load->slots[i].data);
    }
}

/* --- single requests --- */

struct single {
    struct disk_request request;
    struct iovec iov;
    bool done;
    int result;
};

static void single_done(struct disk_request *request, int result)
{
    struct single *single = request->owner;
    assert_false(single->done);
    single->done = true;
    single->result = result;
}

static void single_submit(struct single *single, struct disk *disk, enum disk_operation operation, uint64_t offset,
                          void *data, uint64_t length)
{
    *single = (struct single){.iov = {data, length}};
    single->request = (struct disk_request){.operation = operation,
                                            .offset = offset,
                                            .length = length,
                                            .iov = data ? &single->iov : NULL,
                                            .iov_count = data ? 1 : 0,
                                            .done = single_done,
                                            .owner = single};
    disk->ops->submit(disk, &single->request);
    assert_false(single->done); /* never from inside submit() */
}

static int one(struct bench *bench, struct disk *disk, enum disk_operation operation, uint64_t offset, void *data,
               uint64_t length)
{
    struct single single;
    single_submit(&single, disk, operation, offset, data, length);
    bench_run(bench, bench_is_true, &single.done);
    return single.result;
}

/* --- the servers --- */

enum { WORDS = 16 };

struct server_command {
    char *words[WORDS];
    char text[6][256];
};

static void our_daemon(struct server_command *command, const struct bench *bench, const char *writable)
{
    snprintf(command->text[0], 256, "driver=file,node-name=f,filename=%s,discard=unmap", bench->image);
    snprintf(command->text[1], 256, "addr.type=unix,addr.path=%s", bench->socket);
    snprintf(command->text[2], 256, "type=nbd,id=e,node-name=d,name=disk,writable=%s", writable);
    char *const words[] = {"spindle-storage-daemon",
                           "--blockdev",
                           command->text[0],
                           "--blockdev",
                           "driver=raw,node-name=d,file=f,discard=unmap",
                           "--nbd-server",
                           command->text[1],
                           "--export",
                           command->text[2],
                           NULL};
    memcpy(command->words, words, sizeof words);
}

static void qemu_nbd(struct server_command *command, const struct bench *bench)
{
    char *const words[] = {"qemu-nbd",        "-t", "-e",          "8",          "-x", "disk", "-f", "raw",
                           "--discard=unmap", "-k", bench->socket, bench->image, NULL};
    memcpy(command->words, words, sizeof words);
}

static void nbdkit(struct server_command *command, const struct bench *bench)
{
    char *const words[] = {"nbdkit", "-f", "-U", bench->socket, "file", bench->image, NULL};
    memcpy(command->words, words, sizeof words);
}

static struct json *options_of(const struct bench *bench, const char *more)
{
    auto_free char *text = xasprintf("{'driver': 'nbd', 'server': {'type': 'unix', 'path': '%s'}, 'export': 'disk'%s}",
                                     bench->socket, more);
    struct json *options = json_parse(text, strlen(text), NULL);
    assert_non_null(options);
    return options;
}

static struct list disks;

static struct disk *try_open(struct bench *bench, const char *more, bool read_only, struct error *err)
{
    struct json *options = options_of(bench, more);
    struct nbd_disk_settings settings = {.id = "d0", .options = options, .read_only = read_only};
    list_init(&disks);
    struct disk *disk = nbd_disk_open(bench->loop, &disks, &settings, err);
    json_free(options);
    return disk;
}

static struct disk *open_disk(struct bench *bench, const char *more)
{
    struct error err = {0};
    struct disk *disk = try_open(bench, more, false, &err);
    if (!disk)
        fail_msg("%s", err.message);
    assert_int_equal(disk->size_bytes, DISK_SIZE);
    return disk;
}

/* --- tests --- */

static void check_load(struct bench *bench, struct server_command *command)
{
    struct load load;
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command->words);
    struct disk *disk = open_disk(bench, "");
    load_start(&load, disk, 3000);
    load_finish(&load, bench);
    disk->ops->close(disk);
}

static void test_our_daemon(void **state)
{
    struct server_command command;
    our_daemon(&command, *state, "on");
    check_load(*state, &command);
}

static void test_qemu_nbd(void **state)
{
    struct server_command command;
    qemu_nbd(&command, *state);
    check_load(*state, &command);
}

static void test_nbdkit(void **state)
{
    struct server_command command;
    nbdkit(&command, *state);
    check_load(*state, &command);
}

struct progress {
    const struct load *load;
    unsigned wanted;
};

static bool has_progressed(void *arg)
{
    const struct progress *progress = arg;
    return progress->load->completed >= progress->wanted || !progress->load->in_flight;
}

/* The server is killed in the middle of work, without a word, and started again; everything arrives, as written. */
static void check_killed(struct bench *bench, struct server_command *command)
{
    enum { REQUESTS = 4000, KILLS = 8 };
    struct load load;
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command->words);
    struct disk *disk = open_disk(bench, "");
    load_start(&load, disk, REQUESTS);
    for (unsigned i = 0; i < KILLS; i++) {
        struct progress progress = {&load,
                                    load.completed + 50 + (unsigned)rng_below(&load.rng, REQUESTS / KILLS - 100)};
        bench_run(bench, has_progressed, &progress);
        assert_true(load.in_flight);
        server_kill(bench, SIGKILL);
        bench_run_for(bench, rng_below(&load.rng, 2) * 50000000ull + 1); /* it may be back before we notice */
        server_launch(bench);
    }
    load_finish(&load, bench);
    disk->ops->close(disk);
}

static void test_our_daemon_killed(void **state)
{
    struct server_command command;
    our_daemon(&command, *state, "on");
    check_killed(*state, &command);
}

static void test_qemu_nbd_killed(void **state)
{
    struct server_command command;
    qemu_nbd(&command, *state);
    check_killed(*state, &command);
}

static void test_nbdkit_killed(void **state)
{
    struct server_command command;
    nbdkit(&command, *state);
    check_killed(*state, &command);
}

static void test_read_only(void **state)
{
    struct bench *bench = *state;
    struct server_command command;
    struct error err = {0};
    uint8_t data[512];
    our_daemon(&command, bench, "off");
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    assert_null(try_open(bench, "", false, &err));
    assert_int_equal(err.code, EACCES);
    assert_non_null(strstr(err.message, "read-only=on"));
    error_clear(&err);
    struct disk *disk = try_open(bench, "", true, &err);
    assert_non_null(disk);
    assert_true(disk->read_only);
    assert_int_equal(one(bench, disk, DISK_READ, 0, data, sizeof data), 0);
    assert_true(one(bench, disk, DISK_WRITE, 0, data, sizeof data) < 0); /* and does not wait for ever */
    disk->ops->close(disk);
}

/* Requests that cannot be sent at all fail; they must not wait for a better connection. */
static void test_impossible_requests(void **state)
{
    struct bench *bench = *state;
    struct server_command command;
    uint8_t data[512];
    our_daemon(&command, bench, "on");
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    struct disk *disk = open_disk(bench, "");
    assert_int_equal(one(bench, disk, DISK_READ, DISK_SIZE, data, sizeof data), -EINVAL);
    assert_int_equal(one(bench, disk, DISK_READ, 0, data, sizeof data), 0);
    disk->ops->close(disk);
}

static void count_resize(void *owner)
{
    ++*(unsigned *)owner;
}

static void test_grown_while_away(void **state)
{
    struct bench *bench = *state;
    struct server_command command;
    uint8_t data[512] = {1}, back[512];
    unsigned resizes = 0;
    our_daemon(&command, bench, "on");
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    struct disk *disk = open_disk(bench, "");
    disk->owner = &resizes;
    disk->resized = count_resize;
    server_kill(bench, SIGKILL);
    make_file(bench->image, 2 * DISK_SIZE);
    server_launch(bench);
    assert_int_equal(one(bench, disk, DISK_WRITE, 0, data, sizeof data), 0);
    assert_int_equal(resizes, 1);
    assert_int_equal(disk->size_bytes, 2 * DISK_SIZE);
    assert_int_equal(one(bench, disk, DISK_WRITE, DISK_SIZE, data, sizeof data), 0);
    assert_int_equal(one(bench, disk, DISK_READ, DISK_SIZE, back, sizeof back), 0);
    assert_memory_equal(data, back, sizeof data);
    disk->ops->close(disk);
}

static void test_patience(void **state)
{
    struct bench *bench = *state;
    struct server_command command;
    uint8_t data[512];
    our_daemon(&command, bench, "on");
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    struct disk *disk = open_disk(bench, ", 'reconnect-delay': 1");
    server_kill(bench, SIGKILL);
    uint64_t begin = loop_now_ns(bench->loop);
    assert_int_equal(one(bench, disk, DISK_READ, 0, data, sizeof data), -EIO);
    uint64_t waited = loop_now_ns(bench->loop) - begin;
    assert_in_range(waited, SECONDS(1) * 9 / 10, SECONDS(5));
    begin = loop_now_ns(bench->loop);
    assert_int_equal(one(bench, disk, DISK_READ, 0, data, sizeof data), -EIO); /* at once now */
    assert_true(loop_now_ns(bench->loop) - begin < SECONDS(1) / 2);
    server_start(bench, command.words);
    bench_run_for(bench, SECONDS(1));
    assert_int_equal(one(bench, disk, DISK_READ, 0, data, sizeof data), 0);
    disk->ops->close(disk);
}

/* A machine that ends must not wait for a server that is away. */
static void test_give_up(void **state)
{
    struct bench *bench = *state;
    struct server_command command;
    struct single waiting[8];
    uint8_t data[8][512];
    our_daemon(&command, bench, "on");
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command.words);
    struct disk *disk = open_disk(bench, "");
    server_kill(bench, SIGKILL);
    for (int i = 0; i < 8; i++)
        single_submit(&waiting[i], disk, DISK_READ, 512u * (unsigned)i, data[i], 512);
    bench_run_for(bench, SECONDS(1) / 2);
    for (int i = 0; i < 8; i++)
        assert_false(waiting[i].done);
    nbd_disks_give_up(&disks);
    for (int i = 0; i < 8; i++) {
        bench_run(bench, bench_is_true, &waiting[i].done);
        assert_int_equal(waiting[i].result, -EIO);
    }
    disk->ops->close(disk);
}

/* A server without FUA is told to flush before a durable write counts as done. */
static void test_durable_without_fua(void **state)
{
    struct bench *bench = *state;
    auto_free char *log = xasprintf("%s/log", bench->folder), *log_word = xasprintf("logfile=%s", log);
    char *const command[] = {"nbdkit",       "-f",   "-U",         bench->socket, "--filter=log",
                             "--filter=fua", "file", bench->image, log_word,      NULL};
    struct single single;
    uint8_t data[4096] = {7};
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command);
    struct disk *disk = open_disk(bench, "");
    single_submit(&single, disk, DISK_WRITE, 4096, data, sizeof data);
    single.request.durable = false;
    bench_run(bench, bench_is_true, &single.done);
    char text[65536] = "";
    FILE *file = fopen(log, "r");
    assert_non_null(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fclose(file);
    assert_non_null(strstr(text, " Write "));
    assert_null(strstr(text, " Flush "));
    single = (struct single){.iov = {data, sizeof data}};
    single.request = (struct disk_request){.operation = DISK_WRITE,
                                           .length = sizeof data,
                                           .iov = &single.iov,
                                           .iov_count = 1,
                                           .durable = true,
                                           .done = single_done,
                                           .owner = &single};
    disk->ops->submit(disk, &single.request);
    bench_run(bench, bench_is_true, &single.done);
    assert_int_equal(single.result, 0);
    file = fopen(log, "r");
    length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fclose(file);
    assert_non_null(strstr(text, " Flush "));
    disk->ops->close(disk);
}

/* An error of the server is the guest's, not a reason to try again. */
static void test_errors_arrive(void **state)
{
    struct bench *bench = *state;
    char *const command[] = {"nbdkit",
                             "-f",
                             "-U",
                             bench->socket,
                             "--filter=error",
                             "file",
                             bench->image,
                             "error=ENOSPC",
                             "error-pwrite-rate=100%",
                             NULL};
    uint8_t data[512];
    make_file(bench->image, DISK_SIZE);
    server_start(bench, command);
    struct disk *disk = open_disk(bench, "");
    assert_int_equal(one(bench, disk, DISK_WRITE, 0, data, sizeof data), -ENOSPC);
    assert_int_equal(one(bench, disk, DISK_READ, 0, data, sizeof data), 0);
    disk->ops->close(disk);
}

static void test_wrong_options(void **state)
{
    struct bench *bench = *state;
    struct error err = {0};
    assert_null(try_open(bench, "", false, &err)); /* nobody there */
    assert_non_null(strstr(err.message, "d0"));
    error_clear(&err);
    assert_null(try_open(bench, ", 'tls-creds': 'tls0'", false, &err)); /* not silently without TLS */
    assert_non_null(strstr(err.message, "tls-creds"));
    error_clear(&err);
    assert_null(try_open(bench, ", 'reconnect-delay': 'soon'", false, &err));
    assert_non_null(strstr(err.message, "reconnect-delay"));
    error_clear(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BENCH_TEST(test_our_daemon),       BENCH_TEST(test_qemu_nbd),
        BENCH_TEST(test_nbdkit),           BENCH_TEST(test_our_daemon_killed),
        BENCH_TEST(test_qemu_nbd_killed),  BENCH_TEST(test_nbdkit_killed),
        BENCH_TEST(test_read_only),        BENCH_TEST(test_impossible_requests),
        BENCH_TEST(test_grown_while_away), BENCH_TEST(test_patience),
        BENCH_TEST(test_give_up),          BENCH_TEST(test_durable_without_fua),
        BENCH_TEST(test_errors_arrive),    BENCH_TEST(test_wrong_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
