/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, translated code computes something else than the evaluator says: random blocks of every kind of
 * operation are run both ways from the same state, and all of guest state, memory, faults and pc are compared.
 */
#include <stdio.h>
#include "tests/unit/emulator/translate/random_ir.h"

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
    t->attention = 0;
    t->fault = TOY_NO_FAULT;
    t->fault_address = 0;
    t->tc.pc = TOY_RAM;
    t->tc.reserved_address = UINT64_MAX;
    translate_fp_set_flags(&t->tc, 0);
    translate_fp_set_rounding(&t->tc, (enum ir_rounding)below(&r, 4));
}

static void report(const struct toy *a, const struct toy *b, const struct plan *plan)
{
    print_message("seed %#llx kinds %u: pc %#llx | %#llx, fault %d | %d at %#llx | %#llx\n",
                  (unsigned long long)plan->seed, plan->kinds, (unsigned long long)a->tc.pc,
                  (unsigned long long)b->tc.pc, a->fault, b->fault, (unsigned long long)a->fault_address,
                  (unsigned long long)b->fault_address);
    for (unsigned i = 0; i < 32; i++) {
        if (a->s.x[i] != b->s.x[i])
            print_message("x%u: %#llx | %#llx\n", i, (unsigned long long)a->s.x[i], (unsigned long long)b->s.x[i]);
        if (a->s.f[i] != b->s.f[i])
            print_message("f%u: %#llx | %#llx\n", i, (unsigned long long)a->s.f[i], (unsigned long long)b->s.f[i]);
    }
    for (unsigned i = 0; i < 64; i++) {
        if (a->s.v[i / 8][i % 8] != b->s.v[i / 8][i % 8])
            print_message("v%u[%u]: %#llx | %#llx\n", i / 8, i % 8, (unsigned long long)a->s.v[i / 8][i % 8],
                          (unsigned long long)b->s.v[i / 8][i % 8]);
    }
    print_message("byte %#x | %#x, word %#x | %#x\n", a->s.byte, b->s.byte, a->s.word, b->s.word);
    print_message("flags %x | %x\n", translate_fp_flags(&a->tc), translate_fp_flags(&b->tc));
}

static void run_rounds(unsigned kinds, unsigned rounds)
{
    struct plan plan = {.kinds = kinds};
    const char *only = getenv("SEED");
    struct toy *t[2] = {toy_new(NULL), toy_new(translate_native_host())};
    for (unsigned i = 0; i < 2; i++) {
        t[i]->insns[1] = build_random;
        t[i]->insns[2] = toy_stop;
        t[i]->test = &plan;
        struct random r = {99};
        for (unsigned at = 0x10000; at < TOY_RAM; at += 8) {
            uint64_t word = next(&r);
            memcpy(t[i]->ram + at, &word, 8);
        }
    }
    for (unsigned round = 0; round < rounds; round++) {
        plan.seed = only ? strtoull(only, NULL, 0) : (round + 1) * 0x12345677ull * (kinds + 1);
        unsigned reason[2];
        for (unsigned i = 0; i < 2; i++) {
            for (unsigned n = 0; n < 8; n++)
                toy_poke(t[i], TOY_RAM + 4 * n, 1, n);
            toy_poke(t[i], TOY_RAM + 32, 2, 0);
            fill(t[i], plan.seed);
            reason[i] = translate_run(&t[i]->tc);
        }
        bool same = reason[0] == reason[1] && t[0]->tc.pc == t[1]->tc.pc &&
                    !memcmp(&t[0]->s, &t[1]->s, sizeof t[0]->s) && t[0]->fault == t[1]->fault &&
                    t[0]->fault_address == t[1]->fault_address && !memcmp(t[0]->ram, t[1]->ram, TOY_RAM) &&
                    t[0]->device_reads == t[1]->device_reads && t[0]->device_last == t[1]->device_last &&
                    translate_fp_flags(&t[0]->tc) == translate_fp_flags(&t[1]->tc) &&
                    translate_fp_rounding(&t[0]->tc) == translate_fp_rounding(&t[1]->tc);
        if (!same)
            report(t[0], t[1], &plan);
        assert_true(same);
    }
    struct translate_statistics statistics;
    machine_code_statistics(t[1]->code, &statistics);
    assert_true(statistics.evaluated * 50 <= statistics.blocks); /* else nothing was tested */
    toy_free(t[0]);
    toy_free(t[1]);
}

static void integers(void **state)
{
    run_rounds(0, 3000);
}

static void memory(void **state)
{
    run_rounds(1, 3000);
}

static void floating_point(void **state)
{
    run_rounds(2, 6000);
}

static void vectors(void **state)
{
    run_rounds(3, 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),
        cmocka_unit_test(memory),
        cmocka_unit_test(floating_point),
        cmocka_unit_test(vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
