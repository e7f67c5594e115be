/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as a virtqueue needs it: turn a span of guest-physical addresses into host memory.
 *
 * `struct guest_memory` is an interface with one question (where are these bytes?) and one notice (these bytes were
 * written). The emulator implements it over its physical address map; a vhost-user back end over the table of regions
 * that its front end has sent, which is the implementation offered here.
 *
 * Guests lie about addresses: whoever implements `translate` answers only for bytes that are entirely inside memory and
 * never beyond. The memory behind an answer is shared with the guest, which may change it at any time: read a field
 * once, then check the copy. Nothing here yields or locks.
 */
#ifndef VIRTIO_GUEST_MEMORY_H
#define VIRTIO_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct guest_memory;

struct guest_memory_ops {
    /* Host pointer to the byte at `address`, NULL when there is no such memory (or it may not be written and
     * `for_write`). *length says how many bytes are wanted (not 0) and is reduced to those that follow without a gap,
     * at least 1. */
    void *(*translate)(struct guest_memory *memory, uint64_t address, uint64_t *length, bool for_write);
    /* A device wrote [address, address + length): dirty logs, translated code. May be NULL. Any thread that uses a
     * queue. */
    void (*written)(struct guest_memory *memory, uint64_t address, uint64_t length);
};

struct guest_memory {
    const struct guest_memory_ops *ops;
};

/* The whole span in one piece, or NULL. A length of 0 gives NULL. */
void *guest_memory_pointer(struct guest_memory *memory, uint64_t address, uint64_t length, bool for_write);

static inline void guest_memory_written(struct guest_memory *memory, uint64_t address, uint64_t length)
{
    if (memory->ops->written && length)
        memory->ops->written(memory, address, length);
}

/*
 * A table of regions, as vhost-user's SET_MEM_TABLE and ADD_MEM_REG describe them. It does not own the mappings. Not
 * locked: change it only while no queue uses it.
 */
#define GUEST_REGIONS_MAX 64

struct guest_region {
    uint64_t guest_base; /* guest-physical address of the first byte */
    uint64_t size;       /* bytes, not 0; neither base + size wraps */
    uint64_t user_base;  /* where the front end has mapped it: ring addresses come in this space */
    uint8_t *host;       /* where it is mapped in this process */
};

struct guest_regions {
    struct guest_memory memory; /* pass &regions->memory to virtqueues */
    size_t count;
    struct guest_region regions[GUEST_REGIONS_MAX];                /* ascending guest_base, none overlapping */
    void (*written)(void *arg, uint64_t address, uint64_t length); /* the owner's dirty log; NULL when logging is off */
    void *written_arg;
};

void guest_regions_init(struct guest_regions *regions);
/* Fails when the table is full, the region is empty or wraps, or it overlaps another one (in either address space). */
bool guest_regions_add(struct guest_regions *regions, const struct guest_region *region, struct error *err);
/* Takes the region with these exact addresses out of the table; false when there is none. */
bool guest_regions_remove(struct guest_regions *regions, uint64_t guest_base, uint64_t user_base, uint64_t size,
                          struct guest_region *removed);
/* Switches the notice of writes on or off (fn NULL). */
void guest_regions_set_written(struct guest_regions *regions, void (*fn)(void *arg, uint64_t address, uint64_t length),
                               void *arg);

/* From the front end's address space to host memory, the whole span, or NULL. */
void *guest_regions_user_pointer(const struct guest_regions *regions, uint64_t user_address, uint64_t length);
/* From the front end's address space to a guest-physical address. */
bool guest_regions_user_to_guest(const struct guest_regions *regions, uint64_t user_address, uint64_t length,
                                 uint64_t *guest_address);

#endif
