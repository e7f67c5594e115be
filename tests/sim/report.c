/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. A trace line begins with the virtual time in milliseconds and the number of file operations so far.
 */
#include "tests/sim/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "tests/sim/operations.h"

enum { LINES = 60 };

struct report {
    char *lines[LINES]; /* a ring */
    uint64_t count;
    FILE *log; /* what `stderr` is meanwhile */
    FILE *outer;
};

static uint64_t digest(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return hash;
}

static void add_line(struct world *world, const char *text)
{
    struct report *report = world->report;
    uint64_t now = world->loop ? loop_now_ns(world->loop) : 0,
             operations = world->loop ? sim_operations(world->loop) : 0;
    char *line = xasprintf("%11.3f %7" PRIu64 "  %s", (double)now / 1e6, operations, text);
    world->trace_hash = digest(world->trace_hash, line);
    if (world->settings->trace)
        printf("%s\n", line);
    free(report->lines[report->count % LINES]);
    report->lines[report->count++ % LINES] = line;
}

void world_trace(struct world *world, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    add_line(world, text);
}

/* A line of the log, which the daemon's code writes to stderr. */
static ssize_t take_log(void *cookie, const char *data, size_t size)
{
    struct world *world = (struct world *)cookie;
    auto_free char *text = xasprintf("log: %.*s", (int)(size && data[size - 1] == '\n' ? size - 1 : size), data);
    add_line(world, text);
    return (ssize_t)size;
}

void report_begin(struct world *world)
{
    struct report *report = world->report = new (struct report);
    world->trace_hash = UINT64_C(0xcbf29ce484222325);
    report->outer = stderr;
    report->log = fopencookie(world, "w", (cookie_io_functions_t){.write = take_log});
    if (report->log) {
        setvbuf(report->log, NULL, _IONBF, 0);
        stderr = report->log;
    }
}

void report_end(struct world *world)
{
    struct report *report = world->report;
    stderr = report->outer;
    if (report->log)
        fclose(report->log);
    for (size_t i = 0; i < LINES; i++)
        free(report->lines[i]);
    free(report);
    world->report = NULL;
}

static void print_failure(struct world *world, const char *text)
{
    const struct settings *settings = world->settings;
    struct report *report = world->report;
    fflush(stdout);
    if (!settings->trace) {
        for (uint64_t i = report->count > LINES ? report->count - LINES : 0; i < report->count; i++)
            printf("%s\n", report->lines[i % LINES]);
    }
    printf("\nFAILED after %" PRIu64 " cuts: image %s, seed %" PRIu64 ", life %u: %s\n", world->stats->cuts,
           world->kind->name, world->seed, world->life + 1, text);
    printf("repeat: %s --image %s --seed %" PRIu64 " --worlds 1 --operations %" PRIu64 " --lives %u --every %" PRIu64
           " --lots %u%s%s%s%s --trace\n",
           program_invocation_name, world->kind->name, world->seed, settings->operations, settings->lives,
           settings->every, settings->lots, settings->faults ? "" : " --no-faults",
           settings->kills ? "" : " --no-kills", settings->only_operation ? " --operation " : "",
           settings->only_operation ? settings->only_operation : "");
    fflush(stdout);
}

void world_fail(struct world *world, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    print_failure(world, text);
    _exit(1);
}

void examine_fail(struct examination *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    world_fail(e->world, "after %s: %s", e->cut, text);
}
