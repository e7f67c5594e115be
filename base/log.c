/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on standard error, each by one write so that threads do not mix lines. The program's name is the C library's
 * own record of it (program_invocation_short_name), so this file keeps no state.
 *
 * What a message quotes may be anybody's words, so all of it is made fit for a terminal (base/printable.h).
 */
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/printable.h"

void log_set_program(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');
    program_invocation_name = (char *)argv0;
    program_invocation_short_name = (char *)(slash ? slash + 1 : argv0);
}

const char *log_program(void)
{
    return program_invocation_short_name;
}

/* `hint` may be NULL. */
static void write_lines(const char *kind, const char *message, const char *hint)
{
    auto_strbuf lines = {0};
    strbuf_printf(&lines, "%s: %s", log_program(), kind);
    printable_append(&lines, message);
    if (hint)
        strbuf_append_char(&lines, '\n');
    if (hint)
        printable_append(&lines, hint);
    strbuf_append_char(&lines, '\n');
    fputs(lines.text, stderr);
}

static void say(const char *kind, const char *format, va_list args)
{
    auto_strbuf message = {0};
    strbuf_vprintf(&message, format, args);
    write_lines(kind, strbuf_text(&message), NULL);
}

#define DEFINE_LOG(name, kind)                                                                                         \
    void name(const char *format, ...)                                                                                 \
    {                                                                                                                  \
        va_list args;                                                                                                  \
        va_start(args, format);                                                                                        \
        say(kind, format, args);                                                                                       \
        va_end(args);                                                                                                  \
    }

DEFINE_LOG(log_error, "")
DEFINE_LOG(log_warning, "warning: ")
DEFINE_LOG(log_info, "info: ")

void log_failure(const struct error *err)
{
    write_lines("", err->message, err->hint);
}
