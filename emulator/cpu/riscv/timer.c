/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time: the counters, and the supervisor timer of Sstc. `time` runs at 10 MHz, guest time divided by 100 ns.
 *
 * With menvcfg.STCE set, STIP is the comparison time >= stimecmp and nothing else. A clock timer raises the line when
 * the moment comes; a write of stimecmp lowers it, or raises it at once. The callback runs on the main loop's thread:
 * the lock makes its comparison and its raising of the line one step against a write.
 */
#include "emulator/clock/clock.h"
#include "emulator/cpu/riscv/riscv.h"

enum { NS_PER_TICK = 100 };

uint64_t riscv_nanoseconds(const struct cpu_riscv *cpu)
{
    return clock_now_ns(cpu->cpu.clock);
}

uint64_t riscv_time(const struct cpu_riscv *cpu)
{
    return riscv_nanoseconds(cpu) / NS_PER_TICK;
}

static bool is_due(const struct cpu_riscv *cpu)
{
    return (cpu->menvcfg & ENVCFG_STCE) && riscv_time(cpu) >= cpu->stimecmp;
}

/* The line is set here and not by cpu_set_irq() on the vCPU's own thread: it sees the change itself, no kick is due. */
static void set_line(struct cpu_riscv *cpu, bool level)
{
    if (level)
        atomic_fetch_or(&cpu->mip_lines, MIP(IRQ_STI));
    else
        atomic_fetch_and(&cpu->mip_lines, ~MIP(IRQ_STI));
}

static void fired(void *opaque)
{
    struct cpu_riscv *cpu = opaque;
    bool due;

    pthread_mutex_lock(&cpu->timer_lock);
    due = is_due(cpu);
    if (due)
        set_line(cpu, true);
    pthread_mutex_unlock(&cpu->timer_lock);
    if (due)
        cpu_kick(&cpu->cpu);
}

uint64_t riscv_stimecmp(struct cpu_riscv *cpu)
{
    return cpu->stimecmp;
}

/* Arms the timer for the value in force. Far deadlines that nanoseconds cannot express mean never. */
static void update(struct cpu_riscv *cpu)
{
    uint64_t deadline;
    bool due = is_due(cpu);

    set_line(cpu, due);
    if (due || !(cpu->menvcfg & ENVCFG_STCE) || __builtin_mul_overflow(cpu->stimecmp, NS_PER_TICK, &deadline) ||
        deadline > INT64_MAX)
        clock_timer_cancel(cpu->timer);
    else
        clock_timer_arm(cpu->timer, deadline);
}

void riscv_set_stimecmp(struct cpu_riscv *cpu, uint64_t value)
{
    pthread_mutex_lock(&cpu->timer_lock);
    cpu->stimecmp = value;
    update(cpu);
    pthread_mutex_unlock(&cpu->timer_lock);
    riscv_interrupts_changed(cpu);
}

/* STCE says whether the comparator counts, so it changes under the comparator's lock. */
void riscv_set_menvcfg(struct cpu_riscv *cpu, uint64_t value)
{
    pthread_mutex_lock(&cpu->timer_lock);
    cpu->menvcfg = value;
    update(cpu);
    pthread_mutex_unlock(&cpu->timer_lock);
}

void riscv_timer_init(struct cpu_riscv *cpu)
{
    pthread_mutex_init(&cpu->timer_lock, NULL);
    cpu->stimecmp = UINT64_MAX;
    cpu->timer = clock_timer_new(cpu->cpu.clock, fired, cpu);
}

void riscv_timer_destroy(struct cpu_riscv *cpu)
{
    clock_timer_free(cpu->timer);
    pthread_mutex_destroy(&cpu->timer_lock);
}
