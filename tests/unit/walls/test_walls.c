/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken if this fails: a program that went behind its walls can still do what it gave up, or cannot do its work.
 *
 * Each case goes behind the walls in a child, since there is no way back, and tries one thing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "tests/unit/base/check.h"
#include "walls/walls.h"

struct outcome {
    int status; /* of wait */
    char said[512];
};

/* Runs attempt() behind the walls of a role; what it returns is the exit status. */
static struct outcome attempt_behind(enum walls_role role, struct walls_options options, int (*attempt)(void))
{
    struct outcome outcome = {0};
    int words[2];
    assert_int_equal(pipe(words), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        auto_error err = {0};
        dup2(words[1], STDERR_FILENO);
        options.demanded = true;
        if (!walls_enter(role, &options, &err)) {
            dprintf(STDERR_FILENO, "%s", err.message);
            _exit(99);
        }
        _exit(attempt());
    }
    close(words[1]);
    size_t length = 0;
    for (ssize_t got; (got = read(words[0], outcome.said + length, sizeof outcome.said - 1 - length)) > 0;)
        length += (size_t)got;
    close(words[0]);
    assert_int_equal(waitpid(pid, &outcome.status, 0), pid);
    return outcome;
}

static void expect_killed(enum walls_role role, struct walls_options options, int (*attempt)(void), const char *call)
{
    struct outcome outcome = attempt_behind(role, options, attempt);
    if (!WIFSIGNALED(outcome.status) || WTERMSIG(outcome.status) != SIGSYS || !strstr(outcome.said, call))
        print_error("'%s': status %x, said: %s\n", call, outcome.status, outcome.said);
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGSYS);
    assert_non_null(strstr(outcome.said, call));
}

static void expect_status(enum walls_role role, struct walls_options options, int (*attempt)(void), int status)
{
    struct outcome outcome = attempt_behind(role, options, attempt);
    if (!WIFEXITED(outcome.status))
        print_error("status %x, said: %s\n", outcome.status, outcome.said);
    assert_true(WIFEXITED(outcome.status));
    assert_int_equal(WEXITSTATUS(outcome.status), status);
}

/* Attempts ------------------------------------------------------------------------------------------------------- */

static int nothing(void)
{
    return 7;
}

static int try_execute(void)
{
    char *argv[] = {"true", NULL};
    execv("/bin/true", argv);
    return errno;
}

static int try_mount(void)
{
    return syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL) < 0 ? errno : 0;
}

static int try_bpf(void)
{
    return syscall(SYS_bpf, 0, NULL, 0) < 0 ? errno : 0;
}

static int try_new_key(void)
{
    return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ? errno : 0;
}

static int try_set_user(void)
{
    return syscall(SYS_setuid, 0) < 0 ? errno : 0;
}

static int try_packet_socket(void)
{
    return socket(AF_PACKET, SOCK_RAW, 0) < 0 ? errno : 0;
}

static int try_internet_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : 0;
}

static int try_ring(void)
{
    char parameters[120] = {0};
    return syscall(SYS_io_uring_setup, 4, parameters) < 0 ? errno : 0;
}

static int try_executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}

static int try_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? errno : 0;
}

static int try_open(void)
{
    return open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
}

static int try_fork(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return pid < 0 ? errno : 0;
}

static int work_with_files(void)
{
    syscall(SYS_keyctl, KEYCTL_READ, 0, NULL, 0, 0); /* there is no such key; asking must not end us */
    char name[] = "/tmp/walls-XXXXXX", byte = 0;
    int fd = mkstemp(name);
    bool good = fd >= 0 && write(fd, "x", 1) == 1 && pread(fd, &byte, 1, 0) == 1 && byte == 'x' &&
                ftruncate(fd, 4096) == 0 && fdatasync(fd) == 0 && unlink(name) == 0 &&
                socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
    return good ? 0 : 1;
}

static int state_of_process(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    struct rlimit core;
    if (syscall(SYS_capget, &header, data) < 0 || getrlimit(RLIMIT_CORE, &core) < 0)
        return 1;
    if (data[0].permitted & (1u << CAP_SYS_ADMIN | 1u << CAP_SYS_PTRACE | 1u << CAP_SETUID | 1u << CAP_SYS_MODULE))
        return 2;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 3;
    if (prctl(PR_GET_DUMPABLE) != 0 && !walls_are_relaxed())
        return 4;
    return core.rlim_max == 0 ? 0 : 5;
}

/* Tests ---------------------------------------------------------------------------------------------------------- */

static const struct walls_options usual;

static void test_forbidden_calls_end_the_process(void **state)
{
    for (enum walls_role role = WALLS_TOOL; role <= WALLS_WORKER; role++) {
        expect_killed(role, usual, try_execute, "execve");
        expect_killed(role, usual, try_mount, "mount");
        expect_killed(role, usual, try_bpf, "bpf");
        expect_killed(role, usual, try_new_key, "keyctl");
        expect_killed(role, usual, try_set_user, "setuid");
        expect_killed(role, usual, try_packet_socket, "socket");
    }
    expect_killed(WALLS_WORKER, usual, try_socket, "socket");
    expect_killed(WALLS_WORKER, usual, try_ring, "io_uring_setup");
    if (!walls_are_relaxed()) {
        expect_killed(WALLS_WORKER, usual, try_open, "open");
        expect_killed(WALLS_WORKER, usual, try_fork, "clone");
        expect_killed(WALLS_DAEMON, usual, try_fork, "clone");
    }
}

static void test_what_has_another_way_gets_an_error(void **state)
{
    const struct walls_options no_network = {.no_network = true};
    expect_status(WALLS_DAEMON, usual, try_ring, EPERM);
    expect_status(WALLS_DAEMON, usual, try_internet_socket, 0);
    expect_status(WALLS_TOOL, no_network, try_internet_socket, EAFNOSUPPORT);
    expect_status(WALLS_TOOL, no_network, try_socket, 0);
    expect_status(WALLS_EMULATOR, usual, try_executable_memory, 0);
    if (!walls_are_relaxed()) {
        expect_status(WALLS_DAEMON, usual, try_executable_memory, EACCES);
        expect_status(WALLS_WORKER, usual, try_executable_memory, EACCES);
    }
}

static void test_work_goes_on(void **state)
{
    expect_status(WALLS_TOOL, usual, work_with_files, 0);
    expect_status(WALLS_DAEMON, usual, work_with_files, 0);
    expect_status(WALLS_EMULATOR, usual, work_with_files, 0);
    expect_status(WALLS_WORKER, usual, nothing, 7);
    const struct walls_options spawn = {.spawn = true}, off = {.off = true};
    expect_status(WALLS_DAEMON, spawn, try_execute, 0);
    expect_status(WALLS_DAEMON, off, try_execute, 0);
}

static void test_privileges_are_gone(void **state)
{
    for (enum walls_role role = WALLS_TOOL; role <= WALLS_EMULATOR; role++)
        expect_status(role, usual, state_of_process, 0);
}

static void test_options(void **state)
{
    struct walls_options options;
    auto_error err = {0};
    assert_true(walls_options_parse("on", &options, &err));
    assert_true(!options.off && options.demanded && !options.spawn && !options.no_network);
    assert_true(walls_options_parse("off", &options, &err) && options.off);
    /* What management tools write. */
    assert_true(
        walls_options_parse("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", &options, &err));
    assert_true(!options.obsolete && !options.elevate && !options.spawn && !options.resourcecontrol);
    assert_true(
        walls_options_parse("on,obsolete=allow,elevateprivileges=children,spawn=allow,network=deny", &options, &err));
    assert_true(options.obsolete && !options.elevate && options.spawn && options.no_network);
    static const char *const bad[] = {"", "yes", "on,spawn", "on,spawn=yes", "on,spawns=deny", "spawn=deny"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(walls_options_parse(bad[i], &options, &err));
        assert_non_null(err.message);
        error_clear(&err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden_calls_end_the_process),
        cmocka_unit_test(test_what_has_another_way_gets_an_error),
        cmocka_unit_test(test_work_goes_on),
        cmocka_unit_test(test_privileges_are_gone),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
