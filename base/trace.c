/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trace points. Every trace() statement leaves a struct in the section `spindle_trace`; the linker names its ends, and
 * the structs between them are the list of all points of the program. A name may stand at several places.
 */
#include "base/trace.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "base/vec.h"

/* Weak: a program may have no trace point at all. */
extern struct trace_point __start_spindle_trace[] __attribute__((weak));
extern struct trace_point __stop_spindle_trace[] __attribute__((weak));

void trace_emit(const struct trace_point *point, const char *format, ...)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    auto_strbuf line = {0};
    strbuf_printf(&line, "%" PRId64 ".%06ld %s: ", (int64_t)now.tv_sec, now.tv_nsec / 1000, point->name);
    va_list args;
    va_start(args, format);
    strbuf_vprintf(&line, format, args);
    va_end(args);
    strbuf_append_char(&line, '\n');
    fputs(line.text, stderr);
}

static bool enable_glob(const char *glob)
{
    bool found = false;
    for (struct trace_point *point = __start_spindle_trace; point < __stop_spindle_trace; point++) {
        if (fnmatch(glob, point->name, 0))
            continue;
        point->enabled = true;
        found = true;
    }
    return found;
}

bool trace_enable(const char *globs, struct error *err)
{
    auto_free char *copy = xstrdup(globs);
    char *rest = NULL;
    for (char *glob = strtok_r(copy, ",", &rest); glob; glob = strtok_r(NULL, ",", &rest))
        if (!enable_glob(glob))
            return fail(err, EINVAL, "no trace point matches '%s'", glob);
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void trace_list(FILE *out)
{
    auto_free vec(const char *) names = {0};
    for (struct trace_point *point = __start_spindle_trace; point < __stop_spindle_trace; point++)
        vec_push(&names, point->name);
    if (names.count)
        qsort(names.items, names.count, sizeof *names.items, by_name);
    for (size_t i = 0; i < names.count; i++)
        if (!i || strcmp(names.items[i], names.items[i - 1]))
            fprintf(out, "%s\n", names.items[i]);
}
