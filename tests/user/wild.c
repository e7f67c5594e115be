/* SPDX-License-Identifier: Apache-2.0 */
/* Random instructions: each sample runs in a child with random registers, until it faults or its time is over; prints
 * where and how, and a sum over the registers. wild.py compares what two ways of running it print. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include "programs/check.h"

enum { WORDS = 64 };
static uint64_t state;
static uint32_t *code;
static char *scratch;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return (state ^= state << 17) * 0x2545f4914f6cdd1d;
}

static uint32_t with(uint32_t bits, unsigned low, unsigned width, uint32_t value)
{
    uint32_t mask = ((1u << width) - 1) << low;
    return (bits & ~mask) | value << low;
}

/* Makes of random operands an instruction that exists, mostly. */
static uint32_t shape(uint32_t bits)
{
    static const uint8_t amos[] = {0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28};
    static const uint8_t fp[] = {0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x2c, 0x50, 0x60, 0x68, 0x70, 0x78, 0x20};
    static const uint8_t rounding[] = {0, 1, 2, 3, 4, 7, 7, 7};
    uint32_t one = bits >> 25 & 1;
    switch (bits & 0x7f) {
    case 0x03: return with(bits, 12, 3, (bits >> 12 & 7) % 7);
    case 0x23: return with(bits, 12, 3, bits >> 12 & 3);
    case 0x07:
    case 0x27: return with(bits, 12, 3, 2 + one);
    case 0x0f: return with(bits, 12, 3, one);
    case 0x1b: return with(bits, 12, 3, 0);
    case 0x2f: return with(with(bits, 12, 3, 2 + one), 27, 5, amos[(bits >> 27) % sizeof amos]);
    case 0x33:
    case 0x3b: return bits & ~(one ? 0xfe000000u : 0xbe000000u);
    case 0x43:
    case 0x47:
    case 0x4b:
    case 0x4f: return with(with(bits, 25, 2, one), 12, 3, rounding[bits >> 12 & 7]);
    case 0x53: return with(with(bits, 25, 7, fp[(bits >> 26) % sizeof fp] | one), 12, 3, bits >> 12 & 3);
    case 0x63: return with(with(bits, 28, 4, 0), 12, 3, (bits >> 12 & 7) | ((bits >> 13 & 3) == 1 ? 4 : 0));
    case 0x67: return with(bits, 12, 3, 0);
    case 0x6f: return with(with(bits, 28, 4, 0), 12, 8, 0); /* stays near */
    default: return bits;
    }
}

/* Mostly instructions that exist; none that asks the kernel or the clock. */
static uint32_t instruction(void)
{
    static const uint8_t opcodes[] = {0x03, 0x07, 0x0f, 0x13, 0x17, 0x1b, 0x23, 0x27, 0x2f, 0x33, 0x37, 0x3b,
                                      0x43, 0x47, 0x4b, 0x4f, 0x53, 0x63, 0x67, 0x6f, 0x13, 0x33, 0x03, 0x23};
    uint32_t bits = (uint32_t)next();
    if (next() % 4 == 0)
        return (bits & ~0x30003u) | (bits % 3) | (bits / 7 % 3) << 16; /* two compressed ones */
    return shape((bits & ~0x7fu) | opcodes[next() % sizeof opcodes]);
}

/* The C library's registers gp and tp come back before anything of C runs. */
uint64_t saved_tp;
void report(int number, siginfo_t *info, void *opaque);
void on_signal(int number, siginfo_t *info, void *opaque);
__asm__(".text\n"
        "on_signal:\n"
        ".option push\n"
        ".option norelax\n"
        "lla gp, __global_pointer$\n"
        "lla t0, saved_tp\n"
        "ld tp, 0(t0)\n"
        ".option pop\n"
        "fscsr zero\n"
        "j report\n");

void report(int number, siginfo_t *info, void *opaque)
{
    const ucontext_t *context = opaque;
    uint64_t sum = 0;
    long at = (long)context->uc_mcontext.__gregs[0] - (long)code;
    if (number == SIGALRM) {
        printf("time is over\n");
        _exit(0);
    }
    for (int i = 1; i < 32; i++)
        sum = sum * 31 + context->uc_mcontext.__gregs[i];
    for (int i = 0; i < 32; i++)
        sum = sum * 31 + context->uc_mcontext.__fpregs.__d.__f[i];
    sum = sum * 31 + context->uc_mcontext.__fpregs.__d.__fcsr;
    for (int i = 0; i < 8192; i++)
        sum = sum * 31 + (unsigned char)scratch[i];
    printf("%d code %d pc %lx address %lx sum %lx\n", number, info->si_code, at, (unsigned long)info->si_addr, sum);
    fflush(stdout);
    _exit(0);
}

static uint64_t registers[64];

/* Jumps to the code with all registers loaded. */
__attribute__((noreturn, noinline)) static void go(void)
{
    __asm__ volatile("mv x31, %0\n"
                     "mv x30, %1\n"
                     ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
                     "fld f\\n, 256+8*\\n(x31)\n"
                     ".endr\n"
                     ".irp n,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29\n"
                     "ld x\\n, 8*\\n(x31)\n"
                     ".endr\n"
                     "ld x31, 248(x31)\n"
                     "jr x30\n"
                     :
                     : "r"(registers), "r"(code)
                     : "memory");
    __builtin_unreachable();
}

static void sample(void)
{
    static char stack[64 << 10];
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGALRM, SIGFPE};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    CHECK(sigaltstack(&alternate, NULL) == 0);
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        CHECK(sigaction(numbers[i], &action, NULL) == 0);
    for (int i = 0; i < WORDS; i++)
        code[i] = instruction();
    code[WORDS] = 0;
    for (int i = 0; i < 64; i++) {
        uint64_t random = next();
        registers[i] = i < 32 && random % 2 ? (uint64_t)scratch + (random >> 8) % 8000 : next() >> next() % 64;
    }
    __asm__ volatile("fence.i" ::: "memory");
    __asm__ volatile("mv %0, tp" : "=r"(saved_tp));
    alarm(1);
    go();
}

int main(int argc, char **argv)
{
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 100, seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
    /* Fixed places, so that addresses are the same in every run. */
    code = mmap((void *)0x30000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                -1, 0);
    scratch = mmap((void *)0x31000000, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(code != MAP_FAILED && scratch != MAP_FAILED);
    for (unsigned long i = 0; i < count; i++) {
        int status;
        printf("%lu: ", seed + i);
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) {
            state = (seed + i) * 0x9e3779b97f4a7c15 + 1;
            sample();
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status))
            printf("ended by signal %d\n", WTERMSIG(status));
    }
    return 0;
}
