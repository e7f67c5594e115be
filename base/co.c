/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coroutines: their stacks, their life and the two primitives suspend and wake.
 *
 *      lowest address                                                     highest
 *      | guard page | ......... stack, grows down <---- | struct co | colour |
 *
 * A coroutine costs no malloc: its struct lies on its own stack, and stacks of ended ones are kept on a free list of
 * the loop. "Colour" moves the tops of stacks apart by cache lines; otherwise the hot frames of all coroutines would
 * share the same few sets of the first-level cache, since mappings begin at multiples of the page size.
 *
 * Every switch goes through the loop's own stack: a coroutine switches to the loop, the loop to the next one. That is
 * two switches of a few nanoseconds where one would do, and buys that a coroutine that has ended is off its stack when
 * the stack is recycled, and that the order of ready work is decided in one place.
 */
#include "base/co.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/loop_private.h"

#if CO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif

/* Virtual sizes: pages are there only once they are touched. The sanitizers' frames are several times larger. */
#define STACK_SIZE ((size_t)((CO_ASAN || CO_TSAN) ? 1024 * KiB : 256 * KiB))
#define STACKS_KEPT 1024
#define COLOURS 31
#define COLOUR_STEP 128

_Thread_local struct loop *loop_of_thread;

static void out_of_stacks(void)
{
    fprintf(stderr, "out of memory for coroutine stacks: %s\n", strerror(errno));
    abort();
}

static struct co *map_stack(struct loop *loop)
{
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    char *base =
        mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED || mprotect(base, guard, PROT_NONE))
        out_of_stacks();
#if CO_ASAN
    __lsan_register_root_region(base + guard, STACK_SIZE - guard);
#endif
    size_t colour = loop->co_pool.colour++ % COLOURS * COLOUR_STEP;
    struct co *co = (struct co *)(base + STACK_SIZE - colour - round_up(sizeof *co, 64));
    memset(co, 0, sizeof *co);
    co->stack_base = base;
    co->stack_size = STACK_SIZE;
    co->loop = loop;
    return co;
}

static void unmap_stack(struct co *co)
{
    void *base = co->stack_base;
    size_t size = co->stack_size;
#if CO_ASAN
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    __lsan_unregister_root_region((char *)base + guard, size - guard);
#endif
    munmap(base, size);
}

static struct co *take_stack(struct loop *loop)
{
    struct co_pool *pool = &loop->co_pool;
    struct co *co = list_first(&pool->free, struct co, link);
    if (!co)
        return map_stack(loop);
    list_remove(&co->link);
    pool->free_count--;
    return co;
}

static void give_back_stack(struct co *co)
{
    struct co_pool *pool = &co->loop->co_pool;
    co_context_free(&co->context);
#if CO_ASAN
    /* Frames that never returned have left their red zones behind. */
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    ASAN_UNPOISON_MEMORY_REGION((char *)co->stack_base + guard, co->stack_size - guard);
#endif
    if (pool->free_count >= STACKS_KEPT) {
        unmap_stack(co);
        return;
    }
    pool->free_count++;
    list_prepend(&pool->free, &co->link);
}

void co_pool_free(struct loop *loop)
{
    struct co *co;
    while ((co = list_first(&loop->co_pool.free, struct co, link))) {
        list_remove(&co->link);
        unmap_stack(co);
    }
}

/* The coroutine is over; its owner may be told. Nothing here yields. */
static void leave_group(struct co *co)
{
    struct co_group *group = co->group;
    if (!group)
        return;
    list_remove(&co->group_link);
    if (!--group->running)
        co_queue_wake_all(&group->queue);
}

static void co_main(void *arg)
{
    struct co *co = arg;
    struct loop *loop = co->loop;
    co_context_entered(&co->context, &loop->context);
    co->fn(co->arg);
    leave_group(co);
    co->state = CO_ENDED;
    co_context_switch(&co->context, &loop->context, true);
    abort();
}

struct co *co_spawn(struct loop *loop, struct co_group *group, void (*fn)(void *arg), void *arg)
{
    struct co *co = take_stack(loop);
    co->fn = fn;
    co->arg = arg;
    co->state = CO_NEW;
    co->woken = co->resume_wakes = co->shielded = false;
    co->cancelled = group && group->cancelled;
    co->group = group;
    if (group) {
        group->running++;
        list_append(&group->members, &co->group_link);
    }
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    char *low = (char *)co->stack_base + guard;
    co_context_init(&co->context, loop->use_ucontext, low, co->stack_size - guard, co, co_main, co);
    list_append(&loop->coroutines, &co->all_link);
    list_append(&loop->ready, &co->link);
    return co;
}

void co_resume(struct co *co)
{
    struct loop *loop = co->loop;
    list_remove(&co->link);
    co->state = CO_RUNNING;
    co->resume_wakes = false;
    loop->running = co;
    loop->stats.switches++;
    co_context_switch(&loop->context, &co->context, false);
    loop->running = NULL;
    if (co->state == CO_ENDED) {
        list_remove(&co->all_link);
        give_back_stack(co);
    }
}

struct co *co_self(void)
{
    struct loop *loop = loop_of_thread;
    return loop ? loop->running : NULL;
}

static void leave(struct co *co)
{
    co_context_switch(&co->context, &co->loop->context, false);
}

void co_suspend(void)
{
    struct co *co = co_self();
    assert(co);
    if (co->woken) {
        co->woken = false;
        return;
    }
    co->state = CO_SUSPENDED;
    leave(co);
}

void co_yield (void)
{
    struct co *co = co_self();
    assert(co);
    co->state = CO_READY;
    list_append(&co->loop->ready, &co->link);
    leave(co);
}

void co_wake(struct co *co)
{
    if (co->state == CO_SUSPENDED) {
        co->state = CO_READY;
        co->resume_wakes = true;
        list_append(&co->loop->ready, &co->link);
    } else if (!co->resume_wakes) {
        co->woken = true;
    }
}

void co_cancel(struct co *co)
{
    co->cancelled = true;
    co_wake(co);
}

bool co_cancelled(void)
{
    struct co *co = co_self();
    return co && co_interrupted(co);
}

void co_set_cancellable(bool cancellable)
{
    co_self()->shielded = !cancellable;
}

static void wake_sleeper(void *arg)
{
    co_wake(arg);
}

int co_sleep_ns(uint64_t duration_ns)
{
    struct co *co = co_self();
    struct loop_timer timer = {.fn = wake_sleeper, .arg = co};
    loop_timer_arm(co->loop, &timer, loop_now_ns(co->loop) + duration_ns);
    while (timer.heap_index && !co_interrupted(co))
        co_suspend();
    bool abandoned = timer.heap_index != 0;
    loop_timer_cancel(&timer);
    return abandoned ? -ECANCELED : 0;
}

void co_sleep_uncancellable(struct loop *loop, uint64_t duration_ns)
{
    struct loop_timer timer = {.fn = wake_sleeper, .arg = co_self()};
    loop_timer_arm(loop, &timer, loop_now_ns(loop) + duration_ns);
    while (timer.heap_index)
        co_suspend();
}
