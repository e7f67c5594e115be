/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the run time: the blocks of a machine, the pages they came from, and what each vCPU keeps privately.
 *
 * A block is found by (pc, physical address, key): the virtual address is part of the key because translated code
 * contains it. A block's bytes lie in one page, or in two when a single instruction straddles the end (then that
 * instruction is the whole block). Every page with code has a struct code_page: the list of its blocks and a bitmap of
 * its 64-byte lines that hold code, so that data next to code can be written without dropping anything.
 *
 * Which links may be trusted? Within a page, a jump from block to block needs no check: whoever runs the first has the
 * page mapped that way. A jump to another page is guarded: translate_cpu.fetch_page[] holds the identity (virtual page,
 * physical page, regime) of recently executed pages, emptied whenever a translation may have changed, and the exit
 * compares its entry with the identity the link was made for.
 *
 * Locks: machine_code.lock covers everything in struct machine_code but the fields marked atomic. A vCPU does not hold
 * it while in translated code, in fill_tlb or in device code.
 */
#ifndef EMULATOR_TRANSLATE_CODECACHE_H
#define EMULATOR_TRANSLATE_CODECACHE_H

#include <pthread.h>
#include "emulator/translate/eval.h"
#include "emulator/translate/host.h"

enum {
    CODE_CACHE_SIZE = 64 << 20,
    CODE_MAX_BLOCKS = 1 << 20,
    CODE_MAX_EXITS = 2 << 20,
    CODE_HASH = 1 << 16,
    CODE_MAX_IDENTITIES = 1 << 18,
    CODE_LINE = 64,
    CODE_BLOCK_INSNS = 64
};
#define CODE_NO_PAGE UINT64_MAX

struct code_exit {
    struct code_block *from, *target; /* target: what it is linked to, or NULL */
    struct code_exit *next, **link;   /* among target->into */
    uint64_t pc;
    uint32_t patch; /* offset of the jump's displacement in the cache */
    uint32_t guard; /* offset of the page identity it compares with; 0: same page, no compare */
    uint32_t stub;  /* offset of the way to the run time */
};

struct code_block {
    uint64_t pc, physical;
    uint64_t second_page; /* physical page of the rest of a straddling instruction, or CODE_NO_PAGE */
    uint32_t key;         /* mode and instrumentation */
    uint32_t identity;    /* of its page */
    uint32_t second_identity;
    uint64_t lines[2]; /* of the page, of the second page */
    uint64_t code;     /* entry, as executed (rx); evaluator: 0 */
    uint16_t insns;
    bool dead;
    uint32_t exits, exit_count;   /* in machine_code.exits */
    uint32_t faults, fault_count; /* direct memory: struct code_fault in the cache, ascending */
    struct code_block *hash_next, *page_next[2];
    struct code_exit *into;
    struct ir_block *ir;          /* evaluator only */
    struct ir_recovery *recovery; /* of `ir`, when puts are sunk */
};

/* Direct memory: this host instruction may fault, on behalf of that guest instruction. */
struct code_fault {
    uint16_t host, guest; /* from block->code, from block->pc */
};

struct code_page {
    _Atomic uint64_t lines;
    struct code_block *blocks;
};

/* A page of RAM or ROM. writer: which TLB entry may write it without asking: 0 none, WRITER_MANY, or packed. */
struct page_state {
    _Atomic(struct code_page *) code;
    _Atomic uint32_t writer;
};
#define WRITER_MANY UINT32_MAX

struct code_range {
    uint64_t base, size;
    uint8_t *host;
    bool writable;
    struct page_state *pages;
};

struct page_identity {
    uint64_t page, physical;
    uint32_t next;
    uint8_t mmu;
};

struct machine_code {
    const struct guest *guest;
    const struct translate_host *host;
    struct physmap *memory; /* NULL: direct */
    bool is_direct;
    struct translate_direct direct;
    bool dump;
    bool sunk; /* the evaluator keeps puts back (recovery.h) */

    struct code_range *ranges;
    unsigned range_count;

    pthread_mutex_t lock;       /* recursive: decoding may walk page tables, whose updates are noted writes */
    pthread_cond_t quiet;       /* a vCPU left translated code, or the emptying is over */
    _Atomic bool emptying;      /* everybody out: the cache is being emptied */
    uint64_t emptied;           /* how often; changes only while no vCPU is inside */
    struct translate_cpu *cpus; /* through private->next */
    unsigned cpu_count;

    uint8_t *rw, *rx;         /* the two mappings of the cache */
    uint32_t size, near, far; /* hot code grows from near_start, stubs from far_start */
    uint32_t near_start, far_start;
    uint32_t near_populated, far_populated; /* memory up to here is there: page faults one by one are slow */
    void *host_data;                        /* the back end's */

    struct code_block *blocks;
    struct code_exit *exits;
    uint32_t block_count, exit_count;
    struct code_block *hash[CODE_HASH];
    struct page_identity *identities;
    uint32_t identity_count, identity_hash[4096];
    struct translate_statistics statistics;
};

/* translate_cpu.exit_link: the number of an exit, or this bit and the number of a block (dead, or to be evaluated). */
#define CODE_EXIT_IS_BLOCK 0x80000000u
enum {
    TRANSLATE_EXIT_EVALUATE = 4, /* from translate_host.enter() only: exit_link is the block */
    TRANSLATE_EXIT_CAREFUL = 5   /* the same: direct memory, an address out of it; the evaluator does the instruction */
};

struct fetch_entry {
    uint64_t page, physical; /* page addresses */
    uint8_t *host;
    uint32_t identity;
    uint32_t epoch; /* global pages: right in every address space while this is fetch_epoch */
    uint8_t mmu;
    bool partial, global;
};

enum { CONTEXT_MAP = 64 };
struct context {
    uint32_t asid;
    bool valid;
    uint16_t tags[TRANSLATE_MMUS], fetch[TRANSLATE_MMUS];
};

/* Mappings larger than a page that were filled, merged; flushing one address in them flushes all. low > high: unused.
 */
enum { LARGE_RANGES = 4 };
struct large_range {
    uint64_t low, high;
};

struct translate_private {
    struct translate_cpu *next;
    unsigned index;
    _Atomic bool inside; /* in translate_run(), and not waiting there for the emptying of the cache */
    uint64_t emptied;    /* machine_code.emptied that this vCPU knows of */

    /* Tags (tlb.c). */
    uint32_t asid;
    uint16_t next_tag, next_fetch;
    uint16_t fetch_context[TRANSLATE_MMUS], fetch_shared[TRANSLATE_MMUS]; /* the same for what a pc means */
    uint32_t fetch_epoch;            /* counts the times when all of these became fresh */
    uint16_t shared[TRANSLATE_MMUS]; /* the tag of entries that are the same in all address spaces */
    bool used[TRANSLATE_MMUS];       /* an entry was filled since the shared tag was fresh */
    struct context map[CONTEXT_MAP];
    struct large_range large[TRANSLATE_MMUS][LARGE_RANGES];
    uint64_t fetch_filter[64]; /* virtual pages executed since the last change of fetch context, by hash */

    struct fetch_entry fetch[TRANSLATE_FETCH_PAGES];
    struct ir_block ir;
    struct ir_evaluator evaluator;
};

/* Pages and blocks (blocks.c). */
struct code_range *code_range_of(struct machine_code *code, uint64_t physical);
struct page_state *page_state_of(struct machine_code *code, uint64_t physical);
uint32_t page_identity_of(struct machine_code *code, uint64_t page, uint64_t physical, unsigned mmu);
struct code_block *block_find(struct machine_code *code, uint64_t pc, uint64_t physical, uint32_t key);
struct ir_block *block_keep_ir(const struct ir_block *ir);
void block_forget_ir(struct code_block *block);
void block_kill(struct machine_code *code, struct code_block *block);
struct code_page *page_expect_code(struct machine_code *code, uint64_t physical); /* before its bytes are read */
void page_settle(struct machine_code *code, uint64_t physical);                   /* lines = those of its blocks */
struct code_block *block_new(struct machine_code *code);                          /* NULL: full */
void block_publish(struct machine_code *code, struct code_block *block);
struct code_exit *exit_new(struct machine_code *code, struct code_block *from, uint64_t pc); /* NULL: full */
void exit_link(struct machine_code *code, struct code_exit *exit, struct code_block *target);
void code_empty(struct machine_code *code); /* with no vCPU inside */

/* The TLB (tlb.c). */
struct translate_result { /* of a slow access: where the bytes are */
    uint8_t *host;        /* RAM, ROM; NULL: a device */
    uint64_t physical;
    bool read_only;
};
void tlb_init(struct translate_cpu *tc);
bool tlb_access(struct translate_cpu *tc, uint64_t address, unsigned size, enum translate_access access, unsigned mmu,
                struct translate_result *result);
/* The page got its first code: no vCPU may write it any more without asking. */
void tlb_protect(struct machine_code *code, uint64_t page, struct page_state *state);
struct fetch_entry *tlb_fetch(struct translate_cpu *tc, uint64_t pc);           /* NULL: exception recorded */
void tlb_allow_write(struct translate_cpu *tc, uint64_t address, unsigned mmu); /* its page has no code any more */
void tlb_forget_code(struct translate_cpu *tc);                                 /* jumps, returns, fetch pages */
static inline unsigned fetch_index(uint64_t page_address)
{
    uint64_t number = page_address >> TRANSLATE_PAGE_BITS;
    return (unsigned)(number ^ number >> 10) & (TRANSLATE_FETCH_PAGES - 1);
}
static inline unsigned jump_index(const struct guest *guest, uint64_t pc)
{
    return (unsigned)(pc >> guest->pc_align_log2) & (TRANSLATE_JUMPS - 1);
}

/* Slow accesses (memory.c), also the evaluator's and the back ends' way. */
bool memory_load(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, void *value);        /* any size */
bool memory_store(struct translate_cpu *tc, uint64_t address, const void *value, struct ir_mem mem); /* any size */
bool memory_amo(struct translate_cpu *tc, uint64_t address, uint64_t operand, struct ir_mem mem, uint64_t *old);
bool memory_cmpxchg(struct translate_cpu *tc, uint64_t address, uint64_t expected, uint64_t desired, struct ir_mem mem,
                    uint64_t *old);
bool memory_load_reserved(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, uint64_t *value);
bool memory_store_conditional(struct translate_cpu *tc, uint64_t address, uint64_t value, struct ir_mem mem,
                              uint64_t *failed);

/* One instruction by the evaluator, leaving no block behind. Returns an enum translate_exit. */
unsigned translate_carefully(struct translate_cpu *tc);

/* Making a block (compile.c): for tc->pc, whose page is `page`. NULL: full, or exception (tc->exception). */
struct code_block *block_compile(struct translate_cpu *tc, struct fetch_entry *page);

#endif
