/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread: run until something wants attention, sleep while halted or stopped.
 *
 * No wakeup may be lost between a vCPU that goes to sleep and a device that raises an interrupt. The vCPU says that it
 * is halted and then looks for pending interrupts; the device makes its interrupt pending and then looks whether the
 * vCPU is halted; all four sequentially consistent, so at least one sees the other. The device wakes under the lock
 * that the vCPU holds from its look to its sleep.
 */
#include "emulator/cpu/cpu.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"

struct cpu *cpu_new(const struct cpu_arch *arch, unsigned index, struct physmap *memory, struct clock *clock,
                    struct cpu *first, struct error *err)
{
    size_t size = round_up(arch->size, 64);
    struct cpu *cpu = try_aligned_alloc(64, size);
    if (!cpu)
        return fail_null(err, ENOMEM, "CPU %u: out of memory", index);
    memset(cpu, 0, size);
    cpu->arch = arch;
    cpu->index = index;
    cpu->memory = memory;
    cpu->clock = clock;
    cpu->code = first ? first->code : NULL;
    cpu->stop_requested = cpu->stopped = true;
    cpu->attention = CPU_ATTENTION_STOP;
    pthread_mutex_init(&cpu->lock, NULL);
    pthread_cond_init(&cpu->wake, NULL);
    if (!arch->init(cpu, err)) {
        fail_prefix(err, "CPU %u: ", index);
        pthread_cond_destroy(&cpu->wake);
        pthread_mutex_destroy(&cpu->lock);
        free(cpu);
        return NULL;
    }
    return cpu;
}

void cpu_free(struct cpu *cpu)
{
    if (!cpu)
        return;
    if (cpu->thread_started) {
        pthread_mutex_lock(&cpu->lock);
        cpu->exit_requested = true;
        atomic_fetch_or(&cpu->attention, CPU_ATTENTION_STOP);
        pthread_cond_broadcast(&cpu->wake);
        pthread_mutex_unlock(&cpu->lock);
        pthread_join(cpu->thread, NULL);
    }
    cpu->arch->destroy(cpu);
    pthread_cond_destroy(&cpu->wake);
    pthread_mutex_destroy(&cpu->lock);
    free(cpu);
}

/* --- the thread; the lock is held wherever nothing else is said -------------------------------------------------- */

static bool wants_rest(const struct cpu *cpu)
{
    return cpu->stop_requested || cpu->exit_requested;
}

static void rest(struct cpu *cpu)
{
    cpu->stopped = true;
    pthread_cond_broadcast(&cpu->wake); /* for cpu_stop() */
    while (cpu->stop_requested && !cpu->exit_requested)
        pthread_cond_wait(&cpu->wake, &cpu->lock);
    cpu->stopped = false;
    if (!cpu->exit_requested)
        atomic_fetch_and(&cpu->attention, ~(uint32_t)CPU_ATTENTION_STOP);
}

static void sleep_until_interrupt(struct cpu *cpu)
{
    atomic_store(&cpu->halted, true);
    while (!wants_rest(cpu) && !cpu->arch->interrupt_ready(cpu))
        pthread_cond_wait(&cpu->wake, &cpu->lock);
    atomic_store(&cpu->halted, false);
}

static void *cpu_thread(void *arg)
{
    struct cpu *cpu = arg;
    char name[16];
    snprintf(name, sizeof name, "CPU %u", cpu->index);
    pthread_setname_np(pthread_self(), name);
    pthread_mutex_lock(&cpu->lock);
    cpu->thread_id = gettid();
    while (!cpu->exit_requested) {
        if (cpu->stop_requested) {
            rest(cpu);
            continue;
        }
        pthread_mutex_unlock(&cpu->lock);
        enum cpu_exit reason = cpu->arch->run(cpu);
        pthread_mutex_lock(&cpu->lock);
        if (reason == CPU_EXIT_HALT) {
            sleep_until_interrupt(cpu);
        } else if (reason == CPU_EXIT_FATAL) {
            cpu->stop_requested = true;
            pthread_mutex_unlock(&cpu->lock);
            if (cpu->fatal_handler)
                cpu->fatal_handler(cpu->fatal_arg, cpu);
            pthread_mutex_lock(&cpu->lock);
        }
    }
    cpu->stopped = true;
    pthread_mutex_unlock(&cpu->lock);
    return NULL;
}

/* Signals are the main thread's. */
static int start_thread(struct cpu *cpu)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&cpu->thread, NULL, cpu_thread, cpu);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

/* --- from other threads ------------------------------------------------------------------------------------------ */

void cpu_reset(struct cpu *cpu, uint64_t pc)
{
    cpu->fatal = NULL;
    cpu->arch->reset(cpu, pc);
}

bool cpu_start(struct cpu *cpu, struct error *err)
{
    int result = 0;
    pthread_mutex_lock(&cpu->lock);
    cpu->stop_requested = false;
    atomic_fetch_and(&cpu->attention, ~(uint32_t)CPU_ATTENTION_STOP);
    if (cpu->thread_started) {
        pthread_cond_broadcast(&cpu->wake);
    } else {
        result = start_thread(cpu);
        cpu->thread_started = !result;
        cpu->stopped = cpu->stop_requested = result;
    }
    pthread_mutex_unlock(&cpu->lock);
    return !result || fail_errno(err, result, "CPU %u: cannot start its thread", cpu->index);
}

void cpu_request_stop(struct cpu *cpu)
{
    pthread_mutex_lock(&cpu->lock);
    cpu->stop_requested = true;
    atomic_fetch_or(&cpu->attention, CPU_ATTENTION_STOP);
    pthread_cond_broadcast(&cpu->wake);
    pthread_mutex_unlock(&cpu->lock);
}

bool cpu_is_stopped(struct cpu *cpu)
{
    pthread_mutex_lock(&cpu->lock);
    bool stopped = !cpu->thread_started || cpu->stopped;
    pthread_mutex_unlock(&cpu->lock);
    return stopped;
}

void cpu_stop(struct cpu *cpu)
{
    cpu_request_stop(cpu);
    pthread_mutex_lock(&cpu->lock);
    while (cpu->thread_started && !cpu->stopped)
        pthread_cond_wait(&cpu->wake, &cpu->lock);
    pthread_mutex_unlock(&cpu->lock);
}

void cpu_kick(struct cpu *cpu)
{
    atomic_fetch_or(&cpu->attention, CPU_ATTENTION_IRQ);
    if (!atomic_load(&cpu->halted))
        return;
    pthread_mutex_lock(&cpu->lock);
    pthread_cond_broadcast(&cpu->wake);
    pthread_mutex_unlock(&cpu->lock);
}

void cpu_set_irq(struct cpu *cpu, unsigned line, bool level)
{
    cpu->arch->set_irq(cpu, line, level);
    if (level)
        cpu_kick(cpu);
}
