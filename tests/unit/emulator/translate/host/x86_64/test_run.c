/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, translated code goes on running what is not there any more (overwritten, remapped, or of another
 * address space), loses a CPU's update, or does not stop when asked to.
 */
#include <pthread.h>
#include <unistd.h>
#include "emulator/translate/codecache.h"
#include "tests/unit/emulator/translate/toy_guest.h"

/* --- Instructions --- */

enum { NOTHING, STOP, ADD, LOOP, STORE, CALL, RETURN, JUMP, LOAD, INCREMENT, LOCK_INCREMENT, AGAIN };

static bool build_add(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument) /* x1 += argument */
{
    ir_put(t->ir, TOY_X + 1, ir_add(t->ir, ir_get(t->ir, TOY_X + 1), ir_const(t->ir, argument)));
    return true;
}

static bool build_loop(struct translate_block *t, struct toy *toy, uint64_t pc,
                       unsigned argument) /* back by argument */
{
    struct ir_value left = ir_sub(t->ir, ir_get(t->ir, TOY_X + 2), ir_const(t->ir, 1));
    ir_put(t->ir, TOY_X + 2, left);
    ir_exit_if(t->ir, ir_set(t->ir, IR_NE, left, ir_const(t->ir, 0)), pc - 4 * argument);
    return true;
}

static bool build_again(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument) /* for ever */
{
    ir_exit_direct(t->ir, pc - 4 * argument);
    return false;
}

static bool build_store(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument) /* [x3] = x4 */
{
    ir_store(t->ir, ir_get(t->ir, TOY_X + 3), ir_get(t->ir, TOY_X + 4), IR_STORE(2, argument));
    return true;
}

static bool build_load(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument) /* x5 = [x3] */
{
    ir_put(t->ir, TOY_X + 5, ir_load(t->ir, ir_get(t->ir, TOY_X + 3), IR_LOAD_U(3, argument)));
    return true;
}

static bool build_call(struct translate_block *t, struct toy *toy, uint64_t pc,
                       unsigned argument) /* x10: stack of returns */
{
    struct ir_block *b = t->ir;
    struct ir_value sp = ir_sub(b, ir_get(b, TOY_X + 10), ir_const(b, 8));
    ir_store(b, sp, ir_const(b, pc + 4), IR_STORE(3, 0));
    ir_put(b, TOY_X + 10, sp);
    ir_push_return(b, pc + 4);
    ir_exit_direct(b, TOY_RAM + 4 * argument);
    return false;
}

static bool build_return(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument)
{
    struct ir_block *b = t->ir;
    struct ir_value sp = ir_get(b, TOY_X + 10), to = ir_load(b, sp, IR_LOAD_U(3, 0));
    ir_put(b, TOY_X + 10, ir_add(b, sp, ir_const(b, 8)));
    ir_exit_indirect(b, to, IR_HINT_RETURN);
    return false;
}

static bool build_jump(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument) /* to x6 */
{
    ir_exit_indirect(t->ir, ir_get(t->ir, TOY_X + 6), IR_HINT_NONE);
    return false;
}

static bool build_increment(struct translate_block *t, struct toy *toy, uint64_t pc,
                            unsigned argument) /* amoadd [x3], 1 */
{
    ir_amo(t->ir, IR_AMO_ADD, ir_get(t->ir, TOY_X + 3), ir_const(t->ir, 1), IR_ATOMIC(3, 0, IR_SEQ_CST));
    return true;
}

static bool build_lock_increment(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument)
{
    struct ir_block *b = t->ir;
    struct ir_value a = ir_get(b, TOY_X + 3), v = ir_load_reserved(b, a, IR_ATOMIC(3, 0, IR_ACQUIRE));
    struct ir_value failed = ir_store_conditional(b, a, ir_add(b, v, ir_const(b, 1)), IR_ATOMIC(3, 0, IR_RELEASE));
    ir_exit_if(b, failed, pc);
    return true;
}

static struct toy *start(void)
{
    struct toy *t = toy_new(translate_native_host());
    toy_builder *const insns[] = {
        NULL,         toy_stop,   build_add,  build_loop,      build_store,          build_call,
        build_return, build_jump, build_load, build_increment, build_lock_increment, build_again};
    memcpy(t->insns, insns, sizeof insns);
    t->s.x[10] = TOY_RAM + TOY_RAM / 2;
    return t;
}

static void run_from(struct toy *t, uint64_t pc)
{
    t->tc.pc = pc;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_GUEST);
}

static struct translate_statistics statistics(struct toy *t)
{
    struct translate_statistics s;
    machine_code_statistics(t->code, &s);
    return s;
}

/* --- Tests --- */

static void loops_stay_in_translated_code(void **state)
{
    struct toy *t = start();
    toy_poke(t, TOY_RAM, ADD, 3);
    toy_poke(t, TOY_RAM + 4, LOOP, 1);
    toy_poke(t, TOY_RAM + 8, STOP, 0);
    t->s.x[2] = 1000000;
    run_from(t, TOY_RAM);
    assert_int_equal(t->s.x[1], 3000000);
    assert_true(statistics(t).lookups < 10);
    toy_free(t);
}

static void accesses_stay_in_translated_code(void **state)
{
    struct toy *t = start();
    for (unsigned mmu = 0; mmu < toy_guest.mmu_count; mmu++) {
        toy_poke(t, TOY_RAM, LOAD, mmu);
        toy_poke(t, TOY_RAM + 4, STORE, mmu);
        toy_poke(t, TOY_RAM + 8, CALL, 16);
        toy_poke(t, TOY_RAM + 12, LOOP, 3);
        toy_poke(t, TOY_RAM + 16, STOP, 0);
        toy_poke(t, TOY_RAM + 64, RETURN, 0);
        t->s.x[2] = 10000;
        t->s.x[3] = TOY_RAM + 0x8000;
        run_from(t, TOY_RAM);
        assert_true(t->tc.slow_accesses < 20 * (mmu + 1));
    }
    toy_free(t);
}

static void overwritten_code_is_dropped(void **state)
{
    struct toy *t = start();
    /* The loop calls a function and then overwrites its only addition: +1 the first time, +100 from then on. */
    toy_poke(t, TOY_RAM, CALL, 1024);
    toy_poke(t, TOY_RAM + 4, STORE, 0);
    toy_poke(t, TOY_RAM + 8, LOOP, 2);
    toy_poke(t, TOY_RAM + 12, STOP, 0);
    toy_poke(t, TOY_RAM + 4096, ADD, 1);
    toy_poke(t, TOY_RAM + 4100, RETURN, 0);
    t->s.x[2] = 50;
    t->s.x[3] = TOY_RAM + 4096;
    t->s.x[4] = ADD | 100 << 8;
    run_from(t, TOY_RAM);
    assert_int_equal(t->s.x[1], 1 + 49 * 100);
    /* Data in the same page but in other lines: nothing is dropped by a few writes. */
    uint64_t before = statistics(t).invalidated;
    t->s.x[2] = 20;
    t->s.x[3] = TOY_RAM + 4096 + 256;
    run_from(t, TOY_RAM);
    assert_int_equal(statistics(t).invalidated, before);
    /* And by somebody else than a CPU. */
    toy_poke(t, TOY_RAM + 4096, ADD, 7);
    t->s.x[1] = 0;
    t->s.x[2] = 2;
    run_from(t, TOY_RAM);
    assert_int_equal(t->s.x[1], 14);
    toy_free(t);
}

static void map(struct toy *t, unsigned space, unsigned number, uint64_t physical, unsigned permissions)
{
    t->map[space][number] = physical | permissions;
}

/* Virtual page 16 runs into page 17, whose translation changes. */
static struct toy *start_two_pages(void)
{
    struct toy *t = start();
    toy_poke(t, TOY_RAM + 0xffc, ADD, 1);
    toy_poke(t, TOY_RAM + 0x1000, ADD, 10);
    toy_poke(t, TOY_RAM + 0x1004, STOP, 0);
    toy_poke(t, TOY_RAM + 0x2000, ADD, 20);
    toy_poke(t, TOY_RAM + 0x2004, STOP, 0);
    t->translate = true;
    for (unsigned space = 0; space < 2; space++) {
        map(t, space, 16, TOY_RAM, TOY_R | TOY_EX);
        map(t, space, 17, TOY_RAM + 0x1000 * (space + 1), TOY_R | TOY_EX);
    }
    return t;
}

static uint64_t sum_from(struct toy *t, uint64_t pc)
{
    t->s.x[1] = 0;
    run_from(t, pc);
    return t->s.x[1];
}

static void links_between_pages_follow_the_mapping(void **state)
{
    struct toy *t = start_two_pages();
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(sum_from(t, 0x10ffc), 11);
    map(t, 0, 17, TOY_RAM + 0x2000, TOY_R | TOY_EX);
    translate_flush_page(&t->tc, 0x11000);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(sum_from(t, 0x10ffc), 21);
    map(t, 0, 17, 0, 0);
    translate_flush_all(&t->tc);
    t->tc.pc = 0x10ffc;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_EXCEPTION);
    assert_int_equal(t->fault_address, 0x11000);
    assert_int_equal(t->tc.pc, 0x11000);
    toy_free(t);
}

static void address_spaces_keep_apart(void **state)
{
    struct toy *t = start_two_pages();
    for (unsigned i = 0; i < 20; i++) {
        t->space = i & 1;
        translate_set_asid(&t->tc, t->space);
        assert_int_equal(sum_from(t, 0x10ffc), t->space ? 21 : 11);
    }
    unsigned fills = t->fills;
    t->space = 0;
    translate_set_asid(&t->tc, 0);
    sum_from(t, 0x10ffc);
    assert_true(t->fills - fills <= 2); /* the fetch pages only */
    toy_free(t);
}

static void address_spaces_share_global_data(void **state)
{
    struct toy *t = start();
    toy_poke(t, TOY_RAM, LOAD, 1);
    toy_poke(t, TOY_RAM + 4, STOP, 0);
    memcpy(t->ram + 0x3000, &(uint64_t){33}, 8);
    memcpy(t->ram + 0x4000, &(uint64_t){44}, 8);
    t->translate = true;
    for (unsigned space = 0; space < 2; space++) {
        map(t, space, 16, TOY_RAM, TOY_EX | TOY_GLOBAL);
        map(t, space, 17, TOY_RAM + 0x3000, TOY_R | TOY_GLOBAL);
        map(t, space, 18, TOY_RAM + 0x3000 + 0x1000 * space, TOY_R);
    }
    for (unsigned i = 0; i < 6; i++) {
        t->space = i & 1;
        translate_set_asid(&t->tc, t->space);
        t->s.x[3] = 0x11000;
        run_from(t, 0x10000);
        assert_int_equal(t->s.x[5], 33);
        if (i < 4)
            continue; /* so far only global pages: one fill for both */
        t->s.x[3] = 0x12000;
        run_from(t, 0x10000);
        assert_int_equal(t->s.x[5], t->space ? 44 : 33);
    }
    translate_flush_asid(&t->tc, 1);
    map(t, 1, 18, TOY_RAM + 0x3000, TOY_R);
    run_from(t, 0x10000);
    assert_int_equal(t->s.x[5], 33);
    for (unsigned i = 0; i < 2000; i++) /* contexts run out several times */
        translate_flush_all(&t->tc);
    run_from(t, 0x10000);
    assert_int_equal(t->s.x[5], 33);
    toy_free(t);
}

/* Flushing any address of a large mapping flushes all of it, however many there are. */
static void large_mappings_go_as_a_whole(void **state)
{
    struct toy *t = start();
    toy_poke(t, TOY_RAM, LOAD, 1);
    toy_poke(t, TOY_RAM + 4, STOP, 0);
    for (unsigned page = 0; page < 64; page++)
        memcpy(t->ram + 0x10000 + 0x1000 * page, &(uint64_t){page}, 8);
    t->translate = true;
    map(t, 0, 16, TOY_RAM, TOY_EX);
    for (unsigned large = 8; large < 20; large++) {
        for (unsigned step = 0; step < 2; step++) {
            for (unsigned i = 0; i < 4; i++)
                map(t, 0, 4 * large + i, TOY_RAM + 0x10000 + 0x1000 * (4 * (large - 8 + step) + i), TOY_R | TOY_LARGE);
            if (step)
                translate_flush_page(&t->tc, 0x4000 * large + 0x3000);
            t->s.x[3] = 0x4000 * large;
            run_from(t, 0x10000);
            assert_int_equal(t->s.x[5], 4 * (large - 8 + step));
        }
    }
    toy_free(t);
}

static void returns_follow_the_mapping(void **state)
{
    struct toy *t = start();
    /* Deep calls: 40 levels on a shadow stack of 16, then a return address that was changed in memory. */
    for (unsigned i = 0; i < 40; i++) {
        toy_poke(t, TOY_RAM + 16 * i, CALL, 4 * (i + 1));
        toy_poke(t, TOY_RAM + 16 * i + 4, ADD, 1);
        toy_poke(t, TOY_RAM + 16 * i + 8, i ? RETURN : STOP, 0);
    }
    toy_poke(t, TOY_RAM + 640, RETURN, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(sum_from(t, TOY_RAM), 40);
    toy_poke(t, TOY_RAM + 20, ADD, 1000); /* behind a call that is already on nobody's stack */
    assert_int_equal(sum_from(t, TOY_RAM), 1039);
    toy_free(t);
}

static void indirect_jumps_find_their_way(void **state)
{
    struct toy *t = start();
    for (unsigned i = 0; i < 64; i++) {
        toy_poke(t, TOY_RAM + 64 * i, ADD, i);
        toy_poke(t, TOY_RAM + 64 * i + 4, STOP, 0);
    }
    toy_poke(t, TOY_RAM + 0x2000, JUMP, 0);
    for (unsigned i = 0; i < 300; i++) {
        t->s.x[6] = TOY_RAM + 64 * (i * 7 % 64);
        assert_int_equal(sum_from(t, TOY_RAM + 0x2000), i * 7 % 64);
    }
    toy_free(t);
}

static void straddling_instructions_depend_on_both_pages(void **state)
{
    struct toy *t = start();
    uint32_t add = ADD | 5 << 8, other = ADD | 6 << 8, stop = STOP;
    memcpy(t->ram + 0xffe, &add, 4);
    memcpy(t->ram + 0x1002, &stop, 4);
    memcpy(t->ram + 0x2000, (char *)&other + 2, 2);
    memcpy(t->ram + 0x2002, &stop, 4);
    t->translate = true;
    map(t, 0, 16, TOY_RAM, TOY_EX);
    map(t, 0, 17, TOY_RAM + 0x1000, TOY_EX);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(sum_from(t, 0x10ffe), 5);
    t->ram[0x2000 + 0] = 9; /* argument | 9 << 16 of the other version */
    map(t, 0, 17, TOY_RAM + 0x2000, TOY_EX);
    translate_flush_page(&t->tc, 0x11000);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(sum_from(t, 0x10ffe), 5 | 9 << 8);
    map(t, 0, 17, 0, 0);
    translate_flush_page(&t->tc, 0x11000);
    t->tc.pc = 0x10ffe;
    assert_int_equal(translate_run(&t->tc), TRANSLATE_EXIT_EXCEPTION);
    assert_int_equal(t->fault_address, 0x11000);
    assert_int_equal(t->tc.pc, 0x10ffe);
    toy_free(t);
}

static void a_full_cache_is_emptied(void **state)
{
    struct toy *t = start();
    toy_poke(t, TOY_RAM, ADD, 3);
    toy_poke(t, TOY_RAM + 4, LOOP, 1);
    toy_poke(t, TOY_RAM + 8, STOP, 0);
    for (unsigned i = 0; i < 20; i++) {
        t->code->near = t->code->far_start - (600 << 10); /* room for a block or two of any size, then none */
        t->s.x[1] = 0;
        for (unsigned n = 0; n < 8; n++)
            toy_poke(t, TOY_RAM + 0x4000 + 64 * n, STOP, 0);
        t->code->near = t->code->far_start - 1000;
        t->s.x[2] = 100;
        run_from(t, TOY_RAM);
        run_from(t, TOY_RAM + 0x4000 + 64 * (i % 8));
        assert_int_equal(t->s.x[1], 300);
    }
    assert_true(statistics(t).flushes >= 8);
    toy_free(t);
}

static void *run_thread(void *arg)
{
    struct toy *t = arg;
    unsigned reason;
    do
        reason = translate_run(&t->tc);
    while (reason == TRANSLATE_EXIT_ATTENTION && atomic_exchange(&t->attention, 0) != 2); /* 1: the cache was emptied */
    return (void *)(uintptr_t)reason;
}

static void atomics_lose_nothing(void **state)
{
    enum { CPUS = 3, TIMES = 200000 };
    struct toy *t[CPUS] = {start()};
    toy_poke(t[0], TOY_RAM, INCREMENT, 0);
    toy_poke(t[0], TOY_RAM + 4, LOCK_INCREMENT, 0);
    toy_poke(t[0], TOY_RAM + 8, LOOP, 2);
    toy_poke(t[0], TOY_RAM + 12, STOP, 0);
    pthread_t thread[CPUS];
    for (unsigned i = 0; i < CPUS; i++) {
        if (i)
            t[i] = toy_second(t[0]);
        t[i]->s.x[2] = TIMES;
        t[i]->s.x[3] = TOY_RAM + 0x8000;
    }
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run_thread, t[i]), 0);
    for (unsigned i = 0; i < CPUS; i++)
        pthread_join(thread[i], NULL);
    uint64_t sum;
    memcpy(&sum, t[0]->ram + 0x8000, 8);
    assert_int_equal(sum, 2 * CPUS * TIMES);
    for (unsigned i = CPUS; i-- > 1;)
        toy_second_free(t[i]);
    toy_free(t[0]);
}

static void wait_for_progress(struct toy *t)
{
    uint64_t *counter = (uint64_t *)(t->ram + 0x8000), before = __atomic_load_n(counter, __ATOMIC_RELAXED);
    while (__atomic_load_n(counter, __ATOMIC_RELAXED) < before + 10)
        usleep(10);
}

static void write_once(struct toy *writer)
{
    writer->tc.pc = TOY_RAM + 0x2000;
    assert_int_equal((uintptr_t)run_thread(writer),
                     TRANSLATE_EXIT_GUEST); /* the runner may empty the cache meanwhile */
}

/* One CPU runs a function for ever while the other rewrites it, and once the writing is over sees the last version. */
static void code_is_overwritten_under_a_running_cpu(void **state)
{
    struct toy *runner = start(), *writer = toy_second(runner);
    toy_poke(runner, TOY_RAM, CALL, 1024);
    toy_poke(runner, TOY_RAM + 4, INCREMENT, 0); /* so that we see it running */
    toy_poke(runner, TOY_RAM + 8, AGAIN, 2);
    runner->s.x[3] = TOY_RAM + 0x8000;
    toy_poke(runner, TOY_RAM + 4096, ADD, 1);
    toy_poke(runner, TOY_RAM + 4100, RETURN, 0);
    toy_poke(runner, TOY_RAM + 0x2000, STORE, 0);
    toy_poke(runner, TOY_RAM + 0x2004, STOP, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_thread, runner), 0);
    for (unsigned i = 0; i < 3000; i++) {
        writer->s.x[3] = TOY_RAM + 4096;
        writer->s.x[4] = ADD | (1 + i % 5) << 8;
        write_once(writer);
        if (i % 100 == 0)
            wait_for_progress(runner);
        if (i % 500 == 499) { /* and the cache is full now and then */
            pthread_mutex_lock(&writer->code->lock);
            writer->code->near = writer->code->far_start - 1000;
            pthread_mutex_unlock(&writer->code->lock);
        }
    }
    writer->s.x[4] = STOP;
    write_once(writer);
    void *reason;
    pthread_join(thread, &reason); /* hangs if the runner does not see it */
    assert_int_equal((uintptr_t)reason, TRANSLATE_EXIT_GUEST);
    assert_true(runner->s.x[1] > 0);
    toy_second_free(writer);
    toy_free(runner);
}

static void attention_stops_a_loop(void **state)
{
    struct toy *t = start();
    toy_poke(t, TOY_RAM, ADD, 1);
    toy_poke(t, TOY_RAM + 4, AGAIN, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_thread, t), 0);
    usleep(20000);
    atomic_store(&t->attention, 2);
    void *reason;
    pthread_join(thread, &reason);
    assert_int_equal((uintptr_t)reason, TRANSLATE_EXIT_ATTENTION);
    assert_int_equal(t->tc.pc, TOY_RAM);
    assert_true(t->s.x[1] > 1000);
    toy_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_stay_in_translated_code),
        cmocka_unit_test(accesses_stay_in_translated_code),
        cmocka_unit_test(overwritten_code_is_dropped),
        cmocka_unit_test(links_between_pages_follow_the_mapping),
        cmocka_unit_test(address_spaces_keep_apart),
        cmocka_unit_test(address_spaces_share_global_data),
        cmocka_unit_test(large_mappings_go_as_a_whole),
        cmocka_unit_test(returns_follow_the_mapping),
        cmocka_unit_test(indirect_jumps_find_their_way),
        cmocka_unit_test(straddling_instructions_depend_on_both_pages),
        cmocka_unit_test(a_full_cache_is_emptied),
        cmocka_unit_test(atomics_lose_nothing),
        cmocka_unit_test(code_is_overwritten_under_a_running_cpu),
        cmocka_unit_test(attention_stops_a_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
