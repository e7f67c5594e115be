/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, IR cannot be printed and read back, or a malformed text is not refused with the place named.
 */
#include <stdio.h>
#include "tests/unit/emulator/translate/random_ir.h"

static char *print(const struct ir_block *b)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    ir_print(b, out);
    fclose(out);
    return text;
}

static struct ir_block *begin(void)
{
    struct ir_block *b = new (struct ir_block);
    ir_begin(b, toy_slots, TOY_SLOTS, toy_helpers, TOY_HELPERS);
    return b;
}

static void round_trip(void **state)
{
    for (unsigned seed = 1; seed <= 300; seed++) {
        struct plan plan = {.seed = seed * 77777, .kinds = seed % 4};
        struct toy toy = {.test = &plan};
        struct ir_block *b = begin(), *again = begin();
        struct translate_block t = {.ir = b, .pc = TOY_RAM};
        ir_insn_start(b, TOY_RAM, 4);
        build_random(&t, &toy, TOY_RAM, 3);
        ir_push_return(b, 12);
        ir_exit_runtime(b, 17, TOY_RAM + 4);
        char *text = print(b), message[128] = "";
        assert_true(ir_parse(again, text, message));
        assert_int_equal(again->count, b->count);
        assert_memory_equal(again->ops + 1, b->ops + 1, (b->count - 1) * sizeof b->ops[0]);
        free(text);
        free(b);
        free(again);
    }
}

static void expect_refusal(const char *text, const char *expected)
{
    char message[128] = "";
    struct ir_block *b = begin();
    assert_false(ir_parse(b, text, message));
    assert_string_equal(message, expected);
    free(b);
}

static void refuses_nonsense(void **state)
{
    expect_refusal("%1 = frobnicate i64\n", "line 1: expected an operation before ' i64\n'");
    expect_refusal("%1 = get i64 x1\n%3 = get i64 x1\n",
                   "line 2: expected the next value's number before ' get i64 x1\n'");
    expect_refusal("%1 = add i64 %1, %0\n", "line 1: expected an operand that exists before ', %0\n'");
    expect_refusal("%1 = get i64 y9\n", "line 1: expected the name of a slot before '\n'");
    expect_refusal("put i64 %0 x1 x2\n", "line 1: expected end of line before 'x2\n'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(refuses_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
