/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors of control paths: opening, configuring, parsing, commands.
 *
 * A control path returns bool or a pointer and fills the caller's `struct error`; a data path (read, write, flush ...)
 * returns 0 or -errno and never touches one. A message names the thing, the value found and what would have been right;
 * callers add their own context in front with fail_prefix(). Errors are said once: whoever returns one does not log it
 * too.
 *
 *     struct error err = {0};               // zero is "no error"
 *     if (!thing_open(path, &err)) { report(err.message); error_clear(&err); }
 *
 * Every function accepts err == NULL (the caller does not want to know). None of them yields.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>

struct error {
    int code;               /* positive errno value that fits best; 0 = no error */
    const char *class_name; /* QMP error class, a string literal; NULL means "GenericError" */
    char *message;          /* owned, one line; NULL = no error */
    char *hint;             /* owned; what a person could look at, on a line of its own; mostly NULL */
};

#define PRINTF_LIKE(string, first) __attribute__((format(printf, string, first)))

/* Fills `err` and returns false, so that a failing function ends in one line. `code` is a positive errno (a negative
 * one is negated). An error that is already set is kept: the first cause wins. */
bool fail(struct error *err, int code, const char *format, ...) PRINTF_LIKE(3, 4);
bool vfail(struct error *err, int code, const char *format, va_list args) PRINTF_LIKE(3, 0);

/* As fail(), with a QMP error class such as "DeviceNotFound" (a string literal). */
bool fail_class(struct error *err, const char *class_name, const char *format, ...) PRINTF_LIKE(3, 4);

/* As fail(), with ": " and the text of the errno value behind the message. */
bool fail_errno(struct error *err, int code, const char *format, ...) PRINTF_LIKE(3, 4);

/* Puts text in front of the message of an error that is set; returns false. */
bool fail_prefix(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Adds a hint to an error that is set: programs for people print it below the message, QMP leaves it out. Returns
 * false. */
bool fail_hint(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* NULL-returning forms, for functions that return a pointer. */
#define fail_null(...) (fail(__VA_ARGS__), NULL)
#define fail_errno_null(...) (fail_errno(__VA_ARGS__), NULL)

static inline bool error_is_set(const struct error *err)
{
    return err && err->message;
}

void error_clear(struct error *err);                   /* frees and zeroes */
void error_move(struct error *to, struct error *from); /* hands over; drops when `to` is NULL or already set */
#define auto_error __attribute__((cleanup(error_clear))) struct error

#endif
