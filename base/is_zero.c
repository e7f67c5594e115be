/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All zeros? Data rarely begins with zeros, so a probe of the first, middle and last words answers most "no" questions.
 * The rest is read in steps of 256 bytes, folded with OR, by the widest instructions that the processor has. Buffers
 * under 64 bytes take the plain loop, which is also the oracle of the tests.
 */
#include "base/is_zero.h"

#include <stdint.h>
#include <string.h>
#include "base/math.h"

static uint64_t load(const unsigned char *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static bool is_zero_small(const unsigned char *bytes, size_t size)
{
    for (; size >= 8; size -= 8, bytes += 8)
        if (load(bytes))
            return false;
    for (; size; size--)
        if (*bytes++)
            return false;
    return true;
}

/* Vectors of the generic kind; the compiler makes of them what its target has (two SSE2 or NEON registers each, one of
 * AVX2, half of one of AVX-512). `aligned(1)`: the pointer may point anywhere. */
typedef uint64_t vector __attribute__((vector_size(32), aligned(1), may_alias));

/* `size` is at least 128. Whole 128-byte steps, then the last 128 bytes again, overlapping. */
static inline __attribute__((always_inline)) bool is_zero_vectors(const unsigned char *bytes, size_t size)
{
    const unsigned char *last = bytes + size - 128;
    for (;;) {
        const vector *v = (const vector *)bytes;
        vector any = (v[0] | v[1]) | (v[2] | v[3]);
        if ((any[0] | any[1]) | (any[2] | any[3]))
            return false;
        if (bytes == last)
            return true;
        bytes = bytes + 128 < last ? bytes + 128 : last;
    }
}

static bool is_zero_plain(const unsigned char *bytes, size_t size)
{
    return is_zero_vectors(bytes, size);
}

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx2"))) static bool is_zero_avx2(const unsigned char *bytes, size_t size)
{
    const unsigned char *last = bytes + size - 128;
    for (;;) {
        const __m256i_u *v = (const __m256i_u *)bytes;
        __m256i any = _mm256_or_si256(_mm256_or_si256(v[0], v[1]), _mm256_or_si256(v[2], v[3]));
        if (!_mm256_testz_si256(any, any))
            return false;
        if (bytes == last)
            return true;
        bytes = bytes + 128 < last ? bytes + 128 : last;
    }
}

__attribute__((target("avx512f"))) static bool is_zero_avx512(const unsigned char *bytes, size_t size)
{
    const unsigned char *last = bytes + size - 256;
    for (;;) {
        const __m512i_u *v = (const __m512i_u *)bytes;
        __m512i any = _mm512_or_si512(_mm512_or_si512(v[0], v[1]), _mm512_or_si512(v[2], v[3]));
        if (_mm512_test_epi64_mask(any, any))
            return false;
        if (bytes == last)
            return true;
        bytes = bytes + 256 < last ? bytes + 256 : last;
    }
}

static bool is_zero_wide(const unsigned char *bytes, size_t size)
{
    if (size >= 256 && __builtin_cpu_supports("avx512f"))
        return is_zero_avx512(bytes, size);
    if (__builtin_cpu_supports("avx2"))
        return is_zero_avx2(bytes, size);
    return is_zero_plain(bytes, size);
}
#else
static bool is_zero_wide(const unsigned char *bytes, size_t size)
{
    return is_zero_plain(bytes, size);
}
#endif

bool buffer_is_zero(const void *buffer, size_t size)
{
    const unsigned char *bytes = buffer;
    if (size < 128)
        return is_zero_small(bytes, size);
    if (load(bytes) | load(bytes + size / 2) | load(bytes + size - 8))
        return false;
    return is_zero_wide(bytes, size);
}

size_t buffer_zero_run(const void *buffer, size_t size, size_t granularity, bool *is_zero)
{
    const unsigned char *bytes = buffer;
    size_t done = MIN(size, granularity);
    *is_zero = buffer_is_zero(bytes, done);
    while (done < size) {
        size_t step = MIN(size - done, granularity);
        if (buffer_is_zero(bytes + done, step) != *is_zero)
            break;
        done += step;
    }
    return done;
}
