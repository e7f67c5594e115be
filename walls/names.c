/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Every processor has numbers of its own; those that a processor lacks are left out. */
#include "walls/names.h"

#include <sys/syscall.h>
#include "base/math.h"

#define NAMED(call)                                                                                                    \
    {                                                                                                                  \
        SYS_##call, #call                                                                                              \
    }

static const struct {
    int number;
    const char *name;
} names[] = {
#ifdef SYS_open
    NAMED(open),
    NAMED(fork),
    NAMED(vfork),
    NAMED(pipe),
    NAMED(poll),
    NAMED(stat),
    NAMED(access),
    NAMED(mknod),
    NAMED(epoll_wait),
    NAMED(arch_prctl),
    NAMED(iopl),
    NAMED(ioperm),
    NAMED(modify_ldt),
#endif
    NAMED(accept4),
    NAMED(acct),
    NAMED(add_key),
    NAMED(adjtimex),
    NAMED(bind),
    NAMED(bpf),
    NAMED(capset),
    NAMED(chroot),
    NAMED(clone),
    NAMED(clone3),
    NAMED(connect),
    NAMED(delete_module),
    NAMED(execve),
    NAMED(execveat),
    NAMED(fanotify_init),
    NAMED(fcntl),
    NAMED(finit_module),
    NAMED(ftruncate),
    NAMED(getcwd),
    NAMED(getdents64),
    NAMED(init_module),
    NAMED(io_uring_enter),
    NAMED(io_uring_register),
    NAMED(io_uring_setup),
    NAMED(ioctl),
    NAMED(ioprio_set),
    NAMED(kexec_load),
    NAMED(keyctl),
    NAMED(kill),
    NAMED(listen),
    NAMED(mbind),
    NAMED(memfd_create),
    NAMED(mknodat),
    NAMED(mlockall),
    NAMED(mount),
    NAMED(move_pages),
    NAMED(mq_open),
    NAMED(name_to_handle_at),
    NAMED(newfstatat),
    NAMED(open_by_handle_at),
    NAMED(openat),
    NAMED(perf_event_open),
    NAMED(personality),
    NAMED(pidfd_getfd),
    NAMED(pivot_root),
    NAMED(ppoll),
    NAMED(prctl),
    NAMED(prlimit64),
    NAMED(process_vm_readv),
    NAMED(process_vm_writev),
    NAMED(ptrace),
    NAMED(quotactl),
    NAMED(reboot),
    NAMED(request_key),
    NAMED(sched_setattr),
    NAMED(sched_setparam),
    NAMED(seccomp),
    NAMED(set_mempolicy),
    NAMED(setdomainname),
    NAMED(setgid),
    NAMED(setgroups),
    NAMED(sethostname),
    NAMED(setns),
    NAMED(setpgid),
    NAMED(setregid),
    NAMED(setresgid),
    NAMED(setresuid),
    NAMED(setreuid),
    NAMED(setrlimit),
    NAMED(setsid),
    NAMED(settimeofday),
    NAMED(setuid),
    NAMED(shmat),
    NAMED(shmget),
    NAMED(socket),
    NAMED(socketpair),
    NAMED(statx),
    NAMED(swapon),
    NAMED(syslog),
    NAMED(umount2),
    NAMED(unlinkat),
    NAMED(unshare),
    NAMED(userfaultfd),
    NAMED(vhangup),
    NAMED(wait4),
    NAMED(waitid),
    NAMED(write),
};

const char *walls_call_name(int number)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (names[i].number == number)
            return names[i].name;
    }
    return NULL;
}
