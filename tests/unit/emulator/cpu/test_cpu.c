/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, a vCPU sleeps through an interrupt or a request to stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include "emulator/cpu/cpu.h"
#include <cmocka.h>
#undef fail /* cmocka's, which would hide ours */

/* An architecture whose only instruction is "wait for interrupt", then acknowledge it. */
struct waiter {
    struct cpu cpu;
    _Atomic uint32_t lines;
    _Atomic uint64_t taken;
    _Atomic bool spin; /* never waits, only looks at `attention` */
    uint64_t reset_pc;
};
static bool waiter_init(struct cpu *cpu, struct error *err)
{
    return cpu->index < 9 || fail(err, EINVAL, "no such CPU");
}
static void waiter_destroy(struct cpu *cpu)
{
}
static void waiter_reset(struct cpu *cpu, uint64_t pc)
{
    ((struct waiter *)cpu)->reset_pc = pc;
}
static void waiter_set_irq(struct cpu *cpu, unsigned line, bool level)
{
    struct waiter *self = (struct waiter *)cpu;
    if (level)
        atomic_fetch_or(&self->lines, 1u << line);
    else
        atomic_fetch_and(&self->lines, ~(1u << line));
}
static bool waiter_ready(struct cpu *cpu)
{
    return ((struct waiter *)cpu)->lines;
}
static enum cpu_exit waiter_run(struct cpu *cpu)
{
    struct waiter *self = (struct waiter *)cpu;
    for (;;) {
        if (atomic_fetch_and(&cpu->attention, ~(uint32_t)CPU_ATTENTION_IRQ) & CPU_ATTENTION_STOP)
            return CPU_EXIT_KICK;
        if (atomic_exchange(&self->lines, 0))
            atomic_fetch_add(&self->taken, 1);
        else if (!self->spin)
            return CPU_EXIT_HALT;
    }
}
static const struct cpu_arch arch = {
    .name = "waiter",
    .size = sizeof(struct waiter),
    .init = waiter_init,
    .destroy = waiter_destroy,
    .reset = waiter_reset,
    .run = waiter_run,
    .set_irq = waiter_set_irq,
    .interrupt_ready = waiter_ready,
};

static struct waiter *make(void)
{
    struct error err = {0};
    struct cpu *cpu = cpu_new(&arch, 0, NULL, NULL, NULL, &err);
    assert_non_null(cpu);
    return (struct waiter *)cpu;
}

/* Every interrupt is taken, whatever the vCPU is doing when it comes: going to sleep, asleep, waking. */
static void test_no_lost_wakeup(void **state)
{
    struct waiter *w = make();
    assert_true(cpu_start(&w->cpu, NULL));
    for (uint64_t i = 1; i <= 30000; i++) {
        cpu_set_irq(&w->cpu, 3, true);
        unsigned tries = 0;
        while (w->taken < i) {
            if (++tries > 1000)
                usleep(10);
            assert_true(tries < 300000);
        }
        if (i % 1000 == 0)
            usleep(200);
    }
    cpu_free(&w->cpu);
}

static void test_stop_and_go(void **state)
{
    struct waiter *w = make();
    assert_true(cpu_is_stopped(&w->cpu)); /* no thread yet */
    cpu_reset(&w->cpu, 0x1000);
    assert_int_equal(w->reset_pc, 0x1000);
    for (int i = 0; i < 2000; i++) {
        w->spin = i & 1; /* stopping must interrupt work as well as sleep */
        assert_true(cpu_start(&w->cpu, NULL));
        if (i % 3 == 0)
            usleep(20);
        cpu_stop(&w->cpu);
        assert_true(cpu_is_stopped(&w->cpu));
        cpu_set_irq(&w->cpu, 1, true); /* stopped: nobody takes it */
        uint64_t taken = w->taken;
        assert_int_equal(w->taken, taken);
        assert_int_equal(w->lines, 2);
        w->lines = 0;
    }
    w->spin = true;
    cpu_start(&w->cpu, NULL);
    cpu_free(&w->cpu); /* while it runs */
}

static void test_errors(void **state)
{
    struct error err = {0};
    assert_null(cpu_new(&arch, 9, NULL, NULL, NULL, &err));
    assert_string_equal(err.message, "CPU 9: no such CPU");
    error_clear(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_lost_wakeup), cmocka_unit_test(test_stop_and_go),
                                       cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
