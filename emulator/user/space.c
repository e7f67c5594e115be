/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reservation, its pages' bytes, and access to the bytes of the program; what the system calls do to mappings is in
 * space_map.c.
 *
 * The reservation is 256 GiB, what a RISC-V Linux gives a program under Sv39, or less where the host limits address
 * space. It is mapped without access and costs nothing but page tables of what is used.
 */
#include "emulator/user/space.h"

#include <string.h>
#include <sys/mman.h>
#include "emulator/cpu/riscv/user.h"
#include "emulator/translate/try_access.h"

enum { LARGEST_LOG2 = 38, SMALLEST_LOG2 = 31 };

static bool reserve(struct space *space)
{
    for (unsigned log2 = LARGEST_LOG2; log2 >= SMALLEST_LOG2; log2--) {
        uint64_t size = 1ull << log2;
        void *memory = mmap(NULL, size + 2 * TRANSLATE_DIRECT_GUARD, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            continue;
        space->base = (uint8_t *)memory + TRANSLATE_DIRECT_GUARD;
        space->size = size;
        return true;
    }
    return false;
}

bool space_init(struct space *space, struct error *err)
{
    *space = (struct space){0};
    if (!reserve(space))
        return fail(err, ENOMEM, "cannot reserve address space for the program (is it limited, ulimit -v?)");
    void *pages = mmap(NULL, space->size / SPACE_PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return fail(err, ENOMEM, "no memory for the program's table of pages");
    space->pages = pages;
    space->top = space->ceiling = space->size - SPACE_PAGE;
    pthread_mutex_init(&space->lock, NULL);
    return true;
}

void space_free(struct space *space)
{
    if (space->base)
        munmap(space->base - TRANSLATE_DIRECT_GUARD, space->size + 2 * TRANSLATE_DIRECT_GUARD);
    if (space->pages) {
        munmap((void *)space->pages, space->size / SPACE_PAGE);
        pthread_mutex_destroy(&space->lock);
    }
    *space = (struct space){0};
}

void space_forked(struct space *space)
{
    pthread_mutex_init(&space->lock, NULL);
}

bool space_holds(const struct space *space, uint64_t address, uint64_t length)
{
    return address <= space->size && length <= space->size - address;
}

/* --- bytes ------------------------------------------------------------------------------------------------------- */

bool space_read(const struct space *space, void *to, uint64_t address, size_t size)
{
    return space_holds(space, address, size) && translate_try_copy(to, space->base + address, size) == 0;
}

/* The fault on a page with code opens it, as it does for the program's own writes. */
bool space_write(struct space *space, uint64_t address, const void *from, size_t size)
{
    return space_holds(space, address, size) && translate_try_copy(space->base + address, from, size) == 0;
}

int64_t space_string(const struct space *space, char *to, size_t size, uint64_t address)
{
    size_t have = 0;
    while (have < size) {
        size_t chunk = SPACE_PAGE - (size_t)((address + have) % SPACE_PAGE);
        chunk = chunk < size - have ? chunk : size - have;
        chunk = chunk < 256 ? chunk : 256;
        if (!space_read(space, to + have, address + have, chunk))
            return -EFAULT;
        const char *end = memchr(to + have, 0, chunk);
        if (end)
            return end - to;
        have += chunk;
    }
    return -ENAMETOOLONG;
}

/* --- pages with translated code ---------------------------------------------------------------------------------- */

void space_protect_code(void *opaque, uint64_t page)
{
    struct space *space = opaque;
    _Atomic uint8_t *bits = &space->pages[page / SPACE_PAGE];
    uint8_t now = atomic_load(bits);
    if (!(now & RISCV_PAGE_WRITE) || (now & SPACE_CODE))
        return;
    atomic_store(bits, now | SPACE_CODE);
    atomic_fetch_add(&space->code_pages, 1);
    mprotect(space->base + page, SPACE_PAGE, PROT_READ);
}

bool space_open_code(struct space *space, uint64_t address)
{
    if (address >= space->size)
        return false;
    uint64_t page = address & ~(uint64_t)(SPACE_PAGE - 1);
    _Atomic uint8_t *bits = &space->pages[page / SPACE_PAGE];
    machine_code_lock(space->code);
    uint8_t now = atomic_load(bits);
    bool was_code = now & SPACE_CODE;
    if (was_code) {
        machine_code_invalidate(space->code, page, SPACE_PAGE);
        atomic_store(bits, now & ~SPACE_CODE);
        atomic_fetch_sub(&space->code_pages, 1);
        mprotect(space->base + page, SPACE_PAGE, PROT_READ | PROT_WRITE);
    }
    machine_code_unlock(space->code);
    return was_code;
}

void space_will_write(struct space *space, uint64_t address, uint64_t length)
{
    if (!atomic_load_explicit(&space->code_pages, memory_order_relaxed) || address >= space->size)
        return;
    uint64_t end = length < space->size - address ? address + length : space->size;
    for (uint64_t at = address; at < end; at = (at | (SPACE_PAGE - 1)) + 1) {
        uint8_t bits = atomic_load_explicit(&space->pages[at / SPACE_PAGE], memory_order_relaxed);
        if (!(bits & SPACE_MAPPED))
            return; /* the call will fail there */
        if (bits & SPACE_CODE)
            space_open_code(space, at);
    }
}

void space_flush_code(struct space *space, uint64_t address, uint64_t length)
{
    if (space_holds(space, address, length))
        machine_code_invalidate(space->code, address, length);
}

/* A compiler that writes through one mapping and executes through another: its pages are few. */
void space_flush_shared_code(struct space *space)
{
    uint32_t left = atomic_load(&space->shared_pages);
    for (uint64_t page = space->shared_low; left && page < space->shared_high; page++) {
        uint8_t bits = atomic_load_explicit(&space->pages[page], memory_order_relaxed);
        if ((bits & SPACE_SHARED) && (bits & RISCV_PAGE_EXECUTE)) {
            machine_code_invalidate(space->code, page * SPACE_PAGE, SPACE_PAGE);
            left--;
        }
    }
}
