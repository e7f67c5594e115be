/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scatter/gather vectors: sums, slices and copies. Offsets count bytes from the start of the first element. Functions
 * that copy return how many bytes they moved, which is less than asked for only when the vector is shorter.
 */
#ifndef BASE_IOV_H
#define BASE_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

size_t iov_total(const struct iovec *iov, int count);

/* Writes into `out` (room for `count` elements is always enough) the part [offset, offset + length) of the vector, and
 * returns the number of elements; the part ends early where the vector does. Empty elements are left out. */
int iov_slice(struct iovec *out, const struct iovec *iov, int count, size_t offset, size_t length);

/* Number of elements that iov_slice() would write. */
int iov_slice_count(const struct iovec *iov, int count, size_t offset, size_t length);

/* Drops `bytes` from the front, in place: moves *iov and *count past what is finished and shortens the first rest. */
void iov_advance(struct iovec **iov, int *count, size_t bytes);

size_t iov_from_buffer(const struct iovec *iov, int count, size_t offset, const void *buffer, size_t size);
size_t iov_to_buffer(const struct iovec *iov, int count, size_t offset, void *buffer, size_t size);
size_t iov_set(const struct iovec *iov, int count, size_t offset, int byte, size_t size);
/* From vector to vector; the two must not overlap. */
size_t iov_copy(const struct iovec *to, int to_count, size_t to_offset, const struct iovec *from, int from_count,
                size_t from_offset, size_t size);

bool iov_is_zero(const struct iovec *iov, int count, size_t offset, size_t size);

#endif
