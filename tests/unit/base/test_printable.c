/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, a name that stands in an image can command the terminal of whoever looks at it, or is not readable. */
#include "base/printable.h"

#include <stdlib.h>
#include "tests/unit/base/check.h"

static void shows(const char *text, const char *wanted)
{
    char *shown = printable(text);
    assert_string_equal(shown, wanted);
    free(shown);
}

static void letters_stay(void **state)
{
    shows("", "");
    shows("disk 1.qcow2", "disk 1.qcow2");
    shows("back\\slash", "back\\slash");
    shows("Gr\xc3\xb6\xc3\x9f"
          "e \xe7\xa3\x81\xe7\x9b\xa4 \xf0\x9f\x92\xbe",
          "Gr\xc3\xb6\xc3\x9f"
          "e \xe7\xa3\x81\xe7\x9b\xa4 \xf0\x9f\x92\xbe");
    shows("\xc2\xa0", "\xc2\xa0"); /* the first character behind the controls */
    assert_null(printable(NULL));
}

static void controls_are_shown(void **state)
{
    shows("\x1b[2J\x07", "\\x1b[2J\\x07");
    shows("a\nb\rc\td\x7f", "a\\x0ab\\x0dc\\x09d\\x7f");
    shows("\xc2\x9b"
          "31m",
          "\\xc2\\x9b31m"); /* CSI as one character */
    shows("\xe2\x80\xae"
          "2wocq",
          "\\xe2\\x80\\xae2wocq"); /* right to left */
    shows("\xe2\x81\xa6.\xe2\x80\x8f", "\\xe2\\x81\\xa6.\\xe2\\x80\\x8f");
    shows("\xe2\x80\xa8", "\\xe2\\x80\\xa8"); /* a line end */
}

static void what_is_not_utf8_is_shown(void **state)
{
    shows("\x9b"
          "1m",
          "\\x9b1m"); /* CSI of an 8-bit terminal */
    shows("\xff\xfe", "\\xff\\xfe");
    shows("\xc3", "\\xc3"); /* cut off */
    shows("\xe7\xa3", "\\xe7\\xa3");
    shows("\xc0\x9b", "\\xc0\\x9b"); /* ESC and such in a longer form */
    shows("\xc1\x9b", "\\xc1\\x9b");
    shows("\xe0\x82\x9b", "\\xe0\\x82\\x9b");
    shows("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* a surrogate */
    shows("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* beyond the last character */
    shows("\xc3(", "\\xc3(");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_stay),
        cmocka_unit_test(controls_are_shown),
        cmocka_unit_test(what_is_not_utf8_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
