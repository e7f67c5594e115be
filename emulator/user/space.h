/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program's memory: a piece of the emulator's own address space, reserved at the start, of which the program's
 * mappings are taken. Guest address a is at base + a. Nothing of the emulator lies in it, and translated code and
 * system calls reach nothing else: an address that is wild meets the reservation, or the guards around it.
 *
 * One byte a page says what the program may do there; the host's protection says the same, but for execution (the host
 * never executes the guest's bytes, it reads them) and for pages with translated code, which are not writable although
 * the program may write: the first write drops the translations and makes the page writable again.
 *
 * Functions that change mappings may be called by any thread; they return 0 or -errno as the system calls do. Lengths
 * and addresses are the guest's and are checked.
 */
#ifndef EMULATOR_USER_SPACE_H
#define EMULATOR_USER_SPACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct machine_code;

enum { SPACE_PAGE = 4096 };

/* Bits of a page beside enum riscv_page_access. */
enum {
    SPACE_MAPPED = 8,
    SPACE_CODE = 16 /* not writable now, because of translations */,
    SPACE_SHARED = 32,
    SPACE_FILE = 64
};

struct space {
    uint8_t *base;
    uint64_t size;
    _Atomic uint8_t *pages;
    struct machine_code
        *code;            /* set when it exists; machine_code_lock() is held where mappings or protections change */
    pthread_mutex_t lock; /* taken before machine_code_lock() */
    uint64_t top;         /* where the search for room begins: nothing above it is free, as far as is known */
    uint64_t ceiling;     /* room is searched below it */
    uint64_t break_start, break_end;
    _Atomic uint32_t code_pages; /* with SPACE_CODE */
    /* Executable pages of shared mappings, which another mapping may write: how many, and where they were seen. */
    _Atomic uint32_t shared_pages;
    _Atomic uint64_t shared_low, shared_high;
};

bool space_init(struct space *space, struct error *err);
void space_free(struct space *space);

/* The host's address, for system calls. Wild addresses become one that the host refuses. */
static inline void *space_host(const struct space *space, uint64_t address)
{
    return space->base + (address < space->size ? address : space->size);
}
bool space_holds(const struct space *space, uint64_t address, uint64_t length); /* inside of the program's memory? */

/* Copies; false: a byte of it cannot be accessed. */
bool space_read(const struct space *space, void *to, uint64_t address, size_t size);
bool space_write(struct space *space, uint64_t address, const void *from, size_t size);
/* A string with its NUL. -EFAULT, -ENAMETOOLONG, or its length. */
int64_t space_string(const struct space *space, char *to, size_t size, uint64_t address);

/* The host's kernel is about to write there: pages with translated code are opened. */
void space_will_write(struct space *space, uint64_t address, uint64_t length);

/* System calls. prot, flags and errors are Linux's, the same on both sides. */
int64_t space_map(struct space *space, uint64_t address, uint64_t length, int prot, int flags, int fd, uint64_t offset);
int64_t space_unmap(struct space *space, uint64_t address, uint64_t length);
int64_t space_protect(struct space *space, uint64_t address, uint64_t length, int prot);
int64_t space_remap(struct space *space, uint64_t address, uint64_t old_length, uint64_t new_length, int flags,
                    uint64_t new_address);
int64_t space_advise(struct space *space, uint64_t address, uint64_t length, int advice);
uint64_t space_break(struct space *space, uint64_t wanted);
int64_t space_attach(struct space *space, int id, uint64_t address, int flags); /* shmat */
int64_t space_detach(struct space *space, uint64_t address);

/* The bytes of this range may have been changed through another mapping, or by another process. */
void space_flush_code(struct space *space, uint64_t address, uint64_t length);
void space_flush_shared_code(struct space *space);

/* machine_code_new_direct()'s protect_code(): `space` is the argument. */
void space_protect_code(void *space, uint64_t page);
/* The host refused a write at the address. true: it was because of translated code; try again. */
bool space_open_code(struct space *space, uint64_t address);

/* After fork(), in the child. */
void space_forked(struct space *space);

#endif
