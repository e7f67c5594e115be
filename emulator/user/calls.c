/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of RISC-V Linux (include/uapi/asm-generic/unistd.h, arch/riscv/include/uapi/asm/unistd.h). */
#include "emulator/user/calls.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/math.h"

#define PASS(number, call, arguments_) [number] = {#call, SYS_##call, arguments_, RESTART_NOHAND, NULL}
#define WAIT(number, call, arguments_) [number] = {#call, SYS_##call, arguments_, RESTART_SA, NULL}
#define OURS(number, call, arguments_) [number] = {#call, -1, arguments_, RESTART_NOHAND, call_##call}
#define OURS_WAIT(number, call, arguments_) [number] = {#call, -1, arguments_, RESTART_SA, call_##call}
#define MISSING(number, call, arguments_) [number] = {#call, -1, arguments_, RESTART_NOT, NULL}

/* WAIT: begins again after a handler with SA_RESTART; the others then fail with EINTR, where they can be interrupted.
 * Missing are calls that would hand the emulator's own memory or execution to the kernel, and those that Linux programs
 * do without when they find them missing. */
/* clang-format off */
static const struct user_syscall calls[] = {
    MISSING(0, io_setup, "iW"), MISSING(1, io_destroy, "x"), MISSING(2, io_submit, "xiP"), MISSING(3, io_cancel, "xPW"), MISSING(4, io_getevents, "xiiWP"),
    PASS(5, setxattr, "psbix"), PASS(6, lsetxattr, "psbix"), PASS(7, fsetxattr, "dsbix"),
    PASS(8, getxattr, "psBi"), PASS(9, lgetxattr, "psBi"), PASS(10, fgetxattr, "dsBi"),
    PASS(11, listxattr, "pBi"), PASS(12, llistxattr, "pBi"), PASS(13, flistxattr, "dBi"),
    PASS(14, removexattr, "ps"), PASS(15, lremovexattr, "ps"), PASS(16, fremovexattr, "ds"),
    PASS(17, getcwd, "Bi"),
    PASS(19, eventfd2, "ix"), PASS(20, epoll_create1, "x"), OURS(21, epoll_ctl, "didP"), OURS(22, epoll_pwait, "dWiiPi"),
    PASS(23, dup, "d"), PASS(24, dup3, "ddx"), OURS_WAIT(25, fcntl, "dix"),
    PASS(26, inotify_init1, "x"), PASS(27, inotify_add_watch, "dpx"), PASS(28, inotify_rm_watch, "di"),
    OURS_WAIT(29, ioctl, "dxx"), PASS(30, ioprio_set, "iii"), PASS(31, ioprio_get, "ii"), WAIT(32, flock, "di"),
    PASS(33, mknodat, "Dpox"), PASS(34, mkdirat, "Dpo"), PASS(35, unlinkat, "Dpx"), PASS(36, symlinkat, "sDp"),
    PASS(37, linkat, "DpDpx"), PASS(38, renameat, "DpDp"), PASS(39, umount2, "px"), PASS(40, mount, "spsxP"),
    PASS(43, statfs, "pW"), PASS(44, fstatfs, "dW"), PASS(45, truncate, "pi"), PASS(46, ftruncate, "di"),
    WAIT(47, fallocate, "dxii"), PASS(48, faccessat, "Dpo"), PASS(49, chdir, "p"), PASS(50, fchdir, "d"), PASS(51, chroot, "p"),
    PASS(52, fchmod, "do"), PASS(53, fchmodat, "Dpo"), PASS(54, fchownat, "Dpiix"), PASS(55, fchown, "dii"),
    OURS_WAIT(56, openat, "Dpxo"), PASS(57, close, "d"), PASS(58, vhangup, ""), PASS(59, pipe2, "Wx"),
    OURS(61, getdents64, "dBi"), PASS(62, lseek, "dii"),
    WAIT(63, read, "dBi"), WAIT(64, write, "dbi"), OURS_WAIT(65, readv, "dPi"), OURS_WAIT(66, writev, "dPi"),
    WAIT(67, pread64, "dBii"), WAIT(68, pwrite64, "dbii"), OURS_WAIT(69, preadv, "dPii"), OURS_WAIT(70, pwritev, "dPii"),
    WAIT(71, sendfile, "ddWi"), OURS(72, pselect6, "iWWWPP"), OURS(73, ppoll, "WiPPi"), PASS(74, signalfd4, "dPix"),
    OURS_WAIT(75, vmsplice, "dPix"), WAIT(76, splice, "dWdWix"), WAIT(77, tee, "ddix"),
    OURS(78, readlinkat, "DpWi"), OURS(79, newfstatat, "DpWx"), OURS(80, fstat, "dW"),
    PASS(81, sync, ""), PASS(82, fsync, "d"), PASS(83, fdatasync, "d"), PASS(84, sync_file_range, "diix"),
    PASS(85, timerfd_create, "ix"), PASS(86, timerfd_settime, "dxPW"), PASS(87, timerfd_gettime, "dW"),
    PASS(88, utimensat, "DpPx"), PASS(89, acct, "p"), PASS(90, capget, "WW"), PASS(91, capset, "PP"), PASS(92, personality, "x"),
    OURS(93, exit, "i"), OURS(94, exit_group, "i"), WAIT(95, waitid, "iiWxW"), OURS(96, set_tid_address, "P"),
    PASS(97, unshare, "x"), OURS_WAIT(98, futex, "PxxPPx"), OURS(99, set_robust_list, "Pi"), MISSING(100, get_robust_list, "iWW"),
    PASS(101, nanosleep, "PW"), PASS(102, getitimer, "iW"), PASS(103, setitimer, "iPW"),
    PASS(107, timer_create, "iPW"), PASS(108, timer_gettime, "iW"), PASS(109, timer_getoverrun, "i"),
    PASS(110, timer_settime, "ixPW"), PASS(111, timer_delete, "i"),
    PASS(112, clock_settime, "iP"), PASS(113, clock_gettime, "iW"), PASS(114, clock_getres, "iW"), PASS(115, clock_nanosleep, "ixPW"),
    PASS(116, syslog, "iBi"), MISSING(117, ptrace, "iixx"),
    PASS(118, sched_setparam, "iP"), PASS(119, sched_setscheduler, "iiP"), PASS(120, sched_getscheduler, "i"),
    PASS(121, sched_getparam, "iW"), PASS(122, sched_setaffinity, "iiP"), PASS(123, sched_getaffinity, "iiW"),
    PASS(124, sched_yield, ""), PASS(125, sched_get_priority_max, "i"), PASS(126, sched_get_priority_min, "i"),
    PASS(127, sched_rr_get_interval, "iW"), PASS(129, kill, "iS"), PASS(130, tkill, "iS"), PASS(131, tgkill, "iiS"),
    OURS(132, sigaltstack, "PW"), OURS(133, rt_sigsuspend, "Pi"), OURS(134, rt_sigaction, "SPWi"), OURS(135, rt_sigprocmask, "iPWi"),
    OURS(136, rt_sigpending, "Wi"), OURS(137, rt_sigtimedwait, "PWPi"), PASS(138, rt_sigqueueinfo, "iSP"), OURS(139, rt_sigreturn, ""),
    PASS(140, setpriority, "iii"), PASS(141, getpriority, "ii"),
    PASS(143, setregid, "ii"), PASS(144, setgid, "i"), PASS(145, setreuid, "ii"), PASS(146, setuid, "i"),
    PASS(147, setresuid, "iii"), PASS(148, getresuid, "WWW"), PASS(149, setresgid, "iii"), PASS(150, getresgid, "WWW"),
    PASS(151, setfsuid, "i"), PASS(152, setfsgid, "i"), PASS(153, times, "W"), PASS(154, setpgid, "ii"), PASS(155, getpgid, "i"),
    PASS(156, getsid, "i"), PASS(157, setsid, ""), PASS(158, getgroups, "iW"), PASS(159, setgroups, "iP"),
    OURS(160, uname, "W"), PASS(161, sethostname, "si"), PASS(162, setdomainname, "si"), OURS(163, getrlimit, "iW"), OURS(164, setrlimit, "iP"),
    PASS(165, getrusage, "iW"), PASS(166, umask, "o"), OURS(167, prctl, "ixxxx"), PASS(168, getcpu, "WW"),
    PASS(169, gettimeofday, "WW"), PASS(170, settimeofday, "PP"), PASS(171, adjtimex, "W"),
    PASS(172, getpid, ""), PASS(173, getppid, ""), PASS(174, getuid, ""), PASS(175, geteuid, ""), PASS(176, getgid, ""),
    PASS(177, getegid, ""), PASS(178, gettid, ""), PASS(179, sysinfo, "W"),
    PASS(180, mq_open, "sxoP"), PASS(181, mq_unlink, "s"), WAIT(182, mq_timedsend, "dbiiP"), WAIT(183, mq_timedreceive, "dBiWP"),
    PASS(184, mq_notify, "dP"), PASS(185, mq_getsetattr, "dPW"),
    PASS(186, msgget, "xx"), PASS(187, msgctl, "iiW"), PASS(188, msgrcv, "iBiix"), PASS(189, msgsnd, "iPix"),
    PASS(190, semget, "xix"), OURS(191, semctl, "iiix"), PASS(192, semtimedop, "iPiP"), PASS(193, semop, "iPi"),
    PASS(194, shmget, "xix"), PASS(195, shmctl, "iiW"), OURS(196, shmat, "iPx"), OURS(197, shmdt, "P"),
    PASS(198, socket, "iii"), PASS(199, socketpair, "iiiW"), PASS(200, bind, "dPi"), PASS(201, listen, "di"), WAIT(202, accept, "dWW"),
    WAIT(203, connect, "dPi"), PASS(204, getsockname, "dWW"), PASS(205, getpeername, "dWW"), WAIT(206, sendto, "dbixPi"),
    WAIT(207, recvfrom, "dBixWW"), OURS(208, setsockopt, "diiPi"), PASS(209, getsockopt, "diiWW"), PASS(210, shutdown, "di"),
    OURS_WAIT(211, sendmsg, "dPx"), OURS_WAIT(212, recvmsg, "dWx"), PASS(213, readahead, "dii"),
    OURS(214, brk, "x"), OURS(215, munmap, "xi"), OURS(216, mremap, "xiixx"),
    OURS(220, clone, "xPPxP"), OURS(221, execve, "pPP"), OURS(222, mmap, "xixxdx"), PASS(223, fadvise64, "diii"),
    OURS(226, mprotect, "xix"), OURS(227, msync, "xix"), PASS(228, mlock, "Pi"), PASS(229, munlock, "Pi"), OURS(230, mlockall, "x"),
    OURS(231, munlockall, ""), PASS(232, mincore, "PiW"), OURS(233, madvise, "xii"), MISSING(234, remap_file_pages, "xixix"),
    MISSING(235, mbind, "xiiPix"), MISSING(236, get_mempolicy, "WWixx"), MISSING(237, set_mempolicy, "iPi"),
    PASS(240, rt_tgsigqueueinfo, "iiSP"), MISSING(241, perf_event_open, "Piiix"), WAIT(242, accept4, "dWWx"), OURS_WAIT(243, recvmmsg, "dWixP"),
    OURS(258, riscv_hwprobe, "WiiPx"), OURS(259, riscv_flush_icache, "xxx"),
    WAIT(260, wait4, "iWxW"), OURS(261, prlimit64, "iiPW"), PASS(264, name_to_handle_at, "DpWWx"), PASS(266, clock_adjtime, "iW"),
    PASS(267, syncfs, "d"), PASS(268, setns, "dx"), OURS_WAIT(269, sendmmsg, "dPix"),
    MISSING(270, process_vm_readv, "iPiPix"), MISSING(271, process_vm_writev, "iPiPix"), PASS(272, kcmp, "iiixx"),
    PASS(274, sched_setattr, "iPx"), PASS(275, sched_getattr, "iWix"), PASS(276, renameat2, "DpDpx"), MISSING(277, seccomp, "ixP"),
    PASS(278, getrandom, "Bix"), PASS(279, memfd_create, "sx"), MISSING(280, bpf, "iPi"), OURS(281, execveat, "DpPPx"),
    MISSING(282, userfaultfd, "x"), PASS(283, membarrier, "ixi"), PASS(284, mlock2, "Pix"), WAIT(285, copy_file_range, "dWdWix"),
    OURS_WAIT(286, preadv2, "dPiiix"), OURS_WAIT(287, pwritev2, "dPiiix"),
    MISSING(288, pkey_mprotect, "xixi"), MISSING(289, pkey_alloc, "xx"), MISSING(290, pkey_free, "i"),
    PASS(291, statx, "DpxxW"), MISSING(293, rseq, "Pixx"),
    PASS(424, pidfd_send_signal, "dSPx"), MISSING(425, io_uring_setup, "iW"), MISSING(426, io_uring_enter, "diixPi"),
    MISSING(427, io_uring_register, "dixi"), PASS(434, pidfd_open, "ix"), OURS(435, clone3, "Pi"), PASS(436, close_range, "iix"),
    OURS_WAIT(437, openat2, "DpPi"), PASS(438, pidfd_getfd, "ddx"), PASS(439, faccessat2, "Dpox"), OURS(441, epoll_pwait2, "dWiPPi"),
    MISSING(449, futex_waitv, "PixPi"),
};
/* clang-format on */

enum { STRUCTURE = 512 /* bytes that a call may write behind a W: none of the table's has more */ };

/* --- calls that are passed on ------------------------------------------------------------------------------------ */

static int64_t pass(struct user_thread *t, const struct user_syscall *row, const uint64_t a[6])
{
    struct space *space = &t->process->space;
    uint64_t host[6] = {0};
    char paths[2][PATH_MAX];
    unsigned path_count = 0;
    for (unsigned i = 0; row->arguments[i]; i++) {
        host[i] = a[i];
        switch (row->arguments[i]) {
        case 'p':
            if (a[i]) {
                int64_t result = user_path(t, a[i], paths[path_count]);
                if (result < 0)
                    return result;
                host[i] = (uint64_t)(uintptr_t)paths[path_count++];
            }
            break;
        case 'B':
            space_will_write(space, a[i], a[i + 1]);
            host[i] = user_pointer(t, a[i]);
            break;
        case 'W':
            space_will_write(space, a[i], STRUCTURE);
            host[i] = user_pointer(t, a[i]);
            break;
        case 'b':
        case 's':
        case 'P': host[i] = user_pointer(t, a[i]); break;
        default: break;
        }
    }
    return user_host_call(&t->stop_calls, row->host, host);
}

int64_t user_host(struct user_thread *t, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                  uint64_t f)
{
    const uint64_t arguments[6] = {a, b, c, d, e, f};
    return user_host_call(&t->stop_calls, number, arguments);
}

/* --- all calls --------------------------------------------------------------------------------------------------- */

static int64_t dispatch(struct user_thread *t, const struct user_syscall *row, const uint64_t a[6])
{
    if (row->handler)
        return row->handler(t, a);
    return row->host < 0 ? -ENOSYS : pass(t, row, a);
}

int64_t user_call(struct user_thread *t, uint64_t number, const uint64_t a[6])
{
    static const struct user_syscall unknown = {.name = NULL, .host = -1, .arguments = "xxxxxx"};
    const struct user_syscall *row = number < ARRAY_SIZE(calls) && calls[number].name ? &calls[number] : &unknown;
    bool trace = t->process->options->trace;
    if (trace)
        user_trace_call(t, row, number, a);
    int64_t result = dispatch(t, row, a);
    if (result == -USER_EINTERRUPTED)
        t->restart = RESTART_ALWAYS;
    else if (result == -EINTR && (t->pending & ~t->mask) && t->restart == RESTART_NOT)
        t->restart = row->restart;
    if (trace)
        user_trace_result(t, row, result);
    return result;
}
