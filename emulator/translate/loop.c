/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop that runs a vCPU: find or make the block for tc->pc, link the exit that led there, enter it; and the life of
 * the machine's translation cache.
 *
 * Emptying the cache. When it is full, the vCPU that noticed asks all others out (their attention word is set), waits
 * until none is inside, empties, and lets them in again. Nothing else ever stops a vCPU.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/alloc.h"
#include "emulator/memory/physmap.h"
#include "emulator/translate/codecache.h"

/* --- The machine's cache --- */

static void *reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static bool map_cache(struct machine_code *code, struct error *err)
{
    code->size = CODE_CACHE_SIZE;
    int fd = memfd_create("translated-code", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, code->size))
        return fail_errno(err, errno, "cannot create the memory of the translation cache");
    code->rw = mmap(NULL, code->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    code->rx = mmap(NULL, code->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    int error = errno;
    close(fd);
    if (code->rw == MAP_FAILED || code->rx == MAP_FAILED)
        return fail_errno(err, error, "cannot map the translation cache (is executable memory forbidden here?)");
    return true;
}

/* One private mapping for writing and for executing: it is copied on write when the program forks, which memory that
 * two mappings share would not be. */
static bool map_private_cache(struct machine_code *code, struct error *err)
{
    code->size = CODE_CACHE_SIZE;
    code->rw =
        mmap(NULL, code->size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    code->rx = code->rw;
    if (code->rw == MAP_FAILED)
        return fail_errno(err, errno, "cannot map the translation cache (is executable memory forbidden here?)");
    return true;
}

static bool add_direct_range(struct machine_code *code, struct error *err)
{
    const struct translate_direct *direct = &code->direct;
    code->ranges = new_array(struct code_range, 1);
    code->ranges[code->range_count++] = (struct code_range){0, direct->size, direct->base, true, NULL};
    code->ranges->pages = reserve((direct->size >> TRANSLATE_PAGE_BITS) * sizeof(struct page_state));
    return code->ranges->pages || fail(err, ENOMEM, "no memory for the page table of the program");
}

static bool add_ranges(struct machine_code *code, struct error *err)
{
    size_t count = physmap_count(code->memory);
    code->ranges = new_array(struct code_range, count + 1);
    for (size_t i = 0; i < count; i++) {
        const struct physmap_range *from = physmap_at(code->memory, i);
        if (from->kind == PHYSMAP_MMIO)
            continue;
        struct code_range *range = &code->ranges[code->range_count++];
        *range = (struct code_range){from->base, from->size, from->host, from->kind == PHYSMAP_RAM, NULL};
        range->pages = reserve((from->size >> TRANSLATE_PAGE_BITS) * sizeof(struct page_state));
        if (!range->pages)
            return fail(err, ENOMEM, "no memory for the page table of '%s'", from->name);
    }
    return true;
}

static void on_write(void *arg, uint64_t address, uint64_t length)
{
    machine_code_invalidate(arg, address, length);
}

static void init_locks(struct machine_code *code)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&code->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    pthread_cond_init(&code->quiet, NULL);
}

static struct machine_code *create(const struct guest *guest, struct physmap *memory,
                                   const struct translate_direct *direct, const struct translate_host *host,
                                   struct error *err)
{
    const char *choice = getenv("SPINDLE_TRANSLATE");
    struct machine_code *code = new (struct machine_code);
    code->guest = guest;
    code->memory = memory;
    code->is_direct = direct;
    code->direct = direct ? *direct : (struct translate_direct){0};
    code->sunk = choice && !strcmp(choice, "eval-sunk");
    code->host = code->sunk || (choice && !strcmp(choice, "eval")) ? NULL : host;
    code->dump = choice && !strcmp(choice, "dump");
    code->exit_count = code->identity_count = 1;
    init_locks(code);
    code->blocks = reserve(CODE_MAX_BLOCKS * sizeof *code->blocks);
    code->exits = reserve(CODE_MAX_EXITS * sizeof *code->exits);
    code->identities = reserve(CODE_MAX_IDENTITIES * sizeof *code->identities);
    bool ok = code->blocks && code->exits && code->identities ? true : fail(err, ENOMEM, "no memory");
    ok = ok && (direct ? add_direct_range(code, err) : add_ranges(code, err));
    if (ok && code->host)
        ok = (direct ? map_private_cache(code, err) : map_cache(code, err)) && code->host->prepare(code, err);
    if (!ok) {
        machine_code_free(code);
        return NULL;
    }
    return code;
}

struct machine_code *machine_code_new(const struct guest *guest, struct physmap *memory,
                                      const struct translate_host *host, struct error *err)
{
    struct machine_code *code = create(guest, memory, NULL, host, err);
    if (code)
        physmap_set_write_listener(memory, on_write, code);
    return code;
}

struct machine_code *machine_code_new_direct(const struct guest *guest, const struct translate_direct *direct,
                                             const struct translate_host *host, struct error *err)
{
    return create(guest, NULL, direct, host, err);
}

void machine_code_lock(struct machine_code *code)
{
    pthread_mutex_lock(&code->lock);
}

void machine_code_unlock(struct machine_code *code)
{
    pthread_mutex_unlock(&code->lock);
}

static void release(void *memory, size_t size)
{
    if (memory && memory != MAP_FAILED)
        munmap(memory, size);
}

void machine_code_free(struct machine_code *code)
{
    if (!code)
        return;
    if (code->memory)
        physmap_set_write_listener(code->memory, NULL, NULL);
    for (uint32_t i = 0; code->blocks && i < code->block_count; i++)
        block_forget_ir(&code->blocks[i]);
    for (unsigned i = 0; i < code->range_count; i++) {
        size_t pages = code->ranges[i].size >> TRANSLATE_PAGE_BITS;
        for (size_t page = 0; code->ranges[i].pages && page < pages; page++)
            free(atomic_load_explicit(&code->ranges[i].pages[page].code, memory_order_relaxed));
        release(code->ranges[i].pages, pages * sizeof(struct page_state));
    }
    free(code->ranges);
    if (code->host && code->host_data)
        code->host->unprepare(code);
    release(code->rw, code->size);
    if (code->rx != code->rw)
        release(code->rx, code->size);
    release(code->blocks, CODE_MAX_BLOCKS * sizeof *code->blocks);
    release(code->exits, CODE_MAX_EXITS * sizeof *code->exits);
    release(code->identities, CODE_MAX_IDENTITIES * sizeof *code->identities);
    pthread_mutex_destroy(&code->lock);
    pthread_cond_destroy(&code->quiet);
    free(code);
}

void machine_code_statistics(struct machine_code *code, struct translate_statistics *out)
{
    pthread_mutex_lock(&code->lock);
    *out = code->statistics;
    if (code->host)
        out->host_bytes = (code->near - code->near_start) + (code->far - code->far_start);
    pthread_mutex_unlock(&code->lock);
}

/* --- A vCPU --- */

bool translate_cpu_init(struct translate_cpu *tc, void *cpu, struct machine_code *code, struct error *err)
{
    if (code->cpu_count == 1u << 14)
        return fail(err, EINVAL, "too many CPUs");
    if (!code->is_direct)
        memset(tc, 0, sizeof *tc);
    tc->cpu = cpu;
    tc->code = code;
    tc->mxcsr = 0x1f80; /* nearest, no exception seen, all masked */
    tc->host_mxcsr = 0x1f80;
    tc->reserved_address = UINT64_MAX;
    tc->code_base = (uint64_t)(uintptr_t)code->rx;
    tc->private = new (struct translate_private);
    tlb_init(tc);
    if (code->host)
        code->host->begin_cpu(tc);
    pthread_mutex_lock(&code->lock);
    tc->private->index = code->cpu_count++;
    tc->private->emptied = code->emptied;
    tc->private->next = code->cpus;
    code->cpus = tc;
    pthread_mutex_unlock(&code->lock);
    return true;
}

void translate_cpu_destroy(struct translate_cpu *tc)
{
    if (!tc->private)
        return;
    pthread_mutex_lock(&tc->code->lock);
    struct translate_cpu **at = &tc->code->cpus;
    while (*at != tc)
        at = &(*at)->private->next;
    *at = tc->private->next;
    pthread_mutex_unlock(&tc->code->lock);
    free(tc->private);
    tc->private = NULL;
}

/* The locks are made anew because the thread that holds them has another number here. */
void machine_code_forked(struct machine_code *code, struct translate_cpu *only)
{
    init_locks(code);
    atomic_store(&code->emptying, false);
    code->cpus = only;
    only->private->next = NULL;
}

bool translate_recover(struct translate_cpu *tc, void *ucontext, enum translate_recovery how)
{
    return tc->code->host && tc->code->host->recover(tc, ucontext, how);
}

static _Atomic uint32_t *attention_of(const struct translate_cpu *tc)
{
    return (_Atomic uint32_t *)((char *)tc->cpu + tc->code->guest->attention_offset);
}

/* --- Inside and outside --- */

static void go_outside(struct translate_cpu *tc)
{
    atomic_store(&tc->private->inside, false);
    if (atomic_load(&tc->code->emptying)) {
        pthread_mutex_lock(&tc->code->lock);
        pthread_cond_broadcast(&tc->code->quiet);
        pthread_mutex_unlock(&tc->code->lock);
    }
}

static void go_inside(struct translate_cpu *tc)
{
    atomic_store(&tc->private->inside, true);
    while (atomic_load(&tc->code->emptying)) {
        go_outside(tc);
        pthread_mutex_lock(&tc->code->lock);
        while (atomic_load(&tc->code->emptying))
            pthread_cond_wait(&tc->code->quiet, &tc->code->lock);
        pthread_mutex_unlock(&tc->code->lock);
        atomic_store(&tc->private->inside, true);
    }
    if (tc->private->emptied != tc->code->emptied) {
        tc->private->emptied = tc->code->emptied;
        tlb_forget_code(tc);
    }
}

static bool anyone_inside(struct machine_code *code)
{
    for (struct translate_cpu *tc = code->cpus; tc; tc = tc->private->next) {
        if (atomic_load(&tc->private->inside))
            return true;
    }
    return false;
}

/* Called inside; returns inside, with an empty cache. */
static void empty_cache(struct translate_cpu *tc)
{
    struct machine_code *code = tc->code;
    go_outside(tc);
    pthread_mutex_lock(&code->lock);
    if (!atomic_load(&code->emptying)) { /* else somebody else is at it: just wait */
        atomic_store(&code->emptying, true);
        for (struct translate_cpu *other = code->cpus; other; other = other->private->next) {
            if (other != tc)
                atomic_fetch_or(attention_of(other), 1);
        }
        while (anyone_inside(code))
            pthread_cond_wait(&code->quiet, &code->lock);
        code_empty(code);
        atomic_store(&code->emptying, false);
        pthread_cond_broadcast(&code->quiet);
    }
    pthread_mutex_unlock(&code->lock);
    go_inside(tc);
}

/* --- Running --- */

/* A straddling block is right only while its second page is where it was. */
static bool second_page_holds(struct translate_cpu *tc, const struct code_block *block)
{
    if (block->second_page == CODE_NO_PAGE)
        return true;
    const struct fetch_entry *entry = tlb_fetch(tc, (block->pc | (TRANSLATE_PAGE - 1)) + 1);
    return entry && entry->physical == block->second_page;
}

/* The block for tc->pc. NULL: an exception was recorded, or the cache is full. */
static struct code_block *find_or_compile(struct translate_cpu *tc)
{
    struct machine_code *code = tc->code;
    struct fetch_entry *page = code->is_direct ? NULL : tlb_fetch(tc, tc->pc);
    if (!page && !code->is_direct)
        return NULL;
    pthread_mutex_lock(&code->lock);
    if (code->is_direct) { /* asked under the lock: nobody unmaps the page until the block is there */
        page = tlb_fetch(tc, tc->pc);
        if (!page) {
            pthread_mutex_unlock(&code->lock);
            return NULL;
        }
    }
    code->statistics.lookups++;
    uint64_t physical = page->physical | (tc->pc & (TRANSLATE_PAGE - 1));
    struct code_block *block = block_find(code, tc->pc, physical, tc->mode);
    if (block && !second_page_holds(tc, block)) {
        if (!tc->exception)
            block_kill(code, block);
        block = NULL;
    }
    bool partial = page->partial;
    if (!block && !tc->exception)
        block = block_compile(tc, page);
    if (block && !partial && code->host) {
        tc->jumps[jump_index(code->guest, tc->pc)] =
            (struct translate_jump){tc->pc, tc->key, (uint32_t)(block->code - tc->code_base)};
        if (tc->exit_link)
            exit_link(code, &code->exits[tc->exit_link], block);
    }
    pthread_mutex_unlock(&code->lock);
    return block;
}

static unsigned evaluate(struct translate_cpu *tc, struct code_block *block)
{
    struct ir_evaluator *e = &tc->private->evaluator;
    unsigned reason =
        block->recovery ? ir_evaluate_sunk(tc, e, block->ir, block->recovery) : ir_evaluate(tc, e, block->ir);
    tc->exit_link = 0;
    return reason;
}

/* Where the guest is after an exit. Other vCPUs made these blocks and exits, and we came to them through jumps that
 * were patched, without the lock: what is read here was written before the code that leads here could be reached. */
static void go_where_exit_leads(struct translate_cpu *tc)
{
    struct machine_code *code = tc->code;
    if (tc->exit_link & CODE_EXIT_IS_BLOCK) { /* it was dead: look up anew */
        tc->pc = code->blocks[tc->exit_link & ~CODE_EXIT_IS_BLOCK].pc;
        tc->jumps[jump_index(code->guest, tc->pc)].key = 0; /* or known_code() would find the dead one again */
        tc->exit_link = 0;
    } else if (tc->exit_link) {
        tc->pc = code->exits[tc->exit_link].pc;
    }
}

static unsigned run_code(struct translate_cpu *tc, uint64_t entry)
{
    struct machine_code *code = tc->code;
    tc->exit_link = 0;
    unsigned reason = code->host->enter(tc, entry);
    if (reason == TRANSLATE_EXIT_EVALUATE) {
        tc->pc = code->blocks[tc->exit_link].pc;
        return evaluate(tc, &code->blocks[tc->exit_link]);
    }
    if (reason == TRANSLATE_EXIT_CAREFUL)
        return translate_carefully(tc);
    go_where_exit_leads(tc);
    return reason;
}

static unsigned run_block(struct translate_cpu *tc, struct code_block *block)
{
    return tc->code->host ? run_code(tc, block->code) : evaluate(tc, block);
}

/* Where the code for tc->pc is, when an indirect jump of translated code would find it too: no lock, no search. 0:
 * look. An exit that waits to be linked goes the long way. */
static uint64_t known_code(const struct translate_cpu *tc)
{
    const struct translate_jump *jump = &tc->jumps[jump_index(tc->code->guest, tc->pc)];
    return !tc->exit_link && jump->pc == tc->pc && jump->key == tc->key ? tc->code_base + jump->code : 0;
}

static unsigned run(struct translate_cpu *tc)
{
    tc->exit_link = 0;
    for (;;) {
        if (atomic_load_explicit(attention_of(tc), memory_order_relaxed))
            return TRANSLATE_EXIT_ATTENTION;
        uint64_t entry = known_code(tc);
        struct code_block *block = entry ? NULL : find_or_compile(tc);
        if (!entry && !block) {
            if (tc->exception)
                return TRANSLATE_EXIT_EXCEPTION;
            empty_cache(tc);
            continue;
        }
        unsigned reason = entry ? run_code(tc, entry) : run_block(tc, block);
        if (reason == TRANSLATE_EXIT_CONTINUE && tc->leave)
            reason = tc->leave;
        if (reason != TRANSLATE_EXIT_CONTINUE)
            return reason;
    }
}

unsigned translate_run(struct translate_cpu *tc)
{
    tc->exception = 0;
    tc->leave = 0;
    tc->fault_signal = 0;
    go_inside(tc);
    unsigned reason = run(tc);
    go_outside(tc);
    tc->exception = 0;
    return reason;
}
