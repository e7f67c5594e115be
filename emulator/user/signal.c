/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's signals and the guest's are the same: numbers, who gets them, what is pending, what the default does. Of
 * those that the guest handles, the host's handler only keeps the siginfo, and asks the thread to come out of
 * translated code or not to begin its system call; until the guest's handler has its frame, every other signal stays
 * blocked, so that the kernel keeps their order.
 *
 * SIGSEGV and SIGBUS are ours, too, and are never blocked in the host: an access of the guest that the host refuses
 * comes in as one. What another process sends with these numbers waits in `pending` while the guest blocks it.
 *
 * The C library is passed by: the guest may use every number, also those that the host's library keeps for itself.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include "base/alloc.h"
#include "emulator/translate/try_access.h"
#include "emulator/user/user.h"

_Thread_local struct user_thread *user_current __attribute__((tls_model("initial-exec")));

enum { SIGNAL_SET = 8 /* bytes, in the kernel */, RESTORER = 0x04000000 };
#define BIT(number) (1ull << ((number)-1))
#define OURS (BIT(SIGSEGV) | BIT(SIGBUS))
#define UNBLOCKABLE (BIT(SIGKILL) | BIT(SIGSTOP))

struct kernel_action {
    uint64_t handler;
    uint64_t flags;
    void (*restorer)(void);
    uint64_t mask;
};
void user_signal_restorer(void);
extern const char user_host_call_begin[], user_host_call_end[], user_host_call_interrupted[];

uint64_t user_signals_host_mask(uint64_t guest_mask)
{
    return guest_mask & ~OURS;
}

static void set_host_mask(uint64_t mask)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, SIGNAL_SET);
}

void user_signals_block_all(void)
{
    set_host_mask(user_signals_host_mask(~0ull));
}

static bool is_deliverable(const struct user_thread *t)
{
    return t->pending & ~t->mask;
}

void user_signals_use_mask(struct user_thread *t)
{
    set_host_mask(user_signals_host_mask(is_deliverable(t) ? ~0ull : t->mask));
}

void user_signals_set_mask(struct user_thread *t, uint64_t mask)
{
    t->mask = mask & ~UNBLOCKABLE;
    t->stop_calls = is_deliverable(t);
    user_signals_use_mask(t);
}

/* --- the host's handlers ----------------------------------------------------------------------------------------- */

static void keep(struct user_thread *t, int number, const siginfo_t *info, ucontext_t *context)
{
    greg_t *pc = &context->uc_mcontext.gregs[REG_RIP];
    uint64_t all = user_signals_host_mask(~0ull);
    memcpy((void *)&t->info[number], info, 128);
    t->pending |= BIT(number);
    memcpy(&context->uc_sigmask, &all, SIGNAL_SET);
    t->stop_calls = 1;
    atomic_fetch_or(&t->cpu->cpu.attention, 1);
    if (*pc >= (greg_t)(uintptr_t)user_host_call_begin && *pc < (greg_t)(uintptr_t)user_host_call_end)
        *pc = (greg_t)(uintptr_t)user_host_call_interrupted;
}

/* The guest accessed what it may not, or may for all it knows. */
static bool refused(struct user_thread *t, int number, const siginfo_t *info, ucontext_t *context)
{
    struct space *space = &t->process->space;
    uint64_t address = (uint64_t)(uintptr_t)info->si_addr - (uint64_t)(uintptr_t)space->base;
    bool is_guest = address + TRANSLATE_DIRECT_GUARD < space->size + 2 * TRANSLATE_DIRECT_GUARD;
    if (!is_guest)
        return false;
    if (number == SIGSEGV && address < space->size && space_open_code(space, address)) {
        translate_recover(&t->cpu->tc, context, TRANSLATE_RECOVER_AGAIN); /* else it was one of try_access.h: goes on */
        return true;
    }
    if (!translate_try_recover(context) && !translate_recover(&t->cpu->tc, context, TRANSLATE_RECOVER_FAULT))
        return false;
    t->cpu->tc.fault_signal = (uint32_t)number;
    t->cpu->tc.fault_code = (uint32_t)info->si_code;
    t->cpu->tc.fault_address = address;
    return true;
}

static void on_signal(int number, siginfo_t *info, void *opaque)
{
    struct user_thread *t = user_current;
    int saved = errno;
    bool is_fault = (number == SIGSEGV || number == SIGBUS) && info->si_code > 0;
    if (!is_fault) {
        keep(t, number, info, opaque);
    } else if (!refused(t, number, info, opaque)) {
        struct kernel_action fallback = {0}; /* a defect of the emulator: end as any program would, with its core */
        syscall(SYS_rt_sigaction, number, &fallback, NULL, SIGNAL_SET);
    }
    errno = saved;
}

static int set_host_action(int number, const struct user_action *action)
{
    struct kernel_action host = {.flags = SA_SIGINFO | SA_ONSTACK | RESTORER |
                                          (action->flags & (SA_NOCLDSTOP | SA_NOCLDWAIT)),
                                 .restorer = user_signal_restorer,
                                 .handler = (uint64_t)(uintptr_t)on_signal};
    host.mask = user_signals_host_mask(~0ull);
    if (!(OURS & BIT(number))) {
        if (action->handler == (uint64_t)(uintptr_t)SIG_IGN || action->handler == (uint64_t)(uintptr_t)SIG_DFL)
            host.handler = action->handler;
    }
    return (int)syscall(SYS_rt_sigaction, number, &host, NULL, SIGNAL_SET);
}

void user_signals_take_back(struct user_thread *t)
{
    enum { SETXID = 33 };
    pthread_mutex_lock(&t->actions->lock);
    set_host_action(SETXID, &t->actions->of[SETXID]);
    pthread_mutex_unlock(&t->actions->lock);
}

void user_signals_init(struct user_process *process)
{
    process->actions = new (struct user_actions);
    pthread_mutex_init(&process->actions->lock, NULL);
    for (int number = 1; number <= USER_SIGNALS; number++) {
        struct kernel_action now = {0};
        syscall(SYS_rt_sigaction, number, NULL, &now, SIGNAL_SET);
        if (now.handler == (uint64_t)(uintptr_t)SIG_IGN)
            process->actions->of[number].handler = (uint64_t)(uintptr_t)SIG_IGN; /* is inherited */
        if (OURS & BIT(number))
            set_host_action(number, &process->actions->of[number]);
    }
}

/* --- rt_sigaction ------------------------------------------------------------------------------------------------ */

int64_t user_signals_action(struct user_thread *t, int number, uint64_t new_action, uint64_t old_action)
{
    struct space *space = &t->process->space;
    struct user_actions *actions = t->actions;
    struct user_action wanted = {0};
    if (number < 1 || number > USER_SIGNALS || (new_action && (UNBLOCKABLE & BIT(number))))
        return -EINVAL;
    if (new_action && !space_read(space, &wanted, new_action, sizeof wanted))
        return -EFAULT;
    pthread_mutex_lock(&actions->lock);
    struct user_action old = actions->of[number];
    int result = 0;
    if (new_action) {
        wanted.mask &= ~UNBLOCKABLE;
        actions->of[number] = wanted;
        result = set_host_action(number, &wanted);
    }
    pthread_mutex_unlock(&actions->lock);
    if (result)
        return -EINVAL;
    return !old_action || space_write(space, old_action, &old, sizeof old) ? 0 : -EFAULT;
}

/* --- delivery ---------------------------------------------------------------------------------------------------- */

/* By the signal itself, so that whoever waits for this process learns it. */
static _Noreturn void die_of(struct user_thread *t, int number)
{
    struct kernel_action fallback = {0};
    uint64_t none = ~BIT(number);
    syscall(SYS_rt_sigaction, number, &fallback, NULL, SIGNAL_SET);
    syscall(SYS_tgkill, getpid(), gettid(), number);
    set_host_mask(none);
    for (;;) /* those whose default is to stop or to do nothing never come here */
        syscall(SYS_exit_group, 128 + number);
}

static bool default_is_nothing(int number)
{
    return number == SIGCHLD || number == SIGURG || number == SIGWINCH || number == SIGCONT;
}

static void settle_restart(struct user_thread *t, bool handled, uint64_t flags)
{
    enum { REGISTER_A0 = 10, ECALL = 4 };
    bool again = t->restart == RESTART_ALWAYS || !handled || (t->restart == RESTART_SA && (flags & SA_RESTART));
    if (t->restart == RESTART_NOT)
        return;
    if (again) {
        t->cpu->x[REGISTER_A0] = t->restart_a0;
        t->cpu->tc.pc -= ECALL;
    } else {
        t->cpu->x[REGISTER_A0] = (uint64_t)-EINTR;
    }
    t->restart = RESTART_NOT;
}

static void deliver(struct user_thread *t, int number)
{
    struct user_actions *actions = t->actions;
    pthread_mutex_lock(&actions->lock);
    struct user_action action = actions->of[number];
    bool is_default = action.handler == (uint64_t)(uintptr_t)SIG_DFL;
    bool is_ignored = action.handler == (uint64_t)(uintptr_t)SIG_IGN;
    if ((action.flags & SA_RESETHAND) && !is_default && !is_ignored) {
        actions->of[number] = (struct user_action){0};
        set_host_action(number, &actions->of[number]);
    }
    pthread_mutex_unlock(&actions->lock);
    if (is_ignored || (is_default && default_is_nothing(number)))
        return;
    if (is_default)
        die_of(t, number);
    settle_restart(t, true, action.flags);
    uint64_t old = t->restore_mask ? t->saved_mask : t->mask;
    t->restore_mask = false;
    if (!user_frame_push(t, number, &t->info[number], &action, old))
        die_of(t, SIGSEGV);
    t->mask = (t->mask | action.mask | (action.flags & SA_NODEFER ? 0 : BIT(number))) & ~UNBLOCKABLE;
}

/* Faults of instructions come before what others sent. */
static int next_of(uint64_t waiting)
{
    uint64_t own = waiting & (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGFPE));
    return __builtin_ctzll(own ? own : waiting) + 1;
}

void user_signals_deliver(struct user_thread *t)
{
    atomic_fetch_and(&t->cpu->cpu.attention, ~1u);
    if (!is_deliverable(t) && t->restart == RESTART_NOT && !t->restore_mask)
        return;
    user_signals_block_all();
    while (is_deliverable(t)) {
        int number = next_of(t->pending & ~t->mask);
        t->pending &= ~BIT(number);
        deliver(t, number);
    }
    settle_restart(t, false, 0);
    if (t->restore_mask) {
        t->restore_mask = false;
        t->mask = t->saved_mask;
    }
    t->stop_calls = is_deliverable(t);
    user_signals_use_mask(t);
}

void user_signals_raise(struct user_thread *t, int number, int code, uint64_t address)
{
    struct user_actions *actions = t->actions;
    user_signals_block_all();
    if (t->mask & BIT(number)) { /* an instruction cannot wait: as the kernel does, it is the end */
        t->mask &= ~BIT(number);
        pthread_mutex_lock(&actions->lock);
        actions->of[number] = (struct user_action){0};
        pthread_mutex_unlock(&actions->lock);
    }
    siginfo_t info = {.si_signo = number, .si_code = code};
    info.si_addr = (void *)(uintptr_t)address;
    t->info[number] = info;
    t->pending |= BIT(number);
}
