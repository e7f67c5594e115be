/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Privileges, memory, limits.
 *
 * Capabilities. A daemon run by root goes on opening other users' images and binding low ports; loading modules,
 * tracing processes, mounting and all the rest it loses. A worker and the emulator lose every one.
 *
 * Name spaces. With network=deny (an emulator's own daemon) the process moves into a network of its own, which is
 * empty: sockets with names in the file system go on working. For what else has name spaces (System V IPC, host names,
 * mounts) the filter refuses the calls themselves, so a name space would cost time and add nothing.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/math.h"
#include "walls/internal.h"

/* What opening, creating and locking files of others, host devices and low ports need, and memory that is never swapped
 * out. */
static const uint8_t file_capabilities[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,
                                            CAP_CHOWN,        CAP_FSETID,          CAP_NET_BIND_SERVICE,
                                            CAP_SYS_RAWIO,    CAP_IPC_LOCK,        CAP_SYS_RESOURCE};

static uint64_t kept_capabilities(enum walls_role role)
{
    uint64_t kept = 0;
    if (role == WALLS_TOOL || role == WALLS_DAEMON) {
        for (size_t i = 0; i < ARRAY_SIZE(file_capabilities); i++)
            kept |= 1ull << file_capabilities[i];
    }
    return kept;
}

/* libc has no wrapper. */
static bool drop_capabilities(uint64_t kept, struct error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return fail_errno(err, errno, "cannot read the capabilities of the process");
    uint64_t had = data[0].permitted | (uint64_t)data[1].permitted << 32;
    if (!had)
        return true;
    for (int i = 0; i < 64; i++) { /* without CAP_SETPCAP there is nothing to lose */
        if (!(kept >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0)
            break; /* beyond the last one */
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int i = 0; i < 2; i++) {
        data[i].permitted &= (uint32_t)(kept >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) == 0 || fail_errno(err, errno, "cannot drop capabilities");
}

static void drop_limits(enum walls_role role)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_RTPRIO, &(struct rlimit){0, 0});
    if (role == WALLS_WORKER)
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0});
}

/* Only root can do this without a user name space around it. Others have the filter: no socket of the network's
 * families can be made. */
static void leave_network(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        return;
}

bool walls_drop(enum walls_role role, const struct walls_options *options, struct error *err)
{
    if (options->no_network && role != WALLS_TOOL)
        leave_network();
    drop_limits(role);
    if (!options->elevate && !drop_capabilities(kept_capabilities(role), err))
        return false;
    if (!walls_are_relaxed() && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail_errno(err, errno, "cannot hide the memory of the process");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail_errno(err, errno, "cannot give up new privileges");
    return true;
}
