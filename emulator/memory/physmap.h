/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest-physical address space of one machine: a short sorted table of ranges, each RAM, ROM or a device window.
 *
 * Built by the board before the vCPUs start and not changed after it, so lookups need no lock. RAM blocks are memfd
 * mappings (shared, huge pages asked for), so that a vhost-user daemon can map the same memory. Device windows are
 * entered under the machine lock, one lock for all devices of a machine.
 *
 * Everyone but the translated code itself who writes guest RAM (virtqueues, loaders, DMA) reports the span with
 * physmap_note_write(), so that translations of overwritten code are dropped.
 */
#ifndef EMULATOR_MEMORY_PHYSMAP_H
#define EMULATOR_MEMORY_PHYSMAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct physmap;

/* A device's registers. Accesses reach it naturally aligned, of a size within [min_size, max_size]; smaller or larger
 * guest accesses are split or refused (load/store access fault) by the core. Called with the machine lock held, from a
 * vCPU's thread. */
struct mmio_ops {
    uint64_t (*read)(void *device, uint64_t offset, unsigned size);
    void (*write)(void *device, uint64_t offset, uint64_t value, unsigned size);
    uint8_t min_size, max_size; /* bytes, powers of two; 0, 0 means 1 to 8 */
};

enum physmap_kind { PHYSMAP_RAM, PHYSMAP_ROM, PHYSMAP_MMIO };

struct physmap_range {
    uint64_t base, size; /* guest-physical bytes; page aligned (4 KiB) for RAM and ROM */
    enum physmap_kind kind;
    const char *name;
    uint8_t *host; /* RAM, ROM: where the bytes are in this process */
    int fd;        /* RAM: the memfd behind it, offset 0; -1 otherwise */
    const struct mmio_ops *ops;
    void *device;
};

struct physmap *physmap_new(void);
void physmap_free(struct physmap *map);

/* Each fails when the range overlaps another one or RAM cannot be had. */
bool physmap_add_ram(struct physmap *map, const char *name, uint64_t base, uint64_t size, struct error *err);
bool physmap_add_rom(struct physmap *map, const char *name, uint64_t base, uint64_t size,
                     struct error *err); /* filled by physmap_load() */
bool physmap_add_mmio(struct physmap *map, const char *name, uint64_t base, uint64_t size, const struct mmio_ops *ops,
                      void *device, struct error *err);

size_t physmap_count(const struct physmap *map);
const struct physmap_range *physmap_at(const struct physmap *map, size_t index);       /* ascending base */
const struct physmap_range *physmap_find(const struct physmap *map, uint64_t address); /* NULL: nothing there */

/* Host pointer to [address, address + length) of RAM (ROM too when !for_write), NULL when any byte is not such memory.
 * This is the one gate through which devices and loaders reach guest memory. */
void *physmap_pointer(const struct physmap *map, uint64_t address, uint64_t length, bool for_write);
bool physmap_load(struct physmap *map, uint64_t address, const void *data, size_t size,
                  struct error *err); /* loaders; ROM too */

/* Device accesses by a vCPU: takes the machine lock, splits or refuses odd sizes. false: access fault. */
bool physmap_mmio_read(struct physmap *map, uint64_t address, unsigned size, uint64_t *value);
bool physmap_mmio_write(struct physmap *map, uint64_t address, uint64_t value, unsigned size);

/* The machine lock (recursive use is a bug). The main loop takes it around device callbacks (timers, character input,
 * interrupts from other threads). */
void machine_lock(struct physmap *map);
void machine_unlock(struct physmap *map);
/* Sleeps on a condition that belongs to a device, giving the machine lock up meanwhile. From vCPU threads. */
void machine_wait(struct physmap *map, pthread_cond_t *condition);

/* Somebody other than translated code wrote guest RAM. `listener` is set by the translator. Any thread. */
void physmap_note_write(struct physmap *map, uint64_t address, uint64_t length);
void physmap_set_write_listener(struct physmap *map, void (*listener)(void *arg, uint64_t address, uint64_t length),
                                void *arg);

#endif
