/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmap and its family on the program's memory. Everything the program does not have stays mapped without access, so
 * that no other mapping of the emulator ever comes to lie there.
 *
 * The order in each change: the translations of the range go, then the host's mapping changes, then the bytes say so;
 * all under machine_code_lock(), so that no block is made of what is about to go away.
 */
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include "emulator/cpu/riscv/user.h"
#include "emulator/user/space.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
enum { LOWEST = 64 << 10 /* vm.mmap_min_addr */, ATTACH_GRANULE = 4096 };

static uint64_t page_up(uint64_t x)
{
    return (x + SPACE_PAGE - 1) & ~(uint64_t)(SPACE_PAGE - 1);
}

static bool is_page_aligned(uint64_t x)
{
    return (x & (SPACE_PAGE - 1)) == 0;
}

static uint8_t bits_of(int prot)
{
    /* RISC-V has no pages that can be written and not read. */
    return SPACE_MAPPED | (prot & (PROT_READ | PROT_WRITE) ? RISCV_PAGE_READ : 0) |
           (prot & PROT_WRITE ? RISCV_PAGE_WRITE : 0) | (prot & PROT_EXEC ? RISCV_PAGE_EXECUTE : 0);
}

static int host_prot(int prot)
{
    return (prot & PROT_WRITE ? PROT_READ | PROT_WRITE : 0) | (prot & (PROT_READ | PROT_EXEC) ? PROT_READ : 0);
}

static void begin(struct space *space)
{
    pthread_mutex_lock(&space->lock);
    if (space->code)
        machine_code_lock(space->code);
}

static int64_t end(struct space *space, int64_t result)
{
    if (space->code)
        machine_code_unlock(space->code);
    pthread_mutex_unlock(&space->lock);
    return result;
}

/* --- the bytes --------------------------------------------------------------------------------------------------- */

static uint8_t page_bits(const struct space *space, uint64_t address)
{
    return atomic_load_explicit(&space->pages[address / SPACE_PAGE], memory_order_relaxed);
}

static bool is_shared_code(uint8_t bits)
{
    return (bits & SPACE_SHARED) && (bits & RISCV_PAGE_EXECUTE);
}

static void count_shared(struct space *space, uint64_t page, bool comes)
{
    if (!comes) {
        atomic_fetch_sub(&space->shared_pages, 1);
        return;
    }
    bool first = atomic_fetch_add(&space->shared_pages, 1) == 0;
    if (first || page < space->shared_low)
        space->shared_low = page;
    if (first || page >= space->shared_high)
        space->shared_high = page + 1;
}

static void set_bits(struct space *space, uint64_t address, uint64_t length, uint8_t bits, uint8_t keep)
{
    for (uint64_t page = address / SPACE_PAGE; page < (address + length) / SPACE_PAGE; page++) {
        uint8_t old = atomic_load_explicit(&space->pages[page], memory_order_relaxed), new_bits = bits | (old & keep);
        if (old == new_bits)
            continue;
        if (old & SPACE_CODE)
            atomic_fetch_sub(&space->code_pages, 1);
        if (is_shared_code(old) != is_shared_code(new_bits))
            count_shared(space, page, is_shared_code(new_bits));
        atomic_store_explicit(&space->pages[page], new_bits, memory_order_relaxed);
    }
}

static void drop_code(struct space *space, uint64_t address, uint64_t length)
{
    for (uint64_t at = address; space->code && at < address + length; at += SPACE_PAGE) {
        if (page_bits(space, at) & RISCV_PAGE_EXECUTE)
            machine_code_invalidate(space->code, at, SPACE_PAGE);
    }
}

static bool is_free(const struct space *space, uint64_t address, uint64_t length, uint64_t *occupied)
{
    for (uint64_t at = address + length; at > address; at -= SPACE_PAGE) {
        if (page_bits(space, at - SPACE_PAGE)) {
            *occupied = at - SPACE_PAGE;
            return false;
        }
    }
    return true;
}

static bool is_mapped(const struct space *space, uint64_t address, uint64_t length)
{
    for (uint64_t at = address; at < address + length; at += SPACE_PAGE) {
        if (!page_bits(space, at))
            return false;
    }
    return true;
}

/* The highest room below the ceiling. 0: there is none. */
static uint64_t find_room(struct space *space, uint64_t length)
{
    uint64_t high = space->top, occupied = 0;
    while (high > LOWEST && high - LOWEST >= length) {
        if (is_free(space, high - length, length, &occupied))
            return high - length;
        high = occupied;
    }
    return 0;
}

/* --- mmap -------------------------------------------------------------------------------------------------------- */

static int64_t choose(struct space *space, uint64_t address, uint64_t length, int flags)
{
    uint64_t occupied;
    bool fits = is_page_aligned(address) && space_holds(space, address, length);
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
        if (!is_page_aligned(address))
            return -EINVAL;
        if (!fits)
            return -ENOMEM;
        if (address < LOWEST)
            return -EPERM;
        if ((flags & MAP_FIXED_NOREPLACE) && !is_free(space, address, length, &occupied))
            return -EEXIST;
        return (int64_t)address;
    }
    address &= ~(uint64_t)(SPACE_PAGE - 1);
    if (address >= LOWEST && space_holds(space, address, length) && is_free(space, address, length, &occupied))
        return (int64_t)address;
    uint64_t room = find_room(space, length);
    if (!room)
        return -ENOMEM;
    if (room + length == space->top)
        space->top = room;
    return (int64_t)room;
}

static bool reserve(struct space *space, uint64_t address, uint64_t length)
{
    return mmap(space->base + address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                0) != MAP_FAILED;
}

static int64_t map(struct space *space, uint64_t address, uint64_t length, int prot, int flags, int fd, uint64_t offset)
{
    int64_t at = choose(space, address, length, flags);
    if (at < 0)
        return at;
    drop_code(space, (uint64_t)at, length);
    int host_flags = (flags & ~(MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_GROWSDOWN)) | MAP_FIXED;
    if (mmap(space->base + at, length, host_prot(prot), host_flags, fd, (off_t)offset) == MAP_FAILED)
        return -errno;
    bool shared = (flags & MAP_TYPE) != MAP_PRIVATE;
    bool file = !(flags & MAP_ANONYMOUS);
    set_bits(space, (uint64_t)at, length, bits_of(prot) | (shared ? SPACE_SHARED : 0) | (file ? SPACE_FILE : 0), 0);
    return at;
}

int64_t space_map(struct space *space, uint64_t address, uint64_t length, int prot, int flags, int fd, uint64_t offset)
{
    if (!length || !is_page_aligned(offset))
        return -EINVAL;
    if (length > space->size)
        return -ENOMEM;
    begin(space);
    return end(space, map(space, address, page_up(length), prot, flags, fd, offset));
}

static void unmap(struct space *space, uint64_t address, uint64_t length)
{
    drop_code(space, address, length);
    reserve(space, address, length);
    set_bits(space, address, length, 0, 0);
    if (address + length > space->top)
        space->top = address + length < space->ceiling ? address + length : space->ceiling;
}

int64_t space_unmap(struct space *space, uint64_t address, uint64_t length)
{
    length = length <= space->size ? page_up(length) : 0;
    if (!length || !is_page_aligned(address) || !space_holds(space, address, length))
        return -EINVAL;
    begin(space);
    unmap(space, address, length);
    return end(space, 0);
}

int64_t space_protect(struct space *space, uint64_t address, uint64_t length, int prot)
{
    if (!is_page_aligned(address) || length > space->size)
        return -EINVAL;
    length = page_up(length);
    if (!length)
        return 0;
    if (!space_holds(space, address, length))
        return -ENOMEM;
    prot &= PROT_READ | PROT_WRITE | PROT_EXEC; /* nothing here grows */
    begin(space);
    if (!is_mapped(space, address, length))
        return end(space, -ENOMEM);
    drop_code(space, address, length);
    if (mprotect(space->base + address, length, host_prot(prot)))
        return end(space, -errno);
    set_bits(space, address, length, bits_of(prot), SPACE_SHARED | SPACE_FILE);
    return end(space, 0);
}

int64_t space_advise(struct space *space, uint64_t address, uint64_t length, int advice)
{
    length = length <= space->size ? page_up(length) : space->size;
    if (!is_page_aligned(address))
        return -EINVAL;
    if (!space_holds(space, address, length))
        return -ENOMEM;
    begin(space);
    if (!is_mapped(space, address, length))
        return end(space, -ENOMEM);
    drop_code(space, address, length); /* the bytes may become others */
    return end(space, madvise(space->base + address, length, advice) ? -errno : 0);
}

/* --- mremap ------------------------------------------------------------------------------------------------------ */

static uint8_t prot_of(uint8_t bits)
{
    return (bits & RISCV_PAGE_READ ? PROT_READ : 0) | (bits & RISCV_PAGE_WRITE ? PROT_WRITE : 0) |
           (bits & RISCV_PAGE_EXECUTE ? PROT_EXEC : 0);
}

/* Moves the host's mapping. Where the kernel can leave the old place mapped it does, so that there is no moment in
 * which somebody else may be given it; then only anonymous memory can grow, and does by a mapping behind it. */
static bool move_host(struct space *space, uint64_t from, uint64_t old_length, uint64_t to, uint64_t new_length,
                      uint8_t bits)
{
    uint8_t *old_host = space->base + from, *new_host = space->base + to;
    bool grows = new_length > old_length;
    if (!(bits & (SPACE_SHARED | SPACE_FILE)) &&
        mremap(old_host, old_length, old_length, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, new_host) ==
            new_host) {
        return !grows || mmap(new_host + old_length, new_length - old_length, host_prot(prot_of(bits)),
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
    }
    return mremap(old_host, old_length, new_length, MREMAP_MAYMOVE | MREMAP_FIXED, new_host) == new_host;
}

static int64_t move(struct space *space, uint64_t from, uint64_t old_length, uint64_t to, uint64_t new_length)
{
    uint8_t bits = page_bits(space, from) & ~SPACE_CODE;
    uint64_t kept = old_length < new_length ? old_length : new_length;
    drop_code(space, from, old_length);
    drop_code(space, to, new_length);
    if (bits & RISCV_PAGE_WRITE) /* where translations had forbidden it */
        mprotect(space->base + from, old_length, host_prot(prot_of(bits)));
    if (!move_host(space, from, kept, to, new_length, bits))
        return -errno;
    set_bits(space, to, new_length, bits, 0);
    unmap(space, from, old_length);
    return (int64_t)to;
}

int64_t space_remap(struct space *space, uint64_t address, uint64_t old_length, uint64_t new_length, int flags,
                    uint64_t new_address)
{
    bool fixed = flags & MREMAP_FIXED, may_move = flags & MREMAP_MAYMOVE;
    if (!is_page_aligned(address) || old_length > space->size || new_length > space->size || !new_length ||
        (flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE)) || (fixed && (!may_move || !is_page_aligned(new_address))))
        return -EINVAL;
    old_length = page_up(old_length);
    new_length = page_up(new_length);
    if (!old_length || !space_holds(space, address, old_length))
        return -EINVAL;
    if (fixed && (!space_holds(space, new_address, new_length) ||
                  (new_address < address + old_length && address < new_address + new_length)))
        return -EINVAL;
    begin(space);
    if (!is_mapped(space, address, old_length))
        return end(space, -EFAULT);
    if (!fixed && new_length <= old_length) {
        if (new_length < old_length)
            unmap(space, address + new_length, old_length - new_length);
        return end(space, (int64_t)address);
    }
    if (!may_move)
        return end(space, -ENOMEM);
    int64_t to = fixed ? (int64_t)new_address : choose(space, 0, new_length, 0);
    return end(space, to < 0 ? to : move(space, address, old_length, (uint64_t)to, new_length));
}

/* --- the program break ------------------------------------------------------------------------------------------- */

uint64_t space_break(struct space *space, uint64_t wanted)
{
    begin(space);
    uint64_t from = page_up(space->break_end), to = page_up(wanted), occupied;
    bool ok = wanted >= space->break_start && wanted < space->ceiling;
    if (ok && to > from) {
        ok = is_free(space, from, to - from, &occupied) &&
             map(space, from, to - from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) >= 0;
    } else if (ok && to < from) {
        unmap(space, to, from - to);
    }
    if (ok)
        space->break_end = wanted;
    return (uint64_t)end(space, (int64_t)space->break_end);
}

/* --- System V shared memory -------------------------------------------------------------------------------------- */

int64_t space_attach(struct space *space, int id, uint64_t address, int flags)
{
    struct shmid_ds info;
    if (shmctl(id, IPC_STAT, &info))
        return -errno;
    uint64_t length = page_up(info.shm_segsz);
    if (address && (flags & SHM_RND))
        address &= ~(uint64_t)(ATTACH_GRANULE - 1);
    int how = !address ? 0 : flags & SHM_REMAP ? MAP_FIXED : MAP_FIXED_NOREPLACE;
    begin(space);
    int64_t at = choose(space, address, length, how);
    if (at < 0)
        return end(space, at == -EEXIST ? -EINVAL : at);
    drop_code(space, (uint64_t)at, length);
    if (shmat(id, space->base + at, (flags & SHM_RDONLY) | SHM_REMAP) == (void *)-1)
        return end(space, -errno);
    int prot = PROT_READ | (flags & SHM_RDONLY ? 0 : PROT_WRITE) | (flags & SHM_EXEC ? PROT_EXEC : 0);
    set_bits(space, (uint64_t)at, length, bits_of(prot) | SPACE_SHARED, 0);
    return end(space, at);
}

/* The kernel knows how long the segment is: the place in question is where it ends being mapped. */
int64_t space_detach(struct space *space, uint64_t address)
{
    if (!space_holds(space, address, SPACE_PAGE) || !is_page_aligned(address))
        return -EINVAL;
    begin(space);
    uint64_t length = 0;
    while (space_holds(space, address, length + SPACE_PAGE) && (page_bits(space, address + length) & SPACE_SHARED))
        length += SPACE_PAGE;
    if (!length || shmdt(space->base + address))
        return end(space, length ? -errno : -EINVAL);
    for (uint64_t at = address; at < address + length; at += SPACE_PAGE) {
        unsigned char present; /* what is a hole now was the segment */
        if (mincore(space->base + at, SPACE_PAGE, &present) && errno == ENOMEM)
            unmap(space, at, SPACE_PAGE);
        else
            break;
    }
    return end(space, 0);
}
