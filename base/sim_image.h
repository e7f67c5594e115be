/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a simulated file: sparse pages of 4 KiB in a table of tables, so that terabytes of nothing cost little.
 * What is not allocated reads as zeros. Copies share pages until one of them writes. Private to base. */
#ifndef BASE_SIM_IMAGE_H
#define BASE_SIM_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/vec.h"

#define IMAGE_PAGE 4096u
#define IMAGE_LEAF_PAGES 1024u

struct image_page {
    uint32_t references;
    unsigned char bytes[IMAGE_PAGE];
};

struct image_leaf {
    struct image_page *pages[IMAGE_LEAF_PAGES];
};

struct image {
    uint64_t size;
    uint64_t pages; /* allocated */
    vec(struct image_leaf *) leaves;
};

void image_read(const struct image *image, uint64_t offset, void *data, uint64_t length);
void image_write(struct image *image, uint64_t offset, const void *data, uint64_t length); /* grows */
void image_zero(struct image *image, uint64_t offset, uint64_t length);     /* allocated zeros; does not grow */
void image_punch(struct image *image, uint64_t offset, uint64_t length);    /* whole pages are given back */
void image_allocate(struct image *image, uint64_t offset, uint64_t length); /* does not grow */
void image_resize(struct image *image, uint64_t size);
void image_copy(struct image *to, const struct image *from);
void image_free(struct image *image); /* empty, of size 0 */

uint64_t image_allocated(const struct image *image); /* bytes */
/* Bytes that a write there would allocate. */
uint64_t image_allocation_needed(const struct image *image, uint64_t offset, uint64_t length);
/* The first byte at or after `offset` that is (not) in an allocated page; image->size when there is none. */
uint64_t image_next(const struct image *image, uint64_t offset, bool allocated);

#endif
