/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads and processes of the guest: a guest thread is a thread of the host, fork() is the host's fork() of the whole
 * emulator, and a child of vfork() really shares the memory: it runs on the parent's CPU, while the kernel keeps the
 * parent waiting, and the parent's registers are put back when it wakes.
 */
#include <linux/futex.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/user/user.h"

enum {
    REGISTER_SP = 2,
    REGISTER_TP = 4,
    REGISTER_A0 = 10,
    HANDLER_STACK = 64 << 10,
    THREAD_STACK = 1 << 20,
    SET_GS = 0x1001 /* arch_prctl */
};

/* One that has ended leaves its CPU and the stack of its handlers. */
static struct user_thread *take_idle(struct user_process *process)
{
    pthread_mutex_lock(&process->lock);
    struct user_thread *t = process->idle;
    if (t) {
        process->idle = t->next;
        process->idle_count--;
    }
    pthread_mutex_unlock(&process->lock);
    if (!t)
        return NULL;
    struct cpu_riscv *cpu = t->cpu;
    void *host_stack = t->host_stack;
    *t = (struct user_thread){.cpu = cpu, .host_stack = host_stack};
    cpu->tc.reserved_address = ~0ull;
    atomic_store(&cpu->cpu.attention, 0);
    return t;
}

static bool leave_idle(struct user_thread *t)
{
    enum { MOST = 16 };
    struct user_process *process = t->process;
    pthread_mutex_lock(&process->lock);
    bool room = process->idle_count < MOST;
    if (room) {
        t->next = process->idle;
        process->idle = t;
        process->idle_count++;
    }
    pthread_mutex_unlock(&process->lock);
    return room;
}

static void release(struct user_thread *t)
{
    if (t->host_stack)
        munmap(t->host_stack, HANDLER_STACK);
    riscv_user_free(t->cpu);
    free(t);
}

struct user_thread *user_thread_new(struct user_process *process, struct error *err)
{
    struct user_thread *t = take_idle(process);
    if (!t) {
        t = new (struct user_thread);
        t->cpu = riscv_user_new(process->code, process->space.pages, process->clock, err);
    }
    if (!t->cpu) {
        free(t);
        return NULL;
    }
    t->process = process;
    t->actions = process->actions;
    pthread_mutex_lock(&process->lock);
    t->next = process->threads;
    process->threads = t;
    process->thread_count++;
    pthread_mutex_unlock(&process->lock);
    return t;
}

/* Returns how many are left. */
static unsigned forget(struct user_thread *t)
{
    struct user_process *process = t->process;
    pthread_mutex_lock(&process->lock);
    struct user_thread **at = &process->threads;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    unsigned left = --process->thread_count;
    pthread_mutex_unlock(&process->lock);
    return left;
}

bool user_thread_begin(struct user_thread *t)
{
    if (!t->host_stack) {
        void *memory = mmap(NULL, HANDLER_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return false;
        t->host_stack = memory;
    }
    stack_t stack = {.ss_sp = t->host_stack, .ss_size = HANDLER_STACK};
    t->tid = gettid();
    user_current = t;
    return !sigaltstack(&stack, NULL) && !syscall(SYS_arch_prctl, SET_GS, t->process->space.base);
}

/* --- the end ----------------------------------------------------------------------------------------------------- */

_Noreturn void user_exit_group(struct user_thread *t, int status)
{
    for (;;)
        syscall(SYS_exit_group, status);
}

static void wake(struct user_process *process, uint64_t address)
{
    syscall(SYS_futex, space_host(&process->space, address), FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* A mutex whose owner died: its waiters learn it. As the kernel's exit_robust_list(). */
static void end_robust(struct user_thread *t, uint64_t address, bool only_pending)
{
    struct space *space = &t->process->space;
    uint32_t word;
    if (!space_read(space, &word, address, sizeof word) || (word & FUTEX_TID_MASK) != (uint32_t)t->tid)
        return;
    word = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
    if (space_write(space, address, &word, sizeof word) && (word & FUTEX_WAITERS))
        wake(t->process, address);
}

static void end_robust_list(struct user_thread *t)
{
    struct {
        uint64_t next, offset, pending;
    } head;
    struct space *space = &t->process->space;
    enum { LIMIT = 2048, PI = 1 };
    if (!t->robust_list || !space_read(space, &head, t->robust_list, sizeof head))
        return;
    uint64_t at = head.next & ~(uint64_t)PI, pending = head.pending & ~(uint64_t)PI;
    for (unsigned i = 0; i < LIMIT && at != t->robust_list; i++) {
        uint64_t next;
        bool more = space_read(space, &next, at, sizeof next);
        if (at != pending)
            end_robust(t, at + head.offset, false);
        if (!more)
            break;
        at = next & ~(uint64_t)PI;
    }
    if (pending)
        end_robust(t, pending + head.offset, true);
}

_Noreturn void user_thread_exit(struct user_thread *t, int status)
{
    struct user_process *process = t->process;
    user_signals_block_all();
    if (t->is_vfork_child)
        user_exit_group(t, status);
    end_robust_list(t);
    if (t->clear_tid) {
        uint32_t zero = 0;
        if (space_write(&process->space, t->clear_tid, &zero, sizeof zero))
            wake(process, t->clear_tid);
    }
    if (forget(t) == 0)
        user_exit_group(t, status);
    bool is_first = t->is_first;
    jmp_buf *end = t->end;
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    if (!leave_idle(t))
        release(t);
    while (is_first) /* the process goes on without its first thread */
        syscall(SYS_exit, status);
    longjmp(*end, 1);
}

/* --- clone: a thread --------------------------------------------------------------------------------------------- */

struct start {
    struct user_thread *thread;
    uint64_t flags, parent_tid, child_tid;
    bool ok;
    int tid; /* the thread itself may be gone by the time somebody asks */
    sem_t ready;
};

static void run_thread(void *opaque)
{
    struct start *start = opaque;
    struct user_thread *t = start->thread;
    struct space *space = &t->process->space;
    bool ok = start->ok = user_thread_begin(t);
    start->tid = t->tid;
    uint32_t tid = (uint32_t)t->tid;
    if (ok && (start->flags & CLONE_PARENT_SETTID))
        space_write(space, start->parent_tid, &tid, sizeof tid);
    if (ok && (start->flags & CLONE_CHILD_SETTID))
        space_write(space, start->child_tid, &tid, sizeof tid);
    sem_post(&start->ready); /* `start` is gone from here on */
    if (!ok)
        return;
    user_signals_use_mask(t);
    user_run(t);
}

/* A thread ends by a jump to here: pthread_exit() would load a library to unwind the stack, at a time when another
 * thread may fork. */
static void *host_thread(void *opaque)
{
    jmp_buf end;
    ((struct start *)opaque)->thread->end = &end;
    if (!setjmp(end))
        run_thread(opaque);
    return NULL;
}

static int create(struct start *start)
{
    pthread_attr_t attributes;
    pthread_t host;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    int result = pthread_create(&host, &attributes, host_thread, start);
    pthread_attr_destroy(&attributes);
    return result;
}

static void prepare_child(struct user_thread *child, uint64_t flags, uint64_t stack, uint64_t tls, uint64_t child_tid)
{
    if (stack)
        child->cpu->x[REGISTER_SP] = stack;
    if (flags & CLONE_SETTLS)
        child->cpu->x[REGISTER_TP] = tls;
    child->cpu->x[REGISTER_A0] = 0;
    child->clear_tid = flags & CLONE_CHILD_CLEARTID ? child_tid : 0;
    child->robust_list = 0;
}

static int64_t new_thread(struct user_thread *t, uint64_t flags, uint64_t stack, uint64_t parent_tid, uint64_t tls,
                          uint64_t child_tid)
{
    struct user_thread *child = user_thread_new(t->process, NULL);
    struct start start = {.thread = child, .flags = flags, .parent_tid = parent_tid, .child_tid = child_tid};
    if (!child)
        return -EAGAIN;
    riscv_user_copy(child->cpu, t->cpu);
    child->mask = t->mask;
    prepare_child(child, flags, stack, tls, child_tid);
    sem_init(&start.ready, 0, 0);
    user_signals_block_all();
    int result = create(&start);
    user_signals_take_back(t);
    while (!result && sem_wait(&start.ready))
        ;
    sem_destroy(&start.ready);
    int64_t tid = !result && start.ok ? start.tid : -EAGAIN;
    user_signals_use_mask(t);
    if (tid < 0) {
        forget(child);
        release(child);
    }
    return tid;
}

/* --- clone: a process -------------------------------------------------------------------------------------------- */

static void become_only_thread(struct user_thread *t)
{
    struct user_process *process = t->process;
    pthread_mutex_init(&process->lock, NULL);
    pthread_mutex_init(&t->actions->lock, NULL);
    space_forked(&process->space);
    machine_code_forked(process->code, &t->cpu->tc);
    process->threads = t; /* the memory of the others is lost, as everything of theirs is */
    process->thread_count = 1;
    process->idle = NULL;
    process->idle_count = 0;
    t->next = NULL;
    t->is_first = true;
    t->pending = 0;
    t->tid = gettid();
}

static int64_t new_process(struct user_thread *t, uint64_t flags, uint64_t stack, uint64_t parent_tid, uint64_t tls,
                           uint64_t child_tid)
{
    struct user_process *process = t->process;
    user_signals_block_all();
    pthread_mutex_lock(&process->lock);
    pthread_mutex_lock(&t->actions->lock);
    pthread_mutex_lock(&process->space.lock);
    machine_code_lock(process->code);
    pid_t pid = fork();
    int64_t result = pid < 0 ? -errno : pid;
    if (pid) {
        machine_code_unlock(process->code);
        pthread_mutex_unlock(&process->space.lock);
        pthread_mutex_unlock(&t->actions->lock);
        pthread_mutex_unlock(&process->lock);
        if (pid > 0 && (flags & CLONE_PARENT_SETTID))
            space_write(&process->space, parent_tid, &(uint32_t){(uint32_t)pid}, 4);
    } else {
        become_only_thread(t);
        prepare_child(t, flags, stack, tls, child_tid);
        if (flags & CLONE_CHILD_SETTID)
            space_write(&process->space, child_tid, &(uint32_t){(uint32_t)t->tid}, 4);
    }
    t->stop_calls = 0;
    user_signals_set_mask(t, t->mask);
    return result;
}

/* --- clone: vfork ------------------------------------------------------------------------------------------------ */

/* What the child changes and the parent wants back. */
struct vfork_saved {
    uint64_t x[32], f[32], pc, reserved;
    uint32_t fcsr;
    struct user_thread thread;
};

static int run_vfork_child(void *opaque)
{
    struct user_thread *t = opaque;
    t->tid = gettid();
    user_signals_use_mask(t);
    user_run(t);
}

static struct user_actions *copy_actions(struct user_actions *from)
{
    struct user_actions *copy = new (struct user_actions);
    pthread_mutex_lock(&from->lock);
    memcpy(copy->of, from->of, sizeof copy->of);
    pthread_mutex_unlock(&from->lock);
    pthread_mutex_init(&copy->lock, NULL);
    return copy;
}

/* Its frames never return: what they told AddressSanitizer must not be held against who gets this memory next. */
static void forget_frames(void *stack, size_t size)
{
#ifdef __SANITIZE_ADDRESS__
    void __asan_unpoison_memory_region(void const volatile *address, size_t length);
    __asan_unpoison_memory_region(stack, size);
#endif
}

static int64_t vfork_child(struct user_thread *t, uint64_t flags, uint64_t stack, uint64_t parent_tid, uint64_t tls)
{
    struct cpu_riscv *cpu = t->cpu;
    auto_free struct vfork_saved *saved = new (struct vfork_saved);
    char *host_stack = mmap(NULL, THREAD_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (host_stack == MAP_FAILED)
        return -ENOMEM;
    user_signals_block_all();
    memcpy(saved->x, cpu->x, sizeof saved->x);
    memcpy(saved->f, cpu->f, sizeof saved->f);
    saved->pc = cpu->tc.pc;
    saved->fcsr = riscv_user_fcsr(cpu);
    saved->thread = *t;
    t->actions = copy_actions(t->actions);
    t->is_vfork_child = true;
    t->pending = 0;
    t->stop_calls = 0;
    prepare_child(t, flags, stack, tls, 0);
    int pid = clone(run_vfork_child, host_stack + THREAD_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, t);
    int64_t result = pid < 0 ? -errno : pid;
    /* Here the child is gone, or has become another program. */
    free(t->actions);
    *t = saved->thread;
    memcpy(cpu->x, saved->x, sizeof saved->x);
    memcpy(cpu->f, saved->f, sizeof saved->f);
    riscv_user_set_fcsr(cpu, saved->fcsr);
    cpu->tc.pc = saved->pc;
    forget_frames(host_stack, THREAD_STACK);
    munmap(host_stack, THREAD_STACK);
    if (pid > 0 && (flags & CLONE_PARENT_SETTID))
        space_write(&t->process->space, parent_tid, &(uint32_t){(uint32_t)pid}, 4);
    user_signals_set_mask(t, t->mask);
    return result;
}

int64_t user_clone(struct user_thread *t, uint64_t flags, uint64_t stack, uint64_t parent_tid, uint64_t tls,
                   uint64_t child_tid, int exit_signal)
{
    const uint64_t ids = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_SETTLS;
    const uint64_t thread = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
    const uint64_t shared = thread | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM;
    flags &= ~(uint64_t)CLONE_DETACHED;
    if ((flags & thread) == thread && !(flags & ~(shared | ids)))
        return new_thread(t, flags, stack, parent_tid, tls, child_tid);
    if ((flags & CLONE_VM) && (flags & CLONE_VFORK) && !(flags & ~(CLONE_VM | CLONE_VFORK | ids)) &&
        exit_signal == SIGCHLD)
        return vfork_child(t, flags, stack, parent_tid, tls);
    if (!(flags & ~(ids | CLONE_VFORK)) && exit_signal == SIGCHLD)
        return new_process(t, flags, stack, parent_tid, tls, child_tid);
    return -EINVAL; /* sharing that one process of the host for one of the guest does not give */
}
