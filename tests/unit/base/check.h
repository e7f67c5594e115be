/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka with what it wants included before it, and without its macro fail(), which is our function's name. */
#ifndef TESTS_UNIT_BASE_CHECK_H
#define TESTS_UNIT_BASE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail

/* Allocations that must fail do so under the sanitizers as they do without. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

#endif
