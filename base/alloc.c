/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation that aborts (small objects) and allocation that may fail (sizes decided by outsiders). */
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>
#include "base/fault.h"
#include "base/log.h"
#include "base/math.h"

static void *check(void *pointer)
{
    if (!pointer || fault_error(FAULT_XALLOC)) {
        fprintf(stderr, "%s: out of memory\n", log_program()); /* stderr has no buffer: this allocates nothing */
        abort();
    }
    return pointer;
}

void *xmalloc(size_t size)
{
    return check(malloc(size ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return check(calloc(count ? count : 1, size ? size : 1));
}

void *xrealloc_array(void *pointer, size_t count, size_t size)
{
    return check(reallocarray(pointer, count ? count : 1, size ? size : 1));
}

char *xstrdup(const char *text)
{
    return text ? check(strdup(text)) : NULL;
}

char *xstrndup(const char *text, size_t length)
{
    return check(strndup(text, length));
}

char *xvasprintf(const char *format, va_list args)
{
    char *text;
    if (vasprintf(&text, format, args) < 0)
        check(NULL);
    return text;
}

char *xasprintf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = xvasprintf(format, args);
    va_end(args);
    return text;
}

void *xmemdup(const void *data, size_t size)
{
    return memcpy(xmalloc(size), data, size);
}

void *try_calloc(size_t count, size_t size)
{
    return fault_error(FAULT_ALLOC) ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *try_aligned_alloc(size_t alignment, size_t size)
{
    void *pointer;
    if (fault_error(FAULT_ALLOC))
        return NULL;
    if (size > SIZE_MAX - alignment || posix_memalign(&pointer, alignment, round_up(size ? size : 1, alignment)))
        return NULL;
    return pointer;
}
