/* SPDX-License-Identifier: Apache-2.0 */
/* Growable strings; the capacity grows by half so that appending is linear over all. */
#include "base/strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"

void strbuf_reserve(struct strbuf *buf, size_t more)
{
    size_t wanted = buf->length + more + 1;
    if (wanted <= buf->capacity)
        return;
    size_t grown = buf->capacity + buf->capacity / 2;
    buf->capacity = wanted < grown ? grown : wanted < 64 ? 64 : wanted;
    buf->text = xrealloc_array(buf->text, buf->capacity, 1);
}

void strbuf_vprintf(struct strbuf *buf, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    if (length > 0) {
        strbuf_reserve(buf, (size_t)length);
        vsnprintf(buf->text + buf->length, (size_t)length + 1, format, again);
        buf->length += (size_t)length;
    }
    va_end(again);
}

void strbuf_printf(struct strbuf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    strbuf_vprintf(buf, format, args);
    va_end(args);
}

void strbuf_append_bytes(struct strbuf *buf, const void *data, size_t size)
{
    strbuf_reserve(buf, size);
    if (size)
        memcpy(buf->text + buf->length, data, size);
    buf->length += size;
    buf->text[buf->length] = '\0';
}

void strbuf_append(struct strbuf *buf, const char *text)
{
    strbuf_append_bytes(buf, text, strlen(text));
}

void strbuf_append_char(struct strbuf *buf, char c)
{
    strbuf_append_bytes(buf, &c, 1);
}

void strbuf_truncate(struct strbuf *buf, size_t length)
{
    if (length >= buf->length)
        return;
    buf->length = length;
    buf->text[length] = '\0';
}

void strbuf_clear(struct strbuf *buf)
{
    strbuf_truncate(buf, 0);
}

void strbuf_free(struct strbuf *buf)
{
    free(buf->text);
    *buf = (struct strbuf){0};
}

char *strbuf_take(struct strbuf *buf)
{
    char *text = buf->text ? buf->text : xstrdup("");
    *buf = (struct strbuf){0};
    return text;
}
