/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From lists of calls to a filter in the kernel, by libseccomp.
 *
 * A call that is not in the lists raises SIGSYS where it stands and is not carried out. Our handler says which call it
 * was and ends the process; whoever has taken over the process could replace the handler, but not the filter.
 *
 * Lists name calls. A name that this kernel's processor does not have (open on aarch64), or that libseccomp is too old
 * to know, is left out: then nobody can make that call.
 */
#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "walls/internal.h"
#include "walls/names.h"

/* Runs on whatever stack the call was made from. It takes nothing that somebody may hold: of the C library only what
 * formats into a buffer. */
static void on_forbidden_call(int signal_number, siginfo_t *info, void *context)
{
    char text[256];
    const char *name = walls_call_name(info->si_syscall);
    int length = snprintf(text, sizeof text,
                          "%s: stopped: system call '%s' (%d) is not among those that this program needs; "
                          "--sandbox off would let it pass\n",
                          log_program(), name ? name : "?", info->si_syscall);
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0)
        length = 0; /* nobody listens */
    signal(SIGSYS, SIG_DFL);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, SIGSYS);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    raise(SIGSYS);
    _exit(128 + SIGSYS);
}

static bool set_handler(struct error *err)
{
    struct sigaction action = {.sa_sigaction = on_forbidden_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, SIGSYS);
    if (sigaction(SIGSYS, &action, NULL) < 0 || pthread_sigmask(SIG_UNBLOCK, &only, NULL))
        return fail_errno(err, errno, "cannot catch SIGSYS");
    return true;
}

static int add(scmp_filter_ctx filter, const struct walls_call *call)
{
    int number = seccomp_syscall_resolve_name(call->name);
    if (number < 0)
        return 0; /* not on this processor */
    switch (call->condition) {
    case IF_ANY: return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
    case IF_EQUAL:
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1,
                                SCMP_CMP32(call->argument, SCMP_CMP_EQ, (uint32_t)call->value));
    case IF_MASKED:
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1,
                                SCMP_CMP64(call->argument, SCMP_CMP_MASKED_EQ, call->mask, call->value));
    case BUT_ERROR: return seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)call->value), number, 0);
    case BUT_ERROR_UNLESS:
        return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), number, 1,
                                SCMP_CMP32(call->argument, SCMP_CMP_NE, (uint32_t)call->value));
    case BUT_ERROR_SET:
        return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), number, 1,
                                SCMP_CMP64(call->argument, SCMP_CMP_MASKED_EQ, call->mask, call->value));
    }
    return -EINVAL;
}

static int add_all(scmp_filter_ctx filter, const struct walls_list *lists, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < lists[i].count; k++) {
            int result = add(filter, &lists[i].calls[k]);
            if (result < 0 && result != -EEXIST)
                return result;
        }
    }
    return 0;
}

bool walls_filter(const struct walls_list *lists, size_t count, struct error *err)
{
    if (!set_handler(err))
        return false;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    if (!filter)
        return fail(err, ENOMEM, "no memory for the filter of system calls");
    /* Every thread; a balanced search instead of one after the other; and calls of other ABIs end the process. */
    int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (!result)
        result = add_all(filter, lists, count);
    if (!result)
        result = seccomp_load(filter);
    seccomp_release(filter);
    return !result || fail_errno(err, result, "the kernel does not take a filter of system calls");
}
