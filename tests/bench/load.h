/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the load clients share: threads that start together and stop in time, random places, how long requests took, and
 * the line of JSON at the end. Each client is one source file that is compiled by itself (tests/bench/lib/table.py), so
 * this is a header with code. Its includers define _GNU_SOURCE, for the name they were called by.
 */
#ifndef LOAD_H
#define LOAD_H

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

enum { LATENCIES = 4096 };

/* When threads issue requests: from the start, which is the same for all, to the end. */
struct timing {
    double seconds;
    uint64_t operations; /* a thread; 0: until the time is up */
    pthread_barrier_t barrier;
    uint64_t end_ns;
};

/* What one thread has done. Latencies are counted in 64 steps for every doubling: 1.1 % wide. */
struct tally {
    uint64_t issued, answered, finished_ns;
    uint64_t latency[LATENCIES];
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        die("socket path too long");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        die("%s: %s", path, strerror(errno));
    return fd;
}

/* Of the index-th thread: the same in each run. */
static inline uint64_t random_seed(uint32_t index)
{
    return 0x9e3779b97f4a7c15ull * (index + 1);
}

static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* --- the start and the end --- */

static inline void timing_init(struct timing *timing, uint32_t threads)
{
    pthread_barrier_init(&timing->barrier, NULL, threads + 1);
}

/* A thread is ready; returns when all are. */
static inline void timing_wait_for_start(struct timing *timing)
{
    pthread_barrier_wait(&timing->barrier); /* everybody is connected */
    pthread_barrier_wait(&timing->barrier); /* the end is set */
}

/* By the main thread. Returns the moment of the start. */
static inline uint64_t timing_start(struct timing *timing)
{
    pthread_barrier_wait(&timing->barrier);
    uint64_t start_ns = now_ns();
    timing->end_ns = start_ns + (uint64_t)(timing->seconds * 1e9);
    pthread_barrier_wait(&timing->barrier);
    return start_ns;
}

static inline bool goes_on(const struct timing *timing, const struct tally *tally)
{
    return timing->operations ? tally->issued < timing->operations : now_ns() < timing->end_ns;
}

/* --- results --- */

static inline void tally_answer(struct tally *tally, uint64_t ns)
{
    unsigned power = ns < 64 ? 6 : 63 - (unsigned)__builtin_clzll(ns);
    unsigned index = (power - 6) * 64 + (unsigned)((ns >> (power - 6)) & 63);
    tally->latency[index < LATENCIES ? index : LATENCIES - 1]++;
    tally->answered++;
}

static inline void tally_add(struct tally *sum, const struct tally *one)
{
    sum->answered += one->answered;
    sum->finished_ns = one->finished_ns > sum->finished_ns ? one->finished_ns : sum->finished_ns;
    for (unsigned i = 0; i < LATENCIES; i++)
        sum->latency[i] += one->latency[i];
}

static inline double tally_percentile_us(const struct tally *tally, double share)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < LATENCIES; i++) {
        seen += tally->latency[i];
        if ((double)seen >= share * (double)tally->answered)
            return (double)((uint64_t)(64 + i % 64) << (i / 64)) / 1000.0;
    }
    return 0;
}

/* All of the line but its last brace, so that a client can add what it alone knows. */
static inline void tally_print(const struct tally *sum, uint64_t start_ns)
{
    uint64_t finished = sum->finished_ns > start_ns ? sum->finished_ns : start_ns + 1;
    printf("{\"operations\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f",
           (unsigned long long)sum->answered, (double)(finished - start_ns) / 1e9, tally_percentile_us(sum, 0.5),
           tally_percentile_us(sum, 0.99));
}

#endif
