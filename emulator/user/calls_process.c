/* SPDX-License-Identifier: Apache-2.0 */
/* System calls about processes: making and ending them, running programs, what they are told about themselves. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "emulator/user/calls.h"
#include "emulator/user/exec.h"

static uint64_t pointer(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* --- threads and processes --------------------------------------------------------------------------------------- */

int64_t call_clone(struct user_thread *t, const uint64_t a[6])
{
    enum { EXIT_SIGNAL = 0xff };
    return user_clone(t, (uint32_t)a[0] & ~(uint64_t)EXIT_SIGNAL, a[1], a[2], a[3], a[4], (int)(a[0] & EXIT_SIGNAL));
}

int64_t call_clone3(struct user_thread *t, const uint64_t a[6])
{
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
            cgroup;
    } c = {0};
    enum { FIRST_SIZE = 64, LARGEST = 4096 };
    if (a[1] < FIRST_SIZE)
        return -EINVAL;
    if (a[1] > sizeof c)
        return -E2BIG;
    if (!space_read(&t->process->space, &c, a[0], a[1]))
        return -EFAULT;
    if (c.set_tid_size || (c.flags >> 32) || (c.flags & (CLONE_PIDFD)))
        return -EINVAL;
    return user_clone(t, c.flags, c.stack ? c.stack + c.stack_size : 0, c.parent_tid, c.tls, c.child_tid,
                      (int)c.exit_signal);
}

int64_t call_exit(struct user_thread *t, const uint64_t a[6])
{
    user_thread_exit(t, (int)a[0]);
}

int64_t call_exit_group(struct user_thread *t, const uint64_t a[6])
{
    user_exit_group(t, (int)a[0]);
}

int64_t call_set_tid_address(struct user_thread *t, const uint64_t a[6])
{
    t->clear_tid = a[0];
    return t->tid;
}

int64_t call_set_robust_list(struct user_thread *t, const uint64_t a[6])
{
    if (a[1] != 24)
        return -EINVAL;
    t->robust_list = a[0];
    return 0;
}

int64_t call_futex(struct user_thread *t, const uint64_t a[6])
{
    int command = (int)a[1] & FUTEX_CMD_MASK;
    bool has_timeout = command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET || command == FUTEX_LOCK_PI ||
                       command == FUTEX_LOCK_PI2 || command == FUTEX_WAIT_REQUEUE_PI;
    int64_t result = user_host(t, SYS_futex, user_pointer(t, a[0]), a[1], a[2],
                               has_timeout ? user_pointer(t, a[3]) : a[3], user_pointer(t, a[4]), a[5]);
    if (result == -EINTR && has_timeout && a[3] && (t->pending & ~t->mask))
        t->restart = RESTART_NOHAND;
    return result;
}

/* --- programs ---------------------------------------------------------------------------------------------------- */

int64_t call_execve(struct user_thread *t, const uint64_t a[6])
{
    return exec_program(t, AT_FDCWD, a[0], a[1], a[2], 0);
}

int64_t call_execveat(struct user_thread *t, const uint64_t a[6])
{
    return exec_program(t, (int)a[0], a[1], a[2], a[3], (int)a[4]);
}

/* --- limits, names, features ------------------------------------------------------------------------------------- */

/* Limits of address space would hit what the emulator reserved; the host's stack is not the guest's. */
static bool is_limit_kept(uint64_t resource)
{
    return resource == RLIMIT_AS || resource == RLIMIT_DATA || resource == RLIMIT_STACK;
}

int64_t call_prlimit64(struct user_thread *t, const uint64_t a[6])
{
    uint64_t new_limit = user_pointer(t, a[2]);
    bool own = a[0] == 0 || (int)a[0] == getpid();
    if (own && is_limit_kept(a[1]))
        new_limit = 0;
    return user_host(t, SYS_prlimit64, a[0], a[1], new_limit, user_pointer(t, a[3]), 0, 0);
}

int64_t call_getrlimit(struct user_thread *t, const uint64_t a[6])
{
    return user_host(t, SYS_prlimit64, 0, a[0], 0, user_pointer(t, a[1]), 0, 0);
}

int64_t call_setrlimit(struct user_thread *t, const uint64_t a[6])
{
    return is_limit_kept(a[0]) ? 0 : user_host(t, SYS_prlimit64, 0, a[0], user_pointer(t, a[1]), 0, 0, 0);
}

int64_t call_uname(struct user_thread *t, const uint64_t a[6])
{
    struct utsname name;
    int64_t result = user_host(t, SYS_uname, pointer(&name), 0, 0, 0, 0, 0);
    if (result < 0)
        return result;
    memset(name.machine, 0, sizeof name.machine);
    strcpy(name.machine, "riscv64");
    if (t->process->options->uname) {
        memset(name.release, 0, sizeof name.release);
        strncpy(name.release, t->process->options->uname, sizeof name.release - 1);
    }
    return space_write(&t->process->space, a[0], &name, sizeof name) ? 0 : -EFAULT;
}

int64_t call_prctl(struct user_thread *t, const uint64_t a[6])
{
    uint64_t second = a[1];
    switch ((int)a[0]) {
    case PR_SET_NAME:
    case PR_GET_NAME:
    case PR_GET_PDEATHSIG:
    case PR_GET_CHILD_SUBREAPER: second = user_pointer(t, a[1]); break;
    case PR_SET_PDEATHSIG:
    case PR_GET_DUMPABLE:
    case PR_SET_DUMPABLE:
    case PR_GET_KEEPCAPS:
    case PR_SET_KEEPCAPS:
    case PR_SET_CHILD_SUBREAPER:
    case PR_SET_NO_NEW_PRIVS:
    case PR_GET_NO_NEW_PRIVS:
    case PR_GET_TIMERSLACK:
    case PR_SET_TIMERSLACK:
    case PR_CAPBSET_READ:
    case PR_CAPBSET_DROP:
    case PR_CAP_AMBIENT:
    case PR_GET_SECUREBITS:
    case PR_SET_THP_DISABLE:
    case PR_GET_THP_DISABLE: break;
    default: return -EINVAL; /* what would name the emulator's memory, or filter the emulator's calls */
    }
    return user_host(t, SYS_prctl, a[0], second, a[2], a[3], a[4], 0);
}

int64_t call_semctl(struct user_thread *t, const uint64_t a[6])
{
    int command = (int)a[2];
    struct {
        struct {
            uint32_t words[6];
            uint32_t mode, sequence;
            uint64_t unused[2];
        } permissions;
        uint64_t otime, ctime, count, unused[2];
    } guest = {0};
    struct semid_ds host;
    if (command != IPC_STAT && command != IPC_SET && command != SEM_STAT) {
        bool number = command == SETVAL || command == GETVAL || command == GETPID || command == GETNCNT ||
                      command == GETZCNT || command == IPC_RMID;
        return user_host(t, SYS_semctl, a[0], a[1], a[2], number ? a[3] : user_pointer(t, a[3]), 0, 0);
    }
    _Static_assert(sizeof guest.permissions == sizeof host.sem_perm, "the same on both sides");
    if (command == IPC_SET) {
        if (!space_read(&t->process->space, &guest, a[3], sizeof guest))
            return -EFAULT;
        memcpy(&host.sem_perm, &guest.permissions, sizeof guest.permissions);
    }
    int64_t result = user_host(t, SYS_semctl, a[0], a[1], a[2], pointer(&host), 0, 0);
    if (result < 0 || command == IPC_SET)
        return result;
    memcpy(&guest.permissions, &host.sem_perm, sizeof guest.permissions);
    guest.otime = (uint64_t)host.sem_otime;
    guest.ctime = (uint64_t)host.sem_ctime;
    guest.count = host.sem_nsems;
    return space_write(&t->process->space, a[3], &guest, sizeof guest) ? result : -EFAULT;
}

/* Documentation/arch/riscv/hwprobe.rst */
int64_t call_riscv_hwprobe(struct user_thread *t, const uint64_t a[6])
{
    enum { VENDOR, ARCHITECTURE, IMPLEMENTATION, BASE, EXTENSIONS, MISALIGNED, ZICBOZ_BLOCK };
    enum { BASE_IMA = 1, FD = 1, C = 2, V = 4, ZBA = 8, ZBB = 16, ZBS = 32, ZICBOZ = 64, MISALIGNED_FAST = 3, BLOCK = 64 };
    struct {
        int64_t key;
        uint64_t value;
    } pair;
    struct space *space = &t->process->space;
    if (a[4])
        return -EINVAL; /* the question which CPUs are like this */
    for (uint64_t i = 0; i < a[1]; i++) {
        uint64_t at = a[0] + i * sizeof pair;
        if (!space_read(space, &pair, at, sizeof pair))
            return -EFAULT;
        pair.value = 0;
        switch (pair.key) {
        case VENDOR:
        case ARCHITECTURE:
        case IMPLEMENTATION: break;
        case BASE: pair.value = BASE_IMA; break;
        case EXTENSIONS: pair.value = FD | C | V | ZBA | ZBB | ZBS | ZICBOZ; break;
        case MISALIGNED: pair.value = MISALIGNED_FAST; break;
        case ZICBOZ_BLOCK: pair.value = BLOCK; break;
        default: pair.key = -1; break;
        }
        if (!space_write(space, at, &pair, sizeof pair))
            return -EFAULT;
    }
    return 0;
}
