/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists: which system calls each kind of program makes. They were made from what the programs really call over the
 * whole test suite; what is missing shows at once, because the program ends with the name of the call.
 *
 * Rules for additions: put a call into the smallest group that needs it; where only some values of an argument are
 * needed, name them; what is optional in a library that tries it first (clone3) gets the error that makes the library
 * take its other way.
 *
 * io_uring carries out operations that no filter sees. So rings cannot be made behind the walls, and those that exist
 * accept only the operations of base/loop_uring.c (IORING_REGISTER_RESTRICTIONS).
 */
#include <errno.h>
#include <linux/blkzoned.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/math.h"
#include "walls/internal.h"

#define ANY(name)                                                                                                      \
    {                                                                                                                  \
#name, IF_ANY                                                                                                  \
    }
#define EQUAL(name, argument, value)                                                                                   \
    {                                                                                                                  \
#name, IF_EQUAL, argument, 0, (uint64_t)(value)                                                                \
    }
#define MASKED(name, argument, mask, value)                                                                            \
    {                                                                                                                  \
#name, IF_MASKED, argument, (uint64_t)(mask), (uint64_t)(value)                                                \
    }
#define ERROR(name, code)                                                                                              \
    {                                                                                                                  \
#name, BUT_ERROR, 0, 0, code                                                                                   \
    }
#define ERROR_SET(name, argument, bit)                                                                                 \
    {                                                                                                                  \
#name, BUT_ERROR_SET, argument, (uint64_t)(bit), (uint64_t)(bit)                                               \
    }

#define ERROR_BUT(name, argument, value)                                                                               \
    {                                                                                                                  \
#name, BUT_ERROR_UNLESS, argument, 0, (uint64_t)(value)                                                        \
    }

/* clang-format off */
/* Every program, workers too: memory, time, waiting for each other, reading and writing what is open, ending. */
static const struct walls_call basic[] = {
    ANY(read), ANY(readv), ANY(pread64), ANY(preadv), ANY(preadv2), ANY(lseek), ANY(fstat), ANY(close), ANY(futex),
    ANY(munmap), ANY(mremap), ANY(madvise), ANY(brk), ANY(clock_gettime), ANY(gettimeofday), ANY(clock_getres),
    ANY(getrandom), ANY(getpid), ANY(gettid), ANY(sched_yield), ANY(restart_syscall), ANY(exit), ANY(exit_group),
    ANY(rt_sigreturn), ANY(rt_sigprocmask), ANY(sigaltstack), ANY(tgkill), ANY(sendmsg), ANY(recvmsg), ANY(sendto),
    ANY(recvfrom),
};

/* Memory that is written is never executed ... */
static const struct walls_call data_memory[] = {
    MASKED(mmap, 2, PROT_EXEC, 0),
    ERROR_SET(mmap, 2, PROT_EXEC),
    MASKED(mprotect, 2, PROT_EXEC, 0),
    ERROR_SET(mprotect, 2, PROT_EXEC),
};

/* ... but by the translator. */
static const struct walls_call code_memory[] = {
    ANY(mmap), ANY(mprotect), ANY(pkey_mprotect)
};

/* A worker's words go nowhere but to where /dev/null was put. */
static const struct walls_call worker_only[] = {
    EQUAL(write, 0, STDERR_FILENO), EQUAL(writev, 0, STDERR_FILENO), EQUAL(rt_sigaction, 0, SIGABRT),
    EQUAL(rt_sigaction, 0, SIGSYS),
};

/* Threads, timers, signals, events: what a program with loops does. */
static const struct walls_call loops[] = {
    ANY(write), ANY(writev), ANY(pwrite64), ANY(pwritev), ANY(pwritev2), ANY(rt_sigaction), ANY(rt_sigtimedwait),
    ANY(rt_sigpending), ANY(signalfd4), ANY(poll), ANY(ppoll), ANY(select), ANY(pselect6), ANY(epoll_create1),
    ANY(epoll_ctl), ANY(epoll_wait), ANY(epoll_pwait), ANY(epoll_pwait2), ANY(eventfd2), ANY(pipe), ANY(pipe2),
    ANY(timerfd_create), ANY(timerfd_settime), ANY(timerfd_gettime), ANY(nanosleep), ANY(clock_nanosleep), ANY(dup),
    ANY(dup2), ANY(dup3), ANY(fcntl), ANY(close_range), ANY(io_uring_enter), ANY(io_uring_register),
    ERROR(io_uring_setup, EPERM), ANY(set_robust_list), ANY(get_robust_list), ANY(rseq), ANY(membarrier),
    ANY(sched_getaffinity), ANY(getcpu), ANY(futex_waitv), ANY(mlock), ANY(mlock2), ANY(munlock), ANY(msync),
    ANY(mincore), ANY(memfd_create), ANY(uname), ANY(sysinfo), ANY(getuid), ANY(geteuid), ANY(getgid), ANY(getegid),
    ANY(getgroups), ANY(getppid), ANY(getpgrp), ANY(getpgid), ANY(getsid), ANY(getrusage), ANY(times), ANY(umask),
    ANY(getitimer), ANY(setitimer), ANY(timer_create), ANY(timer_settime), ANY(timer_gettime), ANY(timer_delete),
    ANY(alarm), ANY(pause), ANY(arch_prctl), ANY(set_tid_address), ANY(capget), ANY(process_madvise),
    ANY(fadvise64), MASKED(clone, 0, CLONE_THREAD, CLONE_THREAD), ERROR(clone3, ENOSYS), EQUAL(prlimit64, 2, 0), /*
    asking */ ANY(getrlimit), EQUAL(prctl, 0, PR_SET_NAME), EQUAL(prctl, 0, PR_GET_NAME), EQUAL(prctl, 0,
    PR_GET_DUMPABLE), EQUAL(prctl, 0, PR_CAPBSET_READ), EQUAL(prctl, 0, PR_GET_NO_NEW_PRIVS), EQUAL(prctl, 0,
    PR_GET_SECCOMP), EQUAL(prctl, 0, 0x53564d41 /* PR_SET_VMA */), EQUAL(prctl, 0, PR_SET_DUMPABLE),
};

static const struct walls_call files[] = {
    ANY(open), ANY(openat), ANY(openat2), ANY(creat), ANY(access), ANY(faccessat), ANY(faccessat2), ANY(stat),
    ANY(lstat), ANY(newfstatat), ANY(statx), ANY(statfs), ANY(fstatfs), ANY(readlink), ANY(readlinkat), ANY(getcwd),
    ANY(chdir), ANY(fchdir), ANY(getdents64), ANY(ftruncate), ANY(truncate), ANY(fallocate), ANY(fsync),
    ANY(fdatasync), ANY(sync_file_range), ANY(syncfs), ANY(flock), ANY(unlink), ANY(unlinkat), ANY(rename),
    ANY(renameat), ANY(renameat2), ANY(link), ANY(linkat), ANY(symlink), ANY(symlinkat), ANY(mkdir), ANY(mkdirat),
    ANY(rmdir), ANY(chmod), ANY(fchmod), ANY(fchmodat), ANY(chown), ANY(fchown), ANY(fchownat), ANY(utimensat),
    ANY(getxattr), ANY(fgetxattr), ANY(lgetxattr), ANY(flistxattr), ANY(copy_file_range), ANY(sendfile),
    ANY(splice), ANY(tee), ANY(vmsplice), ANY(readahead), ANY(io_setup), ANY(io_submit), ANY(io_getevents),
    ANY(io_pgetevents), ANY(io_cancel), ANY(io_destroy), ANY(inotify_init1), ANY(inotify_add_watch),
    ANY(inotify_rm_watch),
};

/* Secrets may lie in the kernel's key ring: reading one, and nothing else. */
static const struct walls_call keys[] = {EQUAL(keyctl, 0, KEYCTL_READ)};

/* Questions and orders to devices and file systems, by number: disks, copies that share blocks, terminals, queues. */
static const struct walls_call device_orders[] = {
    EQUAL(ioctl, 1, BLKGETSIZE64), EQUAL(ioctl, 1, BLKGETSIZE), EQUAL(ioctl, 1, BLKSSZGET), EQUAL(ioctl, 1,
    BLKPBSZGET), EQUAL(ioctl, 1, BLKIOMIN), EQUAL(ioctl, 1, BLKIOOPT), EQUAL(ioctl, 1, BLKALIGNOFF), EQUAL(ioctl, 1,
    BLKROGET), EQUAL(ioctl, 1, BLKROTATIONAL), EQUAL(ioctl, 1, BLKSECTGET), EQUAL(ioctl, 1, BLKDISCARD),
    EQUAL(ioctl, 1, BLKSECDISCARD), EQUAL(ioctl, 1, BLKZEROOUT), EQUAL(ioctl, 1, BLKDISCARDZEROES), EQUAL(ioctl, 1,
    BLKFLSBUF), EQUAL(ioctl, 1, FICLONE), EQUAL(ioctl, 1, FICLONERANGE), EQUAL(ioctl, 1, FIDEDUPERANGE),
    EQUAL(ioctl, 1, FS_IOC_FIEMAP), EQUAL(ioctl, 1, FS_IOC_GETFLAGS), EQUAL(ioctl, 1, FS_IOC_SETFLAGS), EQUAL(ioctl,
    1, 0x801c581f /* FS_IOC_FSGETXATTR */), EQUAL(ioctl, 1, 0x401c5820 /* FS_IOC_FSSETXATTR */), EQUAL(ioctl, 1,
    0x80087001 /* CDROM and others: lseek of tapes */), EQUAL(ioctl, 1, 0x8004e500 /* FUSE_DEV_IOC_CLONE */),
    EQUAL(ioctl, 1, FIONREAD), EQUAL(ioctl, 1, FIONBIO), EQUAL(ioctl, 1, FIOCLEX), EQUAL(ioctl, 1, TCGETS),
    EQUAL(ioctl, 1, TCSETS), EQUAL(ioctl, 1, TCSETSW), EQUAL(ioctl, 1, TCSETSF), EQUAL(ioctl, 1, 0x802c542a /*
    TCGETS2 */), EQUAL(ioctl, 1, 0x402c542b /* TCSETS2 */), EQUAL(ioctl, 1, 0x402c542c /* TCSETSW2 */), EQUAL(ioctl,
    1, 0x402c542d /* TCSETSF2 */), EQUAL(ioctl, 1, TIOCGWINSZ), EQUAL(ioctl, 1, TIOCGPGRP), EQUAL(ioctl, 1,
    TIOCGPTN), EQUAL(ioctl, 1, TIOCSPTLCK), EQUAL(ioctl, 1, TIOCGPTPEER), EQUAL(ioctl, 1, TCFLSH), EQUAL(ioctl, 1,
    TCSBRK), EQUAL(ioctl, 1, TIOCOUTQ), EQUAL(ioctl, 1, BLKREPORTZONE), EQUAL(ioctl, 1, BLKRESETZONE), EQUAL(ioctl,
    1, BLKOPENZONE), EQUAL(ioctl, 1, BLKCLOSEZONE), EQUAL(ioctl, 1, BLKFINISHZONE),
};

/* Sockets: what may be done with one ... */
static const struct walls_call sockets[] = {
    ANY(socketpair),  ANY(bind), ANY(listen),      ANY(accept), ANY(accept4),     ANY(connect), ANY(getsockname),
    ANY(getpeername), ANY(getsockopt),  ANY(setsockopt), ANY(shutdown),    ANY(sendmmsg), ANY(recvmmsg),
    EQUAL(socket, 0, AF_UNIX),
};

/* ... and those that lead to other machines. Looking up names asks the routing tables. */
static const struct walls_call network_sockets[] = {
    EQUAL(socket, 0, AF_INET), EQUAL(socket, 0, AF_INET6), EQUAL(socket, 0, AF_NETLINK), EQUAL(socket, 0, AF_VSOCK),
};

static const struct walls_call no_network_sockets[] = {ERROR_BUT(socket, 0, AF_UNIX)};

/* A daemon has children: the doorman that it waits for, workers whose time it grants and whom it ends. */
static const struct walls_call children[] = {
    ANY(wait4), ANY(waitid), ANY(pidfd_open), ANY(pidfd_send_signal), EQUAL(prlimit64, 1, RLIMIT_CPU),
};

/* -sandbox ...=allow --------------------------------------------------------------------------------------------- */

static const struct walls_call obsolete_calls[] = {
    ANY(uselib), ANY(ustat), ANY(sysfs), ANY(_sysctl), ANY(readdir), ANY(query_module), ANY(get_kernel_syms),
    ANY(time),
};
static const struct walls_call elevating[] = {
    ANY(setuid),    ANY(setgid),   ANY(setreuid), ANY(setregid),  ANY(setresuid), ANY(setresgid), ANY(setfsuid),
    ANY(setfsgid), ANY(setgroups), ANY(capset),
};
static const struct walls_call spawning[] = {
    ANY(clone), ANY(fork),   ANY(vfork), ANY(execve), ANY(execveat), ANY(wait4), ANY(waitid), ANY(kill),
    ANY(setsid), ANY(setpgid),
};
static const struct walls_call controlling[] = {
    ANY(sched_setaffinity), ANY(sched_setparam), ANY(sched_getparam), ANY(sched_setscheduler),
    ANY(sched_getscheduler), ANY(sched_setattr), ANY(sched_getattr), ANY(sched_get_priority_max),
    ANY(sched_get_priority_min), ANY(setpriority), ANY(getpriority), ANY(ioprio_set), ANY(ioprio_get),
    ANY(prlimit64), ANY(setrlimit), ANY(mbind), ANY(set_mempolicy), ANY(get_mempolicy),
};
static const struct walls_call not_controlling[] = {
    ERROR(sched_setaffinity, EPERM),
    ERROR(sched_setscheduler, EPERM),
    ERROR(setpriority, EPERM),
};

/* Sanitizers look for leaks by stopping all threads from a helper that traces them, map their shadows as they like,
 * and describe what they found from files. */
static const struct walls_call sanitizers[] = {
    ANY(write), ANY(open), ANY(openat), ANY(readlink), ANY(readlinkat), ANY(newfstatat), ANY(stat), ANY(access),
    ANY(clone), ANY(ptrace), ANY(wait4), ANY(kill), ANY(prctl), ANY(rt_sigaction), ANY(getppid), ANY(getuid),
    ANY(geteuid), ANY(getgid), ANY(getegid), ANY(mmap), ANY(mprotect), ANY(prlimit64), ANY(sched_getaffinity),
    ANY(personality), ANY(process_vm_readv), ANY(uname), ANY(getdents), ANY(getdents64), ANY(ioctl), ANY(set_robust_list),
    ANY(rseq), ANY(clock_nanosleep), ANY(nanosleep), ANY(dup), ANY(dup2), ANY(fcntl), ANY(pipe), ANY(pipe2),
    ANY(mincore), ANY(sigaltstack), ANY(msync), ANY(setrlimit), ANY(getrlimit), ANY(writev), ANY(unlink),
    ANY(sysinfo),
};

/* clang-format on */

#define LIST(calls)                                                                                                    \
    (struct walls_list)                                                                                                \
    {                                                                                                                  \
        calls, ARRAY_SIZE(calls)                                                                                       \
    }

size_t walls_lists(enum walls_role role, const struct walls_options *options, struct walls_list *lists)
{
    size_t n = 0;
    bool relaxed = walls_are_relaxed();
    bool may_spawn = options->spawn && role != WALLS_WORKER; /* whose children load their code */
    lists[n++] = LIST(basic);
    if (relaxed)
        lists[n++] = LIST(sanitizers);
    else
        lists[n++] = role == WALLS_EMULATOR || may_spawn ? LIST(code_memory) : LIST(data_memory);
    if (role == WALLS_WORKER) {
        if (!relaxed)
            lists[n++] = LIST(worker_only);
        return n;
    }
    lists[n++] = LIST(loops);
    lists[n++] = LIST(files);
    lists[n++] = LIST(keys);
    if (!relaxed)
        lists[n++] = LIST(device_orders);
    lists[n++] = LIST(sockets);
    lists[n++] = options->no_network ? LIST(no_network_sockets) : LIST(network_sockets);
    lists[n++] = LIST(children);
    if (options->obsolete)
        lists[n++] = LIST(obsolete_calls);
    if (options->elevate)
        lists[n++] = LIST(elevating);
    if (options->spawn)
        lists[n++] = LIST(spawning);
    lists[n++] = options->resourcecontrol ? LIST(controlling) : LIST(not_controlling);
    return n;
}
