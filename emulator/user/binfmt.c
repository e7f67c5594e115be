/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documentation/admin-guide/binfmt-misc.rst. The header of a 64-bit little-endian RISC-V executable is matched, with
 * the ABI byte and the type (executable or shared) left open. Flags: P gives us the program's argv[0]; F opens the
 * emulator at once, so that it is found from containers and chroots, too. Not C: a program's set-user-ID bit must not
 * become the emulator's.
 */
#include "emulator/user/binfmt.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"

static const char register_path[] = "/proc/sys/fs/binfmt_misc/register";

static bool make(char line[PATH_MAX + 512], struct error *err)
{
    static const char magic[] =
        "\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xf3\\x00";
    static const char mask[] =
        "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff";
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        return fail_errno(err, errno, "cannot find where this program is");
    self[length] = 0;
    snprintf(line, PATH_MAX + 512, ":spindle-riscv64:M::%s:%s:%s:PF", magic, mask, self);
    return true;
}

bool binfmt_print(FILE *out, struct error *err)
{
    char line[PATH_MAX + 512];
    if (!make(line, err))
        return false;
    fprintf(out, "%s\n", line);
    return true;
}

bool binfmt_install(struct error *err)
{
    char line[PATH_MAX + 512];
    if (!make(line, err))
        return false;
    auto_close int fd = open(register_path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        fail_errno(err, errno, "cannot open %s", register_path);
        return fail_hint(err, "It takes root, and the file system binfmt_misc mounted there.");
    }
    if (write(fd, line, strlen(line)) < 0)
        return fail_errno(err, errno, "the kernel did not take the registration%s",
                          errno == EEXIST
                              ? " (there is one of this name: write -1 to /proc/sys/fs/binfmt_misc/spindle-riscv64)"
                              : "");
    return true;
}
