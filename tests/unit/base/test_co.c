/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: coroutines do not start, switch, wake or end as co.h promises. */
#include "tests/unit/base/loops.h"

#include "base/vec.h"

static void note(void *arg)
{
    strcat(arg, "n");
}

static int order_of_ready(void *arg)
{
    char *trail = arg;
    co_spawn(loop_current(), NULL, note, trail);
    co_spawn(loop_current(), NULL, note, trail);
    strcat(trail, "m"); /* spawned ones run later */
    co_yield ();
    while (strlen(trail) < 3)
        co_yield ();
    strcat(trail, "e");
    return 0;
}

static void spawn_runs_after_what_is_ready(void **state)
{
    char trail[16] = "";
    run_on_loop(state, order_of_ready, trail);
    assert_string_equal(trail, "mnne");
}

struct ping {
    struct co *waiter;
    int wakes;
};

static void waker(void *arg)
{
    struct ping *ping = arg;
    for (int i = 0; i < 3; i++)
        co_wake(ping->waiter); /* remembered once */
    ping->wakes++;
}

static int wakes_do_not_add_up_main(void *arg)
{
    struct ping ping = {.waiter = co_self()};
    co_spawn(loop_current(), NULL, waker, &ping);
    co_suspend();
    assert_int_equal(ping.wakes, 1);
    /* A wake while we run counts for the next suspend, any number of them for one. */
    co_wake(co_self());
    co_wake(co_self());
    co_suspend();
    co_spawn(loop_current(), NULL, waker, &ping);
    co_suspend();
    assert_int_equal(ping.wakes, 2);
    return 0;
}

static void wakes_do_not_add_up(void **state)
{
    run_on_loop(state, wakes_do_not_add_up_main, NULL);
}

/* A wake that comes between co_yield() and its return belongs to the next co_suspend(). */
static int wake_during_yield_main(void *arg)
{
    struct ping ping = {.waiter = co_self()};
    co_spawn(loop_current(), NULL, waker, &ping);
    while (!ping.wakes)
        co_yield ();
    co_suspend();
    return 0;
}

static void wake_during_yield_is_kept(void **state)
{
    run_on_loop(state, wake_during_yield_main, NULL);
}

/* Fills callee-saved registers with values of its own, switches, and looks again. */
struct registers {
    int rounds;
    double sum;
};

static __attribute__((noinline)) void work_in_registers(struct registers *r, uint64_t seed)
{
    uint64_t a = seed, b = seed * 3, c = seed * 5, d = seed * 7, e = seed * 11, f = seed * 13;
    double x = (double)seed, y = x / 3;
    for (int i = 0; i < 50; i++) {
        co_yield ();
        a += b, b ^= c, c += d, d ^= e, e += f, f ^= a;
        x += y;
    }
    uint64_t a2 = seed, b2 = seed * 3, c2 = seed * 5, d2 = seed * 7, e2 = seed * 11, f2 = seed * 13;
    double x2 = (double)seed;
    for (int i = 0; i < 50; i++) {
        a2 += b2, b2 ^= c2, c2 += d2, d2 ^= e2, e2 += f2, f2 ^= a2;
        x2 += y;
    }
    assert_true(a == a2 && b == b2 && c == c2 && d == d2 && e == e2 && f == f2 && x == x2);
    r->rounds++;
}

static void register_worker(void *arg)
{
    struct registers *r = arg;
    work_in_registers(r, 0x123456789abcdefull * (uint64_t)(r->rounds + 1));
}

static int registers_main(void *arg)
{
    struct co_group group;
    struct registers all[8] = {0};
    co_group_init(&group);
    for (int i = 0; i < 8; i++)
        co_spawn(loop_current(), &group, register_worker, &all[i]);
    co_group_wait(&group);
    for (int i = 0; i < 8; i++)
        assert_int_equal(all[i].rounds, 1);
    return 0;
}

static void registers_survive_switches(void **state)
{
    run_on_loop(state, registers_main, NULL);
}

/* The rounding fields of the floating-point control registers: 0 nearest, 1 down, 2 up. */
static void set_rounding(unsigned mode)
{
#if defined(__x86_64__)
    uint32_t mxcsr;
    uint16_t x87;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    mxcsr = (mxcsr & ~0x6000u) | mode << 13;
    x87 = (uint16_t)((x87 & ~0x0c00u) | mode << 10);
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    __asm__ volatile("fldcw %0" : : "m"(x87));
#elif defined(__aarch64__)
    static const uint64_t codes[] = {0, 2, 1};
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    fpcr = (fpcr & ~(3ull << 22)) | codes[mode] << 22;
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
#endif
}

/* One third, rounded as both units are set: long double arithmetic is the x87's. */
struct thirds {
    double d;
    long double ld;
};

static struct thirds thirds(void)
{
    volatile double one = 1, three = 3;
    volatile long double one_ld = 1, three_ld = 3;
    return (struct thirds){one / three, one_ld / three_ld};
}

static bool same(struct thirds a, struct thirds b)
{
    return a.d == b.d && a.ld == b.ld;
}

struct roundings {
    struct thirds nearest, down, up;
};

static void round_up_worker(void *arg)
{
    struct roundings *r = arg;
    assert_true(same(thirds(), r->nearest)); /* a new coroutine starts with the default */
    set_rounding(2);
    for (int i = 0; i < 10; i++) {
        co_yield ();
        assert_true(same(thirds(), r->up));
    }
}

static int rounding_main(void *arg)
{
    struct roundings r;
    r.nearest = thirds();
    set_rounding(2);
    r.up = thirds();
    set_rounding(1);
    r.down = thirds();
    assert_false(same(r.up, r.down));
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, round_up_worker, &r);
    for (int i = 0; i < 10; i++) {
        co_yield ();
        assert_true(same(thirds(), r.down));
    }
    co_group_wait(&group);
    set_rounding(0);
    return 0;
}

static void rounding_mode_belongs_to_the_coroutine(void **state)
{
    run_on_loop(state, rounding_main, NULL);
}

/* Deep frames: 128 KiB of stack are there, and what is on it survives switches. */
static __attribute__((noinline)) int dig(int depth)
{
    volatile char pad[1024];
    for (unsigned i = 0; i < sizeof pad; i++)
        pad[i] = (char)(depth + (int)i);
    if (depth)
        dig(depth - 1);
    else
        co_yield ();
    for (unsigned i = 0; i < sizeof pad; i++)
        assert_int_equal(pad[i], (char)(depth + (int)i));
    return depth;
}

static void digger(void *arg)
{
    dig(100);
}

static int deep_main(void *arg)
{
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 4; i++)
        co_spawn(loop_current(), &group, digger, NULL);
    co_group_wait(&group);
    return 0;
}

static void stacks_are_deep_and_separate(void **state)
{
    run_on_loop(state, deep_main, NULL);
}

static void count_down(void *arg)
{
    size_t *count = arg;
    co_yield ();
    --*count;
}

/* Ten thousand at once, twice, so that pooled and unmapped stacks both come again. TSan allows fewer fibers. */
static int many_main(void *arg)
{
#ifdef __SANITIZE_THREAD__
    const size_t many = 1000;
#else
    const size_t many = 10000;
#endif
    for (int round = 0; round < 2; round++) {
        struct co_group group;
        co_group_init(&group);
        size_t left = many;
        for (size_t i = 0; i < many; i++)
            co_spawn(loop_current(), &group, count_down, &left);
        assert_int_equal(group.running, many);
        co_group_wait(&group);
        assert_int_equal(left, 0);
    }
    return 0;
}

static void ten_thousand_coroutines(void **state)
{
    run_on_loop(state, many_main, NULL);
}

static void grandchild(void *arg)
{
    int *depth = arg;
    if (++*depth < 5)
        co_spawn(loop_current(), NULL, grandchild, arg);
}

static void spawned_before_the_loop_runs(void **state)
{
    struct loop *loop = new_loop(state);
    int depth = 0;
    co_spawn(loop, NULL, grandchild, &depth);
    assert_null(co_self());
    assert_null(loop_current());
    loop_run_until_idle(loop);
    assert_int_equal(depth, 5);
    assert_null(loop_current());
    loop_free(loop);
}

struct inner_run {
    void **state;
    bool ran;
};

static int inner_main(void *arg)
{
    assert_int_equal(co_sleep_ns(1000), 0);
    *(bool *)arg = true;
    return 7;
}

/* Two of everything: a loop may run inside a coroutine of another (a tool's main inside a test's). */
static int outer_main(void *arg)
{
    struct inner_run *run = arg;
    struct loop *outer = loop_current(), *inner = new_loop(run->state);
    struct co *self = co_self();
    assert_int_equal(loop_run_main(inner, inner_main, &run->ran), 7);
    loop_free(inner);
    assert_ptr_equal(loop_current(), outer);
    assert_ptr_equal(co_self(), self);
    co_yield ();
    return 0;
}

static void loops_nest(void **state)
{
    struct inner_run run = {state, false};
    run_on_loop(state, outer_main, &run);
    assert_true(run.ran);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(spawn_runs_after_what_is_ready),
        ON_EVERY_LOOP(wakes_do_not_add_up),
        ON_EVERY_LOOP(wake_during_yield_is_kept),
        ON_EVERY_LOOP(registers_survive_switches),
        ON_EVERY_LOOP(rounding_mode_belongs_to_the_coroutine),
        ON_EVERY_LOOP(stacks_are_deep_and_separate),
        ON_EVERY_LOOP(ten_thousand_coroutines),
        ON_EVERY_LOOP(spawned_before_the_loop_runs),
        ON_EVERY_LOOP(loops_nest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
