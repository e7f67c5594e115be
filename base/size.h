/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes as people write and read them: "10G", "1.5M", "4096", "0x1000" and "1.5 MiB". Units are powers of 1024. */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

/* Parses the whole text: decimal digits, an optional fraction, an optional unit letter B, K, M, G, T, P or E of either
 * case (a bare number counts bytes), or hexadecimal without unit. A fraction needs a unit above B. Negative numbers and
 * values that do not fit 64 bits are errors. The error names the text. */
bool parse_size(const char *text, uint64_t *size, struct error *err);

/* As above, but a bare number counts `default_unit` bytes, and parsing stops at the first character that is not part of
 * the size: *end points at it. */
bool parse_size_prefix(const char *text, uint64_t default_unit, const char **end, uint64_t *size, struct error *err);

/* "512 B", "64 KiB", "1.5 GiB": three significant digits in the largest unit of which there is about one or more. The
 * result lives as long as the buffer. */
#define FORMAT_SIZE_MAX 24
const char *format_size(char buffer[FORMAT_SIZE_MAX], uint64_t size);

#endif
