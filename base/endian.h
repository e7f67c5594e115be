/* SPDX-License-Identifier: Apache-2.0 */
/* Loads and stores of numbers in a stated byte order, at any alignment. On-disk and wire structures are read with
 * these, field by field. */
#ifndef BASE_ENDIAN_H
#define BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BASE_DEFINE_ENDIAN(bits, order)                                                                                \
    static inline uint##bits##_t load_##order##bits(const void *pointer)                                               \
    {                                                                                                                  \
        uint##bits##_t value;                                                                                          \
        memcpy(&value, pointer, sizeof value);                                                                         \
        return order##bits##toh(value);                                                                                \
    }                                                                                                                  \
    static inline void store_##order##bits(void *pointer, uint##bits##_t value)                                        \
    {                                                                                                                  \
        value = hto##order##bits(value);                                                                               \
        memcpy(pointer, &value, sizeof value);                                                                         \
    }

BASE_DEFINE_ENDIAN(16, be)
BASE_DEFINE_ENDIAN(32, be)
BASE_DEFINE_ENDIAN(64, be)
BASE_DEFINE_ENDIAN(16, le)
BASE_DEFINE_ENDIAN(32, le)
BASE_DEFINE_ENDIAN(64, le)

#endif
