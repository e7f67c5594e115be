/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable string. Zeroed is empty. `text` is terminated by a NUL as soon as anything was appended; strbuf_text() is
 * never NULL. Aborts when memory is out, like all small allocations.
 *
 *     auto_strbuf line = {0};
 *     strbuf_printf(&line, "offset %" PRIu64, offset);
 */
#ifndef BASE_STRBUF_H
#define BASE_STRBUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

struct strbuf {
    char *text;
    size_t length, capacity;
};

void strbuf_reserve(struct strbuf *buf, size_t more); /* room for `more` bytes and the NUL */
void strbuf_printf(struct strbuf *buf, const char *format, ...) PRINTF_LIKE(2, 3);
void strbuf_vprintf(struct strbuf *buf, const char *format, va_list args) PRINTF_LIKE(2, 0);
void strbuf_append(struct strbuf *buf, const char *text);
void strbuf_append_bytes(struct strbuf *buf, const void *data, size_t size);
void strbuf_append_char(struct strbuf *buf, char c);
void strbuf_truncate(struct strbuf *buf, size_t length); /* keeps the first `length` bytes */
void strbuf_clear(struct strbuf *buf);                   /* empty, memory kept */
void strbuf_free(struct strbuf *buf);                    /* empty, memory released */
char *strbuf_take(struct strbuf *buf);                   /* hands the string over; "" when nothing was appended */

static inline const char *strbuf_text(const struct strbuf *buf)
{
    return buf->text ? buf->text : "";
}

#define auto_strbuf __attribute__((cleanup(strbuf_free))) struct strbuf

#endif
