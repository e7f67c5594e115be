/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going to the background, and pid files. The fork happens before anything is opened (a loop and its threads do not
 * survive one); the parent stays until the child has come up, and exits with the child's verdict: a script that gets a
 * 0 back can connect.
 */
#ifndef BASE_BACKGROUND_H
#define BASE_BACKGROUND_H

#include <stdbool.h>
#include "base/error.h"

/* Returns in the child: the descriptor for background_ready(). The parent exits when the child is ready, or gone. */
int background_begin(void);
/* Everything is up: lets go of the terminal, and of the parent. */
void background_ready(int fd);
/* Writes our process id, and holds a lock on the file as long as we live: a second process is refused. Returns the path
 * to remove at the end, good from any folder (owned); NULL: it failed. */
char *background_write_pidfile(const char *path, struct error *err);

#endif
