/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking for news before sleeping (loop_set_polling()): calls posted by other threads are seen in memory; what the
 * kernel has is seen in the memory that a ring shares with it, and asked for by a system call elsewhere.
 *
 * How long is learned from the waits themselves. One that ended while we looked, or would have with the time at hand,
 * changes nothing; one that was longer than we ever want to look was a rest, and shrinks the time; one in between would
 * have been caught by looking longer, and lets it grow.
 */
#include "base/loop_private.h"

enum { FIRST_NS = 4000, LOOKS = 16 };

void loop_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void loop_set_polling(struct loop *loop, const struct loop_polling *polling)
{
    loop->polling = *polling;
    loop->poll_ns = 0;
}

/* Without a system call. */
static bool is_posted(struct loop *loop)
{
    return atomic_load_explicit(&loop->posted, memory_order_relaxed) ||
           atomic_load_explicit(&loop->stopped, memory_order_relaxed);
}

/* What was submitted may have been done at once. */
static bool ask_kernel(struct loop *loop)
{
    loop->ops->poll(loop, 0);
    return !list_empty(&loop->ready) || is_posted(loop);
}

static bool look_once(struct loop *loop)
{
    for (int i = 0; i < LOOKS; i++) {
        if (is_posted(loop))
            return true;
        if (loop->ops->has_news && loop->ops->has_news(loop))
            return ask_kernel(loop);
        loop_relax();
    }
    return !loop->ops->has_news && ask_kernel(loop);
}

bool loop_look_for_news(struct loop *loop, int64_t timeout_ns)
{
    if (!loop->poll_ns)
        return false;
    uint64_t limit_ns = timeout_ns < 0 ? loop->poll_ns : MIN(loop->poll_ns, (uint64_t)timeout_ns);
    uint64_t until_ns = loop_now_ns(loop) + limit_ns;
    if (ask_kernel(loop))
        return true;
    do {
        if (look_once(loop))
            return true;
    } while (loop_now_ns(loop) < until_ns);
    return false;
}

void loop_learn_from_wait(struct loop *loop, uint64_t waited_ns)
{
    const struct loop_polling *polling = &loop->polling;
    if (waited_ns <= loop->poll_ns)
        return;
    if (waited_ns > polling->max_ns)
        loop->poll_ns = polling->shrink ? loop->poll_ns / polling->shrink : 0;
    else if (!loop->poll_ns)
        loop->poll_ns = FIRST_NS;
    else
        loop->poll_ns *= polling->grow ? polling->grow : 2;
    loop->poll_ns = MIN(loop->poll_ns, polling->max_ns);
}
