/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, a monitor connection is lost, or out of step, after pieces of any size or after a client's mistake. */
#include "tests/unit/qmp/schema/cmocka_all.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "base/strbuf.h"
#include "qmp/schema/json.h"

#define LIMIT 1000

static void note(struct strbuf *log, enum json_stream_result result, struct json *value, struct error *err)
{
    if (result == JSON_STREAM_VALUE) {
        auto_free char *text = json_to_text(value);
        strbuf_printf(log, "%s;", text);
        json_free(value);
    } else if (result == JSON_STREAM_ERROR) {
        assert_non_null(err->message);
        strbuf_append(log, "!;");
    }
    error_clear(err);
}

/* Feeds `data` in pieces of `piece` bytes; the result is every value and, as "!", every error. */
static char *feed(const char *data, size_t length, size_t piece)
{
    struct json_stream *stream = json_stream_new(LIMIT);
    struct strbuf log = {0};
    struct error err = {0};
    struct json *value = NULL;
    while (length) {
        size_t left = MIN(piece, length);
        const char *at = data;
        data += left;
        length -= left;
        for (;;) {
            enum json_stream_result result = json_stream_read(stream, &at, &left, &value, &err);
            if (result == JSON_STREAM_MORE)
                break;
            note(&log, result, value, &err);
        }
    }
    enum json_stream_result last = json_stream_end(stream, &value, &err);
    note(&log, last, value, &err);
    json_stream_free(stream);
    return strbuf_take(&log);
}

static void check(const char *data, size_t length, const char *expected)
{
    static const size_t pieces[] = {1, 2, 3, 7, 4096, SIZE_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
        assert_text(feed(data, length, pieces[i]), expected);
}
#define assert_stream(data, expected) check(data, sizeof(data) - 1, expected)

static void test_values_in_sequence(void **state)
{
    assert_stream("{\"a\":1}{\"b\":2}", "{\"a\": 1};{\"b\": 2};");
    assert_stream("\n {\"a\":1}\r\n\t[2] ", "{\"a\": 1};[2];");
    assert_stream("1 22 true\n\"x\"null", "1;22;true;\"x\";null;");
    assert_stream("12", "12;");
    assert_stream("[1]2[3]", "[1];2;[3];");
}

static void test_pieces_split_anything(void **state)
{
    assert_stream("[\"\xf0\x9f\x98\x80\\ud83d\\ude00\\\"\"]", "[\"\\uD83D\\uDE00\\uD83D\\uDE00\\\"\"];");
    assert_stream("[-12.5e-1, 18446744073709551615]", "[-1.25, 18446744073709551615];");
    assert_stream("{'a\\'b': 'c\"d'}", "{\"a'b\": \"c\\\"d\"};");
}

static void test_goes_on_after_an_error(void **state)
{
    assert_stream("hello world\n[1]", "!;[1];");
    assert_stream("{\"a\" 1}\n[1]", "!;[1];");
    assert_stream("{\"a\" 1} [1]", "!;[1];");
    assert_stream("{ foo\n[1]", "!;[1];");
    assert_stream("{\"a\n[1]", "!;[1];");
    assert_stream("[1}[2]", "!;[2];");
    assert_stream("}\n[2]", "!;[2];");
    assert_stream("[\"\xc0\"]\n[2]", "!;[2];");
    assert_stream("\x01\x02\x03\xfe\x80 {{{ \"\n[2]", "!;[2];");
    assert_stream("{\"a\":1,\"a\":1}[2]", "!;[2];");
    assert_stream("18446744073709551616\n[2]", "!;[2];");
    assert_stream("this is not JSON\n[2]", "!;[2];");
    assert_stream("true false nul\n[2]", "true;false;!;[2];");
    assert_stream("[1", "!;");
    assert_stream("\"abc", "!;");
}

static void test_reset_byte(void **state)
{
    assert_stream("{\"a\": [\xff[2]", "[2];");
    assert_stream("\"abc\xff[2]", "[2];");
    assert_stream("garbage\xff[2]", "!;[2];");
    assert_stream("\xff\xff[2]\xff", "[2];");
}

static void test_too_long_and_too_deep(void **state)
{
    struct strbuf text = {0};
    strbuf_append(&text, "{\"a\": [\n");
    for (int i = 0; i < 2 * LIMIT; i++)
        strbuf_append(&text, "\"]}\",\n"); /* brackets in strings do not count */
    strbuf_append(&text, "1]}[2]");
    check(text.text, text.length, "!;[2];");

    strbuf_clear(&text);
    for (int i = 0; i < JSON_MAX_DEPTH + 20; i++)
        strbuf_append(&text, "[\n");
    for (int i = 0; i < JSON_MAX_DEPTH + 20; i++)
        strbuf_append(&text, "]\n");
    strbuf_append(&text, "[2]");
    check(text.text, text.length, "!;[2];");

    strbuf_clear(&text);
    for (int i = 0; i < 2 * LIMIT; i++)
        strbuf_append(&text, "7");
    strbuf_append(&text, "\n[2]");
    check(text.text, text.length, "!;[2];");
    strbuf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_in_sequence),     cmocka_unit_test(test_pieces_split_anything),
        cmocka_unit_test(test_goes_on_after_an_error), cmocka_unit_test(test_reset_byte),
        cmocka_unit_test(test_too_long_and_too_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
