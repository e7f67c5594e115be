/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What user mode costs beyond instructions: system calls, signals, threads, mappings, faults. Prints a line
 *
 *     KERNEL name nanoseconds checksum
 *
 * each, as guest_kernels.c does. With an argument it does nothing: a short process.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int handled;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t plain_calls(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 300000; i++)
        sum += syscall(SYS_getppid) > 0;
    return sum;
}

static uint64_t reads_and_writes(void)
{
    int fds[2];
    char buffer[64] = {1};
    uint64_t sum = 0;
    if (pipe(fds))
        return 0;
    for (int i = 0; i < 100000; i++) {
        sum += (uint64_t)write(fds[1], buffer, sizeof buffer);
        sum += (uint64_t)read(fds[0], buffer, sizeof buffer);
    }
    return sum;
}

static void on_signal(int number)
{
    handled++;
}

static uint64_t signals(void)
{
    signal(SIGUSR1, on_signal);
    for (int i = 0; i < 20000; i++)
        raise(SIGUSR1);
    return (uint64_t)handled;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    handled++;
    mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

static uint64_t faults(void)
{
    enum { PAGES = 5000 };
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    handled = 0;
    sigaction(SIGSEGV, &action, NULL);
    volatile char *memory = mmap(NULL, PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PAGES; i++)
        memory[i * 4096] = 1;
    return (uint64_t)handled;
}

static void *thread(void *opaque)
{
    return opaque;
}

static uint64_t threads(void)
{
    uint64_t sum = 0;
    for (long i = 0; i < 1500; i++) {
        pthread_t t;
        void *result;
        if (pthread_create(&t, NULL, thread, (void *)i) || pthread_join(t, &result))
            return 0;
        sum += (uint64_t)result;
    }
    return sum;
}

static uint64_t mappings(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 20000; i++) {
        char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        p[4096] = 1;
        sum += (uint64_t)munmap(p, 65536) + 1;
    }
    return sum;
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
} kernels[] = {{"user.calls", plain_calls}, {"user.pipe", reads_and_writes}, {"user.signals", signals},
               {"user.faults", faults},     {"user.threads", threads},       {"user.mappings", mappings}};

int main(int argc, char **argv)
{
    for (unsigned i = 0; argc == 1 && i < sizeof kernels / sizeof *kernels; i++) {
        uint64_t start = now_ns(), sum = kernels[i].run();
        printf("KERNEL %s %llu %016llx\n", kernels[i].name, (unsigned long long)(now_ns() - start),
               (unsigned long long)sum);
    }
    return 0;
}
