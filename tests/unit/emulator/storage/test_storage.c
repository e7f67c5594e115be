/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, the emulator's private storage daemon is not behind the walls that are promised, leaves things behind,
 * dies unnoticed, or is told something else than the user said with -drive and -blockdev.
 * labels: full
 */
#include <dirent.h>
#include <sched.h>
#include "base/endian.h"
#include "tests/unit/emulator/storage/bench.h"
#include "virtio/virtio_blk.h"

enum { DISK_SIZE = 1 << 20 };

/* --- processes --- */

/* The one child that runs the program, 0: none. */
static pid_t find_child(const char *program)
{
    auto_free char *path = xasprintf("/proc/self/task/%d/children", getpid());
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    int pid, found = 0;
    while (fscanf(file, "%d", &pid) == 1) {
        char link[64], target[4096] = "";
        snprintf(link, sizeof link, "/proc/%d/exe", pid);
        if (readlink(link, target, sizeof target - 1) > 0 && strstr(target, program))
            found = pid;
    }
    fclose(file);
    return found;
}

static char *proc_link(pid_t pid, const char *name)
{
    char path[64], target[4096] = "";
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    assert_true(readlink(path, target, sizeof target - 1) > 0);
    return xstrdup(target);
}

static char *proc_status(pid_t pid, const char *key)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    char *value = NULL;
    size_t length = strlen(key);
    while (!value && fgets(line, sizeof line, file)) {
        if (!strncmp(line, key, length) && line[length] == ':')
            value = xstrndup(line + length + 1 + strspn(line + length + 1, "\t "),
                             strcspn(line + length + 1 + strspn(line + length + 1, "\t "), "\n"));
    }
    fclose(file);
    assert_non_null(value);
    return value;
}

static unsigned count_entries(const char *path)
{
    DIR *folder = opendir(path);
    assert_non_null(folder);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

static bool has_open(pid_t pid, const char *file)
{
    auto_free char *path = xasprintf("/proc/%d/fd", pid);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    bool found = false;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char target[4096] = "";
        if (readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) > 0)
            found = found || !strcmp(target, file);
    }
    closedir(folder);
    return found;
}

static bool process_is_gone(void *arg)
{
    pid_t pid = *(pid_t *)arg;
    char path[64], state[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return true;
    size_t length = fread(state, 1, sizeof state - 1, file);
    fclose(file);
    const char *end = strrchr(state, ')');
    return !length || (end && end[2] == 'Z');
}

/* --- a machine's storage --- */

static struct storage *open_storage(struct bench *bench)
{
    struct error err = {0};
    need_program("spindle-storage-daemon");
    make_file(bench->image, DISK_SIZE);
    struct storage *storage = storage_new(bench->loop);
    auto_free char *blockdev = xasprintf("driver=raw,node-name=d0,file.driver=file,file.filename=%s", bench->image);
    if (!storage_add_blockdev(storage, blockdev, &err))
        fail_msg("%s", err.message);
    return storage;
}

static struct vhost_backend *open_vhost(struct storage *storage)
{
    struct error err = {0};
    struct vhost_backend *backend = storage_open_vhost(storage, "d0", 2, &err);
    if (!backend)
        fail_msg("%s", err.message);
    return backend;
}

static struct disk *open_disk(struct storage *storage, const char *id)
{
    struct error err = {0};
    struct disk *disk = storage_open_disk(storage, id, &err);
    if (!disk)
        fail_msg("%s", err.message);
    return disk;
}

struct transfer {
    struct disk_request request;
    struct iovec iov;
    bool done;
    int result;
};

static void transfer_done(struct disk_request *request, int result)
{
    struct transfer *transfer = request->owner;
    transfer->done = true;
    transfer->result = result;
}

static int transfer(struct bench *bench, struct disk *disk, enum disk_operation operation, void *data, size_t size)
{
    struct transfer transfer = {.iov = {data, size}};
    transfer.request = (struct disk_request){.operation = operation,
                                             .length = size,
                                             .iov = &transfer.iov,
                                             .iov_count = 1,
                                             .done = transfer_done,
                                             .owner = &transfer};
    disk->ops->submit(disk, &transfer.request);
    bench_run(bench, bench_is_true, &transfer.done);
    return transfer.result;
}

static void test_both_ways_to_a_disk(void **state)
{
    struct bench *bench = *state;
    struct storage *storage = open_storage(bench);
    auto_free char *other = xasprintf("%s/other", bench->folder);
    auto_free char *json =
        xasprintf("{'driver': 'file', 'node-name': 'd1', 'filename': '%s', 'cache': {'direct': false}}", other);
    struct error err = {0};
    uint8_t config[VIRTIO_BLK_CONFIG_SIZE], data[4096] = {1, 2, 3}, back[4096];
    make_file(other, DISK_SIZE / 2);
    assert_true(storage_add_blockdev(storage, json, &err));
    assert_true(storage_has(storage, "d1"));
    assert_false(storage_has(storage, "d2"));
    struct vhost_backend *backend = open_vhost(storage);
    assert_true(backend->ops->max_queues(backend) >= 2);
    assert_true(backend->ops->get_config(backend, config, sizeof config, &err));
    assert_int_equal(load_le64(config), DISK_SIZE / 512);
    struct disk *disk = open_disk(storage, "d1");
    assert_int_equal(disk->size_bytes, DISK_SIZE / 2);
    assert_int_equal(transfer(bench, disk, DISK_WRITE, data, sizeof data), 0);
    assert_int_equal(transfer(bench, disk, DISK_READ, back, sizeof back), 0);
    assert_memory_equal(data, back, sizeof data);
    assert_null(storage_open_disk(storage, "d1", &err)); /* a disk is one device's */
    assert_non_null(strstr(err.message, "another device"));
    error_clear(&err);
    assert_null(storage_open_disk(storage, "d2", &err));
    error_clear(&err);
    disk->ops->close(disk);
    backend->ops->close(backend);
    storage_free(storage);
    assert_int_equal(find_child("spindle-storage-daemon"), 0);
    uint8_t *found = read_file(other, 0, sizeof data);
    assert_memory_equal(found, data, sizeof data);
    free(found);
}

static bool may_unshare(void)
{
    pid_t child = fork();
    if (!child)
        _exit(unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET));
    int status = -1;
    waitpid(child, &status, 0);
    return !status;
}

static void test_sandbox(void **state)
{
    struct bench *bench = *state;
    auto_free char *secret = xasprintf("%s/secret", bench->folder), *runtime = xasprintf("%s/run", bench->folder);
    make_file(secret, 1);
    assert_int_equal(mkdir(runtime, 0700), 0);
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    int leak = open(secret, O_RDONLY); /* without O_CLOEXEC, as some library might */
    assert_true(leak >= 0);
    struct storage *storage = open_storage(bench);
    struct vhost_backend *backend = open_vhost(storage);
    pid_t pid = find_child("spindle-storage-daemon");
    assert_true(pid > 0);

    auto_free char *privileges = proc_status(pid, "NoNewPrivs");
    assert_string_equal(privileges, "1");
    assert_true(has_open(getpid(), secret));
    assert_false(has_open(pid, secret));
    assert_true(has_open(pid, bench->image));
    auto_free char *our_net = proc_link(getpid(), "ns/net"), *their_net = proc_link(pid, "ns/net");
    auto_free char *our_ipc = proc_link(getpid(), "ns/ipc"), *their_ipc = proc_link(pid, "ns/ipc");
    if (may_unshare()) {
        assert_string_not_equal(our_net, their_net);
        assert_string_not_equal(our_ipc, their_ipc);
    } else {
        print_message("not shown: this system gives us no name spaces\n");
    }
    assert_int_equal(getpgid(pid), pid);
    assert_int_equal(count_entries(runtime), 0); /* its sockets have no names, so nobody else finds them */

    backend->ops->close(backend);
    storage_free(storage);
    assert_int_equal(count_entries(runtime), 0);
    unsetenv("XDG_RUNTIME_DIR");
    close(leak);
}

/* Killed from outside: requests fail, the owner hears of it, nothing waits for ever. */
static void test_daemon_dies(void **state)
{
    struct bench *bench = *state;
    struct storage *storage = open_storage(bench);
    bool lost = false;
    uint8_t data[4096];
    storage_on_lost(storage, bench_set_true, &lost);
    struct disk *disk = open_disk(storage, "d0");
    assert_int_equal(transfer(bench, disk, DISK_READ, data, sizeof data), 0);
    kill(find_child("spindle-storage-daemon"), SIGKILL);
    assert_int_equal(transfer(bench, disk, DISK_WRITE, data, sizeof data), -EIO);
    bench_run(bench, bench_is_true, &lost);
    assert_int_equal(transfer(bench, disk, DISK_READ, data, sizeof data), -EIO);
    disk->ops->close(disk);
    storage_free(storage);
}

/* However the emulator ends, the daemon does not stay behind with the images locked. */
static void test_emulator_dies(void **state)
{
    struct bench *bench = *state;
    int tell[2];
    pid_t daemon = 0;
    assert_int_equal(pipe(tell), 0);
    pid_t emulator = fork();
    if (!emulator) {
        struct error err = {0};
        bench->loop = loop_new(LOOP_AUTO, 0, &err); /* the old one does not survive a fork */
        struct storage *storage = open_storage(bench);
        open_vhost(storage);
        daemon = find_child("spindle-storage-daemon");
        if (write(tell[1], &daemon, sizeof daemon) == sizeof daemon)
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    close(tell[1]);
    assert_int_equal(read(tell[0], &daemon, sizeof daemon), sizeof daemon);
    close(tell[0]);
    waitpid(emulator, NULL, 0);
    assert_true(daemon > 0);
    bench_run(bench, process_is_gone, &daemon);
}

static void test_no_program(void **state)
{
    struct bench *bench = *state;
    struct error err = {0};
    struct storage *storage = open_storage(bench);
    auto_free char *path = xstrdup(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    assert_null(storage_open_vhost(storage, "d0", 1, &err));
    setenv("PATH", path, 1);
    assert_non_null(strstr(err.message, "spindle-storage-daemon"));
    assert_non_null(strstr(err.message, "No such file"));
    error_clear(&err);
    storage_free(storage);
}

static void test_daemon_refuses(void **state)
{
    struct bench *bench = *state;
    struct error err = {0};
    need_program("spindle-storage-daemon");
    struct storage *storage = storage_new(bench->loop);
    assert_true(storage_add_blockdev(storage, "driver=file,node-name=x,filename=/nonexistent/image", &err));
    assert_null(storage_open_vhost(storage, "x", 1, &err));
    assert_non_null(strstr(err.message, "/nonexistent/image"));
    error_clear(&err);
    assert_false(storage_add_blockdev(storage, "driver=file,node-name=x,filename=/b", &err)); /* twice */
    error_clear(&err);
    assert_false(storage_add_blockdev(storage, "driver=file,filename=/b", &err));
    assert_non_null(strstr(err.message, "node-name"));
    error_clear(&err);
    storage_free(storage);
}

/* --- -drive --- */

static char *drive_text(const struct storage_drive *drive, bool *writethrough)
{
    struct error err = {0};
    struct json *options = storage_drive_options(drive, writethrough, &err);
    char *text = options ? json_to_text(options) : TAKE(err.message);
    json_free(options);
    return text;
}

static void check_drive(struct storage_drive drive, const char *wanted)
{
    bool writethrough;
    drive.id = "d";
    auto_free char *text = drive_text(&drive, &writethrough);
    if (!strstr(text, wanted))
        fail_msg("%s: %s\nwanted: %s", drive.file, text, wanted);
}

static void test_cache_modes(void **state)
{
    static const struct {
        const char *name;
        bool direct, no_flush, writethrough;
    } modes[] = {{NULL, false, false, false},          {"writeback", false, false, false},
                 {"none", true, false, false},         {"unsafe", false, true, false},
                 {"writethrough", false, false, true}, {"directsync", true, false, true}};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        struct storage_drive drive = {.id = "d", .file = "a", .format = "qcow2", .cache = modes[i].name};
        bool writethrough = !modes[i].writethrough;
        struct json *options = storage_drive_options(&drive, &writethrough, NULL);
        const struct json *cache = json_get(options, "cache"), *below = json_get(json_get(options, "file"), "cache");
        assert_int_equal(json_boolean(json_get(cache, "direct")), modes[i].direct);
        assert_int_equal(json_boolean(json_get(cache, "no-flush")), modes[i].no_flush);
        assert_true(json_equal(cache, below));
        assert_int_equal(writethrough, modes[i].writethrough);
        json_free(options);
    }
    check_drive((struct storage_drive){.file = "a", .format = "raw", .cache = "fast"}, "cache=fast: must be");
}

static void test_drive_words(void **state)
{
    check_drive((struct storage_drive){.file = "a", .format = "raw", .discard = "on"}, "\"discard\": \"unmap\"");
    check_drive((struct storage_drive){.file = "a", .format = "raw", .discard = "off"}, "\"discard\": \"ignore\"");
    check_drive((struct storage_drive){.file = "a", .format = "raw", .discard = "x"}, "discard=x: must be");
    check_drive((struct storage_drive){.file = "a", .format = "raw", .read_only = true}, "\"read-only\": true");
    check_drive((struct storage_drive){.file = "a", .format = "raw", .detect_zeroes = "unmap"},
                "\"detect-zeroes\": \"unmap\"");
    check_drive((struct storage_drive){.file = "a", .format = "raw", .aio = "native"}, "\"aio\": \"native\"");
    check_drive((struct storage_drive){.file = "file:a:b", .format = "raw"}, "\"filename\": \"a:b\"");
    check_drive((struct storage_drive){.file = "./a:b", .format = "raw"}, "\"filename\": \"./a:b\"");
    check_drive((struct storage_drive){.file = "/a:b", .format = "raw"}, "\"filename\": \"/a:b\"");
    check_drive((struct storage_drive){.file = "gopher:x", .format = "raw"}, "unknown protocol 'gopher'");
    check_drive((struct storage_drive){.format = "raw"}, "file= is missing");
}

static void test_drive_nbd(void **state)
{
    static const char *const unix_form = "{\"driver\": \"nbd\", \"server\": {\"type\": \"unix\", \"path\": \"/s k\"}, "
                                         "\"export\": \"e/1\", \"node-name\": \"d\", \"read-only\": false}";
    check_drive((struct storage_drive){.file = "nbd:unix:/s k:exportname=e/1", .format = "raw"}, unix_form);
    check_drive((struct storage_drive){.file = "nbd+unix:///e%2f1?socket=/s%20k", .format = "raw"}, unix_form);
    check_drive((struct storage_drive){.file = "nbd:host:99", .format = "raw"}, "\"host\": \"host\", \"port\": \"99\"");
    check_drive((struct storage_drive){.file = "nbd://host/e", .format = "raw"},
                "\"host\": \"host\", \"port\": \"10809\"}, \"export\": \"e\"");
    check_drive((struct storage_drive){.file = "nbd://[::1]:99/e", .format = "raw"},
                "\"host\": \"::1\", \"port\": \"99\"");
    check_drive((struct storage_drive){.file = "nbd://host/e"}, "must be given with format=");
    check_drive((struct storage_drive){.file = "nbd:host", .format = "raw"}, "must be nbd:unix:PATH");
    check_drive((struct storage_drive){.file = "nbd://?x", .format = "raw"}, "must be nbd://HOST");
    check_drive((struct storage_drive){.file = "nbd://host/e", .format = "qcow2"},
                "\"driver\": \"qcow2\", \"node-name\": \"d\"");
}

static void test_format_is_asked(void **state)
{
    struct bench *bench = *state;
    need_program("spindle-img");
    auto_free char *create = xasprintf("spindle-img create -q -f qcow2 %s 1M", bench->image);
    assert_int_equal(system(create), 0);
    check_drive((struct storage_drive){.file = bench->image}, "{\"driver\": \"qcow2\"");
    unlink(bench->image);
    make_file(bench->image, DISK_SIZE);
    check_drive((struct storage_drive){.file = bench->image}, "{\"driver\": \"raw\"");
    unlink(bench->image);
    check_drive((struct storage_drive){.file = bench->image}, "give it with format=");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BENCH_TEST(test_both_ways_to_a_disk), BENCH_TEST(test_sandbox),     BENCH_TEST(test_daemon_dies),
        BENCH_TEST(test_emulator_dies),       BENCH_TEST(test_no_program),  BENCH_TEST(test_daemon_refuses),
        BENCH_TEST(test_cache_modes),         BENCH_TEST(test_drive_words), BENCH_TEST(test_drive_nbd),
        BENCH_TEST(test_format_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
