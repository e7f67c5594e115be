/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the calls that a program behind walls is most likely to be stopped for. The handler that says so may not ask
 * libseccomp, which takes memory: the call may have been made while the allocator's lock was held. */
#ifndef WALLS_NAMES_H
#define WALLS_NAMES_H

#include <stddef.h>

/* NULL: not among them. */
const char *walls_call_name(int number);

#endif
