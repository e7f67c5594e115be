/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory. The x-functions abort when memory is out, with one line on standard error: for small objects whose size no
 * outsider decides. To an image that is the same as a power cut, which every format survives. Sizes that come
 * from a file, a guest or a socket use try_alloc() and friends, which return NULL. All memory is released with free().
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include "base/error.h"

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size); /* zeroed */
void *xrealloc_array(void *pointer, size_t count, size_t size);
char *xstrdup(const char *text); /* NULL gives NULL */
char *xstrndup(const char *text, size_t length);
char *xasprintf(const char *format, ...) PRINTF_LIKE(1, 2);
char *xvasprintf(const char *format, va_list args) PRINTF_LIKE(1, 0);
void *xmemdup(const void *data, size_t size);

/* NULL when out of memory or when count * size overflows. Zeroed. A size of 0 gives a pointer that may be freed. */
void *try_calloc(size_t count, size_t size);
/* Aligned (a power of two) buffers for direct I/O; contents undefined. */
void *try_aligned_alloc(size_t alignment, size_t size);

/* clang-format takes `new` for a keyword and would put a space behind it, which makes another macro of it. */
/* clang-format off */
#define new(type) ((type *)xcalloc(1, sizeof(type)))
/* clang-format on */
#define new_array(type, count) ((type *)xcalloc((count), sizeof(type)))

#endif
