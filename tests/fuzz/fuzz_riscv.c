/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as RISC-V code. Each place is decoded and disassembled: a decoded instruction must be the one row of the
 * table that matches. Then the code is run in M mode from a state of the input's choice until it traps, once by the
 * evaluator and once by translated host code (or by the evaluator that lives by recovery maps): registers, memory,
 * CSRs, flags and the way it ended must be the same. Code that does not end within a moment is not compared.
 *
 * links: emulator/cpu/riscv
 */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/loop.h"
#include "base/math.h"
#include "emulator/clock/clock.h"
#include "emulator/cpu/riscv/csr.h"
#include "emulator/cpu/riscv/riscv.h"
#include "emulator/memory/physmap.h"
#include "tests/fuzz/common/fuzz.h"

#define RAM 0x80000000ull
enum { RAM_SIZE = 0x8000, DATA = 0x4000, CODE_MAX = 2048, HEAD = 4, REGISTERS = 32 };
enum { EVALUATOR_MS = 4, TRANSLATED_MS = 10000 };
enum { COMPARE_RECOVERY_MAPS = 1, FLOATING_POINT_CLEAN = 2 };

/* ---- instructions that are there, as steps; the code is the records' bytes one after the other ---- */

static size_t fresh_instruction(struct fuzz_random *random, uint8_t bytes[RECORD_MAX])
{
    size_t size = 0;
    for (uint64_t left = 1 + fuzz_draw(random, 4); left; left--) {
        unsigned insn = 1 + (unsigned)fuzz_draw(random, RISCV_INSN_COUNT - 1);
        uint64_t bits = 0;
        if (!insn_random(&riscv_insn_table[insn], fuzz_draw(random, 0), &bits))
            continue;
        memcpy(bytes + size, &bits, riscv_insn_table[insn].length);
        size += riscv_insn_table[insn].length;
    }
    return size;
}

static const struct record_shape shape = {HEAD, fresh_instruction};
FUZZ_RECORDS(shape)

static size_t code_of(const uint8_t *data, size_t size, uint8_t code[CODE_MAX])
{
    struct records records = records_after(data, size, HEAD);
    struct record record;
    size_t length = 0;
    while (record_next(&records, &record) && length + record.size <= CODE_MAX) {
        memcpy(code + length, record.bytes, record.size);
        length += record.size;
    }
    return length;
}

/* ---- decoding ---- */

static void look_at(uint64_t pc, uint32_t bits)
{
    struct riscv_operands operands;
    unsigned length = riscv_length((uint16_t)bits), matches = 0, last = RISCV_INSN_NONE;
    uint32_t word = length == 2 ? (uint16_t)bits : bits;
    enum riscv_insn insn =
        length == 2 ? riscv_decode_16(word, ~0ull, &operands) : riscv_decode_32(word, ~0ull, &operands);
    for (unsigned i = RISCV_INSN_NONE + 1; i < RISCV_INSN_COUNT; i++) {
        if (riscv_insn_table[i].length == length && insn_matches(&riscv_insn_table[i], word)) {
            matches++;
            last = i;
        }
    }
    FUZZ_CHECK(matches <= 1 && insn == last);
    size_t room = 1 + bits % 80;
    char *text = xmalloc(room);
    FUZZ_CHECK(riscv_disassemble(pc, bits, text, room) == length);
    FUZZ_CHECK(memchr(text, 0, room));
    free(text);
}

/* ---- running ---- */

struct world {
    struct loop *loop;
    struct clock *clock;
    struct physmap *memory;
    struct cpu_riscv *cpu;
    uint8_t *ram;
    unsigned reason;
};

static void world_init(struct world *world, const char *engine)
{
    if (engine)
        setenv("SPINDLE_TRANSLATE", engine, 1);
    else
        unsetenv("SPINDLE_TRANSLATE");
    world->loop = loop_new(LOOP_SIMULATED, 1, NULL);
    world->clock = clock_new(world->loop); /* stands still: counters are the same for both */
    world->memory = physmap_new();
    FUZZ_CHECK(physmap_add_ram(world->memory, "ram", RAM, RAM_SIZE, NULL));
    world->ram = physmap_pointer(world->memory, RAM, RAM_SIZE, true);
    world->cpu = (struct cpu_riscv *)cpu_new(&cpu_arch_riscv64, 0, world->memory, world->clock, NULL, NULL);
    FUZZ_CHECK(world->ram && world->cpu);
    cpu_reset(&world->cpu->cpu, RAM);
    atomic_store(&world->cpu->cpu.attention, 0); /* of its thread, which it does without */
}

static void world_release(struct world *world)
{
    cpu_free(&world->cpu->cpu);
    physmap_free(world->memory);
    clock_free(world->clock);
    loop_free(world->loop);
}

/* Numbers that matter, and places in memory. */
static void fill(struct world *world, const uint8_t *head, const uint8_t *code, size_t size)
{
    struct fuzz_random random = {(uint64_t)head[1] | (uint64_t)head[2] << 8};
    struct cpu_riscv *cpu = world->cpu;
    for (unsigned i = 0; i < DATA; i += 8) {
        uint64_t number = fuzz_interesting(&random);
        memcpy(world->ram + DATA + i, &number, 8);
    }
    memcpy(world->ram, code, size);
    for (unsigned i = 1; i < REGISTERS; i++) {
        cpu->x[i] = fuzz_draw(&random, 2) ? fuzz_interesting(&random) : RAM + DATA + fuzz_draw(&random, DATA / 8) * 8;
        cpu->f[i] = fuzz_draw(&random, 2) ? fuzz_draw(&random, 0) : ~0ull << 32 | fuzz_draw(&random, 1ull << 32);
    }
    uint64_t ignored;
    riscv_csr_access(cpu, CSR_MSTATUS, CSR_WRITE, head[0] & FLOATING_POINT_CLEAN ? MSTATUS_FS / 3 * 2 : MSTATUS_FS,
                     &ignored);
    riscv_set_frm(cpu, head[3] % 8);
    riscv_mode_changed(cpu);
}

static void on_time(int number, siginfo_t *info, void *context)
{
    struct cpu *cpu = info->si_value.sival_ptr;
    atomic_fetch_or(&cpu->attention, CPU_ATTENTION_STOP);
}

/* Until it traps, or the time is over: false. */
static bool run(struct world *world, unsigned limit_ms)
{
    struct sigaction action = {.sa_sigaction = on_time, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigevent event = {
        .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_ptr = &world->cpu->cpu};
    struct itimerspec time = {.it_value = {limit_ms / 1000, limit_ms % 1000 * 1000000l}};
    timer_t timer;
    sigaction(SIGRTMIN, &action, NULL);
    FUZZ_CHECK(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0);
    timer_settime(timer, 0, &time, NULL);
    do
        world->reason = translate_run(&world->cpu->tc);
    while (world->reason == RISCV_EXIT_INTERRUPT);
    timer_delete(timer);
    return world->reason != TRANSLATE_EXIT_ATTENTION;
}

static void compare_csrs(struct cpu_riscv *one, struct cpu_riscv *other)
{
    static const uint16_t numbers[] = {
        CSR_MSTATUS, CSR_MIE,    CSR_MIP,     CSR_MIDELEG,  CSR_MEDELEG,    CSR_MTVEC,      CSR_MSCRATCH, CSR_MEPC,
        CSR_MCAUSE,  CSR_MTVAL,  CSR_STVEC,   CSR_SSCRATCH, CSR_SEPC,       CSR_SCAUSE,     CSR_STVAL,    CSR_SATP,
        CSR_FCSR,    CSR_MCYCLE, CSR_MENVCFG, CSR_SENVCFG,  CSR_MCOUNTEREN, CSR_SCOUNTEREN, CSR_STIMECMP,
    };
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        FUZZ_CHECK(riscv_csr_peek(one, numbers[i]) == riscv_csr_peek(other, numbers[i]));
    FUZZ_CHECK(one->privilege == other->privilege);
    FUZZ_CHECK(!memcmp(one->pmp.cfg, other->pmp.cfg, sizeof one->pmp.cfg));
    FUZZ_CHECK(!memcmp(one->pmp.address, other->pmp.address, sizeof one->pmp.address));
}

static void compare(const struct world *one, const struct world *other)
{
    FUZZ_CHECK(one->reason == other->reason);
    FUZZ_CHECK(one->cpu->tc.pc == other->cpu->tc.pc);
    if (one->reason == TRANSLATE_EXIT_EXCEPTION) {
        FUZZ_CHECK(one->cpu->exception_cause == other->cpu->exception_cause);
        FUZZ_CHECK(one->cpu->exception_value == other->cpu->exception_value);
    }
    FUZZ_CHECK(!memcmp(one->cpu->x, other->cpu->x, sizeof one->cpu->x));
    FUZZ_CHECK(!memcmp(one->cpu->f, other->cpu->f, sizeof one->cpu->f));
    FUZZ_CHECK(!memcmp(one->ram, other->ram, RAM_SIZE));
    compare_csrs(one->cpu, other->cpu);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t code[CODE_MAX + 4] = {0};
    if (size < HEAD)
        return 0;
    size_t length = code_of(data, size, code);
    for (size_t at = 0; at < length; at += 2) {
        uint32_t bits;
        memcpy(&bits, code + at, 4);
        look_at(RAM + at, bits);
    }
    struct world worlds[2];
    world_init(&worlds[0], "eval");
    fill(&worlds[0], data, code, length);
    if (run(&worlds[0], EVALUATOR_MS)) {
        world_init(&worlds[1], data[0] & COMPARE_RECOVERY_MAPS ? "eval-sunk" : NULL);
        fill(&worlds[1], data, code, length);
        FUZZ_CHECK(run(&worlds[1], TRANSLATED_MS));
        compare(&worlds[0], &worlds[1]);
        world_release(&worlds[1]);
    }
    world_release(&worlds[0]);
    return 0;
}
