/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walls: a program gives up what it does not need, before it reads the first byte that somebody else wrote. What was
 * given up cannot be had again, by nobody in this process: not by us, and not by who takes it over through a bug.
 *
 *   - no new privileges: what it executes gains nothing from set-user-ID bits or file capabilities;
 *   - no core dumps, and no debugger of the same user reads its memory, where keys and guests' data lie;
 *   - of root's capabilities only those that opening files and binding ports need;
 *   - of the kernel's calls only those in its role's list (calls.c). Anything else ends the process with a line that
 *     names the call.
 *
 * Threads that exist already are behind the same wall; processes that exist already are not. So what must stay outside
 * (confined/doorman.h) is forked before. Nothing here yields.
 */
#ifndef WALLS_WALLS_H
#define WALLS_WALLS_H

#include <stdbool.h>
#include "base/error.h"

/* What a program is for; each has a list of calls. */
enum walls_role {
    WALLS_TOOL,     /* reads and writes images, asks servers */
    WALLS_DAEMON,   /* the same, serves, starts confined workers */
    WALLS_EMULATOR, /* translates code, serves monitors */
    WALLS_WORKER,   /* reads one descriptor, answers on another */
};

/* -sandbox and --sandbox. What is not said is denied; `network` is the exception. */
struct walls_options {
    bool off;
    bool demanded;        /* said by the user: then a wall that cannot be built is an error, not a warning */
    bool obsolete;        /* calls that only old programs make */
    bool elevate;         /* changes of user and group, and root's capabilities; programs still gain nothing */
    bool spawn;           /* other programs and processes */
    bool resourcecontrol; /* scheduling and affinity */
    bool no_network;      /* sockets with names in the file system only */
};

/* "on", "off", "on,spawn=allow,..."; `text` is as the ecosystem writes it. */
bool walls_options_parse(const char *text, struct walls_options *options, struct error *err);

/* For help and manuals: the keys behind on|off. */
#define WALLS_OPTIONS_HELP                                                                                             \
    "on|off[,obsolete=allow|deny][,elevateprivileges=allow|deny|children][,spawn=allow|deny]"                          \
    "[,resourcecontrol=allow|deny][,network=allow|deny]"

/* Gives it all up. With options->off: nothing. False only where the user demanded walls that cannot be had; what could
 * be given up is then given up all the same. */
bool walls_enter(enum walls_role role, const struct walls_options *options, struct error *err);

/* Is this build instrumented by a sanitizer? Its runtime needs more calls, which the lists then have. */
bool walls_are_relaxed(void);

#endif
