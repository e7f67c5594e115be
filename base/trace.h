/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trace points: one predicted branch when off. A point names itself and its printf arguments where it stands:
 *
 *     trace(nbd_request, "connection %u: %s offset %" PRIu64 " length %u", id, name, offset, length);
 *
 * `-T nbd_*` (a glob, several separated by commas) or SPINDLE_TRACE in the environment switches points on at start.
 * Lines go to standard error with a monotonic time stamp. Points of one program register in a linker section;
 * trace_list() prints their names.
 */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include <stdbool.h>
#include <stdio.h>
#include "base/error.h"
#include "base/math.h"

struct trace_point {
    const char *name;
    bool enabled; /* written before threads start, then only read */
};

#define trace(point, ...)                                                                                              \
    do {                                                                                                               \
        static struct trace_point trace_point_##point                                                                  \
            __attribute__((section("spindle_trace"), used)) = {#point, false};                                         \
        if (unlikely(trace_point_##point.enabled))                                                                     \
            trace_emit(&trace_point_##point, __VA_ARGS__);                                                             \
    } while (0)

void trace_emit(const struct trace_point *point, const char *format, ...) PRINTF_LIKE(2, 3);
bool trace_enable(const char *globs, struct error *err); /* an unmatched glob is an error that names it */
void trace_list(FILE *out);

#endif
