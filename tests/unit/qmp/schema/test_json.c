/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, JSON from outside is taken that should be refused, or values are changed on their way through. */
#include "tests/unit/qmp/schema/cmocka_all.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "qmp/schema/json.h"

static struct json *parse(const char *text)
{
    auto_error err = {0};
    struct json *json = json_parse(text, strlen(text), &err);
    if (!json)
        fail_msg("%s: %s", text, err.message);
    return json;
}

static void assert_round_trip(const char *text, const char *expected)
{
    auto_json *json = parse(text);
    assert_text(json_to_text(json), expected);
}

static void refuses(const char *text, size_t length, const char *why)
{
    auto_error err = {0};
    struct json *json = json_parse(text, length, &err);
    if (json)
        fail_msg("accepted: %s", text);
    assert_contains(err.message, why);
}
#define assert_refused(text, why) refuses(text, sizeof(text) - 1, why)

static void test_values(void **state)
{
    assert_round_trip("{\"b\":1,\"a\":[true,false,null],\"c\":{}}",
                      "{\"b\": 1, \"a\": [true, false, null], \"c\": {}}");
    assert_round_trip(" [ ] ", "[]");
    assert_round_trip("null", "null");
    assert_round_trip("-12", "-12");
    assert_round_trip("1.5e3", "1500");
    assert_round_trip("0.1", "0.10000000000000001");
    assert_round_trip("\"x\"", "\"x\"");
}

static void test_integers_keep_all_64_bits(void **state)
{
    auto_json *json = parse("[9223372036854775807, -9223372036854775808, 18446744073709551615, 9223372036854775808]");
    int64_t number;
    uint64_t large;
    assert_true(json_int64(json_at(json, 0), &number) && number == INT64_MAX);
    assert_true(json_int64(json_at(json, 1), &number) && number == INT64_MIN);
    assert_false(json_uint64(json_at(json, 1), &large));
    assert_true(json_uint64(json_at(json, 2), &large) && large == UINT64_MAX);
    assert_false(json_int64(json_at(json, 2), &number));
    assert_false(json_int64(json_at(json, 3), &number));
    assert_text(json_to_text(json),
                "[9223372036854775807, -9223372036854775808, 18446744073709551615, 9223372036854775808]");
    assert_refused("18446744073709551616", "64 bits");
    assert_refused("[-9223372036854775809]", "64 bits");
}

static void test_what_is_not_json(void **state)
{
    assert_refused("", "no value");
    assert_refused("   ", "no value");
    assert_refused("{\"a\":1", "ends in the middle");
    assert_refused("\"abc", "ends in the middle");
    assert_refused("[1,]", "");
    assert_refused("{\"a\":1,}", "");
    assert_refused("{\"a\" 1}", "");
    assert_refused("{a:1}", "");
    assert_refused("[1}", "']'");
    assert_refused("{]", "'}'");
    assert_refused("[1e400]", "too large");
    assert_refused("[1e+]", "incomplete number");
    assert_refused("-", "incomplete number");
    assert_refused("[00]", "not well formed");
    assert_refused("[1.5.5]", "not well formed");
    assert_refused("tru", "");
    assert_refused("NaN", "unexpected character");
    assert_refused("[Infinity]", "unexpected character");
    assert_refused("[-Infinity]", "incomplete number");
    assert_refused("[nan]", "");
    assert_refused("[TRUE]", "");
    assert_refused("[True]", "unexpected character");
    assert_refused("nulL", "");
    assert_refused("[01]", "");
    assert_refused("[1.]", "");
    assert_refused("[.5]", "");
    assert_refused("[+1]", "");
    assert_refused("[-]", "");
    assert_refused("[1 2]", "");
    assert_refused("/* c */ 1", "unexpected character");
    assert_refused("[1] // c", "behind the value");
    assert_refused("1 2", "behind the value");
    assert_refused("[\"a\nb\"]", "control character");
    assert_refused("[\"\\u12g4\"]", "\\u");
    assert_refused("[\"\\x\"]", "");
    assert_refused("\xff", "no value");
}

static void test_strings(void **state)
{
    assert_round_trip("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t\"");
    assert_round_trip("\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"", "\"\\u00E9 \\u20AC \\uD83D\\uDE00\"");
    assert_round_trip("\"\\u00e9\\ud83d\\ude00\"", "\"\\u00E9\\uD83D\\uDE00\"");
    assert_round_trip("\"\x7f\"", "\"\\u007F\"");
    auto_json *json = json_new_string("a\xff\xc3");
    assert_text(json_to_text(json), "\"a\\uFFFD\\uFFFD\"");
    auto_json *truncated = json_new_string("\xe2\x82z");
    assert_text(json_to_text(truncated), "\"\\uFFFD\\uFFFDz\"");
}

static void test_strings_that_are_refused(void **state)
{
    assert_refused("[\"\\u0000\"]", "NUL");
    assert_refused("{\"a\\u0000b\": 1}", "NUL");
    assert_refused("[\"\0\"]", "control character");
    assert_refused("[\"\xc0\x80\"]", "UTF-8");         /* overlong */
    assert_refused("[\"\xed\xa0\x80\"]", "UTF-8");     /* surrogate */
    assert_refused("[\"\xf4\x90\x80\x80\"]", "UTF-8"); /* above U+10FFFF */
    assert_refused("[\"\xe2\x82\"]", "UTF-8");
    assert_refused("[\"\x80\"]", "UTF-8");
}

static void test_single_quotes(void **state)
{
    assert_round_trip("{'driver': 'qcow2'}", "{\"driver\": \"qcow2\"}");
    assert_round_trip("'say \"hi\" it\\'s'", "\"say \\\"hi\\\" it's\"");
    assert_round_trip("\"it\\'s\"", "\"it's\"");
    assert_round_trip("'\\\"'", "\"\\\"\"");
    assert_refused("'a\"", "ends in the middle");
}

static void test_a_member_twice(void **state)
{
    assert_refused("{\"a\":1,\"a\":2}", "twice");
    assert_refused("[{\"b\":{\"a\":1,\"x\":0,\"a\":1}}]", "twice");
    assert_refused("{\"a\":1,\"\\u0061\":2}", "twice"); /* the same, spelled differently */
    assert_round_trip("[{\"a\":1},{\"a\":\":\"}]", "[{\"a\": 1}, {\"a\": \":\"}]");
}

static char *nested(unsigned depth)
{
    struct strbuf text = {0};
    for (unsigned i = 0; i < depth; i++)
        strbuf_append(&text, i % 2 ? "{\"a\":" : "[");
    strbuf_append(&text, "1");
    for (unsigned i = depth; i-- > 0;)
        strbuf_append(&text, i % 2 ? "}" : "]");
    return strbuf_take(&text);
}

static void test_depth(void **state)
{
    auto_free char *deep = nested(JSON_MAX_DEPTH), *deeper = nested(JSON_MAX_DEPTH + 1);
    json_free(parse(deep));
    refuses(deeper, strlen(deeper), "64 levels");
    auto_free char *bomb = xmalloc(1000000);
    memset(bomb, '[', 1000000);
    refuses(bomb, 1000000, "64 levels");
}

static void test_pretty(void **state)
{
    auto_json *json = parse("{\"a\": [1, {\"b\": {}}], \"c\": []}");
    assert_text(json_to_pretty_text(json),
                "{\n    \"a\": [\n        1,\n        {\n            \"b\": {\n            }\n"
                "        }\n    ],\n    \"c\": [\n    ]\n}");
}

static void test_null_is_a_value(void **state)
{
    auto_json *json = parse("{\"a\": null}");
    assert_null(json_get(json, "b"));
    assert_non_null(json_get(json, "a"));
    assert_int_equal(json_kind(json_get(json, "a")), JSON_NULL);
    json_set(json, "b", json_new_null());
    auto_json *copy = json_clone(json);
    assert_text(json_to_text(copy), "{\"a\": null, \"b\": null}");
    assert_true(json_equal(json, copy));
    auto_json *taken = json_take(copy, "a");
    assert_int_equal(json_kind(taken), JSON_NULL);
    assert_false(json_equal(json, copy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_integers_keep_all_64_bits),
        cmocka_unit_test(test_what_is_not_json),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_strings_that_are_refused),
        cmocka_unit_test(test_single_quotes),
        cmocka_unit_test(test_a_member_twice),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_pretty),
        cmocka_unit_test(test_null_is_a_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
