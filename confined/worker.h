/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of confined/protocol.h: the process that parses. A program that has a doorman calls this first thing
 * in main:
 *
 *     if (confined_is_worker(argc, argv))
 *         return confined_worker_main(formats_table);
 */
#ifndef CONFINED_WORKER_H
#define CONFINED_WORKER_H

#include <stdbool.h>

struct block_driver;

bool confined_is_worker(int argc, char **argv);
int confined_worker_main(const struct block_driver *const *formats);

#endif
