/* SPDX-License-Identifier: Apache-2.0 */
/* Signals: faults with their address and code, handlers that change the interrupted registers, alternate stacks, masks,
 * restarts of system calls, signals that arrive at any instruction of a loop. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include "check.h"

static sigjmp_buf back;
static volatile siginfo_t seen;
static volatile uintptr_t seen_sp;
static volatile int count;

static void jump(int number, siginfo_t *info, void *context)
{
    seen = *info;
    seen_sp = (uintptr_t)&info;
    siglongjmp(back, number);
}

static void on(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK(sigaction(number, &action, NULL) == 0);
}

#define EXPECT_FAULT(number_, code_, address_, statement)                                                              \
    do {                                                                                                               \
        int got = sigsetjmp(back, 1);                                                                                  \
        if (!got) {                                                                                                    \
            statement;                                                                                                 \
            printf("%d: no fault\n", __LINE__);                                                                        \
            exit(1);                                                                                                   \
        }                                                                                                              \
        CHECK(got == number_);                                                                                         \
        if (seen.si_code != code_ || seen.si_addr != (void *)(address_)) {                                             \
            printf("line %d: code %d, address %p; wanted %d, %p\n", __LINE__, seen.si_code, seen.si_addr, code_,       \
                   (void *)(address_));                                                                                \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static void faults(void)
{
    char *page = mmap(NULL, 3 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    munmap(page + 4096, 4096);
    on(SIGSEGV, jump, 0);
    on(SIGBUS, jump, 0);
    on(SIGILL, jump, 0);
    on(SIGTRAP, jump, 0);
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, 0, *(volatile int *)0);
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, 16, *(volatile int *)16 = 1);
    EXPECT_FAULT(SIGSEGV, SEGV_ACCERR, page + 8, *(volatile long *)(page + 8) = 1);
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, page + 4096, *(volatile char *)(page + 4096));
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, page + 4096, *(volatile long *)(page + 4096 - 4)); /* straddles */
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, ~7ul, *(volatile long *)~7ul);
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, 1ul << 62, *(volatile long *)(1ul << 62) = 3);
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, 1ul << 40, *(volatile float *)(1ul << 40) = 3);
    EXPECT_FAULT(SIGSEGV, SEGV_ACCERR, page, ((void (*)(void))page)());
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, 0x10, ((void (*)(void))0x10)());
    __atomic_store_n(&count, 0, __ATOMIC_SEQ_CST);
    EXPECT_FAULT(SIGSEGV, SEGV_ACCERR, page + 16, __atomic_fetch_add((int *)(page + 16), 1, __ATOMIC_SEQ_CST));
    EXPECT_FAULT(SIGSEGV, SEGV_ACCERR, page + 16, __atomic_fetch_or((long *)(page + 16), 1, __ATOMIC_SEQ_CST));
    int zero = 0;
    EXPECT_FAULT(SIGSEGV, SEGV_MAPERR, page + 4096,
                 __atomic_compare_exchange_n((int *)(page + 4096), &zero, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));

    char name[] = "/tmp/spindle-user-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0 && ftruncate(fd, 4096) == 0);
    char *file = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(file != MAP_FAILED);
    EXPECT_FAULT(SIGBUS, BUS_ADRERR, file + 4096, *(volatile char *)(file + 4096) = 1);
    EXPECT_FAULT(SIGBUS, BUS_ADRERR, file + 4100, *(volatile int *)(file + 4100));

    int got = sigsetjmp(back, 1);
    if (!got)
        __asm__ volatile(".word 0");
    CHECK(got == SIGILL);
    got = sigsetjmp(back, 1);
    if (!got)
        __asm__ volatile("ebreak");
    CHECK(got == SIGTRAP && seen.si_code == TRAP_BRKPT);
    printf("faults\n");
}

/* The handler repairs the address register and the load succeeds. */
static long target = 42;
static void repair(int number, siginfo_t *info, void *opaque)
{
    ucontext_t *context = opaque;
    context->uc_mcontext.__gregs[10] = (unsigned long)&target; /* a0 */
    count++;
}

static void repaired(void)
{
    register long a0 __asm__("a0") = 8;
    register long before __asm__("s2") = 1234, result __asm__("s3") = 7;
    on(SIGSEGV, repair, 0);
    __asm__ volatile("addi s2, s2, 1\n"
                     "ld s3, 0(a0)\n"
                     "addi s2, s2, 1\n"
                     : "+r"(a0), "+r"(before), "+r"(result)
                     :
                     : "memory");
    CHECK(before == 1236 && result == 42 && a0 == (long)&target);
    printf("repaired\n");
}

/* --- alternate stack --- */

static void recurse(volatile char *from)
{
    volatile char here[4096];
    here[0] = from[0];
    recurse(here);
    from[1] = here[1];
}

static void overflow(void)
{
    static char stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, now;
    CHECK(sigaltstack(&alternate, NULL) == 0);
    on(SIGSEGV, jump, SA_ONSTACK);
    if (!sigsetjmp(back, 1)) {
        char c[2] = {0};
        recurse(c);
    }
    CHECK(seen_sp >= (uintptr_t)stack && seen_sp < (uintptr_t)stack + sizeof stack);
    CHECK(sigaltstack(NULL, &now) == 0 && now.ss_sp == stack && now.ss_size == sizeof stack && now.ss_flags == 0);
    alternate.ss_flags = SS_DISABLE;
    CHECK(sigaltstack(&alternate, NULL) == 0);
    printf("alternate stack\n");
}

/* --- masks, order, nesting --- */

static char order[16];
static void note(int number, siginfo_t *info, void *context)
{
    size_t n = strlen(order);
    order[n] = number == SIGUSR1 ? '1' : number == SIGUSR2 ? '2' : number == SIGRTMIN ? 'r' : '?';
    if (info->si_code == SI_QUEUE)
        order[n + 1] = (char)('0' + info->si_value.sival_int);
}

static void masks(void)
{
    sigset_t set, old, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    on(SIGUSR1, note, 0);
    on(SIGUSR2, note, 0);
    on(SIGRTMIN, note, 0);
    CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
    union sigval value = {.sival_int = 3};
    CHECK(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGUSR1) == 0);
    CHECK(sigqueue(getpid(), SIGRTMIN, value) == 0);
    value.sival_int = 4;
    CHECK(sigqueue(getpid(), SIGRTMIN, value) == 0);
    CHECK(raise(SIGUSR2) == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) && sigismember(&pending, SIGRTMIN) &&
          !sigismember(&pending, SIGUSR2));
    CHECK(!strcmp(order, "2"));
    CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
    printf("order %s\n", order);
    CHECK(strlen(order) == 6); /* 1 once, r3 and r4 in this order */
    CHECK(strstr(order, "r3") && strstr(order, "r4") && strstr(order, "r3") < strstr(order, "r4"));

    order[0] = order[1] = order[2] = order[3] = order[4] = order[5] = order[6] = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
    raise(SIGUSR1);
    sigset_t none;
    sigemptyset(&none);
    CHECK(sigsuspend(&none) == -1 && errno == EINTR && !strcmp(order, "1"));
    struct timespec soon = {0, 1000000};
    siginfo_t info;
    raise(SIGUSR1);
    CHECK(sigtimedwait(&set, &info, &soon) == SIGUSR1 && info.si_signo == SIGUSR1);
    CHECK(sigtimedwait(&set, &info, &soon) == -1 && errno == EAGAIN);
    CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0 && !strcmp(order, "1"));

    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESETHAND}, now;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    raise(SIGUSR1);
    CHECK(sigaction(SIGUSR1, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    printf("masks\n");
}

/* --- restarts --- */

static void tick(int number, siginfo_t *info, void *context)
{
    count++;
    if (count == 2 && info) {
        ssize_t n = write(*(int *)&target, "x", 1);
        (void)n;
    }
}

static void restarts(void)
{
    int fds[2];
    char c;
    struct itimerval timer = {{0, 20000}, {0, 20000}}, off = {{0, 0}, {0, 0}};
    CHECK(pipe(fds) == 0);
    *(int *)&target = fds[1];
    count = 0;
    on(SIGALRM, tick, SA_RESTART);
    setitimer(ITIMER_REAL, &timer, NULL);
    CHECK(read(fds[0], &c, 1) == 1 && c == 'x' && count >= 2); /* went on after the first signal */
    setitimer(ITIMER_REAL, &off, NULL);
    count = 2;
    on(SIGALRM, tick, 0);
    setitimer(ITIMER_REAL, &timer, NULL);
    CHECK(read(fds[0], &c, 1) == -1 && errno == EINTR);
    setitimer(ITIMER_REAL, &off, NULL);
    on(SIGALRM, tick, SA_RESTART);
    timer.it_interval.tv_usec = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    struct timespec second = {1, 0}, left;
    CHECK(nanosleep(&second, &left) == -1 && errno == EINTR && (left.tv_sec == 0 && left.tv_nsec > 500000000));
    printf("restarts\n");
}

/* --- a signal at every place of a loop: its sum must not change --- */

static void storm(void)
{
    struct itimerval timer = {{0, 100}, {0, 100}}, off = {{0, 0}, {0, 0}};
    count = 3;
    on(SIGALRM, tick, SA_RESTART);
    setitimer(ITIMER_REAL, &timer, NULL);
    unsigned long sum = 0;
    double d = 0;
    unsigned char memory[256] = {0};
    for (unsigned long i = 0; i < 3000000; i++) {
        sum = sum * 31 + (i ^ sum >> 7);
        d += (double)(i & 15) * 0.5;
        memory[i & 255] += (unsigned char)sum;
    }
    setitimer(ITIMER_REAL, &off, NULL);
    for (unsigned i = 0; i < 256; i++)
        sum += memory[i];
    printf("storm %lx %.1f\n", sum, d);
    CHECK(count > 4);
}

static void children(void)
{
    static const int numbers[] = {SIGSEGV, SIGTERM, SIGKILL, SIGABRT, SIGILL};
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        pid_t pid = fork();
        if (!pid) {
            signal(numbers[i], SIG_DFL);
            if (i == 0)
                *(volatile int *)8 = 1;
            else if (i == 4)
                __asm__ volatile(".word 0");
            else
                raise(numbers[i]);
            _exit(1);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
        printf("child died of %d\n", WTERMSIG(status));
    }
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    faults();
    repaired();
    overflow();
    masks();
    restarts();
    storm();
    children();
    return 0;
}
