/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of system calls (calls.c): one row each, from which calls are passed on, checked and printed.
 *
 * Both sides are 64-bit little-endian Linux, so most calls go to the host's kernel as they are; only pointers have to
 * become the host's. What the row says of an argument:
 *
 *     i  a number          x  a number, printed in hexadecimal     o  a mode, printed in octal
 *     d  a file descriptor D  one that may be AT_FDCWD             S  a signal
 *     p  a file's name     s  another string                       P  a pointer to what the call reads
 *     b  a pointer to as many bytes to be read as the next argument says; B  to be written
 *     W  a pointer to a structure that the call writes
 */
#ifndef EMULATOR_USER_CALLS_H
#define EMULATOR_USER_CALLS_H

#include "emulator/user/user.h"

struct user_syscall {
    const char *name;
    int host; /* its number in the host, for calls without a handler; -1: there is no such call here */
    const char *arguments;
    enum user_restart restart; /* when a signal interrupts it */
    int64_t (*handler)(struct user_thread *t, const uint64_t a[6]);
};

/* calls_memory.c, calls_file.c ... */
/* clang-format off */
#define USER_CALL(name) int64_t call_##name(struct user_thread *t, const uint64_t a[6]);
USER_CALL(brk) USER_CALL(mmap) USER_CALL(munmap) USER_CALL(mremap) USER_CALL(mprotect) USER_CALL(madvise)
USER_CALL(msync) USER_CALL(mlockall) USER_CALL(munlockall) USER_CALL(shmat) USER_CALL(shmdt)
USER_CALL(riscv_flush_icache) USER_CALL(readv) USER_CALL(writev) USER_CALL(preadv) USER_CALL(pwritev)
USER_CALL(preadv2) USER_CALL(pwritev2) USER_CALL(vmsplice) USER_CALL(fcntl) USER_CALL(ioctl) USER_CALL(newfstatat)
USER_CALL(fstat) USER_CALL(openat) USER_CALL(openat2) USER_CALL(readlinkat) USER_CALL(getdents64) USER_CALL(epoll_ctl)
USER_CALL(epoll_pwait) USER_CALL(epoll_pwait2) USER_CALL(pselect6) USER_CALL(ppoll) USER_CALL(sendmsg)
USER_CALL(recvmsg) USER_CALL(sendmmsg) USER_CALL(recvmmsg) USER_CALL(setsockopt) USER_CALL(clone) USER_CALL(clone3)
USER_CALL(exit) USER_CALL(exit_group) USER_CALL(execve) USER_CALL(execveat) USER_CALL(set_tid_address)
USER_CALL(set_robust_list) USER_CALL(futex) USER_CALL(prctl) USER_CALL(uname) USER_CALL(prlimit64)
USER_CALL(setrlimit) USER_CALL(riscv_hwprobe) USER_CALL(semctl) USER_CALL(getrlimit) USER_CALL(rt_sigaction)
USER_CALL(rt_sigprocmask) USER_CALL(rt_sigpending) USER_CALL(rt_sigsuspend) USER_CALL(rt_sigtimedwait)
USER_CALL(rt_sigreturn) USER_CALL(sigaltstack)
#undef USER_CALL
/* clang-format on */

    /* The host's pointer for an argument; NULL stays NULL. */
    static inline uint64_t user_pointer(const struct user_thread *t, uint64_t guest)
{
    return guest ? (uint64_t)(uintptr_t)space_host(&t->process->space, guest) : 0;
}

/* The guest's array of I/O vectors as the host's, in `to`. written: the call writes into them. 0 or -errno. */
struct iovec;
int64_t user_vectors(struct user_thread *t, uint64_t address, uint64_t count, bool written, struct iovec *to);
enum { USER_VECTORS = 1024 };

/* A signal mask that the call waits with: read, made the thread's, and returned for the host's kernel. 0 or -errno. */
int64_t user_wait_mask(struct user_thread *t, uint64_t address, uint64_t size, uint64_t *host_mask);
/* What such a call came back with. */
int64_t user_waited(struct user_thread *t, int64_t result);

#endif
