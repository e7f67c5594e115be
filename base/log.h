/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages for people, on standard error. A program sets its name once; the name it was called by stands in front of
 * every message. log_* never yields and may be called from any thread.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/error.h"

void log_set_program(const char *argv0); /* the last component of argv[0] is kept; call first thing in main */
const char *log_program(void);

void log_error(const char *format, ...) PRINTF_LIKE(1, 2);   /* "NAME: text" */
void log_warning(const char *format, ...) PRINTF_LIKE(1, 2); /* "NAME: warning: text" */
void log_failure(const struct error *err);                   /* "NAME: message", and the hint below it */
void log_info(const char *format, ...) PRINTF_LIKE(1, 2);    /* "NAME: info: text" */

#endif
