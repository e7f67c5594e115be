/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: atomics, mutexes, conditions, thread-local storage, signals to threads, robust mutexes, cancellation, exit.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "check.h"

enum { THREADS = 4, ROUNDS = 50000 };
static atomic_int atomic_count, or_bits;
static _Thread_local int own;
static int plain;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, robust;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int turn;

static void *work(void *opaque)
{
    int id = (int)(long)opaque;
    for (int i = 0; i < ROUNDS; i++) {
        atomic_fetch_add(&atomic_count, 1);
        own += id;
        pthread_mutex_lock(&mutex);
        plain++;
        pthread_mutex_unlock(&mutex);
    }
    atomic_fetch_or(&or_bits, 1 << id);
    CHECK(own == id * ROUNDS);
    return (void *)(long)(id * 2);
}

static void *take_turns(void *opaque)
{
    int id = (int)(long)opaque;
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&mutex);
        while (turn % THREADS != id)
            pthread_cond_wait(&condition, &mutex);
        turn++;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void run(void *(*fn)(void *), long *sum)
{
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, fn, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK(pthread_join(threads[i], &result) == 0);
        *sum += (long)result;
    }
}

static void *die_with_lock(void *opaque)
{
    pthread_mutex_lock(&robust);
    return NULL;
}

static void robust_mutex(void)
{
    pthread_mutexattr_t attributes;
    pthread_t thread;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&robust, &attributes);
    CHECK(pthread_create(&thread, NULL, die_with_lock, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD);
    CHECK(pthread_mutex_consistent(&robust) == 0 && pthread_mutex_unlock(&robust) == 0);
    printf("robust\n");
}

static _Atomic pid_t handled_by;
static void on_usr1(int number)
{
    handled_by = (pid_t)syscall(SYS_gettid);
}

static sem_t ready;
static _Atomic int stop;
static _Atomic pid_t spinner;
static void *spin(void *opaque)
{
    spinner = (pid_t)syscall(SYS_gettid);
    sem_post(&ready);
    while (!stop) /* a loop without system calls */
        ;
    return NULL;
}

static void signal_to_thread(void)
{
    pthread_t thread;
    signal(SIGUSR1, on_usr1);
    sem_init(&ready, 0, 0);
    CHECK(pthread_create(&thread, NULL, spin, NULL) == 0);
    sem_wait(&ready);
    CHECK(pthread_kill(thread, SIGUSR1) == 0);
    while (!handled_by)
        sched_yield();
    CHECK(handled_by == spinner);
    stop = 1;
    pthread_join(thread, NULL);
    printf("signal to a thread\n");
}

static sem_t go_on;
static void *waits(void *opaque)
{
    sem_wait(&go_on);
    return (void *)(long)getuid();
}

/* The C library has every thread change its own, by a signal that is the guest's library's and the host's, too. */
static void change_ids(void)
{
    pthread_t thread;
    void *result;
    sem_init(&go_on, 0, 0);
    CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
    for (int i = 0; i < 10; i++)
        CHECK(setuid(getuid()) == 0 && setgid(getgid()) == 0);
    sem_post(&go_on);
    CHECK(pthread_join(thread, &result) == 0 && result == (void *)(long)getuid());
    printf("ids\n");
}

static void *wait_forever(void *opaque)
{
    for (;;)
        pause();
    return opaque;
}

static void cancellation(void)
{
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, wait_forever, NULL) == 0 && pthread_cancel(thread) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    printf("cancelled\n");
}

static void *short_lived(void *opaque)
{
    return opaque;
}

static void many(void)
{
    for (long i = 0; i < 300; i++) {
        pthread_t thread;
        void *result;
        CHECK(pthread_create(&thread, NULL, short_lived, (void *)i) == 0 && pthread_join(thread, &result) == 0);
        CHECK(result == (void *)i);
    }
    printf("many\n");
}

static void *ends_the_process(void *opaque)
{
    usleep(20000);
    printf("the last thread\n");
    exit(23);
    return NULL;
}

int main(void)
{
    long sum = 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    run(work, &sum);
    printf("%d %d %d %ld\n", atomic_count, plain, or_bits, sum);
    run(take_turns, &sum);
    printf("turns %d\n", turn);
    robust_mutex();
    signal_to_thread();
    change_ids();
    cancellation();
    many();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, ends_the_process, NULL) == 0);
    pthread_exit(NULL); /* the first thread ends before the process does */
}
