/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: errors lose their cause, messages their program name, or trace points cannot be switched on. */
#include "tests/unit/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"

/* Runs fn with standard error going into a string. */
static char *stderr_of(void (*fn)(void))
{
    FILE *file = tmpfile();
    fflush(stderr);
    int saved = dup(2);
    dup2(fileno(file), 2);
    fn();
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    char text[4096];
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return xstrdup(text);
}

static bool inner(struct error *err)
{
    return fail(err, EINVAL, "size %d: too large", 5);
}

static bool outer(struct error *err)
{
    return inner(err) || fail_prefix(err, "node '%s': ", "disk");
}

static void errors_keep_the_first_cause(void **state)
{
    auto_error err = {0};
    assert_false(outer(&err));
    assert_string_equal(err.message, "node 'disk': size 5: too large");
    assert_int_equal(err.code, EINVAL);
    assert_false(fail(&err, EIO, "later"));
    assert_string_equal(err.message, "node 'disk': size 5: too large");
    assert_false(outer(NULL));
    struct error other = {0};
    error_move(&other, &err);
    assert_false(error_is_set(&err));
    assert_true(error_is_set(&other));
    error_move(NULL, &other);
    assert_false(error_is_set(&other));
    fail_errno(&err, -ENOENT, "open '%s'", "x");
    assert_string_equal(err.message, "open 'x': No such file or directory");
    assert_int_equal(err.code, ENOENT);
    error_clear(&err);
    fail_class(&err, "DeviceNotFound", "no %s", "disk");
    assert_string_equal(err.class_name, "DeviceNotFound");
}

static void say_three(void)
{
    log_set_program("/usr/bin/spindle-test");
    log_error("one %d", 1);
    log_warning("two");
    log_info("three");
}

static void messages_begin_with_the_program(void **state)
{
    char *text = stderr_of(say_three);
    assert_string_equal(text, "spindle-test: one 1\nspindle-test: warning: two\nspindle-test: info: three\n");
    assert_string_equal(log_program(), "spindle-test");
    free(text);
}

static int evaluated;

static int count_evaluation(void)
{
    return ++evaluated;
}

static void pass_points(void)
{
    trace(test_alpha, "value %d", count_evaluation());
    trace(test_beta, "text %s", "b");
    trace(test_beta, "again");
}

static void trace_points_are_switched_by_glob(void **state)
{
    struct error err = {0};
    char *text = stderr_of(pass_points);
    assert_string_equal(text, "");
    assert_int_equal(evaluated, 0); /* arguments cost nothing while off */
    free(text);
    assert_false(trace_enable("test_alpha,nosuch_*", &err));
    assert_non_null(strstr(err.message, "'nosuch_*'"));
    error_clear(&err);
    assert_true(trace_enable("test_b*,test_al?ha", &err));
    text = stderr_of(pass_points);
    assert_non_null(strstr(text, " test_alpha: value 1\n"));
    assert_non_null(strstr(text, " test_beta: text b\n"));
    assert_non_null(strstr(text, " test_beta: again\n"));
    double stamp;
    assert_int_equal(sscanf(text, "%lf", &stamp), 1);
    free(text);
    FILE *file = tmpfile();
    trace_list(file);
    rewind(file);
    char list[1024];
    list[fread(list, 1, sizeof list - 1, file)] = '\0';
    fclose(file);
    assert_non_null(strstr(list, "test_alpha\ntest_beta\n")); /* sorted, each once */
}

static void allocation_edges(void **state)
{
    volatile size_t huge = SIZE_MAX - 100;
    assert_null(try_calloc(huge, 4));
    assert_null(try_aligned_alloc(4096, huge));
    void *p = try_aligned_alloc(4096, 1);
    assert_int_equal((uintptr_t)p % 4096, 0);
    free(p);
    assert_null(xstrdup(NULL));
    auto_free char *text = xasprintf("%d-%s", 4, "x");
    assert_string_equal(text, "4-x");
    char *taken = TAKE(text);
    assert_null(text);
    free(taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_keep_the_first_cause),
        cmocka_unit_test(messages_begin_with_the_program),
        cmocka_unit_test(trace_points_are_switched_by_glob),
        cmocka_unit_test(allocation_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
