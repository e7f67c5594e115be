/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Child processes that handle disk images for this one: started with nothing but what they need.
 *
 * Before the program starts it loses the network and System V IPC (name spaces of its own, where the kernel allows
 * that), the way to new privileges, core dumps (they would hold guest data and keys), and every descriptor of ours that
 * is not named here. It gets a process group of its own, so that Ctrl-C in a terminal is for the guest alone, and
 * SIGTERM when we end, however we end.
 */
#ifndef EMULATOR_STORAGE_SANDBOX_H
#define EMULATOR_STORAGE_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "base/error.h"

struct sandbox {
    const char *program; /* a path, or a name that PATH finds */
    char *const *argv;   /* NULL at the end */
    const int *fds;      /* become 3, 4, ... in the child */
    size_t fd_count;
    int out;           /* its standard output; -1: /dev/null */
    bool keep_network; /* its images lie on other machines */
};

/* The child's process number; -1 when it could not be started (also when there is no such program). */
pid_t sandbox_spawn(const struct sandbox *sandbox, struct error *err);

#endif
