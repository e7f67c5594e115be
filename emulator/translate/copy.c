/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs of elements between guest memory and the host's, for vector instructions: what lies in one page of RAM is copied
 * at once, everything else (devices, ROM, elements across pages) element by element as any access.
 */
#include <string.h>
#include "base/math.h"
#include "emulator/translate/codecache.h"
#include "emulator/translate/try_access.h"

static struct ir_mem element(unsigned log2_size, unsigned mmu)
{
    return (struct ir_mem){.size = (uint8_t)log2_size, .mmu = (uint8_t)mmu};
}

/* Bytes from `address` on that are whole elements of one page. */
static uint64_t whole_elements(uint64_t address, uint64_t length, unsigned log2_size)
{
    uint64_t left = TRANSLATE_PAGE - (address & (TRANSLATE_PAGE - 1));

    return MIN(left, length) >> log2_size << log2_size;
}

/* Direct memory can fault although the guest may access it; then the elements are tried one by one. */
static bool copied(const struct translate_cpu *tc, void *to, const void *from, uint64_t size)
{
    if (tc->code->is_direct)
        return translate_try_copy(to, from, size) == 0;
    memcpy(to, from, size);
    return true;
}

bool translate_read_run(struct translate_cpu *tc, uint64_t address, void *to, uint64_t length, unsigned log2_size,
                        unsigned mmu, uint64_t *done)
{
    uint8_t *out = to;

    for (*done = 0; *done < length;) {
        uint64_t at = address + *done, size = whole_elements(at, length - *done, log2_size), value;
        struct translate_result result;

        if (size > 1u << log2_size && tlb_access(tc, at, (unsigned)size, TRANSLATE_READ, mmu, &result) && result.host &&
            copied(tc, out + *done, result.host, size)) {
            *done += size;
            continue;
        }
        tc->exception = 0; /* the first element alone may be allowed */
        if (!memory_load(tc, at, element(log2_size, mmu), &value))
            return false;
        memcpy(out + *done, &value, 1u << log2_size);
        *done += 1u << log2_size;
    }
    return true;
}

bool translate_write_run(struct translate_cpu *tc, uint64_t address, const void *from, uint64_t length,
                         unsigned log2_size, unsigned mmu, uint64_t *done)
{
    const uint8_t *in = from;

    for (*done = 0; *done < length;) {
        uint64_t at = address + *done, size = whole_elements(at, length - *done, log2_size);
        struct translate_result result;

        if (size > 1u << log2_size && tlb_access(tc, at, (unsigned)size, TRANSLATE_WRITE, mmu, &result) &&
            result.host && !result.read_only && copied(tc, result.host, in + *done, size)) {
            if (!tc->code->is_direct && atomic_load(&page_state_of(tc->code, result.physical)->code))
                machine_code_invalidate(tc->code, result.physical, size);
            *done += size;
            continue;
        }
        tc->exception = 0;
        if (!memory_store(tc, at, in + *done, element(log2_size, mmu)))
            return false;
        *done += 1u << log2_size;
    }
    return true;
}
