/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual CPU as boards and devices see it: reset, run, stop, interrupt lines. Each vCPU runs on a thread of its own.
 * The architecture behind it is a `struct cpu_arch`; nothing here names one.
 *
 * Threads: cpu_set_irq() and cpu_kick() may be called from any thread and never block. The others belong to the main
 * thread, with the vCPU stopped.
 */
#ifndef EMULATOR_CPU_CPU_H
#define EMULATOR_CPU_CPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/error.h"

struct cpu;
struct clock;
struct physmap;
struct machine_code; /* the machine's translation cache, shared by its vCPUs; made by the architecture */

/* Bits of cpu->attention. run() may clear the first before it looks at pending interrupts; the second belongs to cpu.c
 * and stays until the vCPU stands still, so a request to stop that arrives just before run() is not lost. */
enum cpu_attention { CPU_ATTENTION_IRQ = 1, CPU_ATTENTION_STOP = 2 };

/* Why cpu_arch.run() came back. */
enum cpu_exit {
    CPU_EXIT_KICK, /* somebody asked for attention (stop request, interrupt) */
    CPU_EXIT_HALT, /* wait for interrupt: sleep until kicked */
    CPU_EXIT_FATAL /* the emulator itself cannot go on; cpu->fatal says why */
};

struct cpu_arch {
    const char *name;                  /* "riscv64" */
    const char *isa;                   /* for the device tree: "rv64imafdc_zicsr_..." ; see also isa_extensions */
    const char *const *isa_extensions; /* NULL-terminated, for "riscv,isa-extensions" */
    const char *mmu_type;              /* "riscv,sv48" */
    size_t size;                       /* of the architecture's struct, which begins with struct cpu */
    bool (*init)(struct cpu *cpu, struct error *err);
    void (*destroy)(struct cpu *cpu);
    void (*reset)(struct cpu *cpu, uint64_t pc);
    enum cpu_exit (*run)(struct cpu *cpu); /* on the vCPU's thread, until something of enum cpu_exit */
    void (*set_irq)(struct cpu *cpu, unsigned line,
                    bool level);              /* any thread; sets the pending bit; the caller kicks */
    bool (*interrupt_ready)(struct cpu *cpu); /* would an enabled pending interrupt end a halt? any thread */
    void (*dump)(struct cpu *cpu, FILE *out);
    uint64_t (*get_register)(struct cpu *cpu, unsigned number); /* numbering of the architecture's slot table */
    void (*set_register)(struct cpu *cpu, unsigned number, uint64_t value);
};

struct cpu {
    const struct cpu_arch *arch;
    unsigned index; /* hart id, CPU number */
    struct physmap *memory;
    struct clock *clock;
    struct machine_code *code; /* shared between the vCPUs of a machine */
    const char *fatal;

    /* Translated code looks at this word at loop back edges and region entries: non-zero means return to
     * cpu_arch.run(). */
    _Atomic uint32_t attention;

    /* The thread (cpu.c). */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool thread_started, stop_requested, stopped, exit_requested;
    _Atomic bool halted;
    int thread_id; /* the host's number of the thread, for people and management tools */

    /* Called on the vCPU's thread after CPU_EXIT_FATAL, when it has stopped itself. */
    void (*fatal_handler)(void *arg, struct cpu *cpu);
    void *fatal_arg;
};

/* The architectures this program has (a table in the program's main). */
struct cpu *cpu_new(const struct cpu_arch *arch, unsigned index, struct physmap *memory, struct clock *clock,
                    struct cpu *first,
                    struct error *err); /* `first`: vCPU 0, whose code cache is shared; NULL for vCPU 0 itself */
void cpu_free(struct cpu *cpu);

void cpu_reset(struct cpu *cpu, uint64_t pc);
bool cpu_start(struct cpu *cpu, struct error *err); /* starts the thread, or lets a stopped vCPU go on */
void cpu_stop(struct cpu *cpu);         /* returns when the vCPU stands still; must not hold the machine lock */
bool cpu_is_stopped(struct cpu *cpu);   /* after cpu_request_stop(): does it stand still? */
void cpu_request_stop(struct cpu *cpu); /* any thread (also the vCPU's own): asks only */
void cpu_kick(struct cpu *cpu);

/* Drives an interrupt line of the architecture (RISC-V: bit number in mip: 3 MSI, 7 MTI, 11 MEI, 9 SEI, 5 STI) and
 * kicks when needed. */
void cpu_set_irq(struct cpu *cpu, unsigned line, bool level);

/* An interrupt line as devices see it: raise, lower; wired by the board to a controller's input or a CPU's line. */
struct irq {
    void (*set)(void *target, unsigned number, bool level);
    void *target;
    unsigned number;
};
static inline void irq_set(const struct irq *irq, bool level)
{
    if (irq->set)
        irq->set(irq->target, irq->number, level);
}

#endif
