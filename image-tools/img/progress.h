/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a command has come: "    (12.34/100%)\r" on standard output, which people and their programs read; on
 * standard error when an image goes to standard output. Where the end is not known, the amount is told: "    (1.5
 * GiB)\r". SIGUSR1 prints it once, on standard error, also when it was not asked for.
 */
#ifndef IMAGE_TOOLS_IMG_PROGRESS_H
#define IMAGE_TOOLS_IMG_PROGRESS_H

#include <signal.h>
#include <stdio.h>
#include "base/loop.h"

#define PROGRESS_UNKNOWN UINT64_MAX /* as total */

struct progress {
    FILE *out; /* NULL: standard output; may be set before progress_start() */
    bool shown;
    bool as_json; /* lines such as {"done": 512, "total": 1024}; may be set before progress_start() */
    uint64_t done, total;
    double percent, printed;
    uint64_t printed_bytes;
    struct loop_watch watch;
    int signal_fd;
};

/* `wanted`: by option; `automatic`: show it when it would go to a terminal. */
void progress_start(struct progress *progress, struct loop *loop, bool wanted, bool automatic);
void progress_set(struct progress *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress, bool success);

#endif
