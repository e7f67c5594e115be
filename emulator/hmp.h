/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor for people: a line editor and a few commands on a character line. Each command runs in a coroutine. */
#ifndef EMULATOR_HMP_H
#define EMULATOR_HMP_H

#include "base/error.h"

struct char_line;
struct hmp;
struct machine;

struct hmp *hmp_new(struct machine *machine, struct char_line *line, struct error *err);
void hmp_free(struct hmp *hmp); /* YIELDS: waits for its command */

#endif
