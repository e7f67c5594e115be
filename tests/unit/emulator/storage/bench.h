/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the emulator's disks share: a loop that runs until something has happened, a private folder, and
 * real servers that can be killed and started again. A server whose program is missing skips the test (where CI is set
 * it fails).
 */
#ifndef TESTS_UNIT_EMULATOR_STORAGE_BENCH_H
#define TESTS_UNIT_EMULATOR_STORAGE_BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/rng.h"
#include "emulator/storage/internal.h"
#include <cmocka.h> /* last: its fail() would hide ours */

#define SECONDS(n) ((n)*1000000000ull)

struct bench {
    struct loop *loop;
    char folder[64];
    char *image, *socket;
    struct loop_timer watchdog, poll;
    bool (*until)(void *arg);
    void *until_arg;
    bool too_late;
    pid_t server;
    char *const *command;
};

/* --- the loop --- */

static void bench_too_late(void *arg)
{
    struct bench *bench = arg;
    bench->too_late = true;
    loop_stop(bench->loop);
}

static void bench_poll(void *arg)
{
    struct bench *bench = arg;
    if (bench->until(bench->until_arg))
        loop_stop(bench->loop);
    else
        loop_timer_arm(bench->loop, &bench->poll, loop_now_ns(bench->loop) + 1000000);
}

/* Runs the loop until `until` says so; fails the test after 30 s. */
static inline void bench_run(struct bench *bench, bool (*until)(void *arg), void *arg)
{
    if (until(arg))
        return;
    bench->until = until;
    bench->until_arg = arg;
    bench->watchdog = (struct loop_timer){.fn = bench_too_late, .arg = bench};
    bench->poll = (struct loop_timer){.fn = bench_poll, .arg = bench};
    loop_timer_arm(bench->loop, &bench->watchdog, loop_now_ns(bench->loop) + SECONDS(30));
    loop_timer_arm(bench->loop, &bench->poll, loop_now_ns(bench->loop) + 1000000);
    loop_run(bench->loop);
    loop_timer_cancel(&bench->watchdog);
    loop_timer_cancel(&bench->poll);
    assert_false(bench->too_late);
}

static inline bool bench_is_true(void *flag)
{
    return *(bool *)flag;
}

static inline void bench_set_true(void *flag)
{
    *(bool *)flag = true;
}

static inline void bench_run_for(struct bench *bench, uint64_t ns)
{
    bool over = false;
    struct loop_timer timer = {.fn = bench_set_true, .arg = &over};
    loop_timer_arm(bench->loop, &timer, loop_now_ns(bench->loop) + ns);
    bench_run(bench, bench_is_true, &over);
}

/* --- files --- */

static inline void make_file(const char *path, uint64_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

static inline uint8_t *read_file(const char *path, uint64_t offset, size_t size)
{
    uint8_t *data = xmalloc(size);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && pread(fd, data, size, (off_t)offset) == (ssize_t)size);
    close(fd);
    return data;
}

/* --- servers --- */

/* Our programs are in ../bin of this one; they come first in PATH. */
static inline void use_our_programs(void)
{
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    auto_free char *path = xasprintf("%s/../bin:%s", self, getenv("PATH"));
    if (!strstr(getenv("PATH"), "/../bin:"))
        setenv("PATH", path, 1);
}

static inline void need_program(const char *name)
{
    use_our_programs();
    auto_free char *paths = xstrdup(getenv("PATH"));
    for (char *rest = paths, *folder; (folder = strsep(&rest, ":"));) {
        auto_free char *file = xasprintf("%s/%s", folder, name);
        if (access(file, X_OK) == 0)
            return;
    }
    print_message("missing requirement: %s\n", name);
    if (getenv("CI"))
        fail_msg("%s must be there", name);
    skip();
}

static inline bool can_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return good;
}

/* Returns at once; the server needs a moment. */
static inline void server_launch(struct bench *bench)
{
    pid_t parent = getpid();
    unlink(bench->socket);
    bench->server = fork();
    if (bench->server)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        execvp(bench->command[0], bench->command);
    _exit(127);
}

static inline void server_start(struct bench *bench, char *const *command)
{
    bench->command = command;
    need_program(command[0]);
    server_launch(bench);
    for (int tries = 0; !can_connect(bench->socket); tries++) {
        assert_int_equal(waitpid(bench->server, NULL, WNOHANG), 0);
        assert_true(tries < 1000);
        usleep(10000);
    }
}

/* The kernel finishes the I/O of a killed process in its own time; until then the next server finds the image locked.
 */
static inline void wait_until_unlocked(const char *path)
{
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    for (int tries = 0; fd >= 0 && tries < 1000; tries++) {
        lock.l_type = F_WRLCK;
        if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
            return;
        lock = (struct flock){.l_whence = SEEK_SET};
        usleep(5000);
    }
}

static inline void server_kill(struct bench *bench, int signal)
{
    if (bench->server > 0) {
        kill(bench->server, signal);
        waitpid(bench->server, NULL, 0);
        wait_until_unlocked(bench->image);
    }
    bench->server = 0;
}

/* --- the bench --- */

static inline int bench_setup(void **state)
{
    struct error err = {0};
    struct bench *bench = new (struct bench);
    use_our_programs();
    strcpy(bench->folder, "/tmp/spindle-test.XXXXXX");
    assert_non_null(mkdtemp(bench->folder));
    bench->image = xasprintf("%s/image", bench->folder);
    bench->socket = xasprintf("%s/socket", bench->folder);
    bench->loop = loop_new(LOOP_AUTO, 0, &err);
    assert_non_null(bench->loop);
    *state = bench;
    return 0;
}

static inline int bench_teardown(void **state)
{
    struct bench *bench = *state;
    server_kill(bench, SIGKILL);
    loop_free(bench->loop);
    auto_free char *remove = xasprintf("rm -rf %s", bench->folder);
    assert_int_equal(system(remove), 0);
    free(bench->image);
    free(bench->socket);
    free(bench);
    return 0;
}

#define BENCH_TEST(fn) cmocka_unit_test_setup_teardown(fn, bench_setup, bench_teardown)

#endif
