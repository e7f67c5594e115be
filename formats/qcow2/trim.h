/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting off what is free at the end of the file; trim.c. Both YIELD and return 0 or -errno. */
#ifndef FORMATS_QCOW2_TRIM_H
#define FORMATS_QCOW2_TRIM_H

#include "formats/qcow2/state.h"

/* Under the lock; everything is synced, and no request is under way but the caller's. */
int qcow2_trim_locked(struct qcow2 *q);
/* From a flush: when there is something to cut off, it is time, and nobody else is at work. */
int qcow2_trim_when_idle(struct qcow2 *q);

#endif
