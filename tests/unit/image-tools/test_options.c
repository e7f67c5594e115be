/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, the tools misread command lines: options are lost, taken for arguments, or refused wrongly. */
#include <string.h>
#include "base/cleanup.h"
#include "base/math.h"
#include "image-tools/options.h"

#include <setjmp.h>
#include <cmocka.h>

struct values {
    bool quiet, force;
    const char *format;
    struct texts options;
    uint64_t size;
};

static const struct tool_option table[] = {
    OPTION_ROW_FLAG('q', "quiet", struct values, quiet, "say nothing"),
    OPTION_ROW_FLAG(0, "force", struct values, force, "no letter"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct values, format, "the last one counts"),
    OPTION_ROW_TEXTS('o', NULL, "KEY=VALUE", struct values, options, "all count"),
    OPTION_ROW_SIZE('s', "size", "SIZE", struct values, size, "a size"),
    OPTION_ROW_LATER('l', "later", "X", "it is planned"),
    OPTIONS_END,
};

/* Splits `line` at spaces; `leading` stops at the first argument. The error's text is the caller's. */
static enum options_result parse(char *line, bool leading, struct values *values, struct texts *rest, char **text)
{
    char *words[32] = {"program"}, *state = NULL;
    int count = 1;
    auto_error err = {0};
    /* The values and `rest` point into the words: they belong to the test, which ends before they go. */
    for (char *word = strtok_r(line, " ", &state); word; word = strtok_r(NULL, " ", &state))
        words[count++] = word;
    enum options_result result = leading ? options_parse_leading(table, count, words, values, rest, &err)
                                         : options_parse(table, count, words, values, rest, &err);
    *text = err.message ? xstrdup(err.message) : NULL;
    return result;
}

static void finds_options_everywhere(void **state)
{
    struct values values = {.size = 7};
    auto_free struct texts rest = {0};
    auto_free char *text = NULL;
    assert_int_equal(
        parse((char[]){"-q a -f raw --format=qcow2 -ox=1 b -o y=2 --force -- -c"}, false, &values, &rest, &text),
        OPTIONS_GOOD);
    assert_true(values.quiet && values.force);
    assert_string_equal(values.format, "qcow2");
    assert_int_equal(values.options.count, 2);
    assert_string_equal(values.options.items[0], "x=1");
    assert_string_equal(values.options.items[1], "y=2");
    assert_int_equal(values.size, 7);
    assert_int_equal(rest.count, 3);
    assert_string_equal(rest.items[2], "-c");
    options_release(table, &values);
    assert_int_equal(values.options.count, 0);
}

static void reads_sizes(void **state)
{
    struct values values = {0};
    auto_free struct texts rest = {0};
    auto_free char *good = NULL, *bad = NULL;
    assert_int_equal(parse((char[]){"-s 1.5M"}, false, &values, &rest, &good), OPTIONS_GOOD);
    assert_int_equal(values.size, 3 * MiB / 2);
    assert_int_equal(parse((char[]){"--size 1Q"}, false, &values, &rest, &bad), OPTIONS_BAD);
    assert_non_null(strstr(bad, "--size: "));
}

static void stops_at_the_command(void **state)
{
    struct values values = {0};
    auto_free struct texts rest = {0};
    auto_free char *text = NULL;
    assert_int_equal(parse((char[]){"-q info -f raw"}, true, &values, &rest, &text), OPTIONS_GOOD);
    assert_true(values.quiet);
    assert_null(values.format);
    assert_int_equal(rest.count, 3);
}

static void says_what_is_wrong(void **state)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"-x", "unrecognized option '-x'"},
        {"-qx", "unrecognized option '-x'"},
        {"--nonsense", "unrecognized option '--nonsense'"},
        {"-f", "missing argument for option '-f'"},
        {"--format", "missing argument for option '--format'"},
        {"--quiet=yes", "option '--quiet=yes' takes no argument"},
        {"-l x", "--later is not supported by this version: it is planned"},
        {"--later=x", "--later is not supported by this version: it is planned"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct values values = {0};
        auto_free struct texts rest = {0};
        auto_free char *text = NULL;
        auto_free char *line = xstrdup(cases[i].line);
        assert_int_equal(parse(line, false, &values, &rest, &text), OPTIONS_BAD);
        assert_string_equal(text, cases[i].text);
    }
}

static void asks_for_help(void **state)
{
    static const char *const lines[] = {"-h", "--help", "a -q --help", "-qh"};
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct values values = {0};
        auto_free struct texts rest = {0};
        auto_free char *text = NULL;
        auto_free char *line = xstrdup(lines[i]);
        assert_int_equal(parse(line, false, &values, &rest, &text), OPTIONS_HELP);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_options_everywhere),
        cmocka_unit_test(reads_sizes),
        cmocka_unit_test(stops_at_the_command),
        cmocka_unit_test(says_what_is_wrong),
        cmocka_unit_test(asks_for_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
