/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, a compiler that keeps puts back would show a wrong guest state after a fault, an exit or to a helper:
 * maps differ from their definition, or the evaluator that lives by them differs from the plain one.
 */
#include <stdio.h>
#include "emulator/translate/codecache.h"
#include "emulator/translate/eval.h"
#include "emulator/translate/recovery.h"
#include "tests/unit/emulator/translate/random_ir.h"

/* --- Random blocks that keep the rule of ir.h: no put or writing helper before a faulting operation of its own
 * instruction. The generator does not know it, so such operations get an instruction of their own. --- */

static bool may_fault(const struct ir_block *b, const struct ir_op *op)
{
    return op->op == IR_OP_call ? b->helpers[op->imm].may_fault : ir_op_info[op->op].properties & IR_FLT;
}

static bool changes_slots(const struct ir_block *b, const struct ir_op *op)
{
    static const struct ir_slots nothing;
    return op->op == IR_OP_put ||
           (op->op == IR_OP_call && memcmp(&b->helpers[op->imm].writes, &nothing, sizeof nothing));
}

static void keep_rule(struct ir_block *out, const struct ir_block *in, uint64_t pc)
{
    uint16_t renumbered[IR_MAX_OPS] = {0};
    bool changed = false;
    ir_begin(out, in->slots, in->slot_count, in->helpers, in->helper_count);
    for (unsigned i = 1; i < in->count; i++) {
        struct ir_op op = in->ops[i];
        uint16_t *operand[3] = {&op.a, &op.b, &op.c};
        for (unsigned k = 0; k < ir_op_info[op.op].operands; k++)
            *operand[k] = renumbered[*operand[k]];
        if (changed && may_fault(in, &op))
            ir_insn_start(out, pc += 2, 2);
        changed = (changed || changes_slots(in, &op)) && op.op != IR_OP_insn && !may_fault(in, &op);
        assert_true(out->count < IR_MAX_OPS);
        renumbered[i] = out->count;
        out->ops[out->count++] = op;
    }
}

static void end_block(struct ir_block *b, struct random *r)
{
    uint64_t pc = TOY_RAM + 4 * below(r, 100);
    switch (below(r, 3)) {
    case 0: ir_exit_direct(b, pc); break;
    case 1: ir_exit_indirect(b, ir_get(b, TOY_X + below(r, 24)), IR_HINT_NONE); break;
    default: ir_exit_runtime(b, TRANSLATE_EXIT_GUEST + below(r, 5), pc);
    }
}

/* Up to eight instructions. with_rule false: what the generator made, as it is. */
static void make_random(struct ir_block *b, uint64_t seed, unsigned kinds, bool with_rule)
{
    struct plan plan = {.seed = seed, .kinds = kinds};
    struct toy toy = {.test = &plan};
    struct random r = {seed};
    struct ir_block *raw = new (struct ir_block);
    struct translate_block t = {.ir = raw, .pc = TOY_RAM};
    ir_begin(raw, toy_slots, TOY_SLOTS, toy_helpers, TOY_HELPERS);
    unsigned insns = 1 + below(&r, 8);
    for (unsigned n = 0; n < insns; n++) {
        ir_insn_start(raw, TOY_RAM + 0x400 * n, 4);
        build_random(&t, &toy, TOY_RAM + 0x400 * n, n);
    }
    end_block(raw, &r);
    if (with_rule)
        keep_rule(b, raw, TOY_RAM + 0x8000);
    else
        memcpy(b, raw, sizeof *b);
    free(raw);
}

/* --- Maps are what their definition says --- */

static bool touched_by_call(const struct ir_block *b, const struct ir_op *op, unsigned slot)
{
    return op->op == IR_OP_call &&
           (ir_slots_has(&b->helpers[op->imm].reads, slot) || ir_slots_has(&b->helpers[op->imm].writes, slot));
}

/* Looks backwards from the operation, for one slot, without any memory of what was found for others. */
static unsigned value_by_definition(const struct ir_block *b, unsigned op, unsigned slot)
{
    bool counts = !may_fault(b, &b->ops[op]); /* for faults, only puts of earlier instructions do */
    if (touched_by_call(b, &b->ops[op], slot))
        return 0;
    for (unsigned i = op - 1; i > 0; i--) {
        counts |= b->ops[i].op == IR_OP_insn;
        if (touched_by_call(b, &b->ops[i], slot))
            return 0;
        if (counts && b->ops[i].op == IR_OP_put && b->ops[i].imm == slot)
            return b->ops[i].a;
    }
    return 0;
}

static uint64_t pc_by_definition(const struct ir_block *b, unsigned op)
{
    while (b->ops[op].op != IR_OP_insn)
        op--;
    return b->ops[op].imm;
}

static bool leaves(const struct ir_block *b, unsigned op)
{
    bool is_exit = b->ops[op].op != IR_OP_call && ir_op_info[b->ops[op].op].properties & IR_SEE;
    return is_exit || may_fault(b, &b->ops[op]);
}

static void maps_follow_definition(void **state)
{
    struct ir_block *b = new (struct ir_block);
    unsigned maps = 0, named = 0;
    for (unsigned seed = 1; seed <= 600; seed++) {
        make_random(b, seed * 0x9e3779b9ull, seed % 4, seed % 3);
        struct ir_recovery *r = ir_recovery_new(b, TOY_RAM);
        struct ir_recovery_map map;
        unsigned here = 0;
        for (unsigned op = 1; op < b->count; op++) {
            bool found = ir_recovery_find(r, op, &map);
            assert_int_equal(found, leaves(b, op));
            if (!found)
                continue;
            assert_int_equal(map.op, op);
            assert_int_equal(map.pc, pc_by_definition(b, op));
            for (unsigned slot = 0; slot < b->slot_count; slot++) {
                assert_int_equal(map.value[slot], value_by_definition(b, op, slot));
                named += map.value[slot] != 0;
            }
            here++;
        }
        assert_int_equal(here, r->maps);
        assert_false(ir_recovery_find(r, b->count, &map));
        maps += here;
        free(r);
    }
    assert_true(maps > 3000 && named > 3 * maps); /* else nothing was tested */
    free(b);
}

static void text_and_size(void **state)
{
    struct ir_block *b = new (struct ir_block);
    ir_begin(b, toy_slots, TOY_SLOTS, toy_helpers, TOY_HELPERS);
    ir_insn_start(b, 0x1000, 4);                                           /* 1 */
    ir_put(b, TOY_X + 1, ir_const(b, 7));                                  /* 2, 3 */
    ir_insn_start(b, 0x1004, 4);                                           /* 4 */
    struct ir_value v = ir_load(b, ir_get(b, TOY_X + 2), IR_LOAD_U(3, 0)); /* 5, 6 */
    ir_put(b, TOY_X + 0, v);                                               /* 7 */
    ir_exit_if(b, v, 0x2000);                                              /* 8 */
    ir_insn_start(b, 0x1002, 4);                                           /* 9 */
    ir_load(b, v, IR_LOAD_U(3, 0));                                        /* 10 */
    ir_exit_direct(b, 0x2000);                                             /* 11 */
    struct ir_recovery *r = ir_recovery_new(b, 0x1000);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    ir_recovery_print(r, b, out);
    fclose(out);
    assert_string_equal(text, "recover %6 pc=#0x1004 x1=%2\n"
                              "recover %8 pc=#0x1004 x0=%6 x1=%2\n"
                              "recover %10 pc=#0x1002 x0=%6 x1=%2\n"
                              "recover %11 pc=#0x1002 x0=%6 x1=%2\n");
    assert_int_equal(r->size, 4 * 3 + 2 * 2); /* four maps, two changes */
    free(text);
    free(r);
    free(b);
}

/* --- Sunk and plain evaluation agree --- */

static void fill(struct toy *t, uint64_t seed)
{
    struct random r = {seed};
    for (unsigned i = 0; i < TOY_GPRS; i++) {
        t->s.x[i] = interesting(&r);
        t->s.f[i] = interesting_f64(&r);
    }
    for (unsigned i = 0; i < 64; i++)
        t->s.v[i / 8][i % 8] = next(&r);
    t->s.byte = (uint8_t)next(&r);
    t->s.word = (uint32_t)next(&r);
    /* Pages that are absent or cannot be written, at random places. */
    unsigned rarely = 2 + below(&r, 30);
    for (unsigned page = 1; page < TOY_PAGES; page++) {
        t->map[0][page] = (uint64_t)page << 12 | TOY_R | TOY_WR;
        if (below(&r, rarely) == 0)
            t->map[0][page] &= below(&r, 2) ? ~(uint64_t)TOY_WR : ~(uint64_t)(TOY_R | TOY_WR);
    }
    t->translate = true;
    translate_flush_all(&t->tc);
    t->fault = TOY_NO_FAULT;
    t->fault_address = 0;
    t->tc.pc = TOY_RAM;
    t->tc.exception = 0;
    t->tc.reserved_address = UINT64_MAX;
    translate_fp_set_flags(&t->tc, 0);
    translate_fp_set_rounding(&t->tc, (enum ir_rounding)below(&r, 4));
}

static void fill_ram(struct toy *t)
{
    struct random r = {99};
    for (unsigned at = 0; at < TOY_RAM; at += 8) {
        uint64_t word = next(&r);
        memcpy(t->ram + at, &word, 8);
    }
}

static void expect_same(const struct toy *plain, const struct toy *sunk)
{
    assert_int_equal(sunk->tc.pc, plain->tc.pc);
    assert_int_equal(sunk->tc.exception, plain->tc.exception);
    assert_int_equal(sunk->fault, plain->fault);
    assert_int_equal(sunk->fault_address, plain->fault_address);
    assert_memory_equal(&sunk->s, &plain->s, sizeof plain->s);
    assert_int_equal(sunk->tc.mxcsr, plain->tc.mxcsr);
    assert_int_equal(sunk->device_reads, plain->device_reads);
    assert_int_equal(sunk->device_writes, plain->device_writes);
    assert_int_equal(sunk->device_last, plain->device_last);
}

static void sunk_is_plain(void **state)
{
    struct toy *plain = toy_new(NULL), *sunk = toy_new(NULL);
    struct ir_evaluator *e[2] = {new (struct ir_evaluator), new (struct ir_evaluator)};
    struct ir_block *b = new (struct ir_block);
    unsigned faults = 0, side_exits = 0, ends = 0, rounds = 6000;
    fill_ram(plain);
    fill_ram(sunk);
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t seed = (round + 1) * 0x12345677ull;
        make_random(b, seed, round % 4, true);
        struct ir_recovery *r = ir_recovery_new(b, TOY_RAM);
        fill(plain, seed);
        fill(sunk, seed);
        unsigned expected = ir_evaluate(&plain->tc, e[0], b), reason = ir_evaluate_sunk(&sunk->tc, e[1], b, r);
        if (reason != expected || memcmp(&plain->s, &sunk->s, sizeof plain->s)) {
            print_message("seed %#llx\n", (unsigned long long)seed);
            ir_print(b, stderr);
            ir_recovery_print(r, b, stderr);
        }
        assert_int_equal(reason, expected);
        expect_same(plain, sunk);
        if (round % 16 == 0 || round == rounds - 1)
            assert_memory_equal(sunk->ram, plain->ram, TOY_RAM);
        bool ended = reason != TRANSLATE_EXIT_EXCEPTION && b->ops[b->count - 1].imm == plain->tc.pc;
        faults += reason == TRANSLATE_EXIT_EXCEPTION;
        ends += ended;
        side_exits += reason != TRANSLATE_EXIT_EXCEPTION && !ended;
        free(r);
    }
    assert_true(faults > rounds / 5 && ends > rounds / 10 && side_exits > rounds / 20); /* else nothing was tested */
    toy_free(plain);
    toy_free(sunk);
    free(e[0]);
    free(e[1]);
    free(b);
}

/* --- Puts are really kept back, and helpers see what they declare --- */

static uint64_t peek(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    return ((struct toy *)cpu)->s.x[7];
}
static uint64_t maybe_poke(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    if (a)
        ((struct toy *)cpu)->s.x[7] = a;
    return 0;
}
static uint64_t undeclared_fault(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    translate_raise(&((struct toy *)cpu)->tc);
    return 0;
}
enum { PEEK, PEEK_DECLARED, POKE, UNDECLARED_FAULT, HELPERS };
static const struct ir_helper helpers[HELPERS] = {
    {.name = "peek", .fn = peek, .result = IR_I64},
    {.name = "peek_declared", .fn = peek, .result = IR_I64, .reads = {{1 << 7, 0}}},
    {.name = "poke", .fn = maybe_poke, .writes = {{1 << 7, 0}}},
    {.name = "undeclared_fault", .fn = undeclared_fault},
};

static const struct ir_value none;

/* Puts 42 to x7, where 5 is, calls the helper, notes what it said in x8 and what a get says in x9. */
static unsigned run_helper(struct toy *t, unsigned helper, uint64_t argument, bool sunk)
{
    struct ir_block *b = new (struct ir_block);
    struct ir_evaluator *e = new (struct ir_evaluator);
    ir_begin(b, toy_slots, TOY_SLOTS, helpers, HELPERS);
    ir_insn_start(b, TOY_RAM, 4);
    ir_put(b, TOY_X + 7, ir_const(b, 42));
    struct ir_value said = ir_call(b, helper, ir_const(b, argument), none, none);
    ir_put(b, TOY_X + 8, said.id ? said : ir_const(b, 0));
    ir_put(b, TOY_X + 9, ir_get(b, TOY_X + 7));
    ir_exit_runtime(b, TRANSLATE_EXIT_GUEST, TOY_RAM + 4);
    struct ir_recovery *r = ir_recovery_new(b, TOY_RAM);
    t->s.x[7] = 5;
    t->tc.exception = 0;
    unsigned reason = sunk ? ir_evaluate_sunk(&t->tc, e, b, r) : ir_evaluate(&t->tc, e, b);
    free(r);
    free(e);
    free(b);
    return reason;
}

static void helpers_see_what_they_declare(void **state)
{
    struct toy *t = toy_new(NULL);
    assert_int_equal(run_helper(t, PEEK, 0, false), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->s.x[8], 42);
    assert_int_equal(run_helper(t, PEEK, 0, true), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->s.x[8], 5); /* the put is still on its way */
    assert_int_equal(t->s.x[7], 42);
    assert_int_equal(run_helper(t, PEEK_DECLARED, 0, true), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->s.x[8], 42);
    assert_int_equal(run_helper(t, POKE, 77, true), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->s.x[7], 77); /* not overwritten by the older put */
    assert_int_equal(t->s.x[9], 77);
    assert_int_equal(run_helper(t, POKE, 0, true), TRANSLATE_EXIT_GUEST);
    assert_int_equal(t->s.x[7], 42); /* may write, did not */
    assert_int_equal(t->s.x[9], 42);
    assert_int_equal(run_helper(t, UNDECLARED_FAULT, 0, false), TRANSLATE_EXIT_EXCEPTION);
    assert_int_equal(run_helper(t, UNDECLARED_FAULT, 0, true), TRANSLATE_EXIT_FATAL);
    assert_non_null(t->tc.fatal);
    toy_free(t);
}

/* --- The whole run time can work so --- */

static bool build_sum(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument)
{
    struct ir_block *b = t->ir;
    ir_put(b, TOY_X + 1, ir_add(b, ir_get(b, TOY_X + 1), ir_load(b, ir_get(b, TOY_X + 2), IR_LOAD_U(3, 0))));
    ir_put(b, TOY_X + 2, ir_add(b, ir_get(b, TOY_X + 2), ir_const(b, 8)));
    ir_exit_if(b, ir_set(b, IR_NE, ir_get(b, TOY_X + 1), ir_const(b, 0)), pc);
    return true;
}

static void runs_with_sunk_puts(void **state)
{
    setenv("SPINDLE_TRANSLATE", "eval-sunk", 1);
    struct toy *t = toy_new(NULL);
    unsetenv("SPINDLE_TRANSLATE");
    t->insns[1] = build_sum;
    t->insns[2] = toy_stop;
    toy_poke(t, TOY_RAM, 1, 0);
    toy_poke(t, TOY_RAM + 4, 1, 0);
    toy_poke(t, TOY_RAM + 8, 2, 0);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 512; i++) {
        uint64_t word = i * i + 1;
        memcpy(t->ram + 0x1000 + 8 * i, &word, 8);
        sum += word;
    }
    t->map[0][TOY_RAM >> 12] = TOY_RAM | TOY_R | TOY_EX;
    t->map[0][(TOY_RAM >> 12) + 1] = (TOY_RAM + 0x1000) | TOY_R;
    t->translate = true;
    t->s.x[2] = TOY_RAM + 0x1000;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_EXCEPTION);
    assert_int_equal(t->s.x[1], sum);
    assert_int_equal(t->s.x[2], TOY_RAM + 0x2000);
    assert_int_equal(t->fault_address, TOY_RAM + 0x2000);
    assert_int_equal(t->tc.pc, TOY_RAM);
    assert_true(t->code->block_count > 0);
    assert_non_null(t->code->blocks[0].recovery);
    toy_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_follow_definition), cmocka_unit_test(text_and_size),
        cmocka_unit_test(sunk_is_plain),          cmocka_unit_test(helpers_see_what_they_declare),
        cmocka_unit_test(runs_with_sunk_puts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
