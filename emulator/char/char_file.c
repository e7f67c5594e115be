/* SPDX-License-Identifier: Apache-2.0 */
/* Output to a file, which is replaced or appended to; there is no input. And pseudo terminals: the name of the other
 * end is printed, for people and scripts look for it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/char/char_private.h"

static bool file_open(struct char_line *line, const struct char_line_options *options, struct error *err)
{
    if (!options->path)
        return fail(err, EINVAL, "a file needs path=FILE");
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (options->append ? O_APPEND : O_TRUNC);
    int fd = open(options->path, flags, 0666);
    if (fd < 0)
        return fail_errno(err, errno, "cannot open '%s'", options->path);
    free(line->description);
    line->description = xasprintf("file:%s", options->path);
    char_line_connected(line, -1, fd);
    return true;
}

const struct char_line_ops char_line_file_ops = {.open = file_open};

/* The slave end stays open here as well: without it the master would report a hang-up again and again while nobody is
 * connected. Output that nobody reads is dropped. */
static bool pty_open(struct char_line *line, const struct char_line_options *options, struct error *err)
{
    char name[128];
    auto_close int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof name))
        return fail_errno(err, errno, "cannot make a pseudo terminal");
    auto_close int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios raw;
    if (slave < 0 || tcgetattr(slave, &raw) < 0)
        return fail_errno(err, errno, "cannot open '%s'", name);
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    if (!char_line_set_nonblocking(master, err))
        return false;
    free(line->description);
    line->description = xasprintf("pty:%s", name);
    line->drop_when_full = true;
    printf("char device redirected to %s (label %s)\n", name, line->id);
    fflush(stdout);
    int fd = TAKE_FD(master);
    line->kind = xmemdup(&slave, sizeof slave);
    (void)TAKE_FD(slave);
    char_line_connected(line, fd, fd);
    return true;
}

static void pty_close(struct char_line *line)
{
    if (line->kind)
        close(*(int *)line->kind);
    free(line->kind);
}

const struct char_line_ops char_line_pty_ops = {.open = pty_open, .close = pty_close};
