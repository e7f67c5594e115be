/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From guest bytes to a block: decode into IR through the front end, then hand the IR to the host back end (or keep it,
 * for the evaluator). Runs under machine_code.lock, so that a vCPU that writes to these bytes meanwhile waits, and then
 * finds the block in its page's list and drops it.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "emulator/translate/codecache.h"
#include "emulator/translate/recovery.h"
#include "emulator/translate/try_access.h"

/* Where the front end's bytes come from. */
struct translate_fetch {
    struct translate_cpu *tc;
    struct code_block *block;
    const struct fetch_entry *page;
    struct fetch_entry second;
};

static uint64_t page_of(uint64_t address)
{
    return address & ~(uint64_t)(TRANSLATE_PAGE - 1);
}

bool translate_same_page(const struct translate_block *t, uint64_t pc)
{
    return page_of(pc) == page_of(t->pc);
}

/* The rest of the block's first instruction lies in the next page. */
static const uint8_t *second_page(struct translate_block *t, uint64_t pc)
{
    struct translate_fetch *f = t->fetch;
    bool first_insn = t->ir->count == 1 && pc - t->pc < 16;
    if (!first_insn)
        return NULL;
    if (f->block->second_page == CODE_NO_PAGE) {
        const struct fetch_entry *entry = tlb_fetch(f->tc, pc);
        if (!entry)
            return NULL;
        f->second = *entry;
        f->block->second_page = entry->physical;
        f->block->second_identity = entry->partial ? 0 : entry->identity;
        page_expect_code(f->tc->code, entry->physical);
    }
    return f->second.host;
}

/* Direct memory may be gone although the guest may execute it: a file that was cut. */
static bool fetch_byte(struct translate_cpu *tc, uint64_t pc, const uint8_t *host, uint8_t *byte)
{
    uint64_t value = 0;
    if (!tc->code->is_direct) {
        *byte = __atomic_load_n(host, __ATOMIC_RELAXED);
        return true;
    }
    if (!translate_try_load_8(host, &value)) {
        tc->code->guest->raise_access(tc->cpu, pc, TRANSLATE_FETCH, false);
        tc->exception = 1;
        return false;
    }
    *byte = (uint8_t)value;
    return true;
}

bool translate_fetch(struct translate_block *t, uint64_t pc, unsigned size, uint64_t *bits)
{
    struct translate_fetch *f = t->fetch;
    uint8_t bytes[8] = {0};
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = pc + i;
        unsigned which = !translate_same_page(t, at), offset = (unsigned)(at & (TRANSLATE_PAGE - 1));
        const uint8_t *host = which ? second_page(t, at) : f->page->host;
        if (!host || !fetch_byte(f->tc, at, &host[offset], &bytes[i]))
            return false;
        f->block->lines[which] |= 1ull << offset / CODE_LINE;
    }
    uint64_t value = 0;
    for (unsigned i = size; i-- > 0;)
        value = value << 8 | bytes[i];
    *bits = value;
    return true;
}

void translate_stop(struct translate_block *t, uint64_t pc)
{
    /* An empty block whose bytes cannot be fetched is dropped by block_compile(), the exception is recorded. */
    ir_exit_direct(t->ir, pc);
}

/* --- Compiling --- */

static uint64_t nanoseconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void count_insns(struct machine_code *code, const struct ir_block *ir, struct code_block *block)
{
    for (unsigned i = 1; i < ir->count; i++) {
        if (ir->ops[i].op == IR_OP_insn) {
            block->insns++;
            code->statistics.guest_bytes += ir->ops[i].a;
        }
    }
    code->statistics.blocks++;
    code->statistics.guest_insns += block->insns;
    code->statistics.ops += ir->count;
}

struct ir_block *block_keep_ir(const struct ir_block *ir)
{
    size_t size = offsetof(struct ir_block, ops) + ir->count * sizeof ir->ops[0];
    return xmemdup(ir, size);
}

void block_forget_ir(struct code_block *block)
{
    free(block->ir);
    free(block->recovery);
    block->ir = NULL;
    block->recovery = NULL;
}

/* For the evaluator. */
static void keep(const struct machine_code *code, const struct ir_block *ir, struct code_block *block)
{
    block->ir = block_keep_ir(ir);
    if (code->sunk)
        block->recovery = ir_recovery_new(ir, block->pc);
}

static void dump(const struct code_block *block, const struct ir_block *ir)
{
    fprintf(stderr, "block pc=0x%llx physical=0x%llx key=0x%x\n", (unsigned long long)block->pc,
            (unsigned long long)block->physical, block->key);
    ir_print(ir, stderr);
    struct ir_recovery *recovery = ir_recovery_new(ir, block->pc);
    ir_recovery_print(recovery, ir, stderr);
    free(recovery);
}

/* The block's host code as hexadecimal, for a disassembler. */
static void dump_code(const struct machine_code *code, uint32_t from)
{
    fprintf(stderr, "host 0x%x ", from);
    for (uint32_t at = from; at < code->near; at++)
        fprintf(stderr, "%02x", code->rw[at]);
    fputc('\n', stderr);
}

static void decode(struct translate_cpu *tc, struct code_block *block, struct translate_fetch *fetch,
                   unsigned max_insns)
{
    const struct guest *guest = tc->code->guest;
    struct ir_block *ir = &tc->private->ir;
    struct translate_block t = {.ir = ir, .pc = block->pc, .mode = tc->mode, .cpu = tc->cpu, .fetch = fetch};
    t.max_insns = max_insns;
    ir_begin(ir, guest->slots, guest->slot_count, guest->helpers, guest->helper_count);
    guest->translate(&t);
    if (!ir_is_ended(ir)) {
        tc->fatal = "the front end left a block without an end";
        ir_exit_runtime(ir, TRANSLATE_EXIT_FATAL, block->pc);
    }
}

struct code_block *block_compile(struct translate_cpu *tc, struct fetch_entry *page)
{
    struct machine_code *code = tc->code;
    uint64_t start = nanoseconds();
    struct code_block *block = block_new(code);
    if (!block)
        return NULL;
    struct fetch_entry first = *page; /* fetching a second page may replace the entry */
    block->pc = tc->pc;
    block->physical = page->physical | (tc->pc & (TRANSLATE_PAGE - 1));
    block->key = tc->mode;
    block->identity = page->identity;
    page_expect_code(code, block->physical);
    struct translate_fetch fetch = {.tc = tc, .block = block, .page = &first};
    decode(tc, block, &fetch, CODE_BLOCK_INSNS);
    bool done = !tc->exception;
    if (done && code->dump)
        dump(block, &tc->private->ir);
    uint32_t near = code->near;
    if (done && code->host)
        done = code->host->compile(code, &tc->private->ir, block);
    else if (done)
        keep(code, &tc->private->ir, block);
    if (done && code->dump && code->host)
        dump_code(code, near);
    if (done) {
        block_publish(code, block);
        count_insns(code, &tc->private->ir, block);
    }
    page_settle(code, block->physical);
    if (block->second_page != CODE_NO_PAGE)
        page_settle(code, block->second_page);
    code->statistics.translate_ns += nanoseconds() - start;
    return done ? block : NULL;
}

unsigned translate_carefully(struct translate_cpu *tc)
{
    struct machine_code *code = tc->code;
    struct code_block block = {.pc = tc->pc, .physical = tc->pc, .key = tc->mode, .second_page = CODE_NO_PAGE};
    pthread_mutex_lock(&code->lock);
    struct fetch_entry *page = tlb_fetch(tc, tc->pc);
    if (page) {
        struct fetch_entry first = *page;
        struct translate_fetch fetch = {.tc = tc, .block = &block, .page = &first};
        decode(tc, &block, &fetch, 1);
        if (block.second_page != CODE_NO_PAGE)
            page_settle(code, block.second_page);
    }
    tc->exit_link = 0;
    unsigned reason =
        tc->exception ? TRANSLATE_EXIT_EXCEPTION : ir_evaluate(tc, &tc->private->evaluator, &tc->private->ir);
    pthread_mutex_unlock(&code->lock);
    return reason;
}
