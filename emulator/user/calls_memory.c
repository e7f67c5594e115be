/* SPDX-License-Identifier: Apache-2.0 */
/* System calls that change the program's memory: space_map.c does it. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "emulator/user/calls.h"

int64_t call_brk(struct user_thread *t, const uint64_t a[6])
{
    return (int64_t)space_break(&t->process->space, a[0]);
}

int64_t call_mmap(struct user_thread *t, const uint64_t a[6])
{
    return space_map(&t->process->space, a[0], a[1], (int)a[2], (int)a[3], (int)a[4], a[5]);
}

int64_t call_munmap(struct user_thread *t, const uint64_t a[6])
{
    return space_unmap(&t->process->space, a[0], a[1]);
}

int64_t call_mremap(struct user_thread *t, const uint64_t a[6])
{
    return space_remap(&t->process->space, a[0], a[1], a[2], (int)a[3], a[4]);
}

int64_t call_mprotect(struct user_thread *t, const uint64_t a[6])
{
    return space_protect(&t->process->space, a[0], a[1], (int)a[2]);
}

int64_t call_madvise(struct user_thread *t, const uint64_t a[6])
{
    return space_advise(&t->process->space, a[0], a[1], (int)a[2]);
}

int64_t call_msync(struct user_thread *t, const uint64_t a[6])
{
    if (!space_holds(&t->process->space, a[0], a[1]))
        return -ENOMEM;
    return user_host(t, SYS_msync, user_pointer(t, a[0]), a[1], a[2], 0, 0, 0);
}

/* What is locked would be the emulator with all that it reserved. */
int64_t call_mlockall(struct user_thread *t, const uint64_t a[6])
{
    return (a[0] & ~(uint64_t)(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) || !a[0] ? -EINVAL : 0;
}

int64_t call_munlockall(struct user_thread *t, const uint64_t a[6])
{
    return 0;
}

int64_t call_shmat(struct user_thread *t, const uint64_t a[6])
{
    return space_attach(&t->process->space, (int)a[0], a[1], (int)a[2]);
}

int64_t call_shmdt(struct user_thread *t, const uint64_t a[6])
{
    return space_detach(&t->process->space, a[0]);
}

int64_t call_riscv_flush_icache(struct user_thread *t, const uint64_t a[6])
{
    enum { LOCAL = 1 };
    if (a[2] & ~(uint64_t)LOCAL)
        return -EINVAL;
    space_flush_shared_code(&t->process->space);
    if (a[1] > a[0])
        space_flush_code(&t->process->space, a[0], a[1] - a[0]);
    return 0;
}
