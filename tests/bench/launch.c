/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a command and writes what it cost: launch FILE COMMAND [ARGUMENT]...
 *
 *     wall seconds, processor seconds (user + system, children included), the most resident memory in KiB, exit status
 *
 * A program of its own, because the kernel counts what a process had resident before it called execve(2), which would
 * be the memory of the Python that started it. Standard input and output are the command's.
 */
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: launch FILE COMMAND [ARGUMENT]...\n");
        return 2;
    }
    double start = now();
    pid_t pid;
    int code = posix_spawnp(&pid, argv[2], NULL, NULL, argv + 2, environ);
    if (code) {
        fprintf(stderr, "launch: %s: %s\n", argv[2], strerror(code));
        return 127;
    }
    int status;
    struct rusage usage;
    if (wait4(pid, &status, 0, &usage) < 0) {
        perror("launch: wait4");
        return 127;
    }
    double wall = now() - start;
    FILE *out = fopen(argv[1], "w");
    if (!out) {
        perror(argv[1]);
        return 127;
    }
    fprintf(out, "%.6f %.6f %ld %d\n", wall, seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss,
            WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return fclose(out) ? 127 : 0;
}
