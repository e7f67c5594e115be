/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of a qcow2 file that know where its tables are. A step says which field (an L2 entry, a refcount, a field of
 * the header, of a snapshot, of a bitmap ...) and what becomes of it; positions are taken modulo what is there, and
 * values may be "the place of some cluster", so that most changed images still open and lead somewhere.
 */
#ifndef TESTS_FUZZ_COMMON_IMAGE_H
#define TESTS_FUZZ_COMMON_IMAGE_H

#include "tests/fuzz/common/fuzz.h"

struct fuzz_image {
    uint8_t *bytes;
    size_t size, capacity; /* it may grow up to its capacity */
};

/* Applies a step: op, then where (two numbers of 16 bits), then mode and a number of 64 bits for the value. */
void fuzz_image_step(struct fuzz_image *image, const struct record *step);
size_t fuzz_image_fresh_step(struct fuzz_random *random, uint8_t bytes[RECORD_MAX]);

#endif
