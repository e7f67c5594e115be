/* SPDX-License-Identifier: Apache-2.0 */
/* Registration with the kernel's binfmt_misc, so that RISC-V programs start like any other. */
#ifndef EMULATOR_USER_BINFMT_H
#define EMULATOR_USER_BINFMT_H

#include <stdbool.h>
#include <stdio.h>
#include "base/error.h"

bool binfmt_print(FILE *out, struct error *err); /* the line for /proc/sys/fs/binfmt_misc/register */
bool binfmt_install(struct error *err);

#endif
