/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's file names. With -L, an absolute name that exists below that directory means the file there: libraries
 * and data of the guest's system are found, everything else is the host's.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "emulator/user/user.h"

int64_t user_path_of(struct user_process *process, const char *guest, char to[PATH_MAX])
{
    const char *root = process->options->sysroot;
    size_t length = strlen(guest);
    if (root && guest[0] == '/' && strcmp(root, "/")) {
        int n = snprintf(to, PATH_MAX, "%s%s", root, guest);
        if (n < PATH_MAX && !faccessat(AT_FDCWD, to, F_OK, AT_SYMLINK_NOFOLLOW))
            return 0;
    }
    if (length >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(to, guest, length + 1);
    return 0;
}

int64_t user_path(struct user_thread *t, uint64_t guest_address, char to[PATH_MAX])
{
    char guest[PATH_MAX];
    int64_t result = space_string(&t->process->space, guest, sizeof guest, guest_address);
    return result < 0 ? result : user_path_of(t->process, guest, to);
}
