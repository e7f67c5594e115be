/* SPDX-License-Identifier: Apache-2.0 */
/* fork, vfork, exec, spawn, wait; what a child shares with its parent and what not. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"

extern char **environ;
static int shared_by_vfork;

static int wait_for(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void forks(void)
{
    int fds[2], value = 1;
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char buffer[16] = {0};
    CHECK(pipe(fds) == 0 && shared != MAP_FAILED);
    pid_t pid = fork();
    if (!pid) {
        value = 2;
        *shared = 3;
        CHECK(write(fds[1], "child", 5) == 5 && getppid() > 0);
        _exit(7);
    }
    CHECK(read(fds[0], buffer, 5) == 5 && wait_for(pid) == 7 && value == 1 && *shared == 3);
    for (int i = 0; i < 20; i++) {
        pid = fork();
        if (!pid)
            _exit(i);
        CHECK(wait_for(pid) == i);
    }
    printf("fork %s\n", buffer);
}

static void vforks(void)
{
    pid_t pid = vfork();
    if (!pid) {
        shared_by_vfork = 5;
        _exit(9);
    }
    CHECK(wait_for(pid) == 9);
    printf("vfork: the child wrote %d\n", shared_by_vfork);
}

static void spawns(const char *self)
{
    char *const arguments[] = {"renamed", "child", "a b", NULL};
    char *const environment[] = {"COLOUR=blue", NULL};
    pid_t pid = 0;
    CHECK(posix_spawn(&pid, self, NULL, NULL, arguments, environment) == 0);
    CHECK(wait_for(pid) == 11);
    int result = posix_spawn(&pid, "/nonexistent/program", NULL, NULL, arguments, environment);
    printf("spawning nothing: %s\n", strerror(result));
}

static void execs(void)
{
    char *const arguments[] = {"x", NULL};
    CHECK(execve("/nonexistent/program", arguments, environ) == -1 && errno == ENOENT);
    CHECK(execve("/etc", arguments, environ) == -1 && errno == EACCES);
    CHECK(execve("/etc/passwd", arguments, environ) == -1 && errno == EACCES);
    pid_t pid = fork();
    if (!pid) {
        char *const again[] = {"self", "child", "proc", NULL};
        char *const environment[] = {"COLOUR=red", NULL};
        execve("/proc/self/exe", again, environment);
        _exit(1);
    }
    CHECK(wait_for(pid) == 11);
}

static void script(const char *self)
{
    char name[] = "/tmp/spindle-user-XXXXXX";
    int fd = mkstemp(name);
    pid_t pid;
    CHECK(fd >= 0 && fchmod(fd, 0700) == 0);
    dprintf(fd, "#! %s   child  \nrest\n", self);
    close(fd);
    char *const arguments[] = {"ignored", "last", NULL};
    char *const environment[] = {"COLOUR=green", NULL};
    fflush(stdout);
    CHECK((pid = fork()) >= 0);
    if (!pid) {
        execve(name, arguments, environment);
        _exit(1);
    }
    CHECK(wait_for(pid) == 11);
    unlink(name);
}

static int thread_of_clone(void *opaque)
{
    *(int *)opaque = 17;
    return 4;
}

static void clones(void)
{
    static char stack[64 << 10] __attribute__((aligned(16)));
    int value = 0, status;
    int pid = clone(thread_of_clone, stack + sizeof stack, SIGCHLD, &value);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 4 && value == 0);
    pid = clone(thread_of_clone, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &value);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 4);
    printf("clone %d\n", value);
}

/* The signal handlers of the parent stay when a child of vfork() changes its own. */
static volatile int handled;
static void on_usr1(int number)
{
    handled++;
}

static void handlers(void)
{
    signal(SIGUSR1, on_usr1);
    pid_t pid = vfork();
    if (!pid) {
        struct sigaction action = {.sa_handler = SIG_IGN};
        syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8);
        _exit(0);
    }
    CHECK(wait_for(pid) == 0);
    raise(SIGUSR1);
    CHECK(handled == 1);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 1 && !strcmp(argv[1], "child")) {
        printf("child:");
        for (int i = 1; i < argc; i++)
            printf(" [%s]", strchr(argv[i], '/') ? "a path" : argv[i]);
        printf(" %s\n", getenv("COLOUR"));
        return 11;
    }
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(length > 0);
    self[length] = 0;
    forks();
    vforks();
    spawns(self);
    execs();
    script(self);
    clones();
    handlers();
    return 0;
}
