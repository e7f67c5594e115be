/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka wants four headers in front of its own, and a helper for texts that are freed. */
#ifndef TESTS_QMP_CMOCKA_ALL_H
#define TESTS_QMP_CMOCKA_ALL_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

/* cmocka's fail() is a macro, ours a function. */
#undef fail
#undef fail_msg
#define fail_msg(...) (print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

/* Compares an owned text and frees it. */
static inline void assert_text(char *text, const char *expected)
{
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static inline void assert_contains(const char *text, const char *part)
{
    if (!text || !strstr(text, part))
        fail_msg("\"%s\" does not contain \"%s\"", text ? text : "(null)", part);
}

#endif
