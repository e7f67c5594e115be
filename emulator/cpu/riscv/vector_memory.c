/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads and stores of vectors: an element at a time, or the whole run where elements lie side by side. An access that
 * faults leaves vstart at its element, so that the instruction goes on there when it comes back; for fault-only-first
 * loads every element but the first ends the vector instead.
 */
#include <string.h>
#include "base/math.h"
#include "emulator/cpu/riscv/riscv.h"
#include "emulator/cpu/riscv/rv_v.h"

static struct vector_access unpack(uint64_t what)
{
    struct vector_access access;

    memcpy(&access, &what, sizeof(access));
    return access;
}

/* How many elements there are: vl, or what fills whole registers, or the bytes of a mask. */
static uint64_t count_of(const struct riscv_vector *v, const struct vector_access *access)
{
    switch (access->addressing) {
    case ACCESS_WHOLE: return (uint64_t)access->fields * RISCV_VLENB >> access->width;
    case ACCESS_MASK: return (v->vl + 7) / 8;
    default: return v->vl;
    }
}

/* Unmasked elements side by side in memory and, of one field, in registers too. */
static bool is_run(const struct vector_access *access)
{
    if (access->addressing == ACCESS_WHOLE || access->addressing == ACCESS_MASK)
        return true;
    return access->addressing == ACCESS_UNIT && access->fields == 1 && access->vm;
}

static uint8_t *element_at(struct riscv_vector *v, const struct vector_access *access, unsigned field, uint64_t i)
{
    return vector_register(v, access->reg + field * access->registers) + (i << access->width);
}

static uint64_t index_at(struct riscv_vector *v, const struct vector_access *access, uint64_t i)
{
    uint64_t value = 0;

    memcpy(&value, vector_register(v, access->index_reg) + (i << access->index_width), 1u << access->index_width);
    return value;
}

static uint64_t address_of(struct riscv_vector *v, const struct vector_access *access, uint64_t base, uint64_t stride,
                           uint64_t i)
{
    return base + (access->addressing == ACCESS_INDEXED ? index_at(v, access, i) : i * stride);
}

static uint64_t run(struct cpu_riscv *cpu, const struct vector_access *access, uint64_t base, bool is_load)
{
    struct riscv_vector *v = &cpu->v;
    uint64_t count = count_of(v, access), start = v->vstart, done = 0;
    bool good;

    if (start >= count) {
        v->vstart = 0;
        return 0;
    }
    uint64_t address = base + (start << access->width), length = (count - start) << access->width;
    uint8_t *bytes = element_at(v, access, 0, start);

    good = is_load ? translate_read_run(&cpu->tc, address, bytes, length, access->width, access->mmu, &done)
                   : translate_write_run(&cpu->tc, address, bytes, length, access->width, access->mmu, &done);
    v->vstart = good ? 0 : start + (done >> access->width);
    return 0;
}

static bool load_element(struct cpu_riscv *cpu, const struct vector_access *access, uint64_t address, uint64_t i)
{
    uint8_t bytes[8][8];

    /* A segment is loaded as a whole, so that none of its fields changes when one of them faults. */
    for (unsigned field = 0; field < access->fields; field++) {
        uint64_t value, at = address + ((uint64_t)field << access->width);
        if (!translate_load(&cpu->tc, at, (struct ir_mem){.size = access->width, .mmu = access->mmu}, &value))
            return false;
        memcpy(bytes[field], &value, sizeof(value));
    }
    for (unsigned field = 0; field < access->fields; field++)
        memcpy(element_at(&cpu->v, access, field, i), bytes[field], 1u << access->width);
    return true;
}

static bool store_element(struct cpu_riscv *cpu, const struct vector_access *access, uint64_t address, uint64_t i)
{
    for (unsigned field = 0; field < access->fields; field++) {
        uint64_t value = 0, at = address + ((uint64_t)field << access->width);
        memcpy(&value, element_at(&cpu->v, access, field, i), 1u << access->width);
        if (!translate_store(&cpu->tc, at, value, (struct ir_mem){.size = access->width, .mmu = access->mmu}))
            return false;
    }
    return true;
}

/* The fault of a later element than the first only ends the vector. */
static bool ends_vector(struct cpu_riscv *cpu, const struct vector_access *access, uint64_t i)
{
    if (access->addressing != ACCESS_FIRST || i == 0)
        return false;
    cpu->tc.exception = 0;
    cpu->v.vl = i;
    return true;
}

static uint64_t each(struct cpu_riscv *cpu, const struct vector_access *access, uint64_t base, uint64_t stride,
                     bool (*element)(struct cpu_riscv *cpu, const struct vector_access *access, uint64_t address,
                                     uint64_t i))
{
    struct riscv_vector *v = &cpu->v;

    for (uint64_t i = v->vstart; i < v->vl; i++) {
        if (!access->vm && !vector_mask_bit(v->reg, i))
            continue;
        if (!element(cpu, access, address_of(v, access, base, stride, i), i)) {
            if (ends_vector(cpu, access, i))
                break;
            v->vstart = i;
            return 0;
        }
    }
    v->vstart = 0;
    return 0;
}

uint64_t riscv_help_vector_load(void *opaque, uint64_t what, uint64_t base, uint64_t stride)
{
    struct vector_access access = unpack(what);

    return is_run(&access) ? run(opaque, &access, base, true) : each(opaque, &access, base, stride, load_element);
}

uint64_t riscv_help_vector_store(void *opaque, uint64_t what, uint64_t base, uint64_t stride)
{
    struct vector_access access = unpack(what);

    return is_run(&access) ? run(opaque, &access, base, false) : each(opaque, &access, base, stride, store_element);
}
