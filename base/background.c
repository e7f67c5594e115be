/* SPDX-License-Identifier: Apache-2.0 */
/* The fork, the waiting parent, and the pid file. */
#include "base/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

int background_begin(void)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) {
        log_error("cannot go to the background: %s", strerror(errno));
        exit(1);
    }
    pid_t child = fork();
    if (child < 0) {
        log_error("cannot go to the background: %s", strerror(errno));
        exit(1);
    }
    if (child > 0) {
        char byte;
        close(ready[1]);
        ssize_t got;
        do {
            got = read(ready[0], &byte, 1);
        } while (got < 0 && errno == EINTR);
        _exit(got == 1 ? 0 : 1); /* the child has said why */
    }
    close(ready[0]);
    setsid();
    return ready[1];
}

char *background_write_pidfile(const char *path, struct error *err)
{
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_errno_null(err, errno, "cannot open pid file '%s'", path);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
        return fail_errno_null(err, errno, "cannot lock pid file '%s'", path);
    auto_free char *text = xasprintf("%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        return fail_errno_null(err, errno, "cannot write pid file '%s'", path);
    (void)TAKE_FD(fd); /* stays open with its lock: a second process is refused while we live */
    return realpath(path, NULL);
}

void background_ready(int fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (chdir("/") < 0 || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        return; /* the parent sees us end without the byte */
    close(null);
    if (write(fd, "", 1) == 1)
        close(fd);
}
