/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The doorman, both sides: see the header.
 *
 * Orders and replies are datagrams of fixed size; descriptors travel with them (SCM_RIGHTS). The doorman works one
 * order off after the other; for each it forks a child, which either becomes the worker or runs fusermount3 and replies
 * itself. It keeps no descriptor but its socket, so that nothing that others wait for stays open because of it.
 */
#include "confined/doorman.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/log.h"
#include "base/loop.h"
#include "confined/driver.h"
#include "confined/protocol.h"
#include "confined/wait.h"
#include "walls/walls.h"

enum order_kind { ORDER_WORKER = 1, ORDER_MOUNT, ORDER_UNMOUNT };
enum { ORDER_FDS = 3, PATH_SIZE = 4096, OPTIONS_SIZE = 1024 };

struct order {
    uint32_t kind;
    uint64_t memory_limit, cpu_seconds;
    char path[PATH_SIZE], options[OPTIONS_SIZE];
};

struct reply {
    int32_t code;   /* 0 or an errno value */
    int32_t number; /* of the worker's process */
};

struct doorman {
    struct block_driver driver; /* a copy of the driver `confined`, by whose address a node finds us */
    const struct block_driver *drivers[2];
    pid_t pid;
    int fd;
    bool initialised;
    struct co_mutex lock; /* one order at a time */
};

/* Datagrams with descriptors ------------------------------------------------------------------------------------- */

union control {
    struct cmsghdr align;
    char space[CMSG_SPACE(ORDER_FDS * sizeof(int))];
};

static ssize_t send_with_fds(int socket, const void *data, size_t size, const int *fds, size_t count, int flags)
{
    union control control = {0};
    struct iovec iov = {(void *)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof *fds)};
        memcpy(CMSG_DATA(header), fds, count * sizeof *fds);
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_NOSIGNAL | flags);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

/* Fills fds[0 .. ORDER_FDS); those that did not come are -1. */
static ssize_t receive_with_fds(int socket, void *data, size_t size, int *fds, int flags)
{
    union control control;
    struct iovec iov = {data, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    for (int i = 0; i < ORDER_FDS; i++)
        fds[i] = -1;
    do {
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | flags);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return got;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(header), MIN(header->cmsg_len - CMSG_LEN(0), ORDER_FDS * sizeof *fds));
    return got;
}

static void close_fds(int *fds)
{
    for (int i = 0; i < ORDER_FDS; i++) {
        if (fds[i] >= 0)
            close(TAKE_FD(fds[i]));
    }
}

/* In the doorman's children -------------------------------------------------------------------------------------- */

static bool give_null(int to)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    return null >= 0 && dup2(null, to) == to;
}

/* The environment may hold secrets; a worker needs none of it. What steers sanitizers stays. */
static char **worker_environment(void)
{
    static const char *const kept[] = {"ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS=", "LSAN_OPTIONS="};
    char **environment = new_array(char *, ARRAY_SIZE(kept) + 1);
    size_t n = 0;
    for (char **entry = environ; *entry; entry++) {
        for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
            if (!strncmp(*entry, kept[i], strlen(kept[i])) && n < ARRAY_SIZE(kept))
                environment[n++] = *entry;
        }
    }
    return environment;
}

static void limit(int resource, uint64_t soft, uint64_t hard)
{
    setrlimit((__rlimit_resource_t)resource, &(struct rlimit){soft, hard});
}

_Noreturn static void become_worker(const struct order *order, const int *fds)
{
    static char name[] = "confined-worker", argument[] = CONFINED_WORKER_ARGUMENT;
    char *argv[] = {name, argument, NULL};
    char **environment = worker_environment();
    int high[ORDER_FDS];
    for (int i = 0; i < ORDER_FDS; i++)
        high[i] = fcntl(fds[i], F_DUPFD, 64);
    for (int i = 0; i < 3; i++) {
        if (!give_null(i))
            _exit(1);
    }
    for (int i = 0; i < ORDER_FDS; i++) {
        if (high[i] < 0 || dup2(high[i], CONFINED_IMAGE_FD + i) < 0)
            _exit(1);
    }
    close_range(CONFINED_BUFFER_FD + 1, ~0u, 0);
    if (!walls_are_relaxed()) /* their shadows take terabytes of address space */
        limit(RLIMIT_AS, order->memory_limit, order->memory_limit);
    /* The hard limit stays: the owner grants more as long as it asks for something. */
    limit(RLIMIT_CPU, order->cpu_seconds, RLIM_INFINITY);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execve("/proc/self/exe", argv, environment);
    _exit(1);
}

static int run_fusermount(char *const *argv, int channel)
{
    pid_t pid = fork();
    if (pid < 0)
        return errno;
    if (pid == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", channel);
        if (channel >= 0)
            setenv("_FUSE_COMMFD", number, 1);
        signal(SIGCHLD, SIG_DFL);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return ENOENT;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EPERM;
}

/* fusermount3 does what needs privileges, and sends /dev/fuse over the socket that the environment names. */
static int mount_fuse(struct order *order, int *fuse)
{
    char *const argv[] = {"fusermount3", "-o", order->options, "--", order->path, NULL};
    int pair[2], fds[ORDER_FDS];
    char byte;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return errno;
    int code = run_fusermount(argv, pair[0]);
    close(pair[0]);
    if (!code && receive_with_fds(pair[1], &byte, 1, fds, 0) <= 0)
        code = EPROTO;
    close(pair[1]);
    *fuse = code ? -1 : fds[0];
    return code || fds[0] >= 0 ? code : EPROTO;
}

static int unmount_fuse(struct order *order)
{
    char *const argv[] = {"fusermount3", "-u", "-q", "-z", "--", order->path, NULL};
    return run_fusermount(argv, -1);
}

/* The doorman ---------------------------------------------------------------------------------------------------- */

static void send_reply(int socket, int code, pid_t number, int fd)
{
    struct reply reply = {code, number};
    send_with_fds(socket, &reply, sizeof reply, &fd, fd >= 0, 0);
}

static void start_worker(int socket, const struct order *order, const int *fds)
{
    if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0) {
        send_reply(socket, EBADF, 0, -1);
        return;
    }
    pid_t pid = fork();
    int code = pid < 0 ? errno : 0;
    if (pid == 0)
        become_worker(order, fds);
    int process = pid > 0 ? pidfd_open(pid, 0) : -1;
    if (!code && process < 0)
        code = errno;
    send_reply(socket, code, pid, process);
    if (process >= 0)
        close(process);
}

/* A child runs it, so that it can be waited for: the doorman itself never waits. */
static void run_mount(int socket, struct order *order)
{
    pid_t pid = fork();
    if (pid < 0)
        send_reply(socket, errno, 0, -1);
    if (pid)
        return;
    int fuse = -1;
    signal(SIGCHLD, SIG_DFL);
    int code = order->kind == ORDER_MOUNT ? mount_fuse(order, &fuse) : unmount_fuse(order);
    send_reply(socket, code, 0, fuse);
    _exit(0);
}

static void carry_out(int socket, struct order *order, const int *fds)
{
    order->path[PATH_SIZE - 1] = order->options[OPTIONS_SIZE - 1] = '\0';
    switch ((enum order_kind)order->kind) {
    case ORDER_WORKER: start_worker(socket, order, fds); return;
    case ORDER_MOUNT:
    case ORDER_UNMOUNT: run_mount(socket, order); return;
    }
    send_reply(socket, EINVAL, 0, -1);
}

_Noreturn static void stand_at_the_door(int socket, pid_t owner)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "doorman");
    setsid(); /* Ctrl-C in a terminal is for our program, which tells us */
    signal(SIGCHLD, SIG_IGN);
    if (getppid() != owner || dup2(socket, 3) != 3)
        _exit(1);
    close_range(4, ~0u, 0);
    for (int i = 0; i < 3; i++) {
        if (!give_null(i))
            _exit(1);
    }
    close_range(4, ~0u, 0);
    for (;;) {
        struct order order;
        int fds[ORDER_FDS];
        ssize_t got = receive_with_fds(3, &order, sizeof order, fds, 0);
        if (got != sizeof order)
            _exit(0);
        carry_out(3, &order, fds);
        close_fds(fds);
    }
}

/* The owner ------------------------------------------------------------------------------------------------------ */

struct doorman *doorman_new(struct error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno_null(err, errno, "cannot make a socket pair");
    pid_t owner = getpid(), pid = fork();
    if (pid == 0)
        stand_at_the_door(pair[1], owner);
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return fail_errno_null(err, errno, "cannot start a process");
    }
    struct doorman *doorman = new (struct doorman);
    doorman->driver = confined_driver;
    doorman->drivers[0] = &doorman->driver;
    doorman->pid = pid;
    doorman->fd = pair[0];
    co_mutex_init(&doorman->lock);
    return doorman;
}

void doorman_free(struct doorman *doorman)
{
    if (!doorman)
        return;
    close(doorman->fd);
    while (waitpid(doorman->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    free(doorman);
}

const struct block_driver *const *doorman_drivers(struct doorman *doorman)
{
    return doorman->drivers;
}

struct doorman *doorman_of(const struct block_driver *driver)
{
    return (struct doorman *)((char *)driver - offsetof(struct doorman, driver));
}

/* 0 and a descriptor (-1: none came), or an errno value. */
static int give_order(struct doorman *doorman, struct loop *loop, const struct order *order, const int *fds,
                      size_t count, pid_t *number, int *result)
{
    *result = -1;
    with_co_lock (&doorman->lock) {
        struct reply reply;
        int received[ORDER_FDS];
        if (send_with_fds(doorman->fd, order, sizeof *order, fds, count, 0) != sizeof *order)
            return EPIPE;
        confined_wait_readable(loop, doorman->fd);
        if (receive_with_fds(doorman->fd, &reply, sizeof reply, received, MSG_DONTWAIT) != sizeof reply)
            return EPIPE;
        *result = TAKE_FD(received[0]);
        close_fds(received);
        *number = reply.number;
        return reply.code;
    }
    return EPIPE;
}

int doorman_start_worker(struct doorman *doorman, struct loop *loop, const struct doorman_worker *worker, pid_t *number,
                         struct error *err)
{
    auto_free struct order *order = new (struct order);
    order->kind = ORDER_WORKER;
    order->memory_limit = worker->memory_limit;
    order->cpu_seconds = worker->cpu_seconds;
    const int fds[ORDER_FDS] = {worker->image, worker->socket, worker->buffer};
    int process, code = give_order(doorman, loop, order, fds, ORDER_FDS, number, &process);
    if (!code && process >= 0)
        return process;
    fail_errno(err, code ? code : EPROTO, "cannot start a confined worker");
    return -1;
}

static bool fill_path(struct order *order, const char *path, const char *options, struct error *err)
{
    if (strlen(path) >= PATH_SIZE || strlen(options) >= OPTIONS_SIZE)
        return fail(err, ENAMETOOLONG, "mount point '%s': the name or the options are too long", path);
    strcpy(order->path, path);
    strcpy(order->options, options);
    return true;
}

int doorman_mount(struct doorman *doorman, struct loop *loop, const char *mount_point, const char *options,
                  struct error *err)
{
    auto_free struct order *order = new (struct order);
    order->kind = ORDER_MOUNT;
    if (!fill_path(order, mount_point, options, err))
        return -1;
    pid_t number;
    int fuse, code = give_order(doorman, loop, order, NULL, 0, &number, &fuse);
    if (code == ENOENT)
        fail(err, ENOENT, "cannot mount '%s': there is no program fusermount3 (package fuse3)", mount_point);
    else if (code)
        fail_errno(err, code, "fusermount3 could not mount '%s'", mount_point);
    return code ? -1 : fuse;
}

bool doorman_unmount(struct doorman *doorman, struct loop *loop, const char *mount_point, struct error *err)
{
    auto_free struct order *order = new (struct order);
    order->kind = ORDER_UNMOUNT;
    if (!fill_path(order, mount_point, "", err))
        return false;
    pid_t number;
    int none, code = give_order(doorman, loop, order, NULL, 0, &number, &none);
    return !code || fail_errno(err, code, "fusermount3 could not unmount '%s'", mount_point);
}
