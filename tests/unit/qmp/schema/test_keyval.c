/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, a command line option means something else than it says. */
#include "tests/unit/qmp/schema/cmocka_all.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "qmp/schema/keyval.h"

static void assert_parses(const char *text, const char *implied_key, const char *expected)
{
    auto_error err = {0};
    auto_json *json = keyval_parse(text, implied_key, &err);
    if (!json)
        fail_msg("%s: %s", text, err.message);
    assert_text(json_to_text(json), expected);
}

static void assert_refused(const char *text, const char *implied_key, const char *why)
{
    auto_error err = {0};
    assert_null(keyval_parse(text, implied_key, &err));
    assert_contains(err.message, why);
}

static void test_elements(void **state)
{
    assert_parses("", NULL, "{}");
    assert_parses("a=1,b=two", NULL, "{\"a\": \"1\", \"b\": \"two\"}");
    assert_parses("a=1,", NULL, "{\"a\": \"1\"}");
    assert_parses("a=", NULL, "{\"a\": \"\"}");
    assert_parses("a=b=c", NULL, "{\"a\": \"b=c\"}");
    assert_parses("a=1,b=2,a=3", NULL, "{\"a\": \"3\", \"b\": \"2\"}");
    assert_parses("server,wait=off", NULL, "{\"server\": \"on\", \"wait\": \"off\"}");
    assert_refused("=x", NULL, "must not be empty");
}

static void test_commas(void **state)
{
    assert_parses("file=a,,b,c=d", NULL, "{\"file\": \"a,b\", \"c\": \"d\"}");
    assert_parses("file=,,", NULL, "{\"file\": \",\"}");
    assert_parses("file=,,,x=1", NULL, "{\"file\": \",\", \"x\": \"1\"}");
    assert_parses("a,,b=c,d=e", "file", "{\"file\": \"a,b=c\", \"d\": \"e\"}");
    assert_text(keyval_escape("a,b,,"), "a,,b,,,,");
}

static void test_implied_key(void **state)
{
    assert_parses("qcow2,file=x", "driver", "{\"driver\": \"qcow2\", \"file\": \"x\"}");
    assert_parses("driver=qcow2", "driver", "{\"driver\": \"qcow2\"}");
    assert_parses("file=x,qcow2", "driver", "{\"file\": \"x\", \"qcow2\": \"on\"}");
    assert_parses("a.b", "file.filename", "{\"file\": {\"filename\": \"a.b\"}}");
}

static void test_groups(void **state)
{
    assert_parses("file.driver=file,file.cache.direct=on,x=1", NULL,
                  "{\"file\": {\"driver\": \"file\", \"cache\": {\"direct\": \"on\"}}, \"x\": \"1\"}");
    assert_refused("a=1,a.b=2", NULL, "both for a value and for a group");
    assert_refused("a.b=1,a=2", NULL, "both for a value and for a group");
    assert_refused("a..b=1", NULL, "between dots is empty");
    assert_refused("a.=1", NULL, "between dots is empty");
    assert_refused(".a=1", NULL, "between dots is empty");
    assert_refused("a b=1", NULL, "only letters");
    assert_refused("a\xc3\xa9=1", NULL, "only letters");
    auto_free char *long_key = xcalloc(1, 300);
    memset(long_key, 'k', 250);
    strcat(long_key, "=1");
    assert_refused(long_key, NULL, "longer than");
    auto_free char *deep = xcalloc(1, 300);
    for (int i = 0; i < 64; i++)
        strcat(deep, "a.");
    strcat(deep, "a=1");
    assert_refused(deep, NULL, "parts");
}

static void test_lists(void **state)
{
    assert_parses("l.0=a,l.1=b", NULL, "{\"l\": [\"a\", \"b\"]}");
    assert_parses("l.1.x=b,l.0.x=a", NULL, "{\"l\": [{\"x\": \"a\"}, {\"x\": \"b\"}]}");
    assert_parses("l.0.0=a", NULL, "{\"l\": [[\"a\"]]}");
    assert_refused("l.0=a,l.2=b", NULL, "element 1 is missing");
    assert_refused("l.1=b", NULL, "element 0 is missing");
    assert_refused("l.0=a,l.x=b", NULL, "both numbers");
    assert_refused("l.00=a,l.0=b", NULL, "both numbers");
    assert_refused("l.99999999999999999999=a", NULL, "element 0 is missing");
}

static void test_help(void **state)
{
    assert_true(keyval_wants_help("help"));
    assert_true(keyval_wants_help("?"));
    assert_true(keyval_wants_help("driver=qcow2,help"));
    assert_true(keyval_wants_help("qcow2,?"));
    assert_false(keyval_wants_help("help=x"));
    assert_false(keyval_wants_help("file=help"));
    assert_false(keyval_wants_help("helper"));
    assert_false(keyval_wants_help("a,,help"));
    assert_false(keyval_wants_help("{\"a\": help}"));
    assert_refused("driver=x,help", NULL, "asks for help");
    assert_text(keyval_peek("qcow2,help", "driver", "driver"), "qcow2");
    assert_text(keyval_peek("x=1,driver=raw,help", "driver", "driver"), "raw");
    assert_null(keyval_peek("help", "driver", "driver"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements), cmocka_unit_test(test_commas), cmocka_unit_test(test_implied_key),
        cmocka_unit_test(test_groups),   cmocka_unit_test(test_lists),  cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
