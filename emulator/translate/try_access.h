/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses of the emulator's own code to a guest's directly addressed memory, of which any page may be missing, be
 * protected, or lie behind the end of its file: they say so instead of ending the process.
 *
 * It takes the process's handler of SIGSEGV and SIGBUS to call translate_try_recover() with the context of the fault.
 * Naturally aligned accesses are single ones, which other threads see whole.
 */
#ifndef EMULATOR_TRANSLATE_TRY_ACCESS_H
#define EMULATOR_TRANSLATE_TRY_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool translate_try_load_8(const void *at, uint64_t *value);
bool translate_try_load_16(const void *at, uint64_t *value);
bool translate_try_load_32(const void *at, uint64_t *value);
bool translate_try_load_64(const void *at, uint64_t *value);
bool translate_try_store_8(void *at, uint64_t value);
bool translate_try_store_16(void *at, uint64_t value);
bool translate_try_store_32(void *at, uint64_t value);
bool translate_try_store_64(void *at, uint64_t value);

/* *expected becomes what was there. */
enum translate_try { TRANSLATE_TRY_FAULT, TRANSLATE_TRY_OTHER, TRANSLATE_TRY_DONE };
int translate_try_cmpxchg_8(void *at, uint64_t *expected, uint64_t desired);
int translate_try_cmpxchg_16(void *at, uint64_t *expected, uint64_t desired);
int translate_try_cmpxchg_32(void *at, uint64_t *expected, uint64_t desired);
int translate_try_cmpxchg_64(void *at, uint64_t *expected, uint64_t desired);

/* Returns how many bytes were not copied: 0 is success. */
size_t translate_try_copy(void *to, const void *from, size_t size);

/* In the handler of SIGSEGV and SIGBUS: was it one of the above? Then the context goes on in its failing return. */
bool translate_try_recover(void *ucontext);

#endif
