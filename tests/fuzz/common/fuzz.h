/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every harness shares. A harness is one file fuzz_NAME.c with LLVMFuzzerTestOneInput(): it is linked with
 * libFuzzer (preset `fuzz`), with AFL++ (preset `fuzz-afl`), and in all other presets with common/driver.c, which runs
 * the inputs that lie in the tree and a bounded number of new ones as an ordinary test.
 *
 * An input that is a conversation or a script is made of records, so that a change of one step leaves the others alone:
 *
 *     head bytes of settings | length, bytes | length, bytes | ...
 *
 * records_mutate() and records_cross() are mutators for such inputs; `fresh` makes a step that is likely to be good.
 * A harness reports what it found by FUZZ_CHECK(), which works with and without NDEBUG.
 */
#ifndef TESTS_FUZZ_COMMON_FUZZ_H
#define TESTS_FUZZ_COMMON_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* A harness may have these two. The first changes `data` in place and returns its new size. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_size, const uint8_t *other, size_t other_size,
                                 uint8_t *out, size_t max_size, unsigned seed);
/* The engine's own mutations of bytes. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fuzz_fail(__FILE__, __LINE__, #condition);                                                                 \
    } while (0)
/* Where the driver keeps standard error, while what the code under test has to say goes nowhere. */
enum { FUZZ_REPORT_FD = 100 };
_Noreturn void fuzz_fail(const char *file, int line, const char *condition);

/* Random numbers of a mutator: everything follows from the seed that the engine gave. */
struct fuzz_random {
    uint64_t state;
};
uint64_t fuzz_draw(struct fuzz_random *random, uint64_t limit); /* below `limit` */
uint64_t fuzz_interesting(struct fuzz_random *random);          /* 0, 1, edges of widths, powers of two, anything */

enum { RECORD_MAX = 255 };
struct record {
    const uint8_t *bytes;
    size_t size;
};
struct records {
    const uint8_t *at;
    size_t left;
};
struct records records_after(const uint8_t *data, size_t size, size_t head);
bool record_next(struct records *records, struct record *record);
/* Little-endian numbers of a record; what is missing is 0. */
uint64_t record_number(const struct record *record, size_t at, unsigned bytes);

struct record_shape {
    size_t head;
    size_t (*fresh)(struct fuzz_random *random, uint8_t bytes[RECORD_MAX]); /* returns its size */
};
size_t records_mutate(const struct record_shape *shape, uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t records_cross(const struct record_shape *shape, const uint8_t *one, size_t one_size, const uint8_t *other,
                     size_t other_size, uint8_t *out, size_t max_size, unsigned seed);

/* Both mutators for a harness whose inputs are records. */
#define FUZZ_RECORDS(shape)                                                                                            \
    size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)                         \
    {                                                                                                                  \
        return records_mutate(&shape, data, size, max_size, seed);                                                     \
    }                                                                                                                  \
    size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_size, const uint8_t *other, size_t other_size,     \
                                     uint8_t *out, size_t max_size, unsigned seed)                                     \
    {                                                                                                                  \
        return records_cross(&shape, one, one_size, other, other_size, out, max_size, seed);                           \
    }

#endif
