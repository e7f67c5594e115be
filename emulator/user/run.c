/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of a guest thread: signals that wait, then translated code until it wants its kernel, then what it wants.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "emulator/user/user.h"

enum { REGISTER_A0 = 10, REGISTER_A7 = 17, ECALL_BYTES = 4 };

_Noreturn void user_die(struct user_thread *thread, const char *why)
{
    fprintf(stderr, "spindle-riscv64: %s, at pc 0x%" PRIx64 "\n", why, thread->cpu->tc.pc);
    abort();
}

static void system_call(struct user_thread *t)
{
    struct cpu_riscv *cpu = t->cpu;
    uint64_t a[6];
    memcpy(a, &cpu->x[REGISTER_A0], sizeof a);
    cpu->tc.pc += ECALL_BYTES;
    cpu->tc.reserved_address = ~0ull; /* the kernel's way back drops reservations */
    t->restart_a0 = a[0];
    int64_t result = user_call(t, cpu->x[REGISTER_A7], a);
    if (t->restart == RESTART_NOT)
        cpu->x[REGISTER_A0] = (uint64_t)result;
}

/* MAPERR or ACCERR: the kernel tells them apart, and so do programs. */
static int access_code(const struct user_thread *t, uint64_t address)
{
    const struct space *space = &t->process->space;
    bool mapped = address < space->size && atomic_load(&space->pages[address / SPACE_PAGE]);
    return mapped ? SEGV_ACCERR : SEGV_MAPERR;
}

static void instruction_failed(struct user_thread *t)
{
    struct cpu_riscv *cpu = t->cpu;
    uint64_t value = cpu->exception_value;
    if (cpu->tc.fault_signal) { /* the host refused the access */
        int number = (int)cpu->tc.fault_signal, code = (int)cpu->tc.fault_code;
        cpu->tc.fault_signal = 0;
        if (number == SIGSEGV)
            code = access_code(t, cpu->tc.fault_address);
        user_signals_raise(t, number, code, cpu->tc.fault_address);
        return;
    }
    switch ((enum riscv_exception)cpu->exception_cause) {
    case EXC_ILLEGAL_INSTRUCTION: user_signals_raise(t, SIGILL, ILL_ILLOPC, cpu->tc.pc); break;
    case EXC_BREAKPOINT: user_signals_raise(t, SIGTRAP, TRAP_BRKPT, cpu->tc.pc); break;
    case EXC_INSTRUCTION_MISALIGNED:
    case EXC_LOAD_MISALIGNED:
    case EXC_STORE_MISALIGNED: user_signals_raise(t, SIGBUS, BUS_ADRALN, value); break;
    default: user_signals_raise(t, SIGSEGV, access_code(t, value), value); break;
    }
}

static bool wants_signals(const struct user_thread *t)
{
    return t->pending || t->restart != RESTART_NOT || t->restore_mask ||
           atomic_load_explicit(&t->cpu->cpu.attention, memory_order_relaxed);
}

_Noreturn void user_run(struct user_thread *t)
{
    struct cpu_riscv *cpu = t->cpu;
    for (;;) {
        if (wants_signals(t))
            user_signals_deliver(t);
        switch (translate_run(&cpu->tc)) {
        case RISCV_EXIT_ECALL: system_call(t); break;
        case RISCV_EXIT_FENCE_I: space_flush_shared_code(&t->process->space); break;
        case TRANSLATE_EXIT_EXCEPTION: instruction_failed(t); break;
        case TRANSLATE_EXIT_ATTENTION: break;
        default: user_die(t, cpu->tc.fatal ? cpu->tc.fatal : "translated code came back for no known reason");
        }
    }
}
