/* SPDX-License-Identifier: Apache-2.0 */
/* The files of /proc that speak of the program, which in the host's would speak of the emulator. */
#ifndef EMULATOR_USER_PROC_H
#define EMULATOR_USER_PROC_H

#include "emulator/user/user.h"

/* true: it was such a file, and *result is a descriptor or -errno. */
bool proc_open(struct user_process *process, const char *path, int flags, int64_t *result);

#endif
