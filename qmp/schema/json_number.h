/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of JSON, byte by byte: the grammar of RFC 8259, section 6, and whether an integer fits 64 bits. json-c is
 * lenient about the first and silently takes the nearest number for the second.
 */
#ifndef QMP_SCHEMA_JSON_NUMBER_H
#define QMP_SCHEMA_JSON_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* Named by what was seen last. */
enum number_place {
    NO_NUMBER,
    NUMBER_SIGN,
    NUMBER_ZERO,
    NUMBER_DIGITS,
    NUMBER_POINT,
    NUMBER_FRACTION,
    NUMBER_EXPONENT,
    NUMBER_EXPONENT_SIGN,
    NUMBER_EXPONENT_DIGITS,
};

/* Zeroed: nothing seen yet. */
struct json_number {
    enum number_place place;
    bool is_negative;
    bool is_too_large; /* as an integer */
    uint64_t magnitude;
};

/* One more byte. False: it cannot stand there. */
bool json_number_scan(struct json_number *number, char byte);

/* There are no more bytes: NULL, or what is wrong. */
const char *json_number_end(const struct json_number *number);

#endif
