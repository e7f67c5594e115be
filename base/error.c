/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of control paths; see the header for the rules. */
#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"

bool vfail(struct error *err, int code, const char *format, va_list args)
{
    if (!err || err->message)
        return false;
    err->code = code < 0 ? -code : code;
    err->message = xvasprintf(format, args);
    return false;
}

bool fail(struct error *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfail(err, code, format, args);
    va_end(args);
    return false;
}

bool fail_class(struct error *err, const char *class_name, const char *format, ...)
{
    if (!err || err->message)
        return false;
    va_list args;
    va_start(args, format);
    vfail(err, EINVAL, format, args);
    va_end(args);
    err->class_name = class_name;
    return false;
}

bool fail_errno(struct error *err, int code, const char *format, ...)
{
    if (!err || err->message)
        return false;
    if (code < 0)
        code = -code;
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    return fail(err, code, "%s: %s", text, strerror(code));
}

bool fail_prefix(struct error *err, const char *format, ...)
{
    if (!err || !err->message)
        return false;
    va_list args;
    va_start(args, format);
    auto_free char *text = xvasprintf(format, args);
    va_end(args);
    char *joined = xasprintf("%s%s", text, err->message);
    free(err->message);
    err->message = joined;
    return false;
}

bool fail_hint(struct error *err, const char *format, ...)
{
    if (!err || !err->message || err->hint)
        return false;
    va_list args;
    va_start(args, format);
    err->hint = xvasprintf(format, args);
    va_end(args);
    return false;
}

void error_clear(struct error *err)
{
    free(err->message);
    free(err->hint);
    *err = (struct error){0};
}

void error_move(struct error *to, struct error *from)
{
    if (to && !to->message) {
        *to = *from;
        *from = (struct error){0};
    } else {
        error_clear(from);
    }
}
