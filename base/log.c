/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on standard error, each by one write so that threads do not mix lines. The program's name is the C library's
 * own record of it (program_invocation_short_name), so this file keeps no state.
 */
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/strbuf.h"

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

static void say(const char *kind, const char *format, va_list args)
{
    auto_strbuf line = {0};
    strbuf_printf(&line, "%s: %s", log_program(), kind);
    strbuf_vprintf(&line, format, args);
    strbuf_append_char(&line, '\n');
    fputs(line.text, stderr);
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
    if (err->hint)
        log_error("%s\n%s", err->message, err->hint);
    else
        log_error("%s", err->message);
}
