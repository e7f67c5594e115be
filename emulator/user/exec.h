/* SPDX-License-Identifier: Apache-2.0 */
/* execve(): programs for the guest run in this emulator again, others as they are. */
#ifndef EMULATOR_USER_EXEC_H
#define EMULATOR_USER_EXEC_H

#include "emulator/user/user.h"

/* Returns -errno, or not at all. Addresses are the guest's. */
int64_t exec_program(struct user_thread *t, int dirfd, uint64_t path, uint64_t argv, uint64_t envp, int flags);

#endif
