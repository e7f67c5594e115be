/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors in a program: known to it, kept over signals, copied to threads, faulting in the middle. */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include "check.h"

__asm__(".option arch, +v\n");

static void *vector_copy(void *to, const void *from, size_t size)
{
    void *at = to;
    size_t step;
    while (size) {
        __asm__ volatile("vsetvli %0, %1, e8, m8, ta, ma\n"
                         "vle8.v v8, (%2)\n"
                         "vse8.v v8, (%3)\n"
                         : "=&r"(step)
                         : "r"(size), "r"(from), "r"(at)
                         : "memory");
        size -= step;
        from = (const char *)from + step;
        at = (char *)at + step;
    }
    return to;
}

static size_t vector_length(const char *text)
{
    const char *at = text;
    size_t step;
    long first;
    do {
        __asm__ volatile("vsetvli %0, zero, e8, m8, ta, ma\n"
                         "vle8ff.v v8, (%2)\n"
                         "csrr %0, vl\n"
                         "vmseq.vi v0, v8, 0\n"
                         "vfirst.m %1, v0\n"
                         : "=&r"(step), "=&r"(first)
                         : "r"(at)
                         : "memory");
        at += first < 0 ? (long)step : first;
    } while (first < 0);
    return (size_t)(at - text);
}

/* ---- signals ---- */

static volatile sig_atomic_t ticks;

static void on_tick(int number)
{
    __asm__ volatile("vsetvli t0, zero, e64, m8, ta, ma\n"
                     "vmv.v.i v0, 0\nvmv.v.i v8, 0\nvmv.v.i v16, 0\nvmv.v.i v24, 0\n" ::
                         : "t0", "memory");
    ticks++;
}

static int sums_are_right(void)
{
    uint64_t sum, length = 2, rounds = 0;
    while (ticks < 20 && ++rounds < 20000000) {
        __asm__ volatile("vsetvli zero, %1, e64, m1, ta, ma\n"
                         "vid.v v3\n"
                         "vadd.vi v4, v3, 5\n"
                         "vmv.v.i v5, 0\n"
                         "vredsum.vs v6, v4, v5\n"
                         "vmv.x.s %0, v6\n"
                         : "=r"(sum)
                         : "r"(length));
        if (sum != 11)
            return 0;
    }
    return ticks >= 20;
}

/* ---- faults ---- */

static void *fault_at;
static uint64_t fault_magic;
static char *open_page;

static void on_fault(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    /* The header behind the floating-point registers says that vectors follow. */
    uint32_t magic;
    memcpy(&magic, (char *)&uc->uc_mcontext + 256 + 520, sizeof magic);
    fault_magic = magic;
    fault_at = info->si_addr;
    mprotect(open_page, 4096, PROT_READ | PROT_WRITE);
}

static void *in_thread(void *arg)
{
    static char copy[1000];
    return vector_copy(copy, arg, sizeof copy);
}

int main(void)
{
    static char source[1000], target[1000];
    struct itimerval timer = {{0, 2000}, {0, 2000}};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    pthread_t thread;
    void *result;

    printf("hwcap %d\n", !!(getauxval(AT_HWCAP) & 1 << ('V' - 'A')));
    for (unsigned i = 0; i < sizeof source; i++)
        source[i] = (char)(i * 7 + 1) ? (char)(i * 7 + 1) : 1;
    source[999] = 0;
    printf("copy %d\n", !memcmp(vector_copy(target, source, sizeof source), source, sizeof source));
    printf("length %zu %zu %zu\n", vector_length(source), vector_length("x"), vector_length(""));

    signal(SIGALRM, on_tick);
    setitimer(ITIMER_REAL, &timer, NULL);
    printf("kept over signals %d\n", sums_are_right());
    timer = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);

    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(pages, 'a', 8191);
    pages[8191] = 0;
    open_page = pages + 4096;
    mprotect(open_page, 4096, PROT_NONE);
    sigaction(SIGSEGV, &action, NULL);
    vector_copy(target, pages + 4060, 100);
    printf("fault at the page %d, with vectors in the frame %d, copied all %d\n", fault_at == open_page,
           fault_magic == 0x53465457, !memcmp(target, pages + 4060, 100));

    pthread_create(&thread, NULL, in_thread, source);
    pthread_join(thread, &result);
    printf("thread %d\n", !memcmp(result, source, sizeof source));
    return 0;
}
