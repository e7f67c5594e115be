/* SPDX-License-Identifier: Apache-2.0 */
/* System calls about signals; how signals travel is in signal.c. */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include "emulator/user/calls.h"

enum { SIGNAL_SET = 8, SMALLEST_STACK = 2048, REGISTER_SP = 2, REGISTER_A0 = 10 };

int64_t call_rt_sigaction(struct user_thread *t, const uint64_t a[6])
{
    return a[3] == SIGNAL_SET ? user_signals_action(t, (int)a[0], a[1], a[2]) : -EINVAL;
}

int64_t call_rt_sigprocmask(struct user_thread *t, const uint64_t a[6])
{
    struct space *space = &t->process->space;
    uint64_t set, old = t->mask;
    if (a[3] != SIGNAL_SET)
        return -EINVAL;
    if (a[1]) {
        if (!space_read(space, &set, a[1], sizeof set))
            return -EFAULT;
        switch ((int)a[0]) {
        case SIG_BLOCK: user_signals_set_mask(t, old | set); break;
        case SIG_UNBLOCK: user_signals_set_mask(t, old & ~set); break;
        case SIG_SETMASK: user_signals_set_mask(t, set); break;
        default: return -EINVAL;
        }
    }
    return !a[2] || space_write(space, a[2], &old, sizeof old) ? 0 : -EFAULT;
}

int64_t call_rt_sigpending(struct user_thread *t, const uint64_t a[6])
{
    uint64_t set;
    if (a[1] > SIGNAL_SET)
        return -EINVAL;
    int64_t result = user_host(t, SYS_rt_sigpending, (uint64_t)(uintptr_t)&set, SIGNAL_SET, 0, 0, 0, 0);
    if (result < 0)
        return result;
    set = (set | t->pending) & t->mask;
    return space_write(&t->process->space, a[0], &set, a[1]) ? 0 : -EFAULT;
}

/* --- waiting with another mask ----------------------------------------------------------------------------------- */

int64_t user_wait_mask(struct user_thread *t, uint64_t address, uint64_t size, uint64_t *host_mask)
{
    uint64_t mask;
    if (size != SIGNAL_SET)
        return -EINVAL;
    if (!space_read(&t->process->space, &mask, address, sizeof mask))
        return -EFAULT;
    /* Until the call begins everything stays blocked in the host: it waits with its own mask from its first moment. */
    user_signals_block_all();
    t->saved_mask = t->mask;
    t->restore_mask = true;
    t->mask = mask & ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1));
    t->stop_calls = (t->pending & ~t->mask) != 0;
    *host_mask = user_signals_host_mask(t->mask);
    return 0;
}

int64_t user_waited(struct user_thread *t, int64_t result)
{
    bool interrupted = result == -USER_EINTERRUPTED || result == -EINTR;
    if (interrupted && (t->pending & ~t->mask)) {
        t->restart = RESTART_NOHAND;
        return -EINTR;
    }
    t->restore_mask = false;
    user_signals_set_mask(t, t->saved_mask);
    return result == -USER_EINTERRUPTED ? -EINTR : result;
}

int64_t call_rt_sigsuspend(struct user_thread *t, const uint64_t a[6])
{
    uint64_t mask;
    int64_t result = user_wait_mask(t, a[0], a[1], &mask);
    if (result < 0)
        return result;
    return user_waited(t, user_host(t, SYS_rt_sigsuspend, (uint64_t)(uintptr_t)&mask, SIGNAL_SET, 0, 0, 0, 0));
}

/* A signal that is kept back here already counts as pending, too. */
static int64_t take_pending(struct user_thread *t, uint64_t set, uint64_t info)
{
    uint64_t waiting = t->pending & set;
    int number = __builtin_ctzll(waiting) + 1;
    t->pending &= ~(1ull << (number - 1));
    if (info && !space_write(&t->process->space, info, (void *)&t->info[number], 128))
        return -EFAULT;
    return number;
}

int64_t call_rt_sigtimedwait(struct user_thread *t, const uint64_t a[6])
{
    uint64_t set;
    if (a[3] != SIGNAL_SET)
        return -EINVAL;
    if (!space_read(&t->process->space, &set, a[0], sizeof set))
        return -EFAULT;
    if (t->pending & set)
        return take_pending(t, set, a[1]);
    return user_host(t, SYS_rt_sigtimedwait, (uint64_t)(uintptr_t)&set, user_pointer(t, a[1]), user_pointer(t, a[2]),
                     SIGNAL_SET, 0, 0);
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

int64_t call_rt_sigreturn(struct user_thread *t, const uint64_t a[6])
{
    if (!user_frame_pop(t))
        user_signals_raise(t, SIGSEGV, SI_KERNEL, 0);
    return (int64_t)t->cpu->x[REGISTER_A0];
}

int64_t call_sigaltstack(struct user_thread *t, const uint64_t a[6])
{
    struct space *space = &t->process->space;
    struct {
        uint64_t sp;
        int32_t flags, unused;
        uint64_t size;
    } wanted, old = {.sp = t->alternate_sp, .size = t->alternate_size};
    uint64_t sp = t->cpu->x[REGISTER_SP];
    bool on_it = sp > t->alternate_sp && sp - t->alternate_sp <= t->alternate_size;
    old.flags = t->alternate_flags | (!t->alternate_size ? SS_DISABLE : on_it ? SS_ONSTACK : 0);
    if (a[0]) {
        if (!space_read(space, &wanted, a[0], sizeof wanted))
            return -EFAULT;
        int mode = wanted.flags & ~(int)SS_AUTODISARM;
        if (on_it)
            return -EPERM;
        if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0)
            return -EINVAL;
        if (mode != SS_DISABLE && wanted.size < SMALLEST_STACK)
            return -ENOMEM;
        t->alternate_sp = mode == SS_DISABLE ? 0 : wanted.sp;
        t->alternate_size = mode == SS_DISABLE ? 0 : wanted.size;
        t->alternate_flags = wanted.flags & (int)SS_AUTODISARM;
    }
    return !a[1] || space_write(space, a[1], &old, sizeof old) ? 0 : -EFAULT;
}
