/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failures on order. The plan is read from the environment once, when the first operation asks, and kept for the
 * process: this is the one file with state of its own, since an allocation that is to fail has nobody to carry the plan
 * for it. It is not part of a program that is installed.
 */
#include "base/fault.h"

#ifdef SPINDLE_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kind_names[FAULT_KINDS] = {
    [FAULT_ALLOC] = "alloc",         [FAULT_XALLOC] = "xalloc",     [FAULT_OPEN] = "open",
    [FAULT_READ] = "read",           [FAULT_WRITE] = "write",       [FAULT_SYNC] = "sync",
    [FAULT_FALLOCATE] = "fallocate", [FAULT_TRUNCATE] = "truncate", [FAULT_COPY] = "copy",
    [FAULT_STAT] = "stat",           [FAULT_SEEK] = "seek",         [FAULT_LOCK] = "lock",
    [FAULT_RECV] = "recv",           [FAULT_SEND] = "send",         [FAULT_LISTEN] = "listen",
    [FAULT_ACCEPT] = "accept",       [FAULT_CONNECT] = "connect",
};

static const struct {
    const char *name;
    int value;
} error_names[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM},         {"EACCES", EACCES},         {"EMFILE", EMFILE},
    {"ENOLCK", ENOLCK}, {"EAGAIN", EAGAIN}, {"ECONNRESET", ECONNRESET}, {"EOPNOTSUPP", EOPNOTSUPP}, {"EXDEV", EXDEV},
};

static struct {
    pthread_once_t once;
    const char *log; /* path */
    enum fault_kind kind;
    uint64_t number; /* 0: nothing fails */
    bool and_after;
    struct fault fault;
    _Atomic uint64_t counts[FAULT_KINDS];
} plan = {.once = PTHREAD_ONCE_INIT};

/* By system calls alone: the allocator may be what fails. */
static void append_to_log(const char *line)
{
    int fd = plan.log ? open(plan.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    ssize_t n = write(fd, line, strlen(line));
    (void)n;
    close(fd);
}

static void report_counts(void)
{
    char line[80];
    for (int kind = 0; kind < FAULT_KINDS; kind++) {
        snprintf(line, sizeof line, "count %s %llu\n", kind_names[kind], (unsigned long long)plan.counts[kind]);
        append_to_log(line);
    }
}

/* A mistake in the order must not look like a test that passed. */
static void __attribute__((noreturn)) bad_order(const char *text)
{
    fprintf(stderr, "SPINDLE_FAULT=%s: expected KIND:N[+][:[after:]ERRNO] or KIND:N[+]:short\n", text);
    _exit(99);
}

static int kind_of(const char *text, size_t length)
{
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        if (strlen(kind_names[kind]) == length && !strncmp(kind_names[kind], text, length))
            return kind;
    return -1;
}

static struct fault parse_how(const char *order, const char *text)
{
    struct fault fault = {0};
    if (!strcmp(text, "short"))
        return (struct fault){.is_short = true};
    if (!strncmp(text, "after:", 6)) {
        fault.is_late = true;
        text += 6;
    }
    for (size_t i = 0; i < sizeof error_names / sizeof *error_names; i++)
        if (!strcmp(text, error_names[i].name))
            fault.error = -error_names[i].value;
    if (!fault.error)
        bad_order(order);
    return fault;
}

static void read_plan(void)
{
    plan.log = getenv("SPINDLE_FAULT_LOG");
    if (plan.log)
        atexit(report_counts);
    const char *order = getenv("SPINDLE_FAULT");
    if (!order)
        return;
    size_t length = strcspn(order, ":");
    int kind = kind_of(order, length);
    if (kind < 0 || !order[length])
        bad_order(order);
    char *end;
    plan.kind = (enum fault_kind)kind;
    plan.number = strtoull(order + length + 1, &end, 10);
    plan.and_after = *end == '+';
    end += plan.and_after;
    if (!plan.number || (*end && *end != ':'))
        bad_order(order);
    plan.fault = parse_how(order, *end ? end + 1 : "EIO");
}

struct fault fault_next(enum fault_kind kind)
{
    pthread_once(&plan.once, read_plan);
    uint64_t number = atomic_fetch_add_explicit(&plan.counts[kind], 1, memory_order_relaxed) + 1;
    if (kind != plan.kind || !plan.number || number < plan.number || (number > plan.number && !plan.and_after))
        return (struct fault){0};
    char line[80];
    snprintf(line, sizeof line, "failed %s %llu\n", kind_names[kind], (unsigned long long)number);
    append_to_log(line);
    return plan.fault;
}

#endif
