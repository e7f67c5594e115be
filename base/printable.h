/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text of others, on its way to a terminal. Names stand in images, come from servers and from file systems: whoever
 * writes them could put commands for the terminal into them, lines that look like ours, or marks that turn the reading
 * order round. Those bytes are shown as \xNN; letters of all scripts stay as they are.
 */
#ifndef BASE_PRINTABLE_H
#define BASE_PRINTABLE_H

#include <stdbool.h>
#include "base/strbuf.h"

/* Appends the text: control characters (of ASCII, of ISO 6429 in UTF-8, line ends), directional marks and bytes that
 * are not UTF-8 become \xNN. */
void printable_append(struct strbuf *out, const char *text);
char *printable(const char *text); /* the same, as an owned text; NULL gives NULL */

#endif
