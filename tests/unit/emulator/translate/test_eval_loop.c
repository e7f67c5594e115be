/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, guest code does not run at all with the evaluator: blocks, loops, memory, faults, self-modification.
 */
#include "tests/unit/emulator/translate/toy_guest.h"

/* x1 += x2; x2 -= 1; loop while x2 != 0 */
static bool build_sum(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument)
{
    struct ir_block *b = t->ir;
    ir_put(b, TOY_X + 1, ir_add(b, ir_get(b, TOY_X + 1), ir_get(b, TOY_X + 2)));
    struct ir_value left = ir_sub(b, ir_get(b, TOY_X + 2), ir_const(b, 1));
    ir_put(b, TOY_X + 2, left);
    ir_exit_if(b, ir_set(b, IR_NE, left, ir_const(b, 0)), pc);
    return true;
}

static bool build_store(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument)
{
    struct ir_block *b = t->ir;
    ir_store(b, ir_get(b, TOY_X + 3), ir_get(b, TOY_X + 4), IR_STORE(argument & 3, 0));
    return true;
}

static void loops_and_stops(void **state)
{
    struct toy *t = toy_new(NULL);
    t->insns[1] = build_sum;
    t->insns[2] = toy_stop;
    toy_poke(t, TOY_RAM, 1, 0);
    toy_poke(t, TOY_RAM + 4, 2, 0);
    t->s.x[2] = 1000;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->s.x[1], 500500);
    assert_int_equal(t->tc.pc, TOY_RAM + 8);
    toy_free(t);
}

static void stores_to_code_are_seen(void **state)
{
    struct toy *t = toy_new(NULL);
    t->insns[1] = build_sum;
    t->insns[2] = toy_stop;
    t->insns[3] = build_store;
    toy_poke(t, TOY_RAM, 3, 2);
    toy_poke(t, TOY_RAM + 4, 2, 0);
    t->s.x[3] = TOY_RAM + 256;
    t->s.x[4] = 0xabcdef12;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_GUEST);
    assert_memory_equal(t->ram + 256, "\x12\xef\xcd\xab", 4);
    t->tc.pc = TOY_RAM;
    t->s.x[3] = TOY_RAM; /* overwrites itself by "stop" */
    t->s.x[4] = 2;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_GUEST);
    t->tc.pc = TOY_RAM;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->tc.pc, TOY_RAM + 4);
    struct translate_statistics statistics;
    machine_code_statistics(t->code, &statistics);
    assert_int_equal(statistics.invalidated, 1);
    toy_free(t);
}

static void devices_and_faults(void **state)
{
    struct toy *t = toy_new(NULL);
    t->insns[2] = toy_stop;
    t->insns[3] = build_store;
    toy_poke(t, TOY_RAM, 3, 2);
    toy_poke(t, TOY_RAM + 4, 2, 0);
    t->s.x[3] = TOY_DEVICE + 16;
    t->s.x[4] = 77;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->device_last, 77);
    t->tc.pc = TOY_RAM;
    t->s.x[3] = 0x70000000;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_EXCEPTION);
    assert_int_equal(t->fault, TOY_ACCESS_FAULT);
    assert_int_equal(t->tc.pc, TOY_RAM);
    t->tc.pc = 0x70000000;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_EXCEPTION);
    assert_int_equal(t->fault_address, 0x70000000);
    toy_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_and_stops),
        cmocka_unit_test(stores_to_code_are_seen),
        cmocka_unit_test(devices_and_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
