/* SPDX-License-Identifier: Apache-2.0 */
/* Is a buffer all zeros? Made for image data: answers "no" after a few loads when there is data, and runs at memory
 * speed when there is none. */
#ifndef BASE_IS_ZERO_H
#define BASE_IS_ZERO_H

#include <stdbool.h>
#include <stddef.h>

bool buffer_is_zero(const void *buffer, size_t size);

/* Length of the longest prefix of whole `granularity` byte blocks (the last may be shorter) that are all zero, or, when
 * the first is not, that are all not zero. *is_zero says which. For sparse copying. `size` must not be 0. */
size_t buffer_zero_run(const void *buffer, size_t size, size_t granularity, bool *is_zero);

#endif
